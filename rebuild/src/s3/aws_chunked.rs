//! Bodies in AWS's own chunked coding (`Content-Encoding: aws-chunked`): `size[;chunk-signature=…]CRLF data CRLF`, until
//! a size of 0. Source: S3 API, "Signature calculations for the Authorization header: transferring payload in multiple
//! chunks".

use crate::exchange::BodyStart;
use crate::http::head::Headers;
use std::borrow::Cow;

/// The content of a request's body, as far as it was kept; the body itself when it is not in that coding.
#[must_use]
pub fn content<'a>(headers: &Headers, body: &'a BodyStart) -> Cow<'a, BodyStart> {
    let streamed = headers.first("x-amz-content-sha256").is_some_and(|hash| hash.starts_with(b"STREAMING-"));
    if streamed { Cow::Owned(decode(&body.bytes)) } else { Cow::Borrowed(body) }
}

fn decode(mut rest: &[u8]) -> BodyStart {
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
        assert_eq!(decode(body), BodyStart { bytes: b"abcde".to_vec(), whole: true });
    }

    #[test]
    fn a_cut_or_broken_body_gives_what_it_has() {
        let part = |bytes: &[u8]| BodyStart { bytes: bytes.to_vec(), whole: false };
        assert_eq!(decode(b"3\r\nabc\r\n5\r\nde"), part(b"abcde"));
        assert_eq!(decode(b"3\r\nabcde"), part(b"abc"));
        assert_eq!(decode(b"+3\r\nabc\r\n"), part(b""));
        assert_eq!(decode(b"ffffffffffffffffff\r\nabc"), part(b""));
    }
}
