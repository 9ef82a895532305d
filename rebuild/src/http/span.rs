//! What a conversation takes, and what it says besides exchanges.

use super::open::Open;
use crate::counters::Counters;
use crate::exchange::Completion;
use crate::loss::LossCause;
use crate::pipeline::Limits;

/// A part of one stream, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    /// Its place.
    pub(crate) at: u64,
    /// When it moved.
    pub(crate) time_ns: u64,
    /// Where the other stream stood then.
    pub(crate) other: u64,
    pub(crate) data: Data<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    Seen(&'a [u8]),
    /// So many bytes moved and were not seen.
    Gap(u64, LossCause),
}

/// What a step may use and change besides the conversation itself.
pub(crate) struct Context<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) counters: &'a mut Counters,
    /// Exchanges that ended, in order.
    pub(crate) ended: &'a mut Vec<(Open, Completion)>,
}

/// What the reader of a direction wants of the bytes to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appetite {
    /// It can do without; the kernel side's own budget is right.
    Indifferent,
    /// Bytes must be seen to stay in step.
    Needs,
    /// So many bytes are of no use, whatever they are.
    Skips { bytes: u64 },
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The client closed or reset first: at this time, if the gateway closed in its turn.
    Client { peer_closed_ns: Option<u64> },
    /// The gateway closed first.
    Gateway,
    /// The agent stops.
    AgentStops,
    /// There was no room for it any more.
    Evicted,
}
