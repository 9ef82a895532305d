//! Heads as nearly everybody writes them, read in one look and where they lie: every line ends in CRLF, every field has a
//! token, a colon and a value without control characters. Whatever is different in the least is `httparse`'s to judge: what
//! is read here is what that would read, which a test compares.

use super::head::{Field, Headers, RequestHead, ResponseHead, Version};
use super::probe::is_token;
use super::reader::HeadReader;

/// A request's head; the reader's bytes are part of it then. None: not a plain one.
pub(super) fn request(reader: &mut HeadReader) -> Option<RequestHead> {
    let bytes = reader.bytes();
    let method_end = memchr::memchr(b' ', bytes)?;
    let (method, rest) = (bytes.get(..method_end)?, bytes.get(method_end + 1..)?);
    let target_len = memchr::memchr2(b' ', b'\n', rest)?;
    let (target, rest) = (rest.get(..target_len)?, rest.get(target_len..)?);
    let version = match rest.first_chunk::<11>()? {
        b" HTTP/1.1\r\n" => Version::Http11,
        b" HTTP/1.0\r\n" => Version::Http10,
        _ => return None,
    };
    let is_plain = !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && !target.is_empty()
        && target.iter().all(u8::is_ascii_graphic);
    if !is_plain {
        return None;
    }
    let (method, target) = (method.to_vec(), target.to_vec());
    let fields = fields(bytes, method_end + 1 + target_len + 11, reader.lines())?;
    let headers = Headers::in_head(reader.take_bytes(), fields);
    Some(RequestHead { method, target, version, headers })
}

/// A reply's head; see [`request`].
pub(super) fn response(reader: &mut HeadReader) -> Option<ResponseHead> {
    let bytes = reader.bytes();
    let (version, rest) = bytes.split_first_chunk::<9>()?;
    let version = match version {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let (code, rest) = rest.split_first_chunk::<3>()?;
    if !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = code.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let reason_len = memchr::memchr(b'\r', rest)?;
    let (reason, end) = rest.split_at_checked(reason_len)?;
    let has_reason = reason.is_empty() || reason.first() == Some(&b' ');
    if !has_reason || !end.starts_with(b"\r\n") || has_control(reason) {
        return None;
    }
    let fields = fields(bytes, 12 + reason_len + 2, reader.lines())?;
    Some(ResponseHead { status, version, headers: Headers::in_head(reader.take_bytes(), fields) })
}

/// The fields from this place up to the empty line, which is the end.
fn fields(bytes: &[u8], mut at: usize, lines: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::with_capacity(lines);
    loop {
        let rest = bytes.get(at..)?;
        if rest == b"\r\n" {
            return Some(fields);
        }
        let name_len = rest.iter().position(|byte| !NAME.get(usize::from(*byte)).is_some_and(|token| *token))?;
        let (name, behind) = rest.split_at_checked(name_len)?;
        let line = behind.strip_prefix(b":")?;
        let line_len = memchr::memchr(b'\r', line)?;
        let (sent, end) = line.split_at_checked(line_len)?;
        if name.is_empty() || !end.starts_with(b"\r\n") || has_control(sent) {
            return None;
        }
        let value = sent.trim_ascii_start();
        let value_from = at + name_len + 1 + (sent.len() - value.len());
        let places = [at, name_len, value_from, value.trim_ascii_end().len()].map(u32::try_from);
        let [Ok(name_from), Ok(name_len), Ok(value_from), Ok(value_len)] = places else { return None };
        fields.push(Field { name_from, name_len, value_from, value_len });
        at += name.len() + 1 + line_len + 2;
    }
}

/// [`is_token`] of every byte.
static NAME: [bool; 256] = name();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler, for all bytes"
)]
const fn name() -> [bool; 256] {
    let mut name = [false; 256];
    let mut at = 0;
    while at < name.len() {
        name[at] = is_token(at as u8);
        at += 1;
    }
    name
}

/// Whether any byte is a control character; the tab is taken for one here, which is rare enough. Eight at a time; the last
/// eight may have been looked at already.
fn has_control(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().any(u8::is_ascii_control);
    };
    let (words, _) = text.as_chunks::<8>();
    words.iter().chain([last]).any(|word| {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20);
        let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
        // A byte below 0x80 borrows exactly if it is the one looked for, or if one before it borrowed.
        (control | delete) & !word & (ONES * 0x80) != 0
    })
}

#[cfg(test)]
mod tests {
    use super::super::reader::Event;
    use super::*;

    fn reader(mut reader: HeadReader, head: &[u8]) -> Option<HeadReader> {
        let (used, event) = reader.push(head, 1 << 20);
        let end = (event == Event::FirstLine).then(|| reader.push(&head[used..], 1 << 20));
        end.filter(|end| *end == (head.len() - used, Event::End)).map(|_| reader)
    }

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn own(headers: &Headers) -> Fields {
        headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    fn theirs(headers: &[httparse::Header<'_>]) -> Fields {
        let own = |header: &httparse::Header<'_>| (header.name.as_bytes().to_vec(), header.value.trim_ascii().to_vec());
        headers.iter().map(own).collect()
    }

    /// Heads that differ from a plain one in one byte, or in two, and what is read of them.
    fn variants(plain: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let bytes = b"\0\t\n\r !\"/:09AHaz~\x7f\x80\xff";
        let replaced = (0..plain.len())
            .flat_map(move |at| bytes.iter().map(move |byte| [&plain[..at], &[*byte], &plain[at + 1..]].concat()));
        let inserted = (0..plain.len())
            .flat_map(move |at| bytes.iter().map(move |byte| [&plain[..at], &[*byte], &plain[at..]].concat()));
        let removed = (0..plain.len()).map(move |at| [&plain[..at], &plain[at + 1..]].concat());
        [plain.to_vec()].into_iter().chain(replaced).chain(inserted).chain(removed)
    }

    #[test]
    fn a_request_is_read_as_httparse_reads_it() {
        let mut read = 0;
        for head in variants(b"GET /b/k?x HTTP/1.1\r\nHost: h\r\nA-b:  some longer value \r\nX:\r\n\r\n") {
            let Some(mut reader) = reader(HeadReader::request(), &head) else { continue };
            let Some(found) = request(&mut reader) else { continue };
            read += 1;
            let mut slots = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Request::new(&mut slots);
            let head = &head[head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
            assert_eq!(parsed.parse(head), Ok(httparse::Status::Complete(head.len())), "{}", head.escape_ascii());
            assert_eq!(parsed.method.unwrap().as_bytes(), found.method);
            assert_eq!(parsed.path.unwrap().as_bytes(), found.target);
            assert_eq!(parsed.version == Some(1), found.version == Version::Http11);
            assert_eq!(theirs(parsed.headers), own(&found.headers), "{}", head.escape_ascii());
        }
        assert!(read > 500, "{read}");
    }

    #[test]
    fn a_reply_is_read_as_httparse_reads_it() {
        let mut read = 0;
        for head in variants(b"HTTP/1.1 206 Partial Content\r\nServer: MinIO\r\nA-b:\tsome longer value \r\nX:\r\n\r\n")
        {
            let Some(mut reader) = reader(HeadReader::reply(), &head) else { continue };
            let Some(found) = response(&mut reader) else { continue };
            read += 1;
            let mut slots = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Response::new(&mut slots);
            assert_eq!(parsed.parse(&head), Ok(httparse::Status::Complete(head.len())), "{}", head.escape_ascii());
            assert_eq!(
                (parsed.code, parsed.version == Some(1)),
                (Some(found.status), found.version == Version::Http11)
            );
            assert_eq!(theirs(parsed.headers), own(&found.headers), "{}", head.escape_ascii());
        }
        assert!(read > 20, "{read}");
    }
}
