//! From the rings to the queue, in one thread: drain, rebuild, tell the kernel side what it need not copy, write the
//! audit stream, and record samples where that is asked for.

use super::coverage;
use super::rest::{Rest, Turn};
use crate::capture::{
    Capture, Drained, Windows, cgroups::CgroupNames, give_back, monotonic_ns, status::CaptureStatus,
    wall_minus_monotonic_ns,
};
use crate::health::Health;
use crate::notices::{Notice, Notices};
use crate::queue::{Entry, Producer, Room};
use crate::rebuild::{Made, Rebuild};
use crate::recorder::Recorder;
use crate::stream::Line;
use s3auditd_rebuild::record::{
    Clock,
    event::{CoverageRecord, Kind, RecoveryRecord, StartRecord},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often it is looked which CPUs are online: until one that has come has its ring, its samples are lost.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Two clocks are not read at one moment, so their difference jitters. Less than this is no change: times of one run
/// compare exactly, and a recording replays to the same.
const CLOCK_JITTER_NS: u128 = 100_000;

/// What the audit thread starts with.
pub(super) struct Begin {
    pub(super) capture: Capture,
    pub(super) rebuild: Rebuild,
    pub(super) producer: Producer,
    pub(super) recorder: Option<Recorder>,
    pub(super) flush: Duration,
    pub(super) ring_bytes: u64,
    pub(super) health: Arc<Health>,
    pub(super) notices: Notices,
    /// See `Writer::kept_below`.
    pub(super) kept_below: Arc<AtomicU64>,
    pub(super) start: StartRecord,
    pub(super) recovery: Option<RecoveryRecord>,
}

/// Everything between the kernel and the queue.
pub(super) struct Audit {
    capture: Capture,
    rebuild: Rebuild,
    out: Out,
    rest: Rest,
    health: Arc<Health>,
    notices: Notices,
    cgroup_names: CgroupNames,
    kept_below: Arc<AtomicU64>,
    followed: Instant,
    published: Instant,
    clock: Clock,
    /// As it was said last.
    coverage: CoverageRecord,
    /// What the spool has noted, and the next gap records say.
    noted: Vec<u64>,
}

/// Where things go that come out of rebuild.
struct Out {
    producer: Producer,
    /// What the queue had left when it was last looked at, less what was put in since: what it has is never less.
    room: Room,
    recorder: Option<Recorder>,
    clock: Clock,
}

impl Audit {
    pub(super) fn new(begin: Begin) -> Self {
        let Begin {
            mut capture,
            mut rebuild,
            producer,
            recorder,
            flush,
            ring_bytes,
            health,
            notices,
            kept_below,
            mut start,
            recovery,
        } = begin;
        if recorder.is_some() {
            rebuild.follow_moves();
        }
        let clock = Clock::default();
        let out = Out { producer, room: Room::default(), recorder, clock };
        let published = Instant::now();
        let status = capture.status();
        let coverage = coverage::of(&status, &rebuild);
        start.backend = coverage.backend.clone();
        let mut audit = Self {
            capture,
            rebuild,
            out,
            rest: Rest::new(flush, ring_bytes, published),
            health,
            notices,
            cgroup_names: CgroupNames::new(),
            kept_below,
            followed: published,
            published,
            clock,
            coverage,
            noted: Vec::new(),
        };
        audit.set_clock();
        let now_ns = monotonic_ns();
        let author = audit.rebuild.author();
        author.start(start, recovery, now_ns);
        author.coverage(audit.coverage.clone(), now_ns);
        audit.out.all(&mut audit.rebuild, None);
        audit.publish(status);
        audit
    }

    /// Runs until `stop` is true, then sees to it that everything captured until then is in the queue.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.capture.wait(self.rest.longest_wait());
            let taken = self.turn().taken;
            let now = Instant::now();
            if self.rest.turned(taken, now) == Turn::RestsForLong {
                give_back();
            }
            if now.duration_since(self.followed) >= FOLLOW_EVERY {
                self.followed = now;
                self.capture.follow_cpus();
            }
            if now.duration_since(self.published) >= self.rest.publish_every() {
                self.capture.heed_unread(self.rebuild.tls_connections_unread());
                let status = self.capture.status();
                self.speak(&status);
                self.publish(status);
            }
            let capture = &self.capture;
            self.rest.let_be(|pause| {
                std::thread::sleep(pause);
                capture.fullest_ring()
            });
        }
        let now_ns = self.capture.stop();
        self.turn();
        self.rebuild.finish(now_ns);
        self.out.all(&mut self.rebuild, None);
        let status = self.capture.status();
        self.rebuild.node_losses(&status, now_ns);
        let (begun, ended) = self.rebuild.exchanges();
        self.rebuild.author().stop("signal", begun, ended, now_ns);
        self.out.rest(&mut self.rebuild, std::mem::take(&mut self.noted), true);
        if let Some(recorder) = &mut self.out.recorder {
            recorder.stop(now_ns);
        }
        self.publish(status);
    }

    fn turn(&mut self) -> Drained {
        self.set_clock();
        let (rebuild, out, names) = (&mut self.rebuild, &mut self.out, &mut self.cgroup_names);
        let drained = self.capture.drain(|sample, windows| {
            names.meet(sample.header.cgroup_id, sample.header.tgid, rebuild.author().cgroups());
            rebuild.take(sample);
            // At once: every moment that a window comes earlier keeps body bytes out of the ring.
            out.all(rebuild, Some(windows));
        });
        rebuild.advance(drained.until_ns);
        out.all(rebuild, Some(self.capture.windows()));
        if let Some(recorder) = &mut out.recorder {
            recorder.turn(drained.until_ns);
        }
        self.listen();
        drained
    }

    /// Takes note of what the other parts have to say.
    fn listen(&mut self) {
        for notice in self.notices.take() {
            match notice {
                Notice::Lost { loss, noted } => {
                    self.rebuild.author().record_loss(loss);
                    self.noted.extend(noted);
                }
                Notice::NotKept { loss, first, last, unsaid } => {
                    self.rebuild.author().lost(first, last);
                    self.rebuild.author().record_loss(loss);
                    self.noted.extend(unsaid);
                }
                Notice::Configuration { said, settings } => {
                    if let Some(config) = settings {
                        self.rebuild.reconfigure(&config);
                    }
                    self.rebuild.author().configuration(said, monotonic_ns());
                }
            }
        }
    }

    /// Says in the stream what there is to say. Not while the queue is full: what is lost waits in the book of gaps, which
    /// is bounded, until there is room to say it.
    fn speak(&mut self, status: &CaptureStatus) {
        if !self.out.has_room() {
            return;
        }
        let now_ns = monotonic_ns();
        // In this order: what was lost has been taken from the notices before, and is not kept below a later number.
        let kept_below = self.kept_below.load(Ordering::Acquire);
        self.listen();
        self.rebuild.author().kept(kept_below);
        self.rebuild.node_losses(status, now_ns);
        let coverage = coverage::of(status, &self.rebuild);
        if coverage::differs(&self.coverage, &coverage) {
            self.coverage = coverage;
            self.rebuild.author().coverage(self.coverage.clone(), now_ns);
        }
        self.rebuild.author().tick(now_ns);
        let left = self.out.rest(&mut self.rebuild, std::mem::take(&mut self.noted), false);
        self.noted = left;
    }

    /// How the samples' clock stands to the wall's; it follows when the wall's is set or slewed.
    fn set_clock(&mut self) {
        let now = wall_minus_monotonic_ns();
        if now.abs_diff(self.clock.wall_minus_monotonic_ns) > CLOCK_JITTER_NS {
            self.clock = Clock { wall_minus_monotonic_ns: now };
            self.rebuild.set_clock(self.clock);
            self.out.clock = self.clock;
            if let Some(recorder) = &mut self.out.recorder {
                recorder.set_clock(self.clock);
            }
        }
    }

    fn publish(&mut self, status: CaptureStatus) {
        self.published = Instant::now();
        self.health.publish_capture(status);
        let recorded = self.out.recorder.iter().flat_map(Recorder::counters);
        self.health.publish_rebuild(self.rebuild.counters().chain(recorded), self.rebuild.losses());
    }
}

impl Out {
    /// Takes on everything that came out; without `windows` there is no kernel side to tell any more.
    fn all(&mut self, rebuild: &mut Rebuild, mut windows: Option<&mut Windows>) {
        loop {
            rebuild.set_room(self.has_room());
            let Some(made) = rebuild.next_made() else { break };
            match made {
                Made::Record(line) => self.push(line, Vec::new(), false),
                Made::Refused => drop(self.producer.refuse()),
                Made::Window { cookie, direction, window } => {
                    if let Some(windows) = &mut windows {
                        windows.set(cookie, direction, window);
                    }
                }
            }
        }
        if let Some(recorder) = &mut self.recorder {
            while let Some(moved) = rebuild.next_moved() {
                recorder.take(moved);
            }
        }
    }

    /// The same for what the author had to say. The last gap record takes along what the spool had `noted`; what is given
    /// back was not said yet. With `ends` the last record is the stream's.
    fn rest(&mut self, rebuild: &mut Rebuild, noted: Vec<u64>, ends: bool) -> Vec<u64> {
        let lines: Vec<_> = std::iter::from_fn(|| rebuild.author().next_line()).collect();
        let last_gap = lines.iter().rposition(|line| line.kind == Kind::Gap);
        let last = lines.len().checked_sub(1).filter(|_| ends);
        let mut noted = Some(noted);
        for (nth, line) in lines.into_iter().enumerate() {
            let announces = if last_gap == Some(nth) { noted.take().unwrap_or_default() } else { Vec::new() };
            self.push(line, announces, last == Some(nth));
        }
        noted.unwrap_or_default()
    }

    /// The queue's lock is taken only when it may be full.
    fn has_room(&mut self) -> bool {
        if !self.room.is_any() {
            self.room = self.producer.room();
        }
        self.room.is_any()
    }

    fn push(&mut self, line: Line, announces: Vec<u64>, last: bool) {
        self.room.take(line.bytes.len());
        let wall_ns = self.clock.wall_minus_monotonic_ns.saturating_add(i128::from(monotonic_ns()));
        self.producer.push(Entry {
            sequence: line.sequence,
            time_ns: u64::try_from(wall_ns).unwrap_or_default(),
            line: line.bytes,
            announces,
            last,
        });
    }
}
