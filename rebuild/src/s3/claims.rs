//! What a session token says of its bearer. MinIO's tokens (and bearer tokens) are JWTs (RFC 7519), whose claims anybody
//! can read; whether they are true only the gateway knows, which has the secret. Tokens of other makers are opaque and
//! say nothing.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use std::collections::BTreeMap;

/// A longer token is not read. Go's own limit for a whole head is a megabyte, but tokens travel with every request.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// A longer text is cut.
const MAX_TEXT_BYTES: usize = 256;
/// More elements of a list are left out.
const MAX_LIST: usize = 16;

/// The claims that may be written down: they name somebody, or say until when. Everything else stays out, above all
/// `sessionPolicy`, and what only an identity provider knows the meaning of.
const KEPT: [&str; 22] = [
    "accessKey",
    "aud",
    "azp",
    "client_id",
    "email",
    "exp",
    "groups",
    "iat",
    "iss",
    "ldapActualUser",
    "ldapUser",
    "ldapUsername",
    "name",
    "nbf",
    "parent",
    "policy",
    "preferred_username",
    "roleArn",
    "sa-policy",
    "sub",
    "unique_name",
    "upn",
];

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Claim {
    /// A text.
    Text(String),
    /// A whole number; a time is in seconds since 1970.
    Number(i64),
    /// A list of texts.
    List(Vec<String>),
}

/// The claims of one token that may be written down, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    listed: BTreeMap<&'static str, Claim>,
}

impl Claims {
    /// Reads the payload of a token; None when it is no JWT. Signature and header are not looked at.
    #[must_use]
    pub fn of_token(token: &[u8]) -> Option<Self> {
        let token = token.trim_ascii();
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut parts = token.split(|&byte| byte == b'.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let mut payload: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&payload).ok()?;
        let listed = KEPT.into_iter().filter_map(|name| Some((name, claim(payload.remove(name)?)?)));
        Some(Self { listed: listed.collect() })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Claim)> {
        self.listed.iter().map(|(name, claim)| (*name, claim))
    }

    /// One that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.listed.get(name)? {
            Claim::Text(text) => Some(text),
            Claim::Number(_) | Claim::List(_) => None,
        }
    }

    /// One that is a number, or a text of digits (some makers write times so).
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.listed.get(name)? {
            Claim::Number(number) => Some(*number),
            Claim::Text(text) => text.parse().ok(),
            Claim::List(_) => None,
        }
    }
}

fn claim(value: serde_json::Value) -> Option<Claim> {
    match value {
        serde_json::Value::String(text) if !text.is_empty() => Some(Claim::Text(cut(text))),
        // Go writes times as floating point numbers here and there.
        serde_json::Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)).map(Claim::Number),
        serde_json::Value::Array(values) => {
            let texts = values.into_iter().filter_map(|value| match value {
                serde_json::Value::String(text) => Some(cut(text)),
                _ => None,
            });
            let texts: Vec<String> = texts.take(MAX_LIST).collect();
            (!texts.is_empty()).then_some(Claim::List(texts))
        }
        _ => None,
    }
}

fn whole(number: f64) -> Option<i64> {
    // Beyond this not every whole number has a floating point number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within the range, as the condition says")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> Vec<u8> {
        format!("eyJhbGciOiJIUzUxMiJ9.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload)).into_bytes()
    }

    #[test]
    fn names_and_times_are_read_and_nothing_else() {
        let claims = Claims::of_token(&token(
            r#"{"accessKey":"TEMP","parent":"alice","exp":1.742540e9,"sessionPolicy":"c2VjcmV0","groups":["a",1,"b"],"x":{}}"#,
        ))
        .unwrap();
        let names: Vec<_> = claims.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["accessKey", "exp", "groups", "parent"]);
        assert_eq!((claims.text("parent"), claims.number("exp")), (Some("alice"), Some(1_742_540_000)));
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for token in [&b"FwoGZXIvYXdzEBYaDH"[..], b"a.b", b"..", b"a.!!.c", b"a.e30.c.d"] {
            assert_eq!(Claims::of_token(token), None, "{}", token.escape_ascii());
        }
        assert_eq!(Claims::of_token(&token(&"[".repeat(20_000))), None);
        assert_eq!(Claims::of_token(&token(&format!("{{\"sub\":\"{}\"}}", "a".repeat(40_000)))), None);
    }

    #[test]
    fn long_texts_and_lists_are_cut() {
        let payload = format!(r#"{{"sub":"{}","groups":[{}"z"]}}"#, "é".repeat(500), "\"g\",".repeat(100));
        let claims = Claims::of_token(&token(&payload)).unwrap();
        assert_eq!(claims.text("sub").map(str::len), Some(256));
        assert!(matches!(claims.listed.get("groups"), Some(Claim::List(list)) if list.len() == MAX_LIST));
    }
}
