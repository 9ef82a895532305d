//! Losses are values: one enum of causes, and each has its counter by an exhaustive match.

use crate::counters::Counters;

/// Why something that happened on the wire could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossCause {
    /// Bytes moved and no sample tells of them: the kernel side or the ring lost it.
    Hole,
    /// A head was longer than `Limits::max_head_bytes`.
    HeadTooLong,
    /// A head was not understood, not even by the lenient reader.
    HeadMalformed,
    /// A request's head, or a part of it, was not seen.
    RequestHeadUnseen,
    /// A reply's head, or a part of it, was not seen.
    ResponseHeadUnseen,
    /// The end of a request's body could not be found (unseen or malformed framing).
    RequestFraming,
    /// The end of a reply's body could not be found.
    ResponseFraming,
    /// A connection waited for more bytes than `Limits::max_pending_bytes`.
    PendingLimit,
    /// All connections together held more than `Limits::max_total_bytes`.
    TotalLimit,
    /// More unanswered requests than `Limits::max_open_exchanges_per_connection`.
    PipeliningLimit,
    /// The connection table was full and this connection the least recently active.
    Evicted,
}

impl LossCause {
    /// Every cause.
    pub const ALL: &[Self] = &[
        Self::Hole,
        Self::HeadTooLong,
        Self::HeadMalformed,
        Self::RequestHeadUnseen,
        Self::ResponseHeadUnseen,
        Self::RequestFraming,
        Self::ResponseFraming,
        Self::PendingLimit,
        Self::TotalLimit,
        Self::PipeliningLimit,
        Self::Evicted,
    ];

    /// The counter of this cause: how often it happened.
    pub const fn counter(self, counters: &mut Counters) -> &mut u64 {
        match self {
            Self::Hole => &mut counters.holes,
            Self::HeadTooLong => &mut counters.heads_too_long,
            Self::HeadMalformed => &mut counters.heads_malformed,
            Self::RequestHeadUnseen => &mut counters.request_heads_unseen,
            Self::ResponseHeadUnseen => &mut counters.response_heads_unseen,
            Self::RequestFraming => &mut counters.request_framing_lost,
            Self::ResponseFraming => &mut counters.response_framing_lost,
            Self::PendingLimit => &mut counters.pending_limit_hits,
            Self::TotalLimit => &mut counters.total_limit_hits,
            Self::PipeliningLimit => &mut counters.pipelining_limit_hits,
            Self::Evicted => &mut counters.connection_table_evictions,
        }
    }
}
