//! Losses are values: one enum of causes, and each has its counter and its name by an exhaustive match.

use crate::counters::Counters;
use s3auditd_common::sample::Unseen;

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident => $counter:ident, $name:literal;)+) => {
        /// Why something that happened on the wire could not be read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LossCause { $($(#[doc = $doc])+ $cause,)+ }

        impl LossCause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The counter of this cause: how often it happened.
            pub const fn counter(self, counters: &mut Counters) -> &mut u64 {
                match self { $(Self::$cause => &mut counters.$counter,)+ }
            }

            /// How often it happened.
            #[must_use]
            pub const fn count(self, counters: &Counters) -> u64 {
                match self { $(Self::$cause => counters.$counter,)+ }
            }

            /// The name that metrics and `status` use; it does not change.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$cause => $name,)+ }
            }
        }
    };
}

causes! {
    /// Bytes moved and no sample tells of them: the kernel side or the ring lost it.
    Hole => holes, "sample_lost";
    /// Bytes not copied: run budget (`Unseen::Withheld`).
    Withheld => unseen_withheld, "unseen_withheld";
    /// Bytes not copied: no user buffer (`Unseen::NoBuffer`).
    NoBuffer => unseen_no_buffer, "unseen_no_buffer";
    /// Bytes not copied: deferred worker (`Unseen::Deferred`).
    Deferred => unseen_deferred, "unseen_deferred";
    /// Bytes not copied: kernel thread or 32-bit caller (`Unseen::ForeignCaller`).
    ForeignCaller => unseen_foreign_caller, "unseen_foreign_caller";
    /// Bytes not copied: unreadable memory (`Unseen::Fault`).
    Fault => unseen_fault, "unseen_fault";
    /// Bytes not copied: upper-layer protocol (`Unseen::UpperLayer`).
    UpperLayer => unseen_upper_layer, "unseen_upper_layer";
    /// Bytes not copied: too many segments (`Unseen::TooManySegments`).
    TooManySegments => unseen_too_many_segments, "unseen_too_many_segments";
    /// A head was longer than `Limits::max_head_bytes`.
    HeadTooLong => heads_too_long, "head_too_long";
    /// A head was not understood, not even by the lenient reader.
    HeadMalformed => heads_malformed, "head_malformed";
    /// A request's head, or a part of it, was not seen.
    RequestHeadUnseen => request_heads_unseen, "request_head_unseen";
    /// A reply's head, or a part of it, was not seen.
    ResponseHeadUnseen => response_heads_unseen, "response_head_unseen";
    /// The end of a request's body could not be found (unseen or malformed framing).
    RequestFraming => request_framing_lost, "request_framing";
    /// The end of a reply's body could not be found.
    ResponseFraming => response_framing_lost, "response_framing";
    /// Bytes whose place in a message is not known although they were seen: out of step after another loss. Counted
    /// once a stretch.
    Unplaced => unplaced_stretches, "unplaced";
    /// A connection waited for more bytes than `Limits::max_pending_bytes`.
    PendingLimit => pending_limit_hits, "pending_limit";
    /// All connections together held more than `Limits::max_total_bytes`.
    TotalLimit => total_limit_hits, "total_limit";
    /// More unanswered requests than `Limits::max_open_exchanges_per_connection`.
    PipeliningLimit => pipelining_limit_hits, "pipelining_limit";
    /// Replies were lost while several requests waited: whose the later ones are is not known. Counted once a connection.
    RepliesUnpaired => replies_unpaired, "replies_unpaired";
    /// The connection table was full and this connection the least recently active.
    Evicted => connection_table_evictions, "evicted";
}

impl LossCause {
    /// Why bytes of that disposition were not seen. None: they were, or nobody wanted them.
    #[must_use]
    pub const fn of(unseen: Unseen) -> Option<Self> {
        match unseen {
            Unseen::Seen | Unseen::Skipped => None,
            Unseen::Withheld => Some(Self::Withheld),
            Unseen::NoBuffer => Some(Self::NoBuffer),
            Unseen::Deferred => Some(Self::Deferred),
            Unseen::ForeignCaller => Some(Self::ForeignCaller),
            Unseen::Fault => Some(Self::Fault),
            Unseen::UpperLayer => Some(Self::UpperLayer),
            Unseen::TooManySegments => Some(Self::TooManySegments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_counter_and_a_name_of_its_own() {
        let mut counters = Counters::default();
        for (index, cause) in LossCause::ALL.iter().enumerate() {
            *cause.counter(&mut counters) += index as u64 + 1;
            assert!(cause.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", cause.name());
            assert!(LossCause::ALL.iter().skip(index + 1).all(|other| other.name() != cause.name()));
        }
        for (index, cause) in LossCause::ALL.iter().enumerate() {
            assert_eq!(cause.count(&counters), index as u64 + 1, "{}", cause.name());
        }
        assert!(Unseen::ALL.iter().filter(|unseen| LossCause::of(**unseen).is_none()).count() == 2);
    }
}
