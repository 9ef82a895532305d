//! Where a body ends (RFC 9112, 6.3), and whether its start is worth keeping.

use super::head::{Headers, RequestHead, ResponseHead, Version};
use crate::exchange::Oddity;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
    /// The head contradicts itself; where the body ends only the next message tells.
    Unknown,
}

/// Framing of a request's body, and what was odd.
pub(crate) fn of_request(head: &RequestHead) -> (Framing, Option<Oddity>) {
    let length = content_length(&head.headers);
    match transfer_coding(&head.headers) {
        Coding::Chunked => (Framing::Chunked, (length != Length::Absent).then_some(Oddity::BothLengths)),
        Coding::Other => (Framing::Unknown, (length != Length::Absent).then_some(Oddity::BothLengths)),
        Coding::None => match length {
            Length::Absent | Length::Is(0) => (Framing::None, None),
            Length::Is(bytes) => (Framing::Length(bytes), None),
            Length::Bad => (Framing::Unknown, Some(Oddity::BadLength)),
        },
    }
}

/// Framing of a final reply's body, and what was odd. `method` None: the request's head was not seen.
pub(crate) fn of_reply(head: &ResponseHead, method: Option<&[u8]>) -> (Framing, Option<Oddity>) {
    if method == Some(b"HEAD") || matches!(head.status, 100..200 | 204 | 304) {
        return (Framing::None, None);
    }
    let length = content_length(&head.headers);
    match transfer_coding(&head.headers) {
        Coding::Chunked => (Framing::Chunked, (length != Length::Absent).then_some(Oddity::ReplyBothLengths)),
        Coding::Other => (Framing::UntilClose, (length != Length::Absent).then_some(Oddity::ReplyBothLengths)),
        Coding::None => match length {
            Length::Absent => (Framing::UntilClose, None),
            Length::Is(0) => (Framing::None, None),
            Length::Is(bytes) => (Framing::Length(bytes), None),
            Length::Bad => (Framing::Unknown, Some(Oddity::BadLength)),
        },
    }
}

/// Whether the client waits for `100 Continue` (RFC 9110, 10.1.1).
pub(crate) fn expects_continue(head: &RequestHead) -> bool {
    head.version == Version::Http11
        && head.headers.all("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the start of a request's body says something about the operation: forms, XML documents, multi-deletes.
pub(crate) fn wants_request_body(head: &RequestHead) -> bool {
    let kind = head.headers.first("content-type").unwrap_or_default();
    match head.method.as_slice() {
        b"POST" => {
            contains_ignoring_case(kind, b"xml")
                || starts_ignoring_case(kind, b"application/x-www-form-urlencoded")
                || starts_ignoring_case(kind, b"multipart/form-data")
                || parameters(head).any(|name| name == b"delete" || name.starts_with(b"delete="))
        }
        // An object may have an XML content type as well: only sub-resources (which have a query) carry documents.
        b"PUT" => contains_ignoring_case(kind, b"xml"),
        _ => false,
    }
}

/// Whether the start of a reply's body says something about the outcome: errors, XML documents of any status, and the
/// replies that may bring an error behind a status of 200, whatever they call themselves.
pub(crate) fn wants_reply_body(head: &ResponseHead, may_hide_an_error: bool) -> bool {
    head.status >= 400
        || head.headers.first("content-type").is_some_and(|kind| contains_ignoring_case(kind, b"xml"))
        || (head.status == 200 && may_hide_an_error)
}

/// Whether a reply of status 200 to this request may still bring an error in its body.
pub(crate) fn may_hide_an_error(request: &RequestHead) -> bool {
    match request.method.as_slice() {
        b"PUT" => {
            request.headers.first("x-amz-copy-source").is_some()
                || contains_ignoring_case(&request.target, b"x-amz-copy-source=")
        }
        b"POST" => parameters(request)
            .any(|name| name == b"delete" || name.starts_with(b"delete=") || name.starts_with(b"uploadId=")),
        _ => false,
    }
}

fn parameters(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    let query = memchr::memchr(b'?', &head.target).and_then(|at| head.target.get(at + 1..)).unwrap_or_default();
    query.split(|byte| *byte == b'&')
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Absent,
    Is(u64),
    Bad,
}

/// All Content-Length values, lists included, must say the same number (RFC 9112, 6.3, rule 5).
fn content_length(headers: &Headers) -> Length {
    let mut length = Length::Absent;
    for value in headers.all("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        let value = value.trim_ascii();
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        length = match (number, length) {
            (Some(number), Length::Absent) => Length::Is(number),
            (Some(number), Length::Is(before)) if number == before => length,
            _ => return Length::Bad,
        };
    }
    length
}

enum Coding {
    None,
    Chunked,
    Other,
}

fn transfer_coding(headers: &Headers) -> Coding {
    let mut last = None;
    for value in headers.all("transfer-encoding").flat_map(|value| value.split(|byte| *byte == b',')) {
        last = Some(value.trim_ascii());
    }
    match last {
        None => Coding::None,
        Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        Some(coding) if coding.eq_ignore_ascii_case(b"identity") => Coding::None,
        Some(_) => Coding::Other,
    }
}

fn starts_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    let Some(&first) = part.first() else { return true };
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text)
        .any(|at| text.get(at..).is_some_and(|rest| starts_ignoring_case(rest, part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        ResponseHead { status, version: Version::Http11, headers }
    }

    type Case = (u16, &'static [(&'static str, &'static str)], &'static [u8], Framing);

    #[test]
    fn replies() {
        let cases: [Case; 9] = [
            (200, &[("Content-Length", "5")], b"GET", Framing::Length(5)),
            (200, &[("Content-Length", "5")], b"HEAD", Framing::None),
            (304, &[("Content-Length", "5")], b"GET", Framing::None),
            (200, &[("Content-Length", "5, 5")], b"GET", Framing::Length(5)),
            (200, &[("Content-Length", "5"), ("content-length", "6")], b"GET", Framing::Unknown),
            (200, &[("Content-Length", "+5")], b"GET", Framing::Unknown),
            (200, &[("Transfer-Encoding", "gzip, Chunked")], b"GET", Framing::Chunked),
            (200, &[("Transfer-Encoding", "gzip")], b"GET", Framing::UntilClose),
            (200, &[], b"GET", Framing::UntilClose),
        ];
        for (status, fields, method, framing) in cases {
            assert_eq!(of_reply(&reply(status, fields), Some(method)).0, framing, "{status} {fields:?}");
        }
    }
}
