//! Conversations as JSON lines: one line for each thing that happened on a connection's socket.
//!
//! ```text
//! {"connection":"1","time_us":0,"event":"opened","client":"10.0.0.2:40000","server":"10.0.0.1:9000"}
//! {"connection":"1","time_us":10,"from":"client","bytes":"GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n"}
//! {"connection":"1","time_us":20,"from":"gateway","bytes":["HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n",[0,70000]]}
//! {"connection":"1","time_us":30,"event":"client closed"}
//! {"connection":"1","time_us":30,"event":"closed"}
//! ```
//!
//! [`Reader`] makes samples of them, as the kernel side would.

use crate::sample::{OwnedSample, raw_addresses};
use s3auditd_common::sample::{Kind, MAX_PIECE_BYTES, Role, SampleHeader, Unseen};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use zerocopy::FromZeros as _;

/// The most bytes of one line's `bytes`, `unseen` or `lost`: more than a system call moves, and less than a typing
/// error costs memory.
pub const MAX_LINE_MOVES: u64 = 64 * 1024 * 1024;

/// Both streams begin below the wrap of their numbers, so that a longer conversation crosses it.
const RECEIVED_FROM: u32 = u32::MAX - 999;
const SENT_FROM: u32 = u32::MAX - 99;

const DEFAULT_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 40_000);
const DEFAULT_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 9000);

/// A line of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which connection, by any name. Its first line, if that is not `opened`, makes it one that was open before.
    pub connection: String,
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// Something happened to the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// The client's end; with `opened` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// The gateway's end; with `opened` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// Something was moved, by one system call: who sent it. Exactly one of the next three says what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
    /// What was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// So many bytes were moved and not seen, as the kernel side reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u64>,
    /// So many bytes were moved, and no sample tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Anything, for people and tests; not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<serde_json::Value>,
}

/// See [`Line::event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Event {
    /// The gateway accepted the connection.
    #[serde(rename = "opened")]
    Opened,
    /// The client closed its side.
    #[serde(rename = "client closed")]
    ClientClosed,
    /// The gateway closed its side.
    #[serde(rename = "gateway closed")]
    GatewayClosed,
    /// The socket is gone.
    #[serde(rename = "closed")]
    Closed,
}

/// See [`Line::from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The gateway received it.
    Client,
    /// The gateway sent it.
    Gateway,
}

/// Bytes as text, each character (U+0000 to U+00FF) one byte, or a list of texts and runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Bytes {
    /// One text.
    Text(String),
    /// Texts and runs, one after the other.
    Parts(Vec<Part>),
}

/// See [`Bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Part {
    /// Bytes as they are.
    Text(String),
    /// A byte, and how many of it.
    Run(u8, u64),
}

/// Why a line is none.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not JSON, or not these fields.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The fields are there, and do not go together.
    #[error("{0}")]
    Shape(&'static str),
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// See [`LineError`].
    pub fn parse(text: &[u8]) -> Result<Self, LineError> {
        let line: Self = serde_json::from_slice(text)?;
        let moved = [line.bytes.is_some(), line.unseen.is_some(), line.lost.is_some()];
        let moved = moved.into_iter().filter(|given| *given).count();
        let wrong = match (line.event, line.from) {
            (Some(_), Some(_)) => Some("a line has an event or a direction, not both"),
            (None, None) if line.about.is_none() => Some("a line has an event, a direction, or an `about`"),
            (None, Some(_)) if moved != 1 => Some("a line with `from` has one of bytes, unseen and lost"),
            (_, None) if moved != 0 => Some("bytes, unseen and lost need a `from`"),
            (Some(Event::Opened), _) => None,
            _ if line.client.is_some() || line.server.is_some() => Some("client and server go with `opened` only"),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(LineError::Shape(wrong)),
            None => Ok(line),
        }
    }
}

impl Bytes {
    /// The shorter way to write `bytes` down: long runs of one byte as such.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        const WORTH_A_RUN: usize = 64;
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        for run in bytes.chunk_by(|a, b| a == b) {
            match run.first() {
                Some(byte) if run.len() >= WORTH_A_RUN => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(text(&std::mem::take(&mut plain))));
                    }
                    parts.push(Part::Run(*byte, run.len() as u64));
                }
                _ => plain.extend_from_slice(run),
            }
        }
        if parts.is_empty() {
            return Self::Text(text(&plain));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(text(&plain)));
        }
        Self::Parts(parts)
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// A character stands for no byte, or there are more than [`MAX_LINE_MOVES`].
    pub fn expand(&self) -> Result<Vec<u8>, LineError> {
        let mut bytes = Vec::new();
        match self {
            Self::Text(text) => push_text(&mut bytes, text)?,
            Self::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => push_text(&mut bytes, text)?,
                        Part::Run(byte, count) => {
                            let count = limited((bytes.len() as u64).saturating_add(*count))?;
                            bytes.resize(usize::try_from(count).unwrap_or(0), *byte);
                        }
                    }
                }
            }
        }
        limited(bytes.len() as u64)?;
        Ok(bytes)
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), LineError> {
    for character in text.chars() {
        let byte =
            u8::try_from(character).map_err(|_| LineError::Shape("a character above U+00FF stands for no byte"))?;
        bytes.push(byte);
    }
    Ok(())
}

fn limited(count: u64) -> Result<u64, LineError> {
    if count > MAX_LINE_MOVES { Err(LineError::Shape("more than 64 MiB in one line")) } else { Ok(count) }
}

/// What is known of a connection.
#[derive(Debug)]
struct Known {
    cookie: u64,
    role: Role,
    client: SocketAddr,
    server: SocketAddr,
    received: u32,
    sent: u32,
}

/// Makes samples of lines. Connections are numbered in the order in which they appear, from 1.
#[derive(Debug, Default)]
pub struct Reader {
    connections: HashMap<String, Known>,
    next_cookie: u64,
}

impl Reader {
    /// Whether every connection that appeared is closed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// The samples of a line: none for what is lost, several where there is more than one sample can hold.
    ///
    /// # Errors
    /// See [`Bytes::expand`].
    pub fn take(&mut self, line: &Line) -> Result<Vec<OwnedSample>, LineError> {
        let opens = line.event == Some(Event::Opened);
        if line.event.is_none() && line.from.is_none() {
            return Ok(Vec::new());
        }
        if opens || !self.connections.contains_key(&line.connection) {
            self.next_cookie += 1;
            let known = Known {
                cookie: self.next_cookie,
                role: if opens { Role::Accepted } else { Role::Unknown },
                client: line.client.unwrap_or(DEFAULT_CLIENT),
                server: line.server.unwrap_or(DEFAULT_SERVER),
                received: RECEIVED_FROM,
                sent: SENT_FROM,
            };
            self.connections.insert(line.connection.clone(), known);
        }
        let Some(known) = self.connections.get_mut(&line.connection) else { return Ok(Vec::new()) };
        let time_ns = line.time_us.saturating_mul(1000);
        if let Some(event) = line.event {
            let kind = match event {
                Event::Opened => Kind::Opened,
                Event::ClientClosed => Kind::PeerClosed,
                Event::GatewayClosed => Kind::LocalClosed,
                Event::Closed => Kind::Closed,
            };
            let sample = OwnedSample { header: known.header(kind, time_ns), payload: Vec::new() };
            if event == Event::Closed {
                self.connections.remove(&line.connection);
            }
            return Ok(vec![sample]);
        }
        let kind = if line.from == Some(From::Client) { Kind::Received } else { Kind::Sent };
        if let Some(count) = line.lost {
            known.step(kind, low(limited(count)?));
            return Ok(Vec::new());
        }
        if let Some(count) = line.unseen {
            let mut header = known.header(kind, time_ns);
            header.len = low(limited(count)?);
            header.unseen = Unseen::Fault as u8;
            known.step(kind, header.len);
            return Ok(vec![OwnedSample { header, payload: Vec::new() }]);
        }
        let bytes = line.bytes.as_ref().map(Bytes::expand).transpose()?.unwrap_or_default();
        let samples = bytes.chunks(MAX_PIECE_BYTES).map(|piece| {
            let mut header = known.header(kind, time_ns);
            header.len = low(piece.len() as u64);
            header.copied = header.len;
            known.step(kind, header.len);
            OwnedSample { header, payload: piece.to_vec() }
        });
        Ok(samples.collect())
    }
}

impl Known {
    fn header(&self, kind: Kind, time_ns: u64) -> SampleHeader {
        let mut header = SampleHeader::new_zeroed();
        header.time_ns = time_ns;
        header.cookie = self.cookie;
        (header.seq, header.other_seq) =
            if kind == Kind::Sent { (self.sent, self.received) } else { (self.received, self.sent) };
        header.kind = kind as u8;
        header.role = self.role as u8;
        (header.family, header.local_addr, header.remote_addr) = raw_addresses(self.server.ip(), self.client.ip());
        (header.local_port, header.remote_port) = (self.server.port(), self.client.port());
        header
    }

    fn step(&mut self, kind: Kind, count: u32) {
        let at = if kind == Kind::Sent { &mut self.sent } else { &mut self.received };
        *at = at.wrapping_add(count);
    }
}

/// What [`limited`] has passed fits.
fn low(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let mut bytes: Vec<u8> = (0..=255).collect();
        bytes.extend([7; 100]);
        bytes.extend(b"end");
        let written = Bytes::of(&bytes);
        assert!(matches!(&written, Bytes::Parts(parts) if parts.len() == 3));
        let json = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap().expand().unwrap(), bytes);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| Line::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error("{}").contains("missing field `connection`"));
        assert!(error(r#"{"connection":"1","time_us":0}"#).contains("has an event, a direction"));
        assert!(error(r#"{"connection":"1","time_us":0,"from":"client"}"#).contains("one of bytes"));
        assert!(error(r#"{"connection":"1","time_us":0,"event":"closed","client":"1.2.3.4:5"}"#).contains("go with"));
        let line = Line::parse(r#"{"connection":"1","time_us":0,"from":"client","bytes":"€"}"#.as_bytes()).unwrap();
        assert!(Reader::default().take(&line).unwrap_err().to_string().contains("U+00FF"));
        let line = Line::parse(br#"{"connection":"1","time_us":0,"from":"client","bytes":[[0,99999999999]]}"#).unwrap();
        assert!(Reader::default().take(&line).unwrap_err().to_string().contains("64 MiB"));
    }

    #[test]
    fn samples_follow_each_other() {
        let mut reader = Reader::default();
        let mut take = |text: &str| reader.take(&Line::parse(text.as_bytes()).unwrap()).unwrap();
        let opened =
            take(r#"{"connection":"a","time_us":1,"event":"opened","client":"[::1]:5","server":"[::1]:9000"}"#);
        assert_eq!(opened.len(), 1);
        let moved = take(r#"{"connection":"a","time_us":2,"from":"client","bytes":[[0,40000]]}"#);
        assert_eq!(moved.iter().map(|one| one.header.len).collect::<Vec<_>>(), [32_768, 7_232]);
        assert_eq!(moved[1].header.seq, opened[0].header.seq.wrapping_add(32_768));
        assert_eq!(moved[0].sample().unwrap().remote(), "[::1]:5".parse().unwrap());
        assert!(take(r#"{"connection":"a","time_us":3,"from":"client","lost":7}"#).is_empty());
        let sent = take(r#"{"connection":"a","time_us":4,"from":"gateway","unseen":3}"#);
        assert_eq!(sent[0].header.other_seq, moved[1].header.seq.wrapping_add(7_232 + 7));
        let other = take(r#"{"connection":"b","time_us":5,"from":"client","bytes":"x"}"#);
        assert_eq!((other[0].header.cookie, other[0].header.role), (2, Role::Unknown as u8));
    }
}
