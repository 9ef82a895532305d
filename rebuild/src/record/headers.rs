//! Headers and queries as MinIO's audit writes them: maps of strings, names in Go's canonical form, repeats joined by a
//! comma; redacted here, and bounded.

use crate::http::head::Headers;
use crate::redact::Redaction;
use crate::s3::query::Query;
use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// How much text one map may hold, names and values together, in bytes. Heads themselves are bounded before; this
/// bounds a record when that bound is set high.
pub const MAX_MAP_BYTES: usize = 64 * 1024;

/// How long one name or one value may be, in bytes.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

/// Texts by their names, each name once, in the order of the names. What is written as it was sent is not copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Texts<'a> {
    /// Sorts what was gathered; the values of a name that repeats are joined by a comma, in their order.
    fn of(mut gathered: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Self {
        // Keeps the order of equals.
        gathered.sort_by(|(one, _), (other, _)| one.cmp(other));
        gathered.dedup_by(|(name, value), (kept, joined)| {
            let repeats = name == kept;
            if repeats {
                let joined = joined.to_mut();
                joined.push(',');
                joined.push_str(value);
            }
            repeats
        });
        Self(gathered)
    }

    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cow<'a, str>> {
        let at = self.0.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Texts, and whether anything was left out of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextMap<'a> {
    /// What is written.
    pub entries: Texts<'a>,
    /// A value was cut, or entries were left out.
    pub truncated: bool,
}

/// A map on its way.
#[derive(Default)]
struct Gathering<'a> {
    texts: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    truncated: bool,
    bytes: usize,
}

impl<'a> TextMap<'a> {
    /// A request's headers, without `Host` and `Transfer-Encoding`, which Go takes out of them.
    #[must_use]
    pub fn of_request(headers: &'a Headers, redaction: &Redaction) -> Self {
        let left_out =
            |name: &[u8]| name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b"transfer-encoding");
        let mut map = Gathering::of(headers.len());
        for (name, value) in headers.iter().filter(|(name, _)| !left_out(name)) {
            map.add(header_name(name, redaction), redaction.header(name, value));
        }
        map.end()
    }

    /// A reply's headers. `ETag` keeps the spelling MinIO gives it and loses its quotes.
    #[must_use]
    pub fn of_response(headers: &'a Headers, redaction: &Redaction) -> Self {
        let mut map = Gathering::of(headers.len());
        for (name, value) in headers.iter() {
            if name.eq_ignore_ascii_case(b"etag") {
                let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
                map.add(Cow::Borrowed("ETag"), redaction.header(name, bare));
            } else {
                map.add(header_name(name, redaction), redaction.header(name, value));
            }
        }
        map.end()
    }

    /// A query's parameters.
    #[must_use]
    pub fn of_query(query: &Query, redaction: &Redaction) -> Self {
        let mut map = Gathering::default();
        for (name, value) in query.iter() {
            // A name may hold an encoded `name=value` of its own.
            map.add(Cow::Owned(redaction.text(name)), Cow::Owned(redaction.parameter(name, value)));
        }
        map.end()
    }
}

impl<'a> Gathering<'a> {
    /// With room for so many.
    fn of(entries: usize) -> Self {
        Self { texts: Vec::with_capacity(entries), ..Self::default() }
    }

    fn end(self) -> TextMap<'a> {
        TextMap { entries: Texts::of(self.texts), truncated: self.truncated }
    }

    fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        let name = cut_sent(name, MAX_VALUE_BYTES, &mut self.truncated);
        let value = cut_sent(value, MAX_VALUE_BYTES, &mut self.truncated);
        let bytes = self.bytes + name.len() + value.len() + 1;
        if bytes > MAX_MAP_BYTES {
            self.truncated = true;
            return;
        }
        self.bytes = bytes;
        self.texts.push((name, value));
    }
}

/// Cuts a text to at most `max_bytes`, between characters, and says so in `truncated`.
pub(super) fn cut(mut text: String, max_bytes: usize, truncated: &mut bool) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        *truncated = true;
    }
    text
}

/// The same of a text that may be borrowed; it hardly ever has to be cut.
fn cut_sent<'a>(text: Cow<'a, str>, max_bytes: usize, truncated: &mut bool) -> Cow<'a, str> {
    if text.len() <= max_bytes { text } else { Cow::Owned(cut(text.into_owned(), max_bytes, truncated)) }
}

fn header_name<'a>(name: &'a [u8], redaction: &Redaction) -> Cow<'a, str> {
    // Servers written in Go, and many clients, send names that are canonical already.
    let (mut is_token, mut is_canonical, mut upper) = (true, true, true);
    for &byte in name {
        is_token &= TOKEN.get(usize::from(byte)).is_some_and(|token| *token);
        is_canonical &= if upper { !byte.is_ascii_lowercase() } else { !byte.is_ascii_uppercase() };
        upper = byte == b'-';
    }
    match std::str::from_utf8(name) {
        Ok(sent) if is_token && is_canonical => Cow::Borrowed(sent),
        _ if is_token => Cow::Owned(canonical(name)),
        _ => Cow::Owned(redaction.text(name)),
    }
}

/// Whether a byte may stand in a token (RFC 9110, 5.6.2).
static TOKEN: [bool; 256] = token();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler, for all bytes"
)]
const fn token() -> [bool; 256] {
    let mut token = [false; 256];
    let mut at = 0;
    while at < token.len() {
        token[at] = matches!(at as u8, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
            || (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    token
}

/// Go's `textproto.CanonicalMIMEHeaderKey`: the first letter and every letter behind a dash in upper case, the others
/// in lower case.
fn canonical(name: &[u8]) -> String {
    let mut letters = name.to_ascii_lowercase();
    let mut upper = true;
    for letter in &mut letters {
        if upper {
            letter.make_ascii_uppercase();
        }
        upper = *letter == b'-';
    }
    // A token is ASCII.
    String::from_utf8(letters).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_canonical_and_repeats_are_joined() {
        let mut headers = Headers::default();
        headers.push(b"x-amz-meta-A", b"1");
        headers.push(b"X-AMZ-META-a", b"2");
        headers.push(b"host", b"h");
        headers.push(b"transfer-encoding", b"chunked");
        headers.push(b"odd name", b"3");
        headers.push(b"Sent-As-1t-Is", b"4");
        headers.push(b"Sent--not-so", b"5");
        let map = TextMap::of_request(&headers, &Redaction::default());
        let shown: Vec<_> = map.entries.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["Sent--Not-So=5", "Sent-As-1t-Is=4", "X-Amz-Meta-A=1,2", "odd name=3"]);
    }

    #[test]
    fn a_flood_is_cut_and_said() {
        let mut headers = Headers::default();
        for index in 0..1000 {
            headers.push(format!("x-{index}").as_bytes(), &[b'a'; 9000]);
        }
        let map = TextMap::of_request(&headers, &Redaction::default());
        assert!(map.truncated);
        assert!(map.entries.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MAX_MAP_BYTES);
    }
}
