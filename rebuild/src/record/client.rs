//! Whose address goes into the record: the socket's peer, or what trusted proxies say stood behind it.

use crate::exchange::{ConnectionInfo, ProxyVersion};
use crate::http::head::Headers;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A range of addresses, `10.0.0.0/8` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address range: {0:?}")]
pub struct BadCidr(pub String);

impl Cidr {
    /// The loopback ranges of both families: the default trust, for a proxy on the gateway's own host.
    pub const LOOPBACK: [Self; 2] = [
        Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// Whether the range holds the address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((own, family), (other, other_family)) = (bits(self.address), bits(address));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        family == other_family && (own & mask) == (other & mask)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim().parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |prefix| prefix.trim().parse().map_err(|_| bad()))?;
        if prefix > most { Err(bad()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Where a client's address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// The connection itself.
    Socket,
    /// The header of a proxy in front of the connection's first request (PROXY protocol, version 1).
    ProxyV1,
    /// The same in version 2.
    ProxyV2,
    /// The `X-Forwarded-For` header.
    XForwardedFor,
    /// The `Forwarded` header (RFC 7239).
    Forwarded,
}

impl AddressSource {
    /// The word for it in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::ProxyV1 => "proxy-v1",
            Self::ProxyV2 => "proxy-v2",
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// A client's address and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// The address.
    pub ip: IpAddr,
    /// Its port, when it was named.
    pub port: Option<u16>,
    /// See [`AddressSource`].
    pub source: AddressSource,
}

impl ClientAddress {
    /// Walks from the socket through what a proxy announced in front of the connection, then through `X-Forwarded-For`
    /// (without one: `Forwarded`), right to left, as long as the hop that said so is trusted. What an untrusted hop says
    /// is not believed, and a hop that cannot be read ends the walk.
    #[must_use]
    pub fn of(connection: &ConnectionInfo, headers: &Headers, trusted: &[Cidr]) -> Self {
        let is_trusted = |client: &Self| trusted.iter().any(|range| range.contains(client.ip));
        let peer = connection.client;
        let mut client = Self { ip: peer.ip().to_canonical(), port: Some(peer.port()), source: AddressSource::Socket };
        if let Some(announced) = connection.announced
            && is_trusted(&client)
        {
            let source = match announced.version {
                ProxyVersion::V1 => AddressSource::ProxyV1,
                ProxyVersion::V2 => AddressSource::ProxyV2,
            };
            client = Self { ip: announced.client.ip().to_canonical(), port: Some(announced.client.port()), source };
        }
        let (hops, source) = if headers.first("x-forwarded-for").is_some() {
            (x_forwarded_for(headers), AddressSource::XForwardedFor)
        } else {
            (forwarded(headers), AddressSource::Forwarded)
        };
        for hop in hops.into_iter().rev() {
            if !is_trusted(&client) {
                break;
            }
            let Some((ip, port)) = hop.and_then(parse_hop) else { break };
            client = Self { ip, port, source };
        }
        client
    }
}

fn x_forwarded_for(headers: &Headers) -> Vec<Option<&[u8]>> {
    let values = headers.all("x-forwarded-for").flat_map(|value| value.split(|&byte| byte == b','));
    values.map(|hop| Some(hop.trim_ascii())).collect()
}

/// The `for` parameter of every element (RFC 7239, 4). Separators inside quotes are text: proxies copy there what the
/// client sent (`host="…"`).
fn forwarded(headers: &Headers) -> Vec<Option<&[u8]>> {
    let elements = headers.all("forwarded").flat_map(|value| outside_quotes(value, b','));
    let hop = |element| {
        outside_quotes(element, b';').find_map(|pair| {
            let (name, value) = crate::s3::query::split_at_byte(pair, b'=')?;
            name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| value.trim_ascii())
        })
    };
    elements.map(hop).collect()
}

/// Splits at separators that stand outside of quoted strings (RFC 9110, 5.6.4). An unended quote runs to the end.
fn outside_quotes(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        let splits = byte == separator && !quoted;
        (quoted, escaped) = match byte {
            _ if escaped => (quoted, false),
            b'\\' if quoted => (quoted, true),
            b'"' => (!quoted, false),
            _ => (quoted, false),
        };
        splits
    })
}

/// `1.2.3.4`, `1.2.3.4:80`, `fd00::1`, `[fd00::1]`, `[fd00::1]:80`, each also in quotes.
fn parse_hop(hop: &[u8]) -> Option<(IpAddr, Option<u16>)> {
    let hop = std::str::from_utf8(hop).ok()?;
    let hop = hop.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(hop);
    if let Ok(address) = hop.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Announced;

    fn walk(peer: &str, header: &str, value: &str, trusted: &[&str]) -> (String, &'static str) {
        let mut headers = Headers::default();
        headers.push(header.as_bytes(), value.as_bytes());
        let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        let found = ClientAddress::of(&connection(peer, None), &headers, &trusted);
        (found.ip.to_string(), found.source.name())
    }

    fn connection(peer: &str, announced: Option<Announced>) -> ConnectionInfo {
        ConnectionInfo {
            cookie: 1,
            client: peer.parse().unwrap(),
            announced,
            server: "10.0.0.1:9000".parse().unwrap(),
            netns: 0,
            tgid: 0,
            cgroup_id: 0,
            comm: String::new(),
            preexisting: false,
            tls: None,
        }
    }

    #[test]
    fn what_stands_in_quotes_is_no_hop() {
        let walk = |value| walk("127.0.0.1:1", "Forwarded", value, &["127.0.0.0/8"]).0;
        assert_eq!(walk(r#"for=9.9.9.9;host="evil, for=1.1.1.1""#), "9.9.9.9");
        assert_eq!(walk(r#"for=9.9.9.9;host="e\", for=1.1.1.1""#), "9.9.9.9");
        assert_eq!(walk(r#"host="a;for=1.1.1.1";FOR="9.9.9.9:80""#), "9.9.9.9");
        assert_eq!(walk("for=9.9.9.9, for=_hidden"), "127.0.0.1");
        assert_eq!(walk("for=9.9.9.9, proto=https"), "127.0.0.1");
    }

    #[test]
    fn a_proxy_is_believed_when_it_is_trusted() {
        let announced = Announced { client: "[::ffff:1.2.3.4]:5".parse().unwrap(), version: ProxyVersion::V2 };
        let walk = |peer, forwarded: &str, trusted: &[&str]| {
            let mut headers = Headers::default();
            headers.push(b"x-forwarded-for", forwarded.as_bytes());
            let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
            let found = ClientAddress::of(&connection(peer, Some(announced)), &headers, &trusted);
            (found.ip.to_string(), found.port, found.source.name())
        };
        assert_eq!(walk("9.9.9.9:1", "6.6.6.6", &["127.0.0.0/8"]), ("9.9.9.9".into(), Some(1), "socket"));
        assert_eq!(walk("127.0.0.1:1", "6.6.6.6", &["127.0.0.0/8"]), ("1.2.3.4".into(), Some(5), "proxy-v2"));
        let both = ["127.0.0.0/8", "1.2.3.4"];
        assert_eq!(walk("127.0.0.1:1", "6.6.6.6", &both), ("6.6.6.6".into(), None, "x-forwarded-for"));
    }

    #[test]
    fn the_walk_stops_at_the_first_hop_nobody_trusts() {
        let trusted = ["127.0.0.0/8", "10.0.0.0/8"];
        let xff = "X-Forwarded-For";
        assert_eq!(
            walk("127.0.0.1:1", xff, "6.6.6.6, 1.2.3.4, 10.0.0.1", &trusted),
            ("1.2.3.4".into(), "x-forwarded-for")
        );
        assert_eq!(walk("9.9.9.9:1", xff, "1.2.3.4", &trusted), ("9.9.9.9".into(), "socket"));
        assert_eq!(walk("127.0.0.1:1", xff, "unknown", &trusted), ("127.0.0.1".into(), "socket"));
        assert_eq!(
            walk("127.0.0.1:1", xff, "1.2.3.4, rubbish, 10.0.0.1", &trusted),
            ("10.0.0.1".into(), "x-forwarded-for")
        );
        assert_eq!(
            walk("127.0.0.1:1", "Forwarded", "for=\"[fd00::1]:80\";proto=https", &trusted),
            ("fd00::1".into(), "forwarded")
        );
    }

    #[test]
    fn ranges() {
        let contains = |range: &str, address: &str| range.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/16", "fd00::9") && !contains("fd00::1", "fd00::9"));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "x".parse::<Cidr>().is_err());
    }
}
