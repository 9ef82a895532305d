//! Bodies in a coding: what their start says once it is undone.
//!
//! - AWS's own chunked coding (`Content-Encoding: aws-chunked`): `size[;chunk-signature=…]CRLF data CRLF`, until a size of
//!   0. Source: S3 API, "Signature calculations for the Authorization header: transferring payload in multiple chunks".
//! - gzip (RFC 9110, 8.4.1.3), up to [`MAX_INFLATED_BYTES`].
//!
//! A body in any other coding says nothing.

use crate::exchange::BodyStart;
use crate::http::head::Headers;
use flate2::read::MultiGzDecoder;
use std::borrow::Cow;
use std::io::Read as _;

/// What one body may inflate to; what is beyond is cut. A reply on 1,000 keys that could not be deleted, with the longest
/// of keys, is about as long.
pub const MAX_INFLATED_BYTES: usize = 1024 * 1024;

/// The content of a request's body, as far as it was kept.
#[must_use]
pub fn of_request<'a>(headers: &Headers, body: &'a BodyStart) -> Cow<'a, BodyStart> {
    let streamed = headers.first("x-amz-content-sha256").is_some_and(|hash| hash.starts_with(b"STREAMING-"));
    let body = if streamed { Cow::Owned(unchunked(&body.bytes)) } else { Cow::Borrowed(body) };
    inflated(headers, body)
}

/// The content of a reply's body, as far as it was kept.
#[must_use]
pub fn of_reply<'a>(headers: &Headers, body: &'a BodyStart) -> Cow<'a, BodyStart> {
    inflated(headers, Cow::Borrowed(body))
}

fn inflated<'a>(headers: &Headers, body: Cow<'a, BodyStart>) -> Cow<'a, BodyStart> {
    let values = headers.all("content-encoding").flat_map(|value| value.split(|&byte| byte == b','));
    let is = |coding: &[u8], name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
    let mut codings = values
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !is(coding, "identity") && !is(coding, "aws-chunked"));
    match (codings.next(), codings.next()) {
        (None, _) => body,
        (Some(coding), None) if is(coding, "gzip") || is(coding, "x-gzip") => Cow::Owned(inflate(&body)),
        (Some(_), _) => Cow::Owned(BodyStart::default()),
    }
}

/// Work and memory are bounded by the limit and the bytes that are there. A body that is cut or broken gives what comes
/// before.
fn inflate(body: &BodyStart) -> BodyStart {
    let mut bytes = Vec::new();
    let limit = MAX_INFLATED_BYTES as u64;
    // What was read before an error stays in `bytes`.
    let ended = MultiGzDecoder::new(body.bytes.as_slice()).take(limit + 1).read_to_end(&mut bytes).is_ok();
    let fits = bytes.len() <= MAX_INFLATED_BYTES;
    bytes.truncate(MAX_INFLATED_BYTES);
    BodyStart { bytes, whole: body.whole && ended && fits }
}

fn unchunked(mut rest: &[u8]) -> BodyStart {
    let mut content = BodyStart::default();
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let Some(size) = rest.get(..end).and_then(chunk_size) else { break };
        if size == 0 {
            content.whole = true;
            break;
        }
        let data = rest.get(end + 2..).unwrap_or_default();
        let Some((chunk, after)) = data.split_at_checked(size) else {
            content.bytes.extend_from_slice(data);
            break;
        };
        content.bytes.extend_from_slice(chunk);
        let Some(next) = after.strip_prefix(b"\r\n") else { break };
        rest = next;
    }
    content
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|&byte| byte == b';').next()?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let body = b"3;chunk-signature=00\r\nabc\r\n2\r\nde\r\n0;chunk-signature=11\r\n\r\n";
        assert_eq!(unchunked(body), BodyStart { bytes: b"abcde".to_vec(), whole: true });
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut coded = flate2::read::GzEncoder::new(content, flate2::Compression::best());
        let mut bytes = Vec::new();
        coded.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn reply(coding: &str, bytes: Vec<u8>, whole: bool) -> BodyStart {
        let mut headers = Headers::default();
        headers.push(b"Content-Encoding", coding.as_bytes());
        of_reply(&headers, &BodyStart { bytes, whole }).into_owned()
    }

    #[test]
    fn gzip_is_inflated_and_other_codings_say_nothing() {
        let content = b"<Error><Code>SlowDown</Code></Error>";
        let whole = BodyStart { bytes: content.to_vec(), whole: true };
        assert_eq!(reply("gzip", gzip(content), true), whole);
        assert_eq!(reply("identity, X-GZIP", gzip(content), true), whole);
        assert_eq!(reply("br", content.to_vec(), true), BodyStart::default());
        assert_eq!(reply("gzip, gzip", gzip(content), true), BodyStart::default());
        assert_eq!(reply("gzip", content.to_vec(), true), BodyStart::default());
        let long: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut cut = gzip(&long);
        cut.truncate(cut.len() / 2);
        let half = reply("gzip", cut, true);
        assert!(!half.whole && half.bytes.len() > 100_000 && long.starts_with(&half.bytes));
    }

    #[test]
    fn a_bomb_is_cut() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 70_000);
        let found = reply("gzip", bomb, true);
        assert_eq!((found.bytes.len(), found.whole), (MAX_INFLATED_BYTES, false));
    }

    #[test]
    fn a_cut_or_broken_body_gives_what_it_has() {
        let part = |bytes: &[u8]| BodyStart { bytes: bytes.to_vec(), whole: false };
        assert_eq!(unchunked(b"3\r\nabc\r\n5\r\nde"), part(b"abcde"));
        assert_eq!(unchunked(b"3\r\nabcde"), part(b"abc"));
        assert_eq!(unchunked(b"+3\r\nabc\r\n"), part(b""));
        assert_eq!(unchunked(b"ffffffffffffffffff\r\nabc"), part(b""));
    }
}
