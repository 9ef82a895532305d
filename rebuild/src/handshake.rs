//! What the beginning of a TLS handshake says in the open: the version and the cipher suite that were agreed on, and the
//! name that the client asked for.
//!
//! Only of connections that were seen opening, and only of bytes from the first one on without a hole: elsewhere nothing is
//! known. Sources: RFC 8446, 4.1.2, 4.1.3, 4.2.1 and 5.1; RFC 6066, 3 (server name); RFC 5246, 7.4.1.

use crate::sample::Sample;
use crate::tls_names;
use s3auditd_common::sample::Kind;
use std::borrow::Cow;
use std::sync::Arc;

const HEADER_BYTES: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
const HOST_NAME: u8 = 0;
/// A hello that is longer is not read: with a key of post-quantum cryptography one has some 1,800 bytes.
const MAX_HELLO_BYTES: usize = 8 * 1024;
/// So many samples of a direction are kept.
const MAX_PIECES: usize = 512;
/// The longest host name (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// What both sides have said of a connection's TLS, as far as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSession {
    /// The version agreed on, as the wire has it: 0x0304 is TLS 1.3.
    pub version: Option<u16>,
    /// The cipher suite agreed on, by its IANA number.
    pub cipher_suite: Option<u16>,
    /// The host that the client asked for. Anybody can write it.
    pub server_name: Option<String>,
}

impl TlsSession {
    /// `TLSv1.3`, or the number of one that has no name.
    #[must_use]
    pub fn version_name(&self) -> Option<Cow<'static, str>> {
        self.version.map(tls_names::version)
    }

    /// The IANA name of the cipher suite, or its number where it is not in our list.
    #[must_use]
    pub fn cipher_suite_name(&self) -> Option<Cow<'static, str>> {
        self.cipher_suite.map(tls_names::cipher_suite)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Handshake {
    received: Hello,
    sent: Hello,
    session: Option<Arc<TlsSession>>,
}

/// The first message of a direction.
#[derive(Debug)]
struct Hello {
    /// Where its first byte stands, by the socket's numbers, once that is known.
    start: Option<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes so far, in the order of the rings.
    Collecting(Vec<Piece>),
    /// It was read, or cannot be.
    Done,
}

#[derive(Debug)]
struct Piece {
    seq: u32,
    bytes: Vec<u8>,
}

impl Handshake {
    /// A connection whose first bytes are to come.
    pub(crate) const fn awaited() -> Self {
        const AWAITED: Hello = Hello { start: None, state: State::Collecting(Vec::new()) };
        Self { received: AWAITED, sent: AWAITED, session: None }
    }

    /// A connection of which nothing will be known.
    pub(crate) const fn unseen() -> Self {
        const DONE: Hello = Hello { start: None, state: State::Done };
        Self { received: DONE, sent: DONE, session: None }
    }

    /// What is known by now.
    pub(crate) fn session(&self) -> Arc<TlsSession> {
        self.session.clone().unwrap_or_default()
    }

    /// Nothing more will be known.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!((&self.received.state, &self.sent.state), (State::Done, State::Done))
    }

    /// What it buffers.
    pub(crate) fn cost(&self) -> usize {
        self.received.cost() + self.sent.cost()
    }

    /// Takes a sample of the socket's own bytes. Several CPUs' rings bring them in any order, some before the connection's
    /// opening. `full`: nothing more may be kept.
    pub(crate) fn take(&mut self, sample: &Sample<'_>, full: bool) {
        let header = &sample.header;
        match sample.kind {
            Kind::Received => self.received.insert(header.seq, sample.payload, full),
            Kind::Sent => self.sent.insert(header.seq, sample.payload, full),
            Kind::Opened => {
                self.received.start = Some(header.seq);
                self.sent.start = Some(header.other_seq);
            }
            Kind::PeerClosed | Kind::LocalClosed | Kind::Closed => return,
        }
        self.read();
    }

    /// The opening did not come: what came first is the beginning, or no hello.
    pub(crate) fn begin_at_the_first(&mut self) {
        for hello in [&mut self.received, &mut self.sent] {
            if let (None, State::Collecting(pieces)) = (hello.start, &hello.state) {
                let first = pieces.iter().map(|piece| piece.seq);
                hello.start =
                    first.reduce(|first, seq| if first.wrapping_sub(seq).cast_signed() > 0 { seq } else { first });
            }
        }
        self.read();
    }

    fn read(&mut self) {
        if let Some(body) = self.received.read(CLIENT_HELLO) {
            Arc::make_mut(self.session.get_or_insert_default()).server_name = server_name(&body);
        }
        if let Some(body) = self.sent.read(SERVER_HELLO) {
            let session = Arc::make_mut(self.session.get_or_insert_default());
            (session.version, session.cipher_suite) = chosen(&body).unzip();
        }
    }
}

impl Hello {
    fn cost(&self) -> usize {
        match &self.state {
            State::Collecting(pieces) => {
                let bytes = pieces.iter().map(|piece| piece.bytes.capacity()).sum::<usize>();
                bytes + pieces.capacity() * size_of::<Piece>()
            }
            State::Done => 0,
        }
    }

    /// Keeps as much of it as a hello may need.
    fn insert(&mut self, seq: u32, bytes: &[u8], full: bool) {
        let State::Collecting(pieces) = &mut self.state else { return };
        let kept = pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>();
        let room = MAX_HELLO_BYTES.saturating_sub(kept);
        if full || room == 0 || pieces.len() == MAX_PIECES {
            // Without room it is not known where it begins, or a part of it is missing.
            self.state = State::Done;
        } else if !bytes.is_empty() && pieces.iter().all(|piece| piece.seq != seq) {
            pieces.push(Piece { seq, bytes: bytes.get(..room).unwrap_or(bytes).to_vec() });
        }
    }

    /// Its body, once it is whole.
    fn read(&mut self, kind: u8) -> Option<Vec<u8>> {
        let (Some(start), State::Collecting(pieces)) = (self.start, &mut self.state) else { return None };
        pieces.sort_unstable_by_key(|piece| piece.seq.wrapping_sub(start));
        let mut bytes = Vec::new();
        for piece in &*pieces {
            if piece.seq.wrapping_sub(start) as usize == bytes.len() {
                bytes.extend_from_slice(&piece.bytes);
            }
        }
        match message(&bytes, kind) {
            Found::Whole(body) => {
                self.state = State::Done;
                Some(body)
            }
            Found::Nothing => {
                // No TLS, most often: then nothing is to be said of it.
                self.state = State::Done;
                None
            }
            Found::More => {
                if bytes.len() >= MAX_HELLO_BYTES {
                    self.state = State::Done;
                }
                None
            }
        }
    }
}

enum Found {
    Whole(Vec<u8>),
    More,
    Nothing,
}

/// The body of a direction's first message, out of as many records as it takes.
fn message(mut bytes: &[u8], kind: u8) -> Found {
    let mut content = Vec::new();
    loop {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return if begins_record(bytes) { Found::More } else { Found::Nothing };
        };
        if !begins_record(header) {
            return Found::Nothing;
        }
        let [_, _, _, high, low] = *header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        content.extend_from_slice(rest.get(..len).unwrap_or(rest));
        if content.first().is_some_and(|first| *first != kind) {
            return Found::Nothing;
        }
        if let Some((&[_, a, b, c], body)) = content.split_first_chunk::<4>()
            && let Some(body) = body.get(..u32::from_be_bytes([0, a, b, c]) as usize)
        {
            return Found::Whole(body.to_vec());
        }
        match rest.get(len..) {
            Some(next) if len > 0 => bytes = next,
            Some(_) => return Found::Nothing,
            None => return Found::More,
        }
    }
}

/// As far as it goes, a record of the handshake.
fn begins_record(bytes: &[u8]) -> bool {
    matches!(bytes, [] | [HANDSHAKE] | [HANDSHAKE, 3, ..])
}

/// The host name in a client's hello.
fn server_name(body: &[u8]) -> Option<String> {
    let mut body = Reader(body);
    body.skip(2 + 32)?;
    let session = body.byte()?;
    body.skip(session.into())?;
    let suites = body.word()?;
    body.skip(suites.into())?;
    let compressions = body.byte()?;
    body.skip(compressions.into())?;
    let mut list = extension(body, SERVER_NAME)?;
    let mut names = Reader(list.long()?);
    while !names.0.is_empty() {
        let (kind, name) = (names.byte()?, names.long()?);
        if kind == HOST_NAME {
            return host(name);
        }
    }
    None
}

/// What may be a host name, and nothing else: it is said in the record.
fn host(name: &[u8]) -> Option<String> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.iter().all(is_letter);
    if fits { String::from_utf8(name.to_vec()).ok() } else { None }
}

/// Version and cipher suite in a server's hello. (If that only asks for another hello, what it chose holds all the same.)
fn chosen(body: &[u8]) -> Option<(u16, u16)> {
    let mut body = Reader(body);
    let legacy_version = body.word()?;
    body.skip(32)?;
    let session = body.byte()?;
    body.skip(session.into())?;
    let suite = body.word()?;
    body.skip(1)?;
    let selected = extension(body, SUPPORTED_VERSIONS).and_then(|mut extension| extension.word());
    Some((selected.unwrap_or(legacy_version), suite))
}

/// The content of that extension; `body` stands before their list, which old hellos lack.
fn extension(mut body: Reader<'_>, wanted: u16) -> Option<Reader<'_>> {
    let mut extensions = Reader(body.long()?);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.word()?, extensions.long()?);
        if kind == wanted {
            return Some(Reader(content));
        }
    }
    None
}

/// Takes from the front. None: there is not so much.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes).map(|_| ())
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|word| u16::from_be_bytes(*word))
    }

    /// Bytes with their number, of two bytes, in front.
    fn long(&mut self) -> Option<&'a [u8]> {
        let len = self.word()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests;
