//! The fields of a browser upload (POST policy) that say who and where. They stand before the `file` field; the rest
//! of the form is never looked at.

use crate::exchange::BodyStart;
use crate::http::head::Headers;
use memchr::memmem;

/// What is read from the form, as far as its start was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostForm {
    /// `key`, with `${filename}` replaced when the file's name was seen.
    pub key: Option<Vec<u8>>,
    /// `x-amz-credential`.
    pub credential: Option<Vec<u8>>,
    /// `x-amz-algorithm`.
    pub algorithm: Option<Vec<u8>>,
    /// `AWSAccessKeyId`.
    pub v2_access_key: Option<Vec<u8>>,
}

impl PostForm {
    /// Reads the form; None when the content type is no form with a boundary.
    #[must_use]
    pub fn parse(headers: &Headers, body: &BodyStart) -> Option<Self> {
        let content_type = headers.first("content-type")?;
        let boundary = boundary(content_type)?;
        let delimiter = [b"--", boundary].concat();
        let mut form = Self::default();
        let mut rest = after(&body.bytes, &delimiter)?;
        while let Some(part) = after(rest, b"\r\n") {
            let Some((head, content)) = around(part, b"\r\n\r\n") else { break };
            let Some(name) = parameter(head, b"name") else { break };
            if name.eq_ignore_ascii_case(b"file") {
                form.insert_filename(parameter(head, b"filename"));
                break;
            }
            let Some((value, next)) = around(content, &[b"\r\n", delimiter.as_slice()].concat()) else { break };
            form.take(name, value);
            rest = next;
        }
        Some(form)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let slot = match name.to_ascii_lowercase().as_slice() {
            b"key" => &mut self.key,
            b"x-amz-credential" => &mut self.credential,
            b"x-amz-algorithm" => &mut self.algorithm,
            b"awsaccesskeyid" => &mut self.v2_access_key,
            _ => return,
        };
        slot.get_or_insert_with(|| value.to_vec());
    }

    fn insert_filename(&mut self, filename: Option<&[u8]>) {
        const PLACE: &[u8] = b"${filename}";
        let (Some(key), Some(filename)) = (&mut self.key, filename) else { return };
        let name = filename.rsplit(|&byte| matches!(byte, b'/' | b'\\')).next().unwrap_or(filename);
        if let Some((before, after)) = around(key, PLACE) {
            *key = [before, name, after].concat();
        }
    }
}

pub(crate) fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let (media_type, parameters) = super::query::split_at_byte(content_type, b';')?;
    if !media_type.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(|&byte| byte == b';').find_map(|parameter| {
        let (name, value) = super::query::split_at_byte(parameter, b'=')?;
        name.trim_ascii().eq_ignore_ascii_case(b"boundary").then(|| value.trim_ascii())
    })?;
    let bare = boundary.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(boundary);
    (!bare.is_empty()).then_some(bare)
}

/// A quoted parameter of a part's Content-Disposition.
fn parameter<'a>(part_head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = part_head.split(|&byte| byte == b'\n');
    let disposition = lines.find(|line| {
        const FIELD: &[u8] = b"content-disposition:";
        line.get(..FIELD.len()).is_some_and(|start| start.eq_ignore_ascii_case(FIELD))
    })?;
    disposition.split(|&byte| byte == b';').find_map(|piece| {
        let (found, value) = super::query::split_at_byte(piece, b'=')?;
        let value = value.trim_ascii();
        found
            .trim_ascii()
            .eq_ignore_ascii_case(name)
            .then(|| value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value))
    })
}

fn around<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(bytes, needle)?;
    Some((bytes.get(..at)?, bytes.get(at + needle.len()..)?))
}

fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    around(bytes, needle).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_before_the_file_are_read() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nup/${filename}\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"X-Amz-Credential\"\r\n\r\nAK/d/r/s3/aws4_request\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\a\\cat.jpg\"\r\n\r\nMIAU\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"AWSAccessKeyId\"\r\n\r\nlate\r\n--x--";
        let mut headers = Headers::default();
        headers.push(b"Content-Type", b"multipart/form-data; boundary=\"x\"");
        let body = BodyStart { bytes: body.as_bytes().to_vec(), whole: true };
        let form = PostForm::parse(&headers, &body).unwrap();
        assert_eq!(form.key.as_deref(), Some(&b"up/cat.jpg"[..]));
        assert_eq!(form.credential.as_deref(), Some(&b"AK/d/r/s3/aws4_request"[..]));
        assert_eq!(form.v2_access_key, None);
    }
}
