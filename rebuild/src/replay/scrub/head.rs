//! Secrets of a head become `*`, byte for byte, so that its length stays.
//!
//! [`Redaction`] is the only judge: a value is shown only where the redacted text has the same bytes, so that a masked
//! head says nothing that a record would not.

use crate::redact::{REDACTED, Redaction};
use percent_encoding::percent_decode;

const MASK: u8 = b'*';

/// Masks a whole head, its empty line included.
pub(super) fn mask(head: &mut [u8], redaction: &Redaction) {
    let mut first = true;
    for line in head.split_inclusive_mut(|byte| *byte == b'\n') {
        let end = line.len() - line.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let Some(line) = line.get_mut(..end) else { continue };
        if line.is_empty() {
            continue; // before the head, or behind it
        }
        if std::mem::take(&mut first) {
            mask_first_line(line, redaction);
        } else {
            mask_field(line, redaction);
        }
    }
}

/// `GET /b/k?x=y HTTP/1.1`; a status line has no secret, and what has no three words is read as leniently.
fn mask_first_line(line: &mut [u8], redaction: &Redaction) {
    if line.starts_with(b"HTTP/1.") {
        return;
    }
    let method_end = memchr::memchr(b' ', line).unwrap_or(line.len());
    let target_end = memchr::memrchr(b' ', line).filter(|at| *at > method_end).unwrap_or(line.len());
    if let Some(method) = line.get_mut(..method_end) {
        let shown = redaction.text(method);
        show_only(method, &shown);
    }
    let Some(target) = line.get_mut(method_end..target_end) else { return };
    let query_at = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_mut(query_at);
    let shown = redaction.path(path);
    show_only(path, &shown);
    let shown = redaction.text(query);
    show_only(query, &shown);
    // The record also judges parameters after decoding them.
    for parameter in query.split_mut(|byte| *byte == b'&') {
        let name_at = usize::from(parameter.first() == Some(&b'?'));
        let Some(equals) = memchr::memchr(b'=', parameter) else { continue };
        let (name, value) = parameter.split_at_mut(equals + 1);
        let name = name.get(name_at..equals).unwrap_or_default();
        let decode = |bytes: &[u8]| {
            let spaces: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            percent_decode(&spaces).collect::<Vec<u8>>()
        };
        if redaction.parameter(&decode(name), &decode(value)).contains(REDACTED) {
            value.fill(MASK);
        }
    }
}

fn mask_field(line: &mut [u8], redaction: &Redaction) {
    let colon = memchr::memchr(b':', line).filter(|_| !matches!(line.first(), Some(b' ' | b'\t')));
    // A folded line's name stands in a line before, and one without a name is in no record.
    let Some(colon) = colon else {
        line.fill(MASK);
        return;
    };
    let (name, value) = line.split_at_mut(colon);
    let name = name.trim_ascii();
    let Some(value) = value.get_mut(1..) else { return };
    let start = value.len() - value.trim_ascii_start().len();
    let end = value.trim_ascii_end().len().max(start);
    if let Some(value) = value.get_mut(start..end) {
        let shown = redaction.header(name, value).into_owned();
        show_only(value, &shown);
    }
}

/// Masks what `shown` does not show.
fn show_only(text: &mut [u8], shown: &str) {
    if text != shown.as_bytes() && !show_pieces(text, shown) {
        show_words(text, shown);
    }
}

/// The pieces between marks, in order. Wherever they are found, nothing else stays.
fn show_pieces(text: &mut [u8], shown: &str) -> bool {
    let Some((first, rest)) = shown.split_once(REDACTED) else { return false };
    if !text.starts_with(first.as_bytes()) {
        return false;
    }
    let mut kept = vec![(0, first.len())];
    let mut at = first.len();
    let mut rest = Some(rest);
    while let Some(pieces) = rest {
        let (piece, tail) = match pieces.split_once(REDACTED) {
            Some((piece, tail)) => (piece, Some(tail)),
            None => (pieces, None),
        };
        let Some(left) = text.get(at..) else { return false };
        let found = if tail.is_none() {
            left.ends_with(piece.as_bytes()).then(|| left.len() - piece.len())
        } else {
            memchr::memmem::find(left, piece.as_bytes())
        };
        let Some(found) = found else { return false };
        kept.push((at + found, at + found + piece.len()));
        at += found + piece.len();
        rest = tail;
    }
    let mut from = 0;
    for (start, end) in kept {
        if let Some(hidden) = text.get_mut(from..start) {
            hidden.fill(MASK);
        }
        from = end;
    }
    true
}

/// Words, as Authorization has them, that are also words of `shown`.
fn show_words(text: &mut [u8], shown: &str) {
    let separates = |byte: u8| matches!(byte, b',' | b' ');
    let words: Vec<&[u8]> = shown.as_bytes().split(|byte| separates(*byte)).collect();
    for word in text.split_mut(|byte| separates(*byte)) {
        if words.contains(&&*word) {
            continue;
        }
        let name_end = memchr::memchr(b'=', word).map_or(0, |at| at + 1);
        let (name, value) = word.split_at_mut(name_end);
        let marked = words.iter().any(|shown| shown.strip_prefix(&*name) == Some(REDACTED.as_bytes()));
        value.fill(MASK);
        if !marked {
            name.fill(MASK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(head: &str) -> String {
        let mut bytes = head.as_bytes().to_vec();
        mask(&mut bytes, &Redaction::default());
        assert_eq!(bytes.len(), head.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn secrets_become_stars_and_the_rest_stays() {
        let head = "\r\nPUT /b/token=k?X-Amz-Signature=abc&partNumber=1&X-Amz%2DSecurity-Token=d%20e HTTP/1.1\r\n\
             Host: h\r\nCookie: a=b\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request,SignedHeaders=host,Signature=5d67\r\n\
             x-amz-server-side-encryption-customer-key: c2Vj \r\nReferer: https://u:p@h/?Signature=q&x=1\r\nno name\r\n folded\r\n\r\n";
        assert_eq!(
            masked(head),
            "\r\nPUT /b/token=k?X-Amz-Signature=***&partNumber=1&X-Amz%2DSecurity-Token=***** HTTP/1.1\r\n\
             Host: h\r\nCookie: ***\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request,SignedHeaders=host,Signature=****\r\n\
             x-amz-server-side-encryption-customer-key: **** \r\nReferer: https://***@h/?Signature=*&x=1\r\n*******\r\n*******\r\n\r\n"
        );
    }

    #[test]
    fn what_cannot_be_matched_is_hidden() {
        assert_eq!(
            masked("GET / HTTP/1.1\nAuthorization: AWS AK:c2ln\n\n"),
            "GET / HTTP/1.1\nAuthorization: AWS AK:****\n\n"
        );
        assert_eq!(
            masked("GET / HTTP/1.1\nAuthorization: bearer abc\n\n"),
            "GET / HTTP/1.1\nAuthorization: ****** ***\n\n"
        );
        assert_eq!(masked("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\n\r\n"), "HTTP/1.1 200 OK\r\nSet-Cookie: *\r\n\r\n");
    }
}
