//! Bytes of the ring become a [`Sample`], in this one place.

use s3auditd_common::sample::{Kind, Layer, Role, SampleHeader, Unseen};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zerocopy::FromBytes as _;

/// One sample of the kernel side, checked: its numbers are known kinds and its payload is as long as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The header as it came.
    pub header: SampleHeader,
    /// Parsed `header.kind`.
    pub kind: Kind,
    /// Parsed `header.unseen`; `Seen` if and only if the payload is there (or `len` is 0).
    pub unseen: Unseen,
    /// Parsed `header.role`.
    pub role: Role,
    /// Parsed `header.layer`.
    pub layer: Layer,
    /// Exactly `header.copied` bytes: all of `header.len`, or none.
    pub payload: &'a [u8],
}

/// Why a ring record is not a sample. Never happens unless the two sides are of different builds, or memory is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Shorter than a header.
    #[error("a ring record of {0} bytes is shorter than a sample header")]
    Short(usize),
    /// The payload is shorter than the header says.
    #[error("a sample announces {announced} payload bytes and carries {present}")]
    Truncated {
        /// `copied`.
        announced: u32,
        /// Bytes present.
        present: usize,
    },
    /// A number that stands for nothing.
    #[error("a sample has the unknown {field} {value}")]
    Unknown {
        /// Which header field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// `copied` is neither 0 nor `len`, or contradicts `unseen`.
    #[error("a sample accounts for {len} bytes and carries {copied}")]
    Inconsistent {
        /// `len`.
        len: u32,
        /// `copied`.
        copied: u32,
    },
}

impl<'a> Sample<'a> {
    /// Reads one ring record; bytes after the payload are the ring's padding.
    ///
    /// # Errors
    /// See [`SampleError`].
    pub fn parse(record: &'a [u8]) -> Result<Self, SampleError> {
        let (header, rest) = SampleHeader::read_from_prefix(record).map_err(|_| SampleError::Short(record.len()))?;
        Self::check(header, rest)
    }

    fn check(header: SampleHeader, rest: &'a [u8]) -> Result<Self, SampleError> {
        let unknown = |field| move |value| SampleError::Unknown { field, value };
        let kind = Kind::try_from(header.kind).map_err(unknown("kind"))?;
        let unseen = Unseen::try_from(header.unseen).map_err(unknown("unseen"))?;
        let role = Role::try_from(header.role).map_err(unknown("role"))?;
        let layer = Layer::try_from(header.layer).map_err(unknown("layer"))?;
        let expected = if unseen == Unseen::Seen { header.len } else { 0 };
        if header.copied != expected {
            return Err(SampleError::Inconsistent { len: header.len, copied: header.copied });
        }
        let payload = usize::try_from(header.copied)
            .ok()
            .and_then(|copied| rest.get(..copied))
            .ok_or(SampleError::Truncated { announced: header.copied, present: rest.len() })?;
        Ok(Self { header, kind, unseen, role, layer, payload })
    }

    /// The gateway's own address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.header.family, self.header.local_addr), self.header.local_port)
    }

    /// The peer's address and port.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.header.family, self.header.remote_addr), self.header.remote_port)
    }
}

/// A sample that owns its bytes: what is kept, replayed or recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedSample {
    /// See [`Sample::header`].
    pub header: SampleHeader,
    /// See [`Sample::payload`].
    pub payload: Vec<u8>,
}

impl OwnedSample {
    /// Checks it as if the ring had brought it.
    ///
    /// # Errors
    /// See [`SampleError`].
    pub fn sample(&self) -> Result<Sample<'_>, SampleError> {
        Sample::check(self.header, &self.payload)
    }
}

/// `AF_INET6`; any other family is taken for IPv4, as the kernel side emits no third.
const FAMILY_IPV6: u8 = 10;
const FAMILY_IPV4: u8 = 2;

fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == FAMILY_IPV6 {
        Ipv6Addr::from(bytes).to_canonical()
    } else {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

/// The other way round: an address family and its bytes. IPv6 on one side makes the other one mapped.
pub(crate) fn raw_addresses(local: IpAddr, remote: IpAddr) -> (u8, [u8; 16], [u8; 16]) {
    if let (IpAddr::V4(local), IpAddr::V4(remote)) = (local, remote) {
        let raw = |address: Ipv4Addr| {
            let ([a, b, c, d], mut bytes) = (address.octets(), [0; 16]);
            let [first, second, third, fourth, ..] = &mut bytes;
            (*first, *second, *third, *fourth) = (a, b, c, d);
            bytes
        };
        return (FAMILY_IPV4, raw(local), raw(remote));
    }
    let raw = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    (FAMILY_IPV6, raw(local), raw(remote))
}
