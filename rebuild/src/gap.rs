//! Something moved in which operations may hide that leave no record at all, neither a complete nor a partial one.
//!
//! **The bound.** `hidden` counts, at every moment, the most operations of a connection of which no record tells. Two
//! sums bound it, each by what could lie in the bytes of its direction that were not read in step:
//! - *R*, request heads. Each one read makes a record, so only those in bytes that could not be placed can be without.
//!   A record begun for a request that was not seen takes one off again.
//! - *S*, replies. Each one read goes into a record of its own, so an answered operation is without one only if some
//!   reply was not read. It counts only as far as R has grown by then: a reply comes after its request.
//!
//! While the connection is open, `hidden = S`, capped by R. When it ends, requests may have stayed unanswered: those in R
//! behind the last request head that was read are added (all of R, if the client was seen to pipeline), up to R.
//!
//! **What could lie in bytes.** Bytes that were seen hold as many heads as they hold `HTTP/1`, which every head has in its
//! first line. Bytes that were not seen hold one head for each [`SHORTEST_REQUEST_BYTES`] or [`SHORTEST_REPLY_BYTES`],
//! and one more where they may begin in the middle of one. Inside a body whose end is known there can be none, so what
//! is missing there, skipped, or moved by sendfile is no gap.
//!
//! **Not covered.** What moved before a connection's beginning for us: if it was open before the probes, that is not our
//! loss; if its `Opened` was lost, the kernel's own count of lost bytes tells (`lost_received_bytes`, `lost_sent_bytes`,
//! less the counters of the same names here), as it does for what was lost behind the last sample of a connection whose
//! `Closed` never came. Bytes that imitate a head, at the very place where one may begin after a loss. A client whose
//! pipelining is all inside one loss, who goes on with more requests, and the replies to whose last ones never came, or
//! were lost behind the connection's last sample: replies are taken for the wrong requests', one short in the end.

use crate::loss::LossCause;
use s3auditd_common::sample::Direction;
use std::net::SocketAddr;

/// The shortest request head that the reader takes: `G / HTTP/10` and two line feeds. (What a gateway serves is longer:
/// `GET / HTTP/1.0` and two line ends.)
pub const SHORTEST_REQUEST_BYTES: u64 = 13;

/// The shortest reply that the reader takes: `HTTP/1.0 200` and two line feeds.
pub const SHORTEST_REPLY_BYTES: u64 = 14;

/// One contiguous range of one direction, and what may hide because of it. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The peer of the gateway's socket.
    pub client: SocketAddr,
    /// The gateway's own end.
    pub server: SocketAddr,
    /// Network namespace inode.
    pub netns: u32,
    /// It was open before the probes were attached.
    pub preexisting: bool,
    /// Where it is. Sent: what hides was answered there, and asked in bytes received before. Received, known when the
    /// connection ends: what hides was asked there and never answered.
    pub direction: Direction,
    /// What it began with.
    pub cause: LossCause,
    /// Its first byte, counted from where this direction's account began.
    pub from: u64,
    /// The byte behind its last one.
    pub to: u64,
    /// When its first byte moved, as far as is known: no later.
    pub first_ns: u64,
    /// When its last byte moved.
    pub last_ns: u64,
    /// By how many operations it raised the most that may be without a record on this connection; never 0. The sum
    /// over all gaps of a connection is the bound.
    pub may_hide: u64,
}

/// The most operations that can hide in so many lost bytes of connections of which nothing else is known: (answered
/// or not, answered). An operation that was answered has its request in the one and its reply in the other.
#[must_use]
pub fn hidden_at_most(received_bytes: u64, sent_bytes: u64) -> (u64, u64) {
    let requests = received_bytes / SHORTEST_REQUEST_BYTES;
    (requests, requests.min(sent_bytes / SHORTEST_REPLY_BYTES))
}
