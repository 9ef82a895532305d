//! Heads as nearly everybody writes them, read in one look and where they lie: every line ends in CRLF, every field has a
//! token, a colon and a value without control characters. Whatever is different in the least is `httparse`'s to judge: what
//! is read here is what that would read, which a test compares.

use super::head::{Field, RequestHead, ResponseHead, Version};
use super::probe::is_token;
use super::reader::HeadReader;

/// A request's head; the reader's bytes are part of it then. None: not a plain one.
pub(super) fn request(reader: &mut HeadReader) -> Option<RequestHead> {
    let (method_len, target_len, version) = request_line(reader.bytes())?;
    let method = reader.bytes().get(..method_len)?.to_vec();
    let target = reader.bytes().get(method_len + 1..)?.get(..target_len)?.to_vec();
    let headers = reader.take_plain()?;
    Some(RequestHead { method, target, version, headers })
}

/// A reply's head; see [`request`].
pub(super) fn response(reader: &mut HeadReader) -> Option<ResponseHead> {
    let bytes = reader.bytes();
    let version = status_line(bytes)?;
    let (code, rest) = bytes.get(b"HTTP/1.1 ".len()..)?.split_first_chunk::<3>()?;
    let status = code.iter().fold(0, |status, digit| status * 10 + u16::from(digit.saturating_sub(b'0')));
    let reason_len = control(rest)?;
    let (reason, end) = rest.split_at_checked(reason_len)?;
    if !end.starts_with(b"\r\n") || !(reason.is_empty() || reason.starts_with(b" ")) {
        return None;
    }
    Some(ResponseHead { status, version, headers: reader.take_plain()? })
}

/// How long method and target of a whole first line are, and its version. The line is 12 bytes longer than both.
pub(super) fn request_line(bytes: &[u8]) -> Option<(usize, usize, Version)> {
    const LONGEST_METHOD: usize = 16;
    let method_len = bytes.iter().take(LONGEST_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    let rest = bytes.get(method_len..)?.strip_prefix(b" ")?;
    let target_len = rest.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    let version = match rest.get(target_len..)?.first_chunk::<11>()? {
        b" HTTP/1.1\r\n" => Version::Http11,
        b" HTTP/1.0\r\n" => Version::Http10,
        _ => return None,
    };
    (method_len > 0 && target_len > 0).then_some((method_len, target_len, version))
}

/// The version of a reply that begins here with a status and a blank or a CR behind it, 13 bytes in all.
pub(super) fn status_line(bytes: &[u8]) -> Option<Version> {
    let (line, _) = bytes.split_first_chunk::<13>()?;
    let (version, [hundreds, tens, ones, b' ' | b'\r']) = line.split_first_chunk::<9>()? else { return None };
    let is_status = hundreds.is_ascii_digit() && tens.is_ascii_digit() && ones.is_ascii_digit();
    match version {
        b"HTTP/1.1 " if is_status => Some(Version::Http11),
        b"HTTP/1.0 " if is_status => Some(Version::Http10),
        _ => None,
    }
}

/// All fields up to the empty line, and where that ends. `behind`: how far into the head the bytes are. None: not all are
/// there, or not all are plain.
pub(super) fn fields(bytes: &[u8], behind: usize) -> Option<(Vec<Field>, usize)> {
    let mut fields = Vec::with_capacity(USUAL_FIELDS);
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        if rest.starts_with(b"\r\n") {
            return Some((fields, at + 2));
        }
        let name_len = rest.iter().position(|byte| !NAME.get(usize::from(*byte)).is_some_and(|token| *token))?;
        let line = rest.get(name_len..)?.strip_prefix(b":")?;
        let (sent, end) = line.split_at_checked(control(line)?)?;
        if name_len == 0 || !end.starts_with(b"\r\n") {
            return None;
        }
        let value = sent.trim_ascii_start();
        let value_from = behind + at + name_len + 1 + (sent.len() - value.len());
        let places = [behind + at, name_len, value_from, value.trim_ascii_end().len()].map(u32::try_from);
        at += name_len + 1 + sent.len() + 2;
        let [Ok(name_from), Ok(name_len), Ok(value_from), Ok(value_len)] = places else { return None };
        fields.push(Field { name_from, name_len, value_from, value_len });
    }
}

/// Heads with no more fields than this take memory for them once.
const USUAL_FIELDS: usize = 24;

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

/// Where the first control character is; the tab is taken for one here, which is rare enough. Eight bytes at a time.
fn control(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20);
        let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
        // A byte below 0x80 borrows exactly if it is the one looked for, or if one before it borrowed: the first is right.
        let found = (control | delete) & !word & (ONES * 0x80);
        if found != 0 {
            return Some(8 * nth + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(u8::is_ascii_control).map(|at| 8 * words.len() + at)
}

#[cfg(test)]
mod tests {
    use super::super::head::Headers;
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
        for head in variants(b"HTTP/1.1 206 Partial Content\r\nServer: MinIO\r\nA-b:  some longer value \r\nX:\r\n\r\n")
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
        assert!(read > 500, "{read}");
    }
}
