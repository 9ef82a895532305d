//! How often the audit thread looks: at rest rarely, because each look costs whether or not there is anything to see.
//!
//! Under load the rings wake the thread by their watermark, so nothing here makes it slower.

use std::time::{Duration, Instant};

/// Nothing has come for so long: the node rests.
const AFTER: Duration = Duration::from_secs(1);
/// And for so long that what the heap keeps is not needed soon.
const LONG_AFTER: Duration = Duration::from_secs(5);
/// The longest wait at rest, unless `ring-flush-ms` is longer. It bounds how long the first sample after a rest waits, and how
/// long a signal to stop does.
const WAIT_AT_REST: Duration = Duration::from_millis(250);
/// How often the snapshot for `status` and metrics is renewed, and the stream looks for what it has to say. That reads every
/// counter of the kernel side, each by a system call.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// The same at rest.
const PUBLISH_EVERY_AT_REST: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Rest {
    flush: Duration,
    /// When there last was a sample.
    active: Instant,
    turn: Turn,
}

/// What the latest look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Samples come.
    Active,
    /// None has come for a while.
    Rests,
    /// Nor for long; said once for each rest.
    RestsForLong,
    /// Still.
    StillRests,
}

impl Rest {
    /// `flush`: the longest time that a sample waits in a ring while the node is active.
    pub(super) const fn new(flush: Duration, now: Instant) -> Self {
        Self { flush, active: now, turn: Turn::Active }
    }

    /// The rings have been drained; whether there was `any` sample.
    pub(super) fn turned(&mut self, any: bool, now: Instant) -> Turn {
        if any {
            self.active = now;
        }
        let rested = now.duration_since(self.active);
        self.turn = match self.turn {
            _ if rested < AFTER => Turn::Active,
            _ if rested < LONG_AFTER => Turn::Rests,
            Turn::Active | Turn::Rests => Turn::RestsForLong,
            Turn::RestsForLong | Turn::StillRests => Turn::StillRests,
        };
        self.turn
    }

    /// How long to wait for the rings.
    pub(super) fn longest_wait(&self) -> Duration {
        match self.turn {
            Turn::Active => self.flush,
            _ => self.flush.max(WAIT_AT_REST),
        }
    }

    /// How often to publish.
    pub(super) const fn publish_every(&self) -> Duration {
        match self.turn {
            Turn::Active => PUBLISH_EVERY,
            _ => PUBLISH_EVERY_AT_REST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_a_while_after_the_last_sample_and_wakes_with_the_next() {
        let start = Instant::now();
        let flush = Duration::from_millis(50);
        let mut rest = Rest::new(flush, start);
        assert_eq!((rest.longest_wait(), rest.publish_every()), (flush, PUBLISH_EVERY));
        let turns = [
            (true, flush, Turn::Active),
            (false, AFTER, Turn::Active),
            (false, flush + AFTER, Turn::Rests),
            (false, flush + LONG_AFTER, Turn::RestsForLong),
            (false, flush * 2 + LONG_AFTER, Turn::StillRests),
            (true, flush * 3 + LONG_AFTER, Turn::Active),
            // A wait of seconds goes past the short rest.
            (false, flush * 3 + LONG_AFTER * 2, Turn::RestsForLong),
        ];
        for (any, after, turn) in turns {
            assert_eq!(rest.turned(any, start + after), turn, "{after:?}");
            let expected =
                if turn == Turn::Active { (flush, PUBLISH_EVERY) } else { (WAIT_AT_REST, PUBLISH_EVERY_AT_REST) };
            assert_eq!((rest.longest_wait(), rest.publish_every()), expected);
        }
    }

    #[test]
    fn a_longer_flush_stays_as_it_was_asked_for() {
        let start = Instant::now();
        let mut rest = Rest::new(WAIT_AT_REST * 4, start);
        assert_eq!(rest.turned(false, start + AFTER * 9), Turn::RestsForLong);
        assert_eq!(rest.longest_wait(), WAIT_AT_REST * 4);
    }
}
