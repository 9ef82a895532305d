//! From the rings to the queue, in one thread: drain, rebuild, tell the kernel side what it need not copy, and record
//! samples where that is asked for.

use crate::capture::{Capture, Windows, wall_minus_monotonic_ns};
use crate::config::keys::Config;
use crate::health::Health;
use crate::queue::Producer;
use crate::rebuild::{Made, Rebuild};
use crate::recorder::Recorder;
use s3auditd_rebuild::record::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the snapshot for `status` and metrics is renewed.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// Two clocks are not read at one moment, so their difference jitters. Less than this is no change: times of one run
/// compare exactly, and a recording replays to the same.
const CLOCK_JITTER_NS: u128 = 100_000;

/// Everything between the kernel and the queue.
pub(super) struct Audit {
    capture: Capture,
    rebuild: Rebuild,
    producer: Producer,
    recorder: Option<Recorder>,
    flush: Duration,
    health: Arc<Health>,
    published: Instant,
    clock: Clock,
}

impl Audit {
    pub(super) fn new(
        config: &Config,
        capture: Capture,
        producer: Producer,
        recorder: Option<Recorder>,
        health: Arc<Health>,
        instance_id: String,
    ) -> Self {
        let mut rebuild = Rebuild::new(config, instance_id);
        if recorder.is_some() {
            rebuild.follow_moves();
        }
        let flush = Duration::from_millis(config.ring_flush_ms);
        let (published, clock) = (Instant::now(), Clock::default());
        let mut audit = Self { capture, rebuild, producer, recorder, flush, health, published, clock };
        audit.publish();
        audit
    }

    /// Runs until `stop` is true, then sees to it that everything captured until then is in the queue.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.capture.wait(self.flush);
            self.turn();
            if self.published.elapsed() >= PUBLISH_EVERY {
                self.publish();
            }
        }
        let now = self.capture.stop();
        self.turn();
        self.rebuild.finish(now);
        outputs(&mut self.rebuild, &self.producer, self.recorder.as_mut(), None);
        if let Some(recorder) = &mut self.recorder {
            recorder.stop(now);
        }
        self.publish();
    }

    fn turn(&mut self) {
        self.set_clock();
        let (rebuild, producer, recorder) = (&mut self.rebuild, &self.producer, &mut self.recorder);
        let passed = self.capture.drain(|sample, windows| {
            rebuild.take(sample);
            // At once: every moment that a window comes earlier keeps body bytes out of the ring.
            outputs(rebuild, producer, recorder.as_mut(), Some(windows));
        });
        rebuild.advance(passed);
        outputs(rebuild, producer, recorder.as_mut(), Some(self.capture.windows()));
        if let Some(recorder) = recorder {
            recorder.turn(passed);
        }
    }

    /// How the samples' clock stands to the wall's; it follows when the wall's is set or slewed.
    fn set_clock(&mut self) {
        let now = wall_minus_monotonic_ns();
        if now.abs_diff(self.clock.wall_minus_monotonic_ns) > CLOCK_JITTER_NS {
            self.clock = Clock { wall_minus_monotonic_ns: now };
            self.rebuild.set_clock(self.clock);
            if let Some(recorder) = &mut self.recorder {
                recorder.set_clock(self.clock);
            }
        }
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        self.health.publish_capture(self.capture.status());
        let recorded = self.recorder.iter().flat_map(Recorder::counters);
        self.health.publish_rebuild(self.rebuild.counters().chain(recorded));
    }
}

/// Takes on everything that came out; without `windows` there is no kernel side to tell any more.
fn outputs(
    rebuild: &mut Rebuild,
    producer: &Producer,
    recorder: Option<&mut Recorder>,
    mut windows: Option<&mut Windows>,
) {
    while let Some(made) = rebuild.next_made() {
        match made {
            Made::Record(line) => {
                // A full queue counts what it refuses; there is nothing else to do here, and no time to wait.
                let _taken = producer.push(line.into());
            }
            // They are counted; nothing is told of them one by one.
            Made::Gap(_) => {}
            Made::Window { cookie, direction, window } => {
                if let Some(windows) = &mut windows {
                    windows.set(cookie, direction, window);
                }
            }
        }
    }
    if let Some(recorder) = recorder {
        while let Some(moved) = rebuild.next_moved() {
            recorder.take(moved);
        }
    }
}
