//! What a proxy may put in front of the first request: the PROXY protocol's header, version 1 (text) or 2 (binary).
//! Source: HAProxy, `doc/proxy-protocol.txt`, 2.1 and 2.2.

use crate::exchange::{Announced, ProxyVersion};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TEXT: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end.
const MAX_TEXT_BYTES: usize = 107;
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2: the signature, version and command, family, length.
const BINARY_HEAD_BYTES: usize = 16;
/// The longest block of addresses that is read (two IPv6 addresses and ports); what follows are extensions.
const MAX_ADDRESS_BYTES: usize = 36;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header may still come of it; all bytes are in.
    Open,
    /// It is whole. None: it names no client (health checks of the proxy itself do not).
    Header(Option<Announced>),
    /// It is none: what is buffered, and the bytes not used, are something else.
    Nothing,
}

/// See the module. It holds no more than a line of version 1.
#[derive(Debug)]
pub(crate) struct Preface {
    bytes: Vec<u8>,
    /// Bytes of version 2 that were passed over.
    passed: usize,
    /// Where the first byte stands, when it moved, and the other direction's position then.
    pub(crate) first_at: u64,
    pub(crate) first_ns: u64,
    pub(crate) first_other: u64,
}

impl Preface {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new(), passed: 0, first_at: 0, first_ns: 0, first_other: 0 }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets all but the first bytes.
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
    }

    /// Takes bytes until something is found; says how many were used.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (usize, Found) {
        for (used, byte) in bytes.iter().enumerate() {
            if self.bytes.len() < BINARY_HEAD_BYTES + MAX_ADDRESS_BYTES || !self.bytes.starts_with(BINARY) {
                self.bytes.push(*byte);
            } else {
                self.passed += 1;
            }
            match self.look() {
                Found::Open => {}
                Found::Nothing => {
                    // Only what came before was held back; the rest is the next reader's.
                    self.bytes.pop();
                    return (used, Found::Nothing);
                }
                found @ Found::Header(_) => return (used + 1, found),
            }
        }
        (bytes.len(), Found::Open)
    }

    fn look(&self) -> Found {
        let bytes = self.bytes.as_slice();
        let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
        if begins(TEXT) {
            match bytes.strip_suffix(b"\n") {
                Some(line) => text(line).map_or(Found::Nothing, Found::Header),
                None if bytes.len() < MAX_TEXT_BYTES => Found::Open,
                None => Found::Nothing,
            }
        } else if begins(BINARY) {
            binary(bytes, self.passed)
        } else {
            Found::Nothing
        }
    }
}

/// A line of version 1. The outer None: it is no such line.
fn text(line: &[u8]) -> Option<Option<Announced>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_suffix('\r').unwrap_or(line).split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, _destination): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (port, _): (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let fits = match family {
        "TCP4" => source.is_ipv4(),
        "TCP6" => source.is_ipv6(),
        _ => false,
    };
    let client = SocketAddr::new(source.to_canonical(), port);
    (fits && words.next().is_none()).then_some(Some(Announced { client, version: ProxyVersion::V1 }))
}

fn binary(bytes: &[u8], passed: usize) -> Found {
    let Some((head, addresses)) = bytes.split_at_checked(BINARY_HEAD_BYTES) else {
        // The version is looked at as soon as it is there.
        return match bytes.get(BINARY.len()) {
            Some(0x20 | 0x21) | None => Found::Open,
            Some(_) => Found::Nothing,
        };
    };
    let [.., command, family, high, low] = head else { return Found::Nothing };
    if addresses.len() + passed < usize::from(u16::from_be_bytes([*high, *low])) {
        return Found::Open;
    }
    // Stream sockets only: that is what HTTP comes over. Any other family names no client that we could write down.
    let client = match (command, family, addresses) {
        (0x21, 0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some((IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)), u16::from_be_bytes([*high, *low])))
        }
        (0x21, 0x21, _) => addresses.first_chunk::<16>().zip(addresses.get(32..34)).and_then(|(source, port)| {
            let [high, low] = port else { return None };
            Some((Ipv6Addr::from(*source).to_canonical(), u16::from_be_bytes([*high, *low])))
        }),
        _ => None,
    };
    Found::Header(client.map(|(ip, port)| Announced { client: SocketAddr::new(ip, port), version: ProxyVersion::V2 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found, and how many bytes were used, with all bytes at once and with one at a time.
    fn read(bytes: &[u8]) -> (usize, Found) {
        let at_once = Preface::new().push(bytes);
        let mut preface = Preface::new();
        let mut found = Found::Open;
        for byte in bytes {
            found = preface.push(&[*byte]).1;
            if found != Found::Open {
                break;
            }
        }
        assert_eq!(found, at_once.1);
        assert!(preface.bytes.len() < MAX_TEXT_BYTES);
        at_once
    }

    fn announced(client: &str, version: ProxyVersion) -> Found {
        Found::Header(Some(Announced { client: client.parse().unwrap(), version }))
    }

    fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, block].concat()
    }

    #[test]
    fn lines() {
        let line = b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(line), (43, announced("203.0.113.7:56324", ProxyVersion::V1)));
        assert_eq!(read(b"PROXY TCP6 fd00::1 fd00::2 1 2\r\n").1, announced("[fd00::1]:1", ProxyVersion::V1));
        assert_eq!(read(b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n").1, Found::Header(None));
        for none in
            ["PROXY TCP4 fd00::1 fd00::2 1 2\r\n", "PROXY /k HTTP/1.1\r\n", "PUT / HTTP/1.1", "PROXY TCP4 1.2.3.4\n"]
        {
            assert_eq!(read(none.as_bytes()).1, Found::Nothing, "{none}");
        }
        assert_eq!(read(&[b"PROXY ", [b'x'; 200].as_slice()].concat()), (106, Found::Nothing));
    }

    #[test]
    fn blocks() {
        let v4 = version_2(0x21, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 4, 1, 187]);
        assert_eq!(read(&v4), (28, announced("203.0.113.7:56324", ProxyVersion::V2)));
        let mut block = [0; 60];
        block[0] = 0xfd;
        block[15] = 1;
        block[33] = 9;
        let mut v6 = version_2(0x21, 0x21, &block);
        v6.extend_from_slice(b"GET");
        assert_eq!(read(&v6), (76, announced("[fd00::1]:9", ProxyVersion::V2)));
        assert_eq!(read(&version_2(0x20, 0, &[])), (16, Found::Header(None)));
        assert_eq!(read(&version_2(0x21, 0x31, &[0; 216])).1, Found::Header(None));
        assert_eq!(read(&version_2(0x21, 0x11, &[1, 2])).1, Found::Header(None));
        assert_eq!(read(&version_2(0x11, 0x11, &[])).1, Found::Nothing);
        assert_eq!(read(b"\r\n\r\nGET / HTTP/1.1\r\n"), (4, Found::Nothing));
    }

    #[test]
    fn a_long_block_costs_no_memory() {
        let mut preface = Preface::new();
        let block = version_2(0x21, 0x11, &[7; 65_535]);
        assert!(matches!(preface.push(&block), (65_551, Found::Header(Some(_)))));
        assert!(preface.capacity() <= 128);
    }
}
