//! Texts as redaction looks at them: bytes that may be percent-encoded several times, and URIs.

use super::REDACTED;
use std::borrow::Cow;

/// A byte of a text, and how many times it was percent-encoded.
pub(super) struct Symbol {
    pub(super) byte: u8,
    pub(super) level: u32,
}

impl Symbol {
    pub(super) fn next(text: &[u8]) -> Option<(Self, &[u8])> {
        let (&first, mut tail) = text.split_first()?;
        let plain = Some((Self { byte: first, level: 0 }, tail));
        if first != b'%' {
            return plain;
        }
        let mut level = 1;
        while let Some(deeper) = tail.strip_prefix(b"25") {
            let [high, low, ..] = deeper else { break };
            if !(high.is_ascii_hexdigit() && low.is_ascii_hexdigit()) {
                break;
            }
            (tail, level) = (deeper, level + 1);
        }
        let [high, low, after @ ..] = tail else { return plain };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit(high), digit(low)) {
            (Some(high), Some(low)) => Some((Self { byte: high * 16 + low, level }, after)),
            _ => plain,
        }
    }
}

/// How long a parameter's value is whose `=` was encoded `level` times: up to the next `&` that is
/// encoded no deeper, or to plain white space. Everything else, deeper encoded separators too, belongs to the value.
pub(super) fn value_length(text: &[u8], level: u32) -> usize {
    let mut rest = text;
    while let Some((symbol, tail)) = Symbol::next(rest) {
        let ends = symbol.byte == b'&' || (symbol.level == 0 && symbol.byte.is_ascii_whitespace());
        if ends && symbol.level <= level {
            break;
        }
        rest = tail;
    }
    text.len() - rest.len()
}

/// Cuts `user:password` of every `scheme://user:password@host`.
pub(super) fn without_user_information(text: &[u8]) -> Cow<'_, [u8]> {
    if !has_scheme(text) || memchr::memchr(b'@', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"://") {
        let Some((head, tail)) = rest.split_at_checked(at + 3) else { break };
        kept.extend_from_slice(head);
        let authority = tail.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#') || byte.is_ascii_whitespace());
        let authority = tail.get(..authority.unwrap_or(tail.len())).unwrap_or(tail);
        rest = match memchr::memrchr(b'@', authority) {
            Some(at) => {
                kept.extend_from_slice(REDACTED.as_bytes());
                tail.get(at..).unwrap_or_default()
            }
            None => tail,
        };
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// Whether `://` is in it. A searcher for three bytes costs more than a look behind each colon.
pub(super) fn has_scheme(text: &[u8]) -> bool {
    memchr::memchr_iter(b':', text).any(|at| text.get(at..).is_some_and(|rest| rest.starts_with(b"://")))
}
