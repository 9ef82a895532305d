//! Bytes of a whole head become a [`RequestHead`] or a [`ResponseHead`].
//!
//! Nearly all heads are as plain as can be, and [`plain`] reads them where they lie. `httparse` reads the others, and is the
//! measure of what is well-formed; what it refuses and a server may have taken, a lenient reader takes: it splits lines at
//! the first colon and keeps what has one. The reader before has made sure that the first line is one.

use super::head::{Headers, RequestHead, ResponseHead, Version};
use super::plain;
use super::reader::HeadReader;
use crate::exchange::Oddity;

/// Heads with no more lines than this are read without an allocation for the fields' places.
const USUAL_LINES: usize = 96;

/// A request's head and what was odd in it; the reader may give its bytes away for it. None: not even the lenient reader
/// understood it.
pub(crate) fn request(reader: &mut HeadReader) -> Option<(RequestHead, Vec<Oddity>)> {
    if let Some(head) = plain::request(reader) {
        return Some((head, Vec::new()));
    }
    let reader = &*reader;
    let bytes = reader.bytes();
    with_slots(reader.lines(), |slots| {
        let mut parsed = httparse::Request::new(slots);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        if length != bytes.len() {
            return None;
        }
        Some(RequestHead {
            method: parsed.method?.as_bytes().to_vec(),
            target: parsed.path?.as_bytes().to_vec(),
            version: version(parsed.version?),
            headers: headers(parsed.headers),
        })
    })
    .map(|head| (head, oddities(reader, false, false)))
    .or_else(|| {
        let (line, lines) = first_line(bytes)?;
        let (method, rest) = split(line, memchr::memchr(b' ', line)?);
        let (target, protocol) = split(rest, memchr::memrchr(b' ', rest)?);
        let (headers, folded) = lenient(lines);
        let version = if protocol.ends_with(b".0") { Version::Http10 } else { Version::Http11 };
        let head = RequestHead { method: method.to_vec(), target: target.trim_ascii().to_vec(), version, headers };
        Some((head, oddities(reader, folded, true)))
    })
}

/// A reply's head; see [`request`].
pub(crate) fn response(reader: &mut HeadReader) -> Option<(ResponseHead, Vec<Oddity>)> {
    if let Some(head) = plain::response(reader) {
        return Some((head, Vec::new()));
    }
    let reader = &*reader;
    let bytes = reader.bytes();
    with_slots(reader.lines(), |slots| {
        let mut parsed = httparse::Response::new(slots);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        if length != bytes.len() {
            return None;
        }
        Some(ResponseHead { status: parsed.code?, version: version(parsed.version?), headers: headers(parsed.headers) })
    })
    .map(|head| (head, oddities(reader, false, false)))
    .or_else(|| {
        let (line, lines) = first_line(bytes)?;
        let (protocol, rest) = split(line, memchr::memchr(b' ', line)?);
        let status = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
        let (headers, folded) = lenient(lines);
        let version = if protocol.ends_with(b".0") { Version::Http10 } else { Version::Http11 };
        Some((ResponseHead { status, version, headers }, oddities(reader, folded, true)))
    })
}

fn with_slots<'b, T>(lines: usize, parse: impl FnOnce(&mut [httparse::Header<'b>]) -> Option<T>) -> Option<T> {
    if lines <= USUAL_LINES {
        parse(&mut [httparse::EMPTY_HEADER; USUAL_LINES])
    } else {
        parse(&mut vec![httparse::EMPTY_HEADER; lines])
    }
}

const fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

fn headers(parsed: &[httparse::Header<'_>]) -> Headers {
    let bytes = parsed.iter().map(|header| header.name.len() + header.value.len()).sum();
    let mut headers = Headers::with_capacity(parsed.len(), bytes);
    for header in parsed {
        headers.push(header.name.as_bytes(), header.value.trim_ascii());
    }
    headers
}

fn oddities(reader: &HeadReader, folded: bool, lenient: bool) -> Vec<Oddity> {
    let mut found = Vec::new();
    found.extend(reader.has_bare_lf().then_some(Oddity::BareLf));
    found.extend(folded.then_some(Oddity::ObsFold));
    found.extend(lenient.then_some(Oddity::LenientHead));
    found
}

/// The two sides of a one-byte separator.
fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    let (before, after) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    (before, after.split_first().map_or(&[], |(_, rest)| rest))
}

fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = split(bytes, memchr::memchr(b'\n', bytes)?);
    Some((line.trim_ascii_end(), rest))
}

/// Fields of a head that `httparse` refused. Folded lines are joined by one space (RFC 9112, 5.2); lines without a
/// name are left out.
fn lenient(bytes: &[u8]) -> (Headers, bool) {
    let mut fields: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let mut folded = false;
    for line in bytes.split(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            folded = true;
            if let Some((_, value)) = fields.last_mut() {
                value.push(b' ');
                value.extend_from_slice(text);
            }
        } else if let Some(colon) = memchr::memchr(b':', text) {
            let (name, value) = split(text, colon);
            let name = name.trim_ascii();
            if !name.is_empty() {
                fields.push((name, value.trim_ascii().to_vec()));
            }
        }
    }
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name, &value);
    }
    (headers, folded)
}

#[cfg(test)]
mod tests {
    use super::super::reader::Event;
    use super::*;

    fn read(head: &[u8]) -> (RequestHead, Vec<Oddity>) {
        let mut reader = HeadReader::request();
        let (used, _) = reader.push(head, 1 << 20);
        assert_eq!(reader.push(&head[used..], 1 << 20).1, Event::End);
        request(&mut reader).unwrap()
    }

    #[test]
    fn strict_and_lenient() {
        let (head, odd) = read(b"GET /b/k?x HTTP/1.1\r\nHost: h \r\nX:\r\n\r\n");
        assert_eq!((head.target.as_slice(), head.headers.first("host")), (&b"/b/k?x"[..], Some(&b"h"[..])));
        assert_eq!(odd, []);
        let (head, odd) = read(b"GET /a b HTTP/1.0\nHost : h\n folded\nno name\n\n");
        assert_eq!((head.target.as_slice(), head.version), (&b"/a b"[..], Version::Http10));
        assert_eq!(head.headers.first("host"), Some(&b"h folded"[..]));
        assert_eq!(odd, [Oddity::BareLf, Oddity::ObsFold, Oddity::LenientHead]);
    }

    #[test]
    fn many_fields() {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100_000));
        assert_eq!(read(head.as_bytes()).0.headers.len(), 100_000);
    }
}
