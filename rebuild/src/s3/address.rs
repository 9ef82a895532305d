//! Which bucket and key a request points at.

use super::query::Target;
use crate::http::head::Headers;
use percent_encoding::percent_decode;
use std::net::IpAddr;

/// How the bucket was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The first segment of the path is the bucket.
    Path,
    /// The host's prefix before a configured domain is the bucket.
    VirtualHost,
}

/// Whether upper and lower case in a host name differ. They do not (RFC 9110, 4.2.3), except for MinIO's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCase {
    /// As the RFC has it.
    Ignored,
    /// As MinIO's router has it (gorilla/mux host templates).
    Exact,
}

/// Where a request points. Bucket and key are percent-decoded once; `+` in a path is a plus; neither `//` nor `%2F`
/// splits. Bytes that are not UTF-8 become U+FFFD in the strings here, so a record also carries the raw path, from
/// which the exact bytes can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// See [`Style`].
    pub style: Style,
    /// Empty: the request points at the service.
    pub bucket: String,
    /// Empty: the request points at the bucket or the service.
    pub key: String,
    /// The host the request named, without its port, as sent.
    pub host: Option<String>,
    /// The host is a name that matches none of the configured domains (never set when none are configured): path
    /// style is then a guess.
    pub unknown_host: bool,
}

impl Address {
    /// Reads the address. `domains` are the names under which the gateway serves virtual-host style, without port;
    /// the longest that fits wins. An absolute-form target beats `Host` (RFC 9112, 3.2.2).
    #[must_use]
    pub fn of(target: &Target<'_>, headers: &Headers, domains: &[String], case: HostCase) -> Self {
        let authority = target.authority.or_else(|| headers.first("host")).or_else(|| headers.first(":authority"));
        let host = authority.map(|name| crate::redact::lossy(without_port(name)).into_owned());
        let mut unknown_host = false;
        if let Some(name) = host.as_deref().filter(|name| !domains.is_empty() && !is_ip_literal(name)) {
            match match_domains(name, domains, case) {
                DomainMatch::Bucket(bucket) => {
                    let key = decode(target.path.strip_prefix(b"/").unwrap_or_default());
                    return Self { style: Style::VirtualHost, bucket, key, host, unknown_host };
                }
                DomainMatch::Itself => {}
                DomainMatch::None => unknown_host = true,
            }
        }
        // `*` and the authority form point at no bucket.
        let path = target.path.strip_prefix(b"/").unwrap_or_default();
        let (bucket, key) = super::query::split_at_byte(path, b'/').unwrap_or((path, b""));
        // "//" is the service root of a careless client; "//key" has no bucket, so it has no key either.
        let (bucket, key) = if bucket.is_empty() { (&b""[..], &b""[..]) } else { (bucket, key) };
        Self { style: Style::Path, bucket: decode(bucket), key: decode(key), host, unknown_host }
    }
}

enum DomainMatch {
    Bucket(String),
    Itself,
    None,
}

fn match_domains(host: &str, domains: &[String], case: HostCase) -> DomainMatch {
    let fold = |name: &str| match case {
        HostCase::Ignored => name.to_ascii_lowercase(),
        HostCase::Exact => name.to_owned(),
    };
    let host = fold(host);
    if domains.iter().any(|domain| fold(domain) == host) {
        return DomainMatch::Itself;
    }
    let fitting = domains.iter().filter_map(|domain| {
        let bucket = host.strip_suffix(&fold(domain))?.strip_suffix('.')?;
        (!bucket.is_empty()).then(|| (domain.len(), bucket.to_owned()))
    });
    fitting.max_by_key(|(length, _)| *length).map_or(DomainMatch::None, |(_, bucket)| DomainMatch::Bucket(bucket))
}

/// Cuts the port off; an IPv6 literal keeps its brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let after_bracket = memchr::memrchr(b']', authority).map_or(0, |at| at + 1);
    let colon = memchr::memrchr(b':', authority);
    match colon {
        Some(at) if at >= after_bracket => authority.get(..at).unwrap_or(authority),
        _ => authority,
    }
}

fn is_ip_literal(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

fn decode(encoded: &[u8]) -> String {
    if memchr::memchr(b'%', encoded).is_none() {
        return crate::redact::lossy(encoded).into_owned();
    }
    percent_decode(encoded).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(target: &str, host: &str, domains: &[&str]) -> Address {
        let mut headers = Headers::default();
        headers.push(b"Host", host.as_bytes());
        let domains: Vec<String> = domains.iter().map(|&domain| domain.to_owned()).collect();
        Address::of(&Target::parse(target.as_bytes()), &headers, &domains, HostCase::Ignored)
    }

    #[test]
    fn the_longest_domain_wins() {
        let found = address("/k", "a.b.s3.example:9000", &["s3.example", "b.s3.example"]);
        assert_eq!((found.style, found.bucket.as_str(), found.key.as_str()), (Style::VirtualHost, "a", "k"));
        assert_eq!(found.host.as_deref(), Some("a.b.s3.example"));
    }

    #[test]
    fn a_domain_itself_is_path_style_even_below_a_shorter_domain() {
        let found = address("/b/k", "west.s3.example", &["s3.example", "west.s3.example"]);
        assert_eq!((found.style, found.bucket.as_str()), (Style::Path, "b"));
    }

    #[test]
    fn a_name_outside_the_domains_is_said_to_be_unknown() {
        assert!(address("/b/k", "evil.example", &["s3.example"]).unknown_host);
        assert!(!address("/b/k", "evil.example", &[]).unknown_host);
        assert!(!address("/b/k", "[::1]:9000", &["s3.example"]).unknown_host);
        assert!(!address("/b/k", "nots3.example", &[]).unknown_host);
    }

    #[test]
    fn what_is_no_path_points_nowhere() {
        assert_eq!(address("*", "h", &[]).bucket, "");
        assert_eq!(address("gw:443", "h", &[]).bucket, "");
        assert_eq!(address("*", "b.s3.example", &["s3.example"]).key, "");
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(address("/b/%ff%00a", "h", &[]).key, "\u{fffd}\0a");
    }
}
