//! A request target cut into its parts, and the query as names and values.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// A request target (RFC 9112, 3.2) in its parts, as sent, nothing decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// The authority of an absolute-form target, without user information.
    pub authority: Option<&'a [u8]>,
    /// The path. Empty when the absolute form has none; `*` for the asterisk form.
    pub path: &'a [u8],
    /// What follows the first `?`, without it.
    pub query: &'a [u8],
}

impl<'a> Target<'a> {
    /// Cuts a target. Never fails: what has no scheme and no leading slash is taken as a path.
    #[must_use]
    pub fn parse(target: &'a [u8]) -> Self {
        let (before_query, query) = split_at_byte(target, b'?').unwrap_or((target, b""));
        let Some(rest) = strip_scheme(before_query) else {
            return Self { authority: None, path: before_query, query };
        };
        let (authority, path) = match rest.iter().position(|&byte| byte == b'/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, &b""[..]),
        };
        let host = authority.rsplit(|&byte| byte == b'@').next().unwrap_or(authority);
        Self { authority: Some(host), path, query }
    }
}

/// The parameters of a query, decoded once, in their order. `+` stands for a space, as Go's `url.ParseQuery` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Names and values, one behind the other.
    text: Vec<u8>,
    /// Where the name and the value of each parameter end; it begins where the one before ends.
    ends: Vec<(usize, usize)>,
}

impl Query {
    /// Parses a raw query. `a` and `a=` are equal; empty pieces (`&&`) are nothing.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        // Nothing gets longer by decoding.
        let mut query = Self { text: Vec::with_capacity(raw.len()), ends: Vec::new() };
        for piece in raw.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()) {
            let (name, value) = split_at_byte(piece, b'=').unwrap_or((piece, b""));
            decode_form(name, &mut query.text);
            let name_end = query.text.len();
            decode_form(value, &mut query.text);
            query.ends.push((name_end, query.text.len()));
        }
        query
    }

    /// The first value of that name (case-sensitive, as every S3 server has it).
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(param, _)| *param == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of that name, upper and lower case taken as equal (signing parameters).
    #[must_use]
    pub fn first_ignoring_case(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(param, _)| param.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Where the first parameter of that name stands.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|(param, _)| param == name.as_bytes())
    }

    /// All parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let name = self.text.get(begin..name_end).unwrap_or_default();
            begin = end;
            (name, self.text.get(name_end..end).unwrap_or_default())
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Splits around the first `byte`, which is in neither half.
pub(crate) fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, bytes)?;
    let (head, tail) = bytes.split_at_checked(at)?;
    Some((head, tail.get(1..)?))
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let rest = |scheme: &[u8]| {
        let (head, tail) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(tail)
    };
    rest(b"http://").or_else(|| rest(b"https://"))
}

/// Appends it decoded.
fn decode_form(text: &[u8], to: &mut Vec<u8>) {
    for (nth, part) in text.split(|&byte| byte == b'+').enumerate() {
        if nth > 0 {
            to.push(b' ');
        }
        to.extend_from_slice(&Cow::from(percent_decode(part)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_form_loses_its_user_information() {
        let target = Target::parse(b"HTTP://user:pw@b.example:80/k?acl");
        assert_eq!(target, Target { authority: Some(&b"b.example:80"[..]), path: &b"/k"[..], query: &b"acl"[..] });
    }

    #[test]
    fn plus_and_percent_are_decoded_once() {
        let query = Query::parse(b"a=1+2%2B%2526&&b&b=2");
        assert_eq!(query.first("a"), Some(&b"1 2+%26"[..]));
        assert_eq!((query.first("b"), query.position("b")), (Some(&b""[..]), Some(1)));
        let query = Query::parse(b"+%41+=%zz%+%4&%4+1=%2");
        let all: Vec<_> = query.iter().collect();
        assert_eq!(all, [(&b" A "[..], &b"%zz% %4"[..]), (&b"%4 1"[..], &b"%2"[..])]);
    }
}
