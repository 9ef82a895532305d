//! What became of each byte that moved on one direction of a connection.
//!
//! Two sides that are counted apart: how far the kernel's sequence numbers went, and the sum of what was done with each
//! span. They must be equal. A FIN takes a sequence number and is no byte.

use crate::counters::Counters;
use crate::loss::LossCause;
use s3auditd_common::sample::{Direction, Unseen};

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Its bytes came.
    Seen,
    /// Nobody wanted them.
    Skipped,
    /// They moved, and did not come.
    Unseen(Unseen),
    /// No sample tells of them; and why.
    Lost(LossCause),
    /// They came, and were dropped.
    Dropped,
}

impl Disposition {
    pub(crate) const fn of(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Seen => Self::Seen,
            Unseen::Skipped => Self::Skipped,
            _ => Self::Unseen(unseen),
        }
    }

    /// Why the bytes are not there; what was skipped on purpose has no cause but that its place is not known.
    pub(crate) fn cause(self) -> LossCause {
        match self {
            Self::Seen | Self::Skipped => LossCause::Unplaced,
            Self::Unseen(unseen) => LossCause::of(unseen).unwrap_or(LossCause::Unplaced),
            Self::Lost(cause) => cause,
            Self::Dropped => LossCause::TotalLimit,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The position at which the direction was anchored.
    begin: u64,
    seen: u64,
    skipped: u64,
    unseen: u64,
    lost: u64,
    dropped: u64,
    /// Numbers passed that were a FIN's.
    fins: u64,
}

impl Account {
    pub(crate) const fn begin_at(&mut self, position: u64) {
        self.begin = position;
    }

    /// How far behind the beginning a position is.
    pub(crate) const fn offset(&self, position: u64) -> u64 {
        position.saturating_sub(self.begin)
    }

    pub(crate) const fn pass_fin(&mut self) {
        self.fins += 1;
    }

    /// Enters a span, here and in the counters of all connections.
    pub(crate) fn enter(
        &mut self,
        direction: Direction,
        disposition: Disposition,
        bytes: u64,
        counters: &mut Counters,
    ) {
        if bytes == 0 {
            return;
        }
        let (own, all) = match (disposition, direction) {
            (Disposition::Seen, Direction::Received) => (&mut self.seen, &mut counters.received_seen_bytes),
            (Disposition::Seen, Direction::Sent) => (&mut self.seen, &mut counters.sent_seen_bytes),
            (Disposition::Skipped, Direction::Received) => (&mut self.skipped, &mut counters.received_skipped_bytes),
            (Disposition::Skipped, Direction::Sent) => (&mut self.skipped, &mut counters.sent_skipped_bytes),
            (Disposition::Unseen(_), Direction::Received) => (&mut self.unseen, &mut counters.received_unseen_bytes),
            (Disposition::Unseen(_), Direction::Sent) => (&mut self.unseen, &mut counters.sent_unseen_bytes),
            (Disposition::Lost(_), Direction::Received) => (&mut self.lost, &mut counters.received_lost_bytes),
            (Disposition::Lost(_), Direction::Sent) => (&mut self.lost, &mut counters.sent_lost_bytes),
            (Disposition::Dropped, Direction::Received) => (&mut self.dropped, &mut counters.received_dropped_bytes),
            (Disposition::Dropped, Direction::Sent) => (&mut self.dropped, &mut counters.sent_dropped_bytes),
        };
        *own += bytes;
        *all += bytes;
        match disposition {
            Disposition::Seen => counters.seen_bytes += bytes,
            Disposition::Skipped => *counters.bytes_of(Unseen::Skipped) += bytes,
            Disposition::Unseen(unseen) => {
                *counters.bytes_of(unseen) += bytes;
                counters.lose(disposition.cause());
            }
            Disposition::Lost(_) => {
                counters.lose(LossCause::Hole);
                counters.lost_bytes += bytes;
            }
            Disposition::Dropped => counters.dropped_bytes += bytes,
        }
    }

    /// Whether the dispositions account for everything up to `end`. `fin_may_be_last`: the kernel's last word is a
    /// number that may be a FIN's, which nobody passed.
    pub(crate) const fn balances(&self, end: u64, fin_may_be_last: bool) -> bool {
        let moved = end.wrapping_sub(self.begin);
        let entered = self.seen + self.skipped + self.unseen + self.lost + self.dropped + self.fins;
        moved == entered || (fin_may_be_last && self.fins == 0 && moved == entered + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_too_few_or_too_many_shows() {
        let mut counters = Counters::default();
        let mut account = Account::default();
        account.begin_at(100);
        for disposition in [
            Disposition::Seen,
            Disposition::Skipped,
            Disposition::Unseen(Unseen::Fault),
            Disposition::Lost(LossCause::Hole),
            Disposition::Dropped,
        ] {
            account.enter(Direction::Sent, disposition, 10, &mut counters);
        }
        assert!(account.balances(150, true));
        assert!(!account.balances(149, true));
        assert!(!account.balances(151, false));
        assert!(account.balances(151, true));
        account.pass_fin();
        assert!(account.balances(151, true));
        assert!(!account.balances(152, true));
        assert_eq!(account.offset(150), 50);
        assert_eq!((counters.sent_seen_bytes, counters.sent_unseen_bytes, counters.sent_lost_bytes), (10, 10, 10));
        assert_eq!((counters.holes, counters.unseen_fault, counters.received_lost_bytes), (1, 1, 0));
    }
}
