//! Headers and queries as MinIO's audit writes them: maps of strings, names in Go's canonical form, repeats joined by a
//! comma; redacted here, and bounded. They are written as JSON at once, because most of a record is they.

use super::json;
use super::lines::Lines;
use crate::http::head::Headers;
use crate::redact::Redaction;
use crate::s3::query::Query;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::ops::Range;

/// How much text one map may hold, names and values together, in bytes. Heads themselves are bounded before; this
/// bounds a record when that bound is set high.
pub const MAX_MAP_BYTES: usize = 64 * 1024;

/// How long one name or one value may be, in bytes.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

/// A value that is JSON already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Json<'a>(pub(super) &'a [u8]);

impl Default for Json<'_> {
    fn default() -> Self {
        Self(b"{}")
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The writer's word for it.
        serializer.serialize_bytes(self.0)
    }
}

/// The maps of one record, and what is needed to write them.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    request_lines: Lines,
    response_lines: Lines,
    query_lines: Lines,
    gathering: Gathering,
    /// See [`Maps::write_request`].
    pub(super) request: Map,
    /// See [`Maps::write_response`].
    pub(super) response: Map,
    /// See [`Maps::write_query`].
    pub(super) query: Map,
}

/// A map as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    json: Vec<u8>,
    /// Where the value is that was asked for, with its quotes.
    wanted: Option<Range<usize>>,
    /// A value was cut, or entries were left out.
    pub(super) truncated: bool,
}

impl Map {
    pub(super) fn json(&self) -> Json<'_> {
        Json(&self.json)
    }

    /// The value of the name that was asked for.
    pub(super) fn wanted(&self) -> Option<Json<'_>> {
        self.json.get(self.wanted.clone()?).map(Json)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.json.len() <= b"{}".len()
    }
}

impl Maps {
    /// `key`: see [`Lines::new`].
    pub(super) fn new(key: u64) -> Self {
        Self {
            request_lines: Lines::new(key),
            response_lines: Lines::new(key),
            query_lines: Lines::new(key),
            gathering: Gathering::default(),
            request: Map::default(),
            response: Map::default(),
            query: Map::default(),
        }
    }

    /// How fields are written changes.
    pub(super) fn forget(&mut self) {
        self.request_lines.clear();
        self.response_lines.clear();
        self.query_lines.clear();
    }

    /// A request's headers, without `Host` and `Transfer-Encoding`, which Go takes out of them. Asks for `User-Agent`.
    pub(super) fn write_request(&mut self, headers: &Headers, redaction: &Redaction) {
        let left_out =
            |name: &[u8]| name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b"transfer-encoding");
        for (name, value) in headers.iter().filter(|(name, _)| !left_out(name)) {
            self.gathering.field(name, value, &mut self.request_lines, |gathering| {
                gathering.add(&header_name(name, redaction), &redaction.header(name, value));
                value
            });
        }
        self.gathering.end(b"User-Agent", &mut self.request);
    }

    /// A reply's headers. `ETag` keeps the spelling MinIO gives it and loses its quotes. Asks for `X-Amz-Request-Id`.
    pub(super) fn write_response(&mut self, headers: &Headers, redaction: &Redaction) {
        for (name, value) in headers.iter() {
            self.gathering.field(name, value, &mut self.response_lines, |gathering| {
                if !name.eq_ignore_ascii_case(b"etag") {
                    gathering.add(&header_name(name, redaction), &redaction.header(name, value));
                    return value;
                }
                let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
                gathering.add("ETag", &redaction.header(name, bare));
                bare
            });
        }
        self.gathering.end(b"X-Amz-Request-Id", &mut self.response);
    }

    /// A query's parameters.
    pub(super) fn write_query(&mut self, query: &Query, redaction: &Redaction) {
        for (name, value) in query.iter() {
            self.gathering.field(name, value, &mut self.query_lines, |gathering| {
                // A name may hold an encoded `name=value` of its own.
                gathering.add(&redaction.text(name), &redaction.parameter(name, value));
                value
            });
        }
        self.gathering.end(b"", &mut self.query);
    }
}

/// A map on its way: its entries, as they came.
#[derive(Clone, Debug, Default)]
struct Gathering {
    text: Vec<u8>,
    entries: Vec<Entry>,
    truncated: bool,
    bytes: usize,
}

/// An entry as it lies in the text: `"name":"value"`.
#[derive(Clone, Debug)]
struct Entry {
    /// The first letters of the name, which tell most names apart.
    first: u64,
    /// The name, without escapes.
    name: Range<usize>,
    whole: Range<usize>,
    /// Where the value begins, with its quote.
    value_from: usize,
}

/// Quotes and colon of an entry.
const MARKS: usize = br#""":"""#.len();

impl Gathering {
    /// Adds a field as it was kept, or as it is made now; `make` gives the value that was to be written.
    fn field<'v>(&mut self, name: &[u8], value: &[u8], lines: &mut Lines, make: impl FnOnce(&mut Self) -> &'v [u8]) {
        let from = self.text.len();
        if let Some(vacant) = lines.write(name, value, &mut self.text) {
            let wanted = make(self);
            let written = self.text.get(from..).unwrap_or_default();
            if is_plain(written, name, wanted) {
                vacant.keep(name, value, written);
            }
            return;
        }
        let bytes = self.text.len() - from - MARKS;
        if self.has_room(bytes) {
            let name = from + 1..from + 1 + name.len();
            self.enter(name.end + 2, name, from..self.text.len());
        } else {
            self.text.truncate(from);
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let name = cut_to(name, MAX_VALUE_BYTES, &mut self.truncated);
        let value = cut_to(value, MAX_VALUE_BYTES, &mut self.truncated);
        if !self.has_room(name.len() + value.len()) {
            return;
        }
        let from = self.text.len();
        json::text(&mut self.text, name);
        self.text.push(b':');
        let value_from = self.text.len();
        json::text(&mut self.text, value);
        let whole = from..self.text.len();
        let mut bare = from + 1..from + 1 + name.len();
        if value_from - from > name.len() + br#""":"#.len() {
            // Escaped, so it stands there once more.
            self.text.extend_from_slice(name.as_bytes());
            bare = whole.end..self.text.len();
        }
        self.enter(value_from, bare, whole);
    }

    fn enter(&mut self, value_from: usize, name: Range<usize>, whole: Range<usize>) {
        let letters = self.text.get(name.clone()).unwrap_or_default();
        // Shorter names come first, as if they ended in zeros; what is equal in these is compared whole.
        let first = letters.first_chunk::<8>().map_or_else(
            || {
                letters.iter().fold(0, |first, letter| (first << 8) | u64::from(*letter))
                    << (64 - 8 * letters.len().max(1))
            },
            |first| u64::from_be_bytes(*first),
        );
        self.entries.push(Entry { first, name, whole, value_from });
    }

    /// Whether an entry of so many bytes still fits; it counts then.
    fn has_room(&mut self, bytes: usize) -> bool {
        let bytes = self.bytes + bytes + 1;
        if bytes > MAX_MAP_BYTES {
            self.truncated = true;
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Writes all in the order of their names; the values of a name that repeats are joined by a comma, in their order.
    fn end(&mut self, wanted: &[u8], map: &mut Map) {
        let Self { text, entries, .. } = self;
        let part = |range: Range<usize>| text.get(range).unwrap_or_default();
        // Keeps the order of equals.
        entries.sort_by(|one, other| {
            one.first.cmp(&other.first).then_with(|| part(one.name.clone()).cmp(part(other.name.clone())))
        });
        let json = &mut map.json;
        json.clear();
        json.push(b'{');
        map.wanted = None;
        let mut before: Option<&[u8]> = None;
        for Entry { name, whole, value_from, .. } in entries.iter() {
            let name = part(name.clone());
            if before == Some(name) {
                // Instead of both quotes.
                json.pop();
                json.push(b',');
                json.extend_from_slice(part(value_from + 1..whole.end));
            } else {
                if before.is_some() {
                    json.push(b',');
                }
                if name == wanted {
                    let from = json.len() + (value_from - whole.start);
                    map.wanted = Some(from..from);
                }
                json.extend_from_slice(part(whole.clone()));
                before = Some(name);
            }
            if let Some(range) = map.wanted.as_mut().filter(|_| name == wanted) {
                range.end = json.len();
            }
        }
        json.push(b'}');
        map.truncated = self.truncated;
        // What a flood took is given back.
        self.text.clear();
        self.text.shrink_to(USUAL_BYTES);
        self.entries.clear();
        self.entries.shrink_to(USUAL_ENTRIES);
        (self.truncated, self.bytes) = (false, 0);
    }
}

/// What is kept from one record to the next of the room that its texts and entries took.
const USUAL_BYTES: usize = 16 * 1024;
const USUAL_ENTRIES: usize = 256;

/// Whether an entry is name and value as they came, but for the name's upper and lower case: nothing was cut, nothing
/// escaped.
fn is_plain(entry: &[u8], name: &[u8], value: &[u8]) -> bool {
    let parts = entry.strip_prefix(b"\"").and_then(|rest| rest.split_at_checked(name.len()));
    let Some((written, rest)) = parts.filter(|_| !name.is_empty()) else { return false };
    let rest = rest.strip_prefix(b"\":\"").and_then(|rest| rest.strip_suffix(b"\""));
    written.eq_ignore_ascii_case(name) && rest == Some(value)
}

/// Cuts a text to at most `max_bytes`, between characters, and says so in `truncated`.
pub(super) fn cut(mut text: String, max_bytes: usize, truncated: &mut bool) -> String {
    text.truncate(cut_to(&text, max_bytes, truncated).len());
    text
}

/// The same, borrowed.
pub(super) fn cut_to<'t>(text: &'t str, max_bytes: usize, truncated: &mut bool) -> &'t str {
    if text.len() <= max_bytes {
        return text;
    }
    *truncated = true;
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
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
    use serde_json::Value;

    /// What is written of a request's headers: at first, and when all that may be kept is.
    fn written(headers: &Headers) -> (Value, bool) {
        let mut maps = Maps::new(1);
        maps.write_request(headers, &Redaction::default());
        let first = maps.request.clone();
        for _ in 0..3 {
            maps.write_request(headers, &Redaction::default());
            assert_eq!(maps.request, first);
        }
        (serde_json::from_slice(&first.json).unwrap(), first.truncated)
    }

    #[test]
    fn names_are_canonical_and_repeats_are_joined() {
        let mut headers = Headers::default();
        headers.push(b"x-amz-meta-A", b"1");
        headers.push(b"X-AMZ-META-a", b"2\"");
        headers.push(b"host", b"h");
        headers.push(b"transfer-encoding", b"chunked");
        headers.push(b"odd name", b"3");
        headers.push(b"odd\"name", b"\\");
        headers.push(b"odd!name", b"6");
        headers.push(b"Sent-As-1t-Is", b"4");
        headers.push(b"Sent--not-so", b"5");
        headers.push(b"user-agent", b"7");
        headers.push(b"User-Agent", b"\x01");
        let mut maps = Maps::new(1);
        for _ in 0..4 {
            maps.write_request(&headers, &Redaction::default());
            let shown = std::str::from_utf8(&maps.request.json).unwrap();
            let expected = [
                r#""Odd!name":"6""#,
                r#""Sent--Not-So":"5""#,
                r#""Sent-As-1t-Is":"4""#,
                r#""User-Agent":"7,\u0001""#,
                r#""X-Amz-Meta-A":"1,2\"""#,
                r#""odd name":"3""#,
                r#""odd\"name":"\\""#,
            ];
            assert_eq!(shown, format!("{{{}}}", expected.join(",")));
            assert_eq!(maps.request.wanted(), Some(Json(br#""7,\u0001""#)));
        }
    }

    #[test]
    fn a_flood_is_cut_and_said() {
        for value in [9000, 900, 90] {
            let mut headers = Headers::default();
            for index in 0..2000 {
                headers.push(format!("x-{index}").as_bytes(), &vec![b'a'; value]);
            }
            let (map, truncated) = written(&headers);
            assert!(truncated);
            let bytes = map.as_object().unwrap().iter().map(|(name, value)| name.len() + value.as_str().unwrap().len());
            assert!((MAX_MAP_BYTES - 10_000..MAX_MAP_BYTES).contains(&bytes.sum::<usize>()));
        }
    }

    #[test]
    fn nothing_that_was_cut_is_kept() {
        let secret = "thesecrets";
        let mut headers = Headers::default();
        let fields = [
            ("Authorization", format!("AWS4-HMAC-SHA256 Credential=a/1/r/s3/aws4_request,Signature={secret}")),
            ("x-amz-security-token", secret.to_owned()),
            ("Cookie", secret.to_owned()),
            ("Referer", format!("https://host/?X-Amz-Signature={secret}")),
            ("x-amz-server-side-encryption-customer-key", secret.to_owned()),
            (&format!("a token={secret}"), "1".to_owned()),
        ];
        for (name, value) in &fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        let query =
            format!("X-Amz-Signature={secret}&x-amz-security-token={secret}&a%3Dtoken%3D{secret}=1&prefix=p&prefix=q");
        let query = Query::parse(query.as_bytes());
        let mut maps = Maps::new(1);
        for _ in 0..4 {
            maps.write_request(&headers, &Redaction::default());
            maps.write_response(&headers, &Redaction::default());
            maps.write_query(&query, &Redaction::default());
            let shown: Value = serde_json::from_slice(&maps.query.json).unwrap();
            assert_eq!((shown.as_object().unwrap().len(), &shown["prefix"]), (4, &Value::from("p,q")), "{shown}");
            assert!(!format!("{maps:?}").contains(&format!("{:?}", secret.as_bytes()).replace(['[', ']'], "")));
            assert_eq!(serde_json::from_slice::<Value>(&maps.request.json).unwrap().as_object().unwrap().len(), 6);
        }
    }
}
