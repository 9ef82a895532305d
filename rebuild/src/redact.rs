//! What must not be written down: signatures, tokens, keys, cookies, passwords. By name, wherever a name can stand: in
//! headers, in queries, and in any text that has a URI in it.
//!
//! The rule is to cut too much rather than too little. A value that was cut reads [`REDACTED`], so that a reader sees
//! that there was one. What stays on purpose: credentials' access keys and scopes, lists of signed headers, dates,
//! expiries, content hashes, MD5 sums of customer keys, KMS key ids.

mod authorization;
mod names;
mod symbols;

use authorization::authorization;
use names::{ENDINGS, NAMES, may_be_listed, may_end};
use std::borrow::Cow;
use symbols::{Symbol, has_scheme, value_length, without_user_information};

/// What stands in place of a value.
pub const REDACTED: &str = "*REDACTED*";

/// What is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// What is cut besides the built-in names: names of headers and of query parameters, any case.
    pub extra_names: Vec<String>,
    /// Some: headers and query parameters keep their values only if their names are in it (any case) and nothing else
    /// speaks against it. Texts that may hold URIs are looked at as ever.
    pub only_names: Option<Vec<String>>,
}

impl Redaction {
    /// Whether values of that name are cut. Names are compared without white space and case.
    #[must_use]
    pub fn covers(&self, name: &[u8]) -> bool {
        let name = name.trim_ascii();
        if name.is_empty() {
            return false;
        }
        let equals = |listed: &str| name.eq_ignore_ascii_case(listed.as_bytes());
        let ends = |ending: &&str| {
            name.len()
                .checked_sub(ending.len())
                .and_then(|at| name.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
        };
        (may_be_listed(name) && NAMES.iter().any(|listed| equals(listed)))
            || (may_end(name) && ENDINGS.iter().any(ends))
            || self.extra_names.iter().any(|extra| equals(extra.trim()))
    }

    /// A header's value as it may be written down.
    #[must_use]
    pub fn header<'v>(&self, name: &[u8], value: &'v [u8]) -> Cow<'v, str> {
        if !self.is_let_through(name) {
            return Cow::Borrowed(cut_all(value));
        }
        if name.trim_ascii().eq_ignore_ascii_case(b"authorization") && !self.extra_names_cover(name) {
            return Cow::Owned(authorization(value));
        }
        if self.covers(name) {
            return Cow::Borrowed(cut_all(value));
        }
        // These two are paths of objects, whose keys may look like parameters: only a query behind them is one.
        let path_like = [&b"x-amz-copy-source"[..], b"x-amz-rename-source"];
        if path_like.iter().any(|path_like| name.eq_ignore_ascii_case(path_like)) {
            return self.scan(value, false);
        }
        self.scan(value, true)
    }

    /// A decoded query parameter's value as it may be written down.
    #[must_use]
    pub fn parameter(&self, name: &[u8], value: &[u8]) -> String {
        if !self.is_let_through(name) {
            return cut_all(value).to_owned();
        }
        // Decoding may have brought forth a name in the name: `a%26Signature=…`, `Signature%3Dx=…`.
        let last = name.rsplit(|byte| b"?&;#,/ ".contains(byte)).next().unwrap_or(name);
        let holds_secret = name.contains(&b'=') && self.text(name).contains(REDACTED);
        if self.covers(name) || self.covers(last) || holds_secret {
            cut_all(value).to_owned()
        } else {
            self.text(value)
        }
    }

    /// A text that may hold URIs or parameters: every `name=value` with a covered name loses its value, at every level
    /// of percent-encoding, and every `scheme://user:password@` its user information.
    #[must_use]
    pub fn text(&self, text: &[u8]) -> String {
        self.scan(text, true).into_owned()
    }

    /// The same, borrowed where nothing is cut.
    pub(crate) fn clean_text<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        self.scan(text, true)
    }

    /// A path or an object key: as [`Self::text`], but only behind a `?` or `#`, because keys such as `token=a/part.csv` are
    /// common names of partitions.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> String {
        self.scan(path, false).into_owned()
    }

    /// The same, borrowed where nothing is cut.
    pub(crate) fn clean_path<'t>(&self, path: &'t [u8]) -> Cow<'t, str> {
        self.scan(path, false)
    }

    /// Whether an allow-list lets a header or a parameter of that name through.
    #[must_use]
    pub fn is_let_through(&self, name: &[u8]) -> bool {
        let name = name.trim_ascii();
        let equals = |kept: &String| name.eq_ignore_ascii_case(kept.trim().as_bytes());
        self.only_names.as_ref().is_none_or(|names| names.iter().any(equals))
    }

    fn extra_names_cover(&self, name: &[u8]) -> bool {
        self.extra_names.iter().any(|extra| name.eq_ignore_ascii_case(extra.trim().as_bytes()))
    }

    fn scan<'t>(&self, text: &'t [u8], mut in_query: bool) -> Cow<'t, str> {
        if self.stays(text, in_query) {
            return lossy(text);
        }
        let text = without_user_information(text);
        let mut kept = Vec::with_capacity(text.len());
        let mut name = Vec::new();
        let mut rest: &[u8] = &text;
        while let Some((symbol, tail)) = Symbol::next(rest) {
            let raw = rest.get(..rest.len() - tail.len()).unwrap_or_default();
            rest = tail;
            kept.extend_from_slice(raw);
            match symbol.byte {
                b'=' | b':' if in_query && self.covers(&name) => {
                    // After a colon (`token: …`) nothing tells where the value ends.
                    let value = if symbol.byte == b':' { rest.len() } else { value_length(rest, symbol.level) };
                    if value > 0 {
                        kept.extend_from_slice(REDACTED.as_bytes());
                    }
                    rest = rest.get(value..).unwrap_or_default();
                    name.clear();
                }
                byte => match ROLES.get(usize::from(byte)) {
                    Some(Role::Opens) => {
                        in_query = true;
                        name.clear();
                    }
                    Some(Role::Sets | Role::Parts) => name.clear(),
                    Some(Role::Named) | None => name.push(byte),
                },
            }
        }
        Cow::Owned(lossy(&kept).into_owned())
    }

    /// Whether nothing of a text is cut, as far as can be seen at little cost. Most texts end here: without `=`, `:` and `%`
    /// there is no name with a value, at no level of encoding; without `%` every name stands there as it is.
    fn stays(&self, text: &[u8], mut in_query: bool) -> bool {
        if memchr::memchr3(b'=', b':', b'%', text).is_none() {
            return true;
        }
        if memchr::memchr(b'%', text).is_some() || has_scheme(text) {
            return false;
        }
        let mut name_from = 0;
        for (at, &byte) in text.iter().enumerate() {
            match ROLES.get(usize::from(byte)) {
                Some(Role::Sets) if in_query && self.covers(text.get(name_from..at).unwrap_or_default()) => {
                    return false;
                }
                Some(Role::Sets | Role::Parts) => name_from = at + 1,
                Some(Role::Opens) => (in_query, name_from) = (true, at + 1),
                Some(Role::Named) | None => {}
            }
        }
        true
    }
}

/// What a byte of a text is to the names in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Part of a name, or of a value.
    Named,
    /// Between a name and its value; a name may also begin behind it.
    Sets,
    /// Behind it there are parameters.
    Opens,
    /// A name begins behind it.
    Parts,
}

/// Of every byte.
static ROLES: [Role; 256] = roles();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler, for all 256 bytes"
)]
const fn roles() -> [Role; 256] {
    let mut roles = [Role::Named; 256];
    let mut at = 0;
    while at < roles.len() {
        roles[at] = match at as u8 {
            b'=' | b':' => Role::Sets,
            b'?' | b'#' => Role::Opens,
            b'&' | b';' | b',' | b'/' | b'"' | b'\'' | b'{' | b'(' | b'<' | b'>' => Role::Parts,
            byte if byte.is_ascii_whitespace() => Role::Parts,
            _ => Role::Named,
        };
        at += 1;
    }
    roles
}

/// As `String::from_utf8_lossy`, and faster on text, which nearly everything is.
pub(crate) fn lossy(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(text),
    }
}

const fn cut_all(value: &[u8]) -> &'static str {
    if value.is_empty() { "" } else { REDACTED }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        Redaction::default().text(text.as_bytes())
    }

    #[test]
    fn every_listed_name_is_found_in_any_case() {
        for name in NAMES {
            assert!(Redaction::default().covers(name.as_bytes()), "{name}");
            assert!(Redaction::default().covers(name.to_ascii_uppercase().as_bytes()), "{name}");
            assert_eq!(text(&format!("?a=1&{name}=x")), format!("?a=1&{name}=*REDACTED*"));
        }
    }

    #[test]
    fn a_text_stays_only_if_the_whole_look_would_cut_nothing() {
        let alphabet = ["token", "a", "=", ":", "?", "#", "&", "/", " ", "'", "{", "code", "\u{e4}", ";"];
        // Every text of up to four of these.
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = texts.iter().flat_map(|text| alphabet.map(|word| format!("{text}{word}")));
            texts = longer.chain(texts.clone()).collect();
            texts.sort_unstable();
            texts.dedup();
        }
        let redaction = Redaction::default();
        for (text, in_query) in texts.iter().flat_map(|text| [(text, true), (text, false)]) {
            // An encoded letter, which means the same, keeps the short look away.
            let encoded = format!("{text}&%61");
            let whole = redaction.scan(encoded.as_bytes(), in_query);
            if redaction.stays(text.as_bytes(), in_query) {
                assert_eq!(whole, encoded, "{in_query}");
            }
        }
    }

    #[test]
    fn authorization_keeps_what_names_the_caller() {
        let header = |value: &str| Redaction::default().header(b"authorization", value.as_bytes()).into_owned();
        assert_eq!(
            header("AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request,SignedHeaders=host,Signature=abc"),
            "AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request,SignedHeaders=host,Signature=*REDACTED*"
        );
        assert_eq!(
            header("AWS4-HMAC-SHA256  Credential=AK/1/r/s3/aws4_request, SignedHeaders=host, Signature=abc"),
            "AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request, SignedHeaders=host, Signature=*REDACTED*"
        );
        assert_eq!(header("AWS AK:c2ln"), "AWS AK:*REDACTED*");
        assert_eq!(header("AWS c2ln"), "AWS *REDACTED*");
        assert_eq!(header("bearer abc"), "Bearer *REDACTED*");
        assert_eq!(header("c2VjcmV0"), "*REDACTED*");
        assert_eq!(header("AWS4-HMAC-SHA256 c2VjcmV0"), "AWS4-HMAC-SHA256 *REDACTED*");
    }

    #[test]
    fn every_ending_is_found_in_any_case() {
        for ending in ENDINGS {
            assert!(Redaction::default().covers(format!("x{ending}").as_bytes()), "{ending}");
            assert!(Redaction::default().covers(format!("X{ending}").to_ascii_uppercase().as_bytes()), "{ending}");
        }
    }

    #[test]
    fn parameters_in_uris_lose_their_values() {
        assert_eq!(
            text("https://h/b/k?x=1&X-Amz-Signature=abc&y=2#access_token=t"),
            "https://h/b/k?x=1&X-Amz-Signature=*REDACTED*&y=2#access_token=*REDACTED*"
        );
        assert_eq!(text("https://user:pw@h/"), "https://*REDACTED*@h/");
    }

    #[test]
    fn encoding_hides_nothing() {
        assert_eq!(
            text("https://h/?next=https%3A%2F%2Fg%2Fk%3Fx-amz-signature%3Dabc%2526d%26y%3D2"),
            "https://h/?next=https%3A%2F%2Fg%2Fk%3Fx-amz-signature%3D*REDACTED*%26y%3D2"
        );
        assert_eq!(text("a?X%2DAmz%2dSignature=abc"), "a?X%2DAmz%2dSignature=*REDACTED*");
        assert_eq!(text("a?q=%253FLDAPPassword%253Dabc"), "a?q=%253FLDAPPassword%253D*REDACTED*");
    }

    #[test]
    fn a_value_ends_only_where_a_parameter_ends() {
        assert_eq!(text("?LDAPPassword=a,b;c%26d#e&x=1"), "?LDAPPassword=*REDACTED*&x=1");
    }

    #[test]
    fn keys_that_look_like_parameters_stay() {
        let path = |path: &str| Redaction::default().path(path.as_bytes());
        assert_eq!(path("/b/token=a/code=b/part.csv"), "/b/token=a/code=b/part.csv");
        assert_eq!(path("/b/k%3FX-Amz-Signature=abc"), "/b/k%3FX-Amz-Signature=*REDACTED*");
    }

    #[test]
    fn customer_keys_under_every_prefix() {
        let covers = |name: &str| Redaction::default().covers(name.as_bytes());
        assert!(covers("X-Amz-Server-Side-Encryption-Customer-Key"));
        assert!(covers("x-amz-copy-source-server-side-encryption-customer-key"));
        assert!(covers("x-amz-fwd-header-x-amz-server-side-encryption-customer-key"));
        assert!(!covers("x-amz-server-side-encryption-customer-key-MD5"));
        assert!(!covers("X-Amz-Content-Sha256"));
        assert!(!covers("X-Amz-Credential"));
    }

    #[test]
    fn an_allow_list_cuts_all_others_and_reveals_nothing() {
        let only_names = Some(vec!["Range".to_owned(), "x-amz-signature".to_owned(), "authorization".to_owned()]);
        let redaction = Redaction { extra_names: Vec::new(), only_names };
        assert_eq!(redaction.header(b"range", b"bytes=0-9"), "bytes=0-9");
        assert_eq!(redaction.header(b"X-Amz-Meta-A", b"1"), REDACTED);
        assert_eq!(redaction.parameter(b"prefix", b"a/"), REDACTED);
        assert_eq!(redaction.parameter(b"acl", b""), "");
        assert_eq!(redaction.parameter(b"X-Amz-Signature", b"00"), REDACTED);
        assert_eq!(redaction.header(b"Authorization", b"AWS AK:c2ln"), "AWS AK:*REDACTED*");
    }

    #[test]
    fn extra_names_are_cut_everywhere() {
        let redaction = Redaction { extra_names: vec!["X-Patient".to_owned()], only_names: None };
        assert_eq!(redaction.header(b"x-patient", b"meier"), REDACTED);
        assert_eq!(redaction.text(b"?X-PATIENT=meier"), "?X-PATIENT=*REDACTED*");
    }
}
