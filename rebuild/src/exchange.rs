//! One request and its reply, as far as they were seen. `http` makes it, `record` turns it into an audit record.

use crate::handshake::TlsSession;
use crate::http::head::{RequestHead, ResponseHead};
use std::net::SocketAddr;
use std::sync::Arc;

/// The connection an exchange ran on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The peer of the gateway's socket (IPv4-mapped IPv6 addresses are unmapped).
    pub client: SocketAddr,
    /// What stood in front of the first request. Anybody can write it: whether it is believed is the record's to say.
    pub announced: Option<Announced>,
    /// The gateway's own end.
    pub server: SocketAddr,
    /// Network namespace inode.
    pub netns: u32,
    /// Process that served it (last seen; 0 unknown), its cgroup id and its `comm`.
    pub tgid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Name of the serving task.
    pub comm: String,
    /// It was open before the probes were attached.
    pub preexisting: bool,
    /// None: it carries HTTP as such. Otherwise the gateway ends TLS, and this is what its handshake said.
    pub tls: Option<Arc<TlsSession>>,
}

/// A client that a proxy announced in front of the first request of a connection (PROXY protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The client's address and port.
    pub client: SocketAddr,
    /// See [`ProxyVersion`].
    pub version: ProxyVersion,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// A binary block.
    V2,
}

/// How an exchange ended. The wire's own words come first; what we did not see is said, not guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Completion {
    /// Request and reply ran to their end.
    Complete,
    /// The client closed or reset before the exchange was over.
    ClientAborted,
    /// The gateway closed or reset before the exchange was over.
    GatewayAborted,
    /// The connection closed in an orderly way without any reply.
    NoReply,
    /// The agent stopped while the exchange was open.
    AgentStopped,
    /// Bytes that matter were not seen; [`Exchange::unseen`] names which.
    Partial,
}

/// Which part of an exchange was not seen. Bodies that were skipped on purpose are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnseenPart {
    /// All or part of the request's head.
    RequestHead,
    /// A part of the request's body that was needed to find its end.
    RequestBody,
    /// All or part of the reply's head.
    ResponseHead,
    /// A part of the reply's body that was needed to find its end.
    ResponseBody,
}

/// What was odd on the wire and mattered to the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oddity {
    /// The request has both Content-Length and Transfer-Encoding (RFC 9112, 6.3: a smuggling sign).
    BothLengths,
    /// The reply has both.
    ReplyBothLengths,
    /// Content-Length fields disagree or are no number.
    BadLength,
    /// A line ended in a bare LF.
    BareLf,
    /// A header field was folded over lines (obs-fold).
    ObsFold,
    /// A head did not parse strictly; the lenient reader took it.
    LenientHead,
    /// The end of a body was inferred, not read: unseen bytes, or more body than declared.
    InferredFraming,
    /// The final reply came before the request body had been received whole.
    EarlyReply,
    /// The connection left HTTP after this exchange (101, CONNECT).
    Upgraded,
}

/// The start of a body, kept up to a limit for what an error or a multi-delete says in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyStart {
    /// Content bytes after transfer decoding (no chunk framing), from the first on, without a hole.
    pub bytes: Vec<u8>,
    /// Whether that is all of the body.
    pub whole: bool,
}

/// See the module. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// See [`ConnectionInfo`].
    pub connection: ConnectionInfo,
    /// Which exchange of the connection it is, from 0, as far as was seen.
    pub ordinal: u64,
    /// None: its head was not seen.
    pub request: Option<RequestHead>,
    /// The final reply. None: there was none, or its head was not seen (see `completion`, `unseen`).
    pub response: Option<ResponseHead>,
    /// How many interim (1xx) replies came first.
    pub interim_replies: u32,
    /// First byte of the request received.
    pub started_ns: u64,
    /// Request head complete.
    pub head_read_ns: u64,
    /// First byte of the final reply sent.
    pub first_byte_ns: Option<u64>,
    /// Last byte of the exchange (reply sent or, if later, request body received), or what ended it.
    pub ended_ns: u64,
    /// Bytes on the wire, by the kernel's sequence numbers: head and body with their framing.
    pub request_head_bytes: u64,
    /// See `request_head_bytes`.
    pub request_body_bytes: u64,
    /// See `request_head_bytes`; interim replies are counted in.
    pub response_head_bytes: u64,
    /// See `request_head_bytes`.
    pub response_body_bytes: u64,
    /// See [`BodyStart`].
    pub request_body: BodyStart,
    /// See [`BodyStart`].
    pub response_body: BodyStart,
    /// See [`Completion`].
    pub completion: Completion,
    /// See [`UnseenPart`]; sorted, no repeats.
    pub unseen: Vec<UnseenPart>,
    /// See [`Oddity`]; sorted, no repeats.
    pub oddities: Vec<Oddity>,
}
