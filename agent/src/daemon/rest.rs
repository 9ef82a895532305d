//! How often the audit thread looks: at rest rarely, because each look costs whether or not there is anything to see.
//!
//! Under load the rings wake the thread by their watermark. For small operations that is often, and what a wake-up costs is more
//! than what it finds: so after such a turn the rings are let be for a while, if they have room for it.

use crate::capture::Taken;
use std::time::{Duration, Instant};

/// Nothing has come for so long: the node rests.
const AFTER: Duration = Duration::from_secs(1);
/// And for so long that what the heap keeps is not needed soon.
const LONG_AFTER: Duration = Duration::from_secs(5);
/// The longest wait at rest, unless `ring-flush-ms` is longer. It bounds how long the first sample after a rest waits, and how
/// long a signal to stop does.
const WAIT_AT_REST: Duration = Duration::from_millis(250);
/// The same after a long rest.
const WAIT_AT_LONG_REST: Duration = Duration::from_millis(500);
/// How often the snapshot for `status` and metrics is renewed, and the stream looks for what it has to say. That reads every
/// counter of the kernel side, each by a system call.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// The same at rest.
const PUBLISH_EVERY_AT_REST: Duration = Duration::from_secs(1);

/// The longest time that the rings are let be after a turn under load.
const PAUSE: Duration = Duration::from_millis(40);
/// It is looked so often how much they hold: what comes then may be of another kind than what came.
const STEP: Duration = Duration::from_millis(10);
/// What is expected to come in a step is at most this part of a ring, and no pause goes on when one holds so much.
const PAUSE_FILLS: u64 = 8;
/// A shorter step is not worth one.
const LEAST_STEP: Duration = Duration::from_millis(1);
/// Samples of more bytes than this, on average, carry bodies. The kernel side waits for a word about those: no pause.
const SMALL_SAMPLE: u64 = 8 * 1024;

/// See the module.
pub(super) struct Rest {
    flush: Duration,
    ring_bytes: u64,
    /// When there last was a sample.
    active: Instant,
    turned: Instant,
    turn: Turn,
    /// None: no pause is taken.
    step: Option<Duration>,
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
    pub(super) const fn new(flush: Duration, ring_bytes: u64, now: Instant) -> Self {
        Self { flush, ring_bytes, active: now, turned: now, turn: Turn::Active, step: None }
    }

    /// The rings have been drained, and gave this.
    pub(super) fn turned(&mut self, taken: Taken, now: Instant) -> Turn {
        if taken.samples > 0 {
            self.active = now;
        }
        self.step = self.step_after(taken, now.duration_since(self.turned));
        self.turned = now;
        let rested = now.duration_since(self.active);
        self.turn = match self.turn {
            _ if rested < AFTER => Turn::Active,
            _ if rested < LONG_AFTER => Turn::Rests,
            Turn::Active | Turn::Rests => Turn::RestsForLong,
            Turn::RestsForLong | Turn::StillRests => Turn::StillRests,
        };
        self.turn
    }

    /// If what came in the last `time` goes on coming.
    fn step_after(&self, taken: Taken, time: Duration) -> Option<Duration> {
        if taken.samples == 0 || taken.bytes / taken.samples > SMALL_SAMPLE {
            return None;
        }
        let (room, came) = (self.ring_bytes / PAUSE_FILLS, taken.fullest.max(1));
        let fills = time.as_nanos().saturating_mul(room.into()) / u128::from(came);
        let fills = Duration::from_nanos(u64::try_from(fills).unwrap_or(u64::MAX));
        let step = fills.min(STEP).min(self.flush);
        (step >= LEAST_STEP).then_some(step)
    }

    /// Lets the rings be, before they are waited for. `sleep` says how many bytes the fullest of them holds after that time.
    pub(super) fn let_be(&self, mut sleep: impl FnMut(Duration) -> u64) {
        let Some(step) = self.step else { return };
        let mut left = self.pause();
        while left > Duration::ZERO {
            let step = step.min(left);
            left -= step;
            if sleep(step) >= self.ring_bytes / PAUSE_FILLS {
                return;
            }
        }
    }

    /// The longest that [`Rest::let_be`] may take.
    fn pause(&self) -> Duration {
        self.step.map_or(Duration::ZERO, |_| PAUSE.min(self.flush))
    }

    /// How long to wait for the rings.
    pub(super) fn longest_wait(&self) -> Duration {
        match self.turn {
            Turn::Active => self.flush.saturating_sub(self.pause()),
            Turn::Rests => self.flush.max(WAIT_AT_REST),
            Turn::RestsForLong | Turn::StillRests => self.flush.max(WAIT_AT_LONG_REST),
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

    const RING: u64 = 4 << 20;
    const NOTHING: Taken = Taken { samples: 0, bytes: 0, fullest: 0 };
    /// Too large for a pause.
    const BODY: Taken = Taken { samples: 1, bytes: 32 * 1024, fullest: 32 * 1024 };

    #[test]
    fn it_rests_a_while_after_the_last_sample_and_wakes_with_the_next() {
        let start = Instant::now();
        let flush = Duration::from_millis(50);
        let mut rest = Rest::new(flush, RING, start);
        assert_eq!((rest.longest_wait(), rest.publish_every()), (flush, PUBLISH_EVERY));
        let turns = [
            (BODY, flush, Turn::Active),
            (NOTHING, AFTER, Turn::Active),
            (NOTHING, flush + AFTER, Turn::Rests),
            (NOTHING, flush + LONG_AFTER, Turn::RestsForLong),
            (NOTHING, flush * 2 + LONG_AFTER, Turn::StillRests),
            (BODY, flush * 3 + LONG_AFTER, Turn::Active),
            // A wait of seconds goes past the short rest.
            (NOTHING, flush * 3 + LONG_AFTER * 2, Turn::RestsForLong),
        ];
        for (taken, after, turn) in turns {
            assert_eq!(rest.turned(taken, start + after), turn, "{after:?}");
            let expected = match turn {
                Turn::Active => (flush, PUBLISH_EVERY),
                Turn::Rests => (WAIT_AT_REST, PUBLISH_EVERY_AT_REST),
                Turn::RestsForLong | Turn::StillRests => (WAIT_AT_LONG_REST, PUBLISH_EVERY_AT_REST),
            };
            assert_eq!(
                (rest.longest_wait(), rest.publish_every(), rest.pause()),
                (expected.0, expected.1, Duration::ZERO)
            );
        }
    }

    #[test]
    fn a_longer_flush_stays_as_it_was_asked_for() {
        let start = Instant::now();
        let mut rest = Rest::new(WAIT_AT_REST * 4, RING, start);
        assert_eq!(rest.turned(NOTHING, start + AFTER * 9), Turn::RestsForLong);
        assert_eq!(rest.longest_wait(), WAIT_AT_REST * 4);
    }

    /// The steps of a pause after such a turn, if the fullest ring holds so much after each.
    fn steps(flush: Duration, ring_bytes: u64, taken: Taken, holds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let mut rest = Rest::new(flush, ring_bytes, start);
        rest.turned(taken, start + STEP);
        let mut steps = Vec::new();
        rest.let_be(|step| {
            steps.push(step);
            holds
        });
        assert!(rest.longest_wait() + steps.iter().sum() <= flush);
        steps
    }

    const fn small(kib: u64) -> Taken {
        Taken { samples: kib, bytes: kib * 1024, fullest: kib * 512 }
    }

    #[test]
    fn after_small_samples_the_rings_are_let_be() {
        let flush = Duration::from_millis(50);
        assert_eq!(steps(flush, RING, NOTHING, 0), []);
        assert_eq!(steps(flush, RING, BODY, 0), []);
        assert_eq!(steps(flush, RING, small(100), 0), [STEP; 4]);
        // An eighth of the ring in 10 ms, and twice as much.
        assert_eq!(steps(flush, RING, small(1024), 0), [STEP; 4]);
        assert_eq!(steps(flush, RING, small(2048), 0), [STEP / 2; 8]);
        assert_eq!(steps(flush, RING, small(16 * 1024), 0), []);
        assert_eq!(steps(flush, 8192, small(8), 0)[0], STEP * 1024 / 4096);
        assert_eq!(steps(flush, 8192, small(64), 0), []);
    }

    #[test]
    fn not_when_they_hold_much_already() {
        let flush = Duration::from_millis(50);
        assert_eq!(steps(flush, RING, small(100), RING / 8 - 1), [STEP; 4]);
        assert_eq!(steps(flush, RING, small(100), RING / 8), [STEP]);
    }

    #[test]
    fn no_sample_waits_longer_than_was_asked_for() {
        assert_eq!(steps(STEP * 2, RING, small(100), 0), [STEP; 2]);
        assert_eq!(steps(STEP * 3 / 2, RING, small(100), 0), [STEP, STEP / 2]);
        assert_eq!(steps(LEAST_STEP / 2, RING, small(100), 0), []);
    }
}
