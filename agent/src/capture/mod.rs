//! From kernel programs to samples: load, attach, drain.
//!
//! `attach` puts the best backend into the kernel, `rings` has what it emits, a `ring` for each CPU, `grace` tells from when on nothing more
//! can come, `sockets` what was there before, `listeners` who serves now,
//! `cgroups` where, `tls` what their TLS library has. Only this folder talks to the kernel.

mod attach;
mod backend;
mod btf;
pub mod cgroups;
mod counters;
mod diag;
mod grace;
mod heap;
mod kfunc;
mod listeners;
mod lookout;
mod missed;
mod ring;
mod rings;
pub mod sockets;
pub mod status;
mod tls;

pub use attach::{AttachError, effective_capabilities, privileges};
pub use btf::KERNEL_BTF;
pub use grace::{has_grace_periods, monotonic_ns, wall_minus_monotonic_ns};
pub use heap::give_back;
pub use rings::Taken;

use crate::config::BackendChoice;
use attach::{AsPod, Plan};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::Program,
};
use aya_log::EbpfLogger;
use counters::{Counters, Counts};
use grace::Grace;
use listeners::{Listeners, Look};
use missed::MissedRuns;
use rings::{CpuRead, Rings};
use s3auditd_common::{
    counters::{KernelCounter, PROGRAMS},
    sample::{Direction, Window, window_key},
};
use s3auditd_rebuild::sample::Sample;
use status::{CaptureStatus, CpuStatus, PortStatus};
use std::{collections::BTreeMap, time::Duration};
use tls::{Tls, Watched};
use tracing::warn;

/// What to capture and how.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// By which hooks.
    pub backend: BackendChoice,
    /// Local ports of the gateway.
    pub ports: Vec<u16>,
    /// Ring size of each CPU: a power of two of at least a page.
    pub ring_bytes: usize,
    /// The kernel wakes the reader when a ring holds that much.
    pub ring_watermark_bytes: u32,
    /// Connections known at once.
    pub max_connections: u32,
    /// Whether plaintext of the gateway's TLS is read.
    pub tls: bool,
    /// Processes, or cgroups of processes, whose TLS is left alone.
    pub tls_exclude: Vec<String>,
}

/// A backend by its name, and what the kernel has against it.
pub type Tried = (&'static str, Result<(), String>);

/// Loads and attaches each backend by itself, best first, and takes it out at once.
///
/// # Errors
/// No backend could be tried: see [`AttachError`].
pub fn try_backends(settings: &CaptureSettings) -> Result<Vec<Tried>, AttachError> {
    attach::try_each(&plan(settings)?)
}

fn plan(settings: &CaptureSettings) -> Result<Plan<'_>, AttachError> {
    let possible_cpus = aya::util::nr_cpus()
        .map_err(|(_, source)| AttachError::System { what: "the number of possible CPUs", source })?;
    let possible_cpus = u32::try_from(possible_cpus).unwrap_or(u32::MAX / PROGRAMS);
    let CaptureSettings { backend, ports, max_connections, tls, .. } = settings;
    Ok(Plan { backend: *backend, ports, max_connections: *max_connections, tls: *tls, possible_cpus })
}

/// Programs in the kernel and the rings they fill. Dropping it detaches them; nothing is pinned.
pub struct Capture {
    settings: CaptureSettings,
    backend: &'static str,
    reason: String,
    ebpf: Ebpf,
    rings: Rings,
    windows: Windows,
    counters: Counters,
    /// As the last status says.
    counted: Counts,
    missed: MissedRuns,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    grace: Grace,
    grace_wanted: bool,
    open_at_start: u64,
    /// By program; asked for once, because it never changes.
    verified_instructions: BTreeMap<String, u32>,
    listeners: Listeners,
    tls: Option<Tls>,
}

/// What [`Capture::drain`] has to say.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Everything that happened before this time (CLOCK_MONOTONIC nanoseconds) has been handed over or is lost.
    pub until_ns: u64,
    /// What there was.
    pub taken: Taken,
}

/// The map in which the kernel side is told what is wanted of a direction next.
pub struct Windows {
    map: HashMap<MapData, u64, AsPod<Window>>,
    failed: u64,
}

impl Windows {
    /// Sets a window; it replaces the one that is there.
    pub fn set(&mut self, cookie: u64, direction: Direction, window: Window) {
        // The connection may be gone; a full table costs ring space, not truth.
        if self.map.insert(window_key(cookie, direction), AsPod(window), 0).is_err() {
            self.failed += 1;
        }
    }
}

impl Capture {
    /// Loads, attaches and opens the rings.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn start(settings: CaptureSettings) -> Result<Self, AttachError> {
        let grace = Grace::start().map_err(|source| AttachError::System { what: "the grace period thread", source })?;
        let plan = plan(&settings)?;
        let attach::Attached { mut ebpf, backend, reason, own_numbers } = attach::attach(&plan)?;

        let events = match ebpf.take_map("EVENTS") {
            Some(Map::PerfEventArray(events)) => events,
            _ => return Err(AttachError::Load("the object has no perf event array EVENTS".to_owned())),
        };
        let rings = Rings::open(events, settings.ring_bytes, settings.ring_watermark_bytes)?;
        let map_failed = |error: aya::maps::MapError| AttachError::Load(error.to_string());
        let mut take = |name| ebpf.take_map(name).ok_or_else(|| map_failed(ring::missing(name)));
        let windows = HashMap::try_from(take("WINDOWS")?).map_err(map_failed)?;
        let counters = Counters::new(take("COUNTERS")?, plan.possible_cpus as usize).map_err(map_failed)?;
        let look = Look::first();
        let (tls, mut finder) = if settings.tls {
            let files = HashMap::try_from(take("TLS_FILES")?).map_err(map_failed)?;
            let (sockets, exclude) = (look.sockets(&settings.ports), &settings.tls_exclude);
            let watched = Watched { ports: settings.ports.clone(), own_numbers };
            let (tls, finder) = Tls::start(&mut ebpf, files, sockets, exclude, watched);
            (Some(tls), Some(finder))
        } else {
            (None, None)
        };
        let logger = EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| warn!(%error, "the kernel side's messages will not be seen"))
            .ok();
        // Counted after the programs are in: what opens meanwhile is seen opening.
        let open_at_start = sockets::open_connections(&settings.ports);
        let watched = settings.ports.clone();
        let tell = move |look: &Look| {
            if let Some(finder) = &mut finder {
                finder.look(look.sockets(&watched));
            }
        };
        let listeners = Listeners::start(look, tell)
            .map_err(|source| AttachError::System { what: "the thread of listeners", source })?;
        let verified_instructions = verified_instructions(&ebpf);
        // Reading the kernel's types took more memory than anything that comes.
        give_back();
        Ok(Self {
            settings,
            backend,
            reason,
            ebpf,
            rings,
            windows: Windows { map: windows, failed: 0 },
            counters,
            counted: Counts::default(),
            missed: MissedRuns::default(),
            logger,
            grace,
            grace_wanted: true,
            open_at_start,
            verified_instructions,
            listeners,
            tls,
        })
    }

    /// Waits until there is enough to read, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        self.rings.wait(timeout);
    }

    /// Bytes in the ring that holds most now.
    pub fn fullest_ring(&self) -> u64 {
        self.rings.fullest()
    }

    /// Hands over every sample that the rings hold now.
    pub fn drain(&mut self, mut each: impl FnMut(&Sample<'_>, &mut Windows)) -> Drained {
        if let Some(tls) = &mut self.tls {
            tls.keep_up(&mut self.ebpf);
        }
        // Before the drain: what was in a program then has ended, so the rings hold it now.
        let passed = self.grace.passed_ns();
        let windows = &mut self.windows;
        let taken = self.rings.drain(passed, |sample| each(sample, windows));
        self.grace_wanted |= taken.samples > 0;
        // One more period after the last sample, so that its time is passed too.
        if std::mem::take(&mut self.grace_wanted) {
            self.grace.request();
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        Drained { until_ns: passed, taken }
    }

    /// Takes note of how many connections of TLS have not been read so far.
    pub fn heed_unread(&mut self, connections: u64) {
        if let Some(tls) = &mut self.tls {
            tls.heed_unread(connections);
        }
    }

    /// Looks which CPUs are online: one that has come gets its ring. What it emitted before is lost, and counted. Cheap if
    /// they are as before; a CPU that was away between two looks is found by [`Capture::status`].
    pub fn follow_cpus(&mut self) {
        if self.rings.cpus_changed() {
            let counts = self.counters.read();
            self.follow(&counts);
        }
    }

    fn follow(&mut self, counts: &Counts) {
        let counters = &mut self.counters;
        self.grace_wanted |= self.rings.follow(&counts.refused_by_cpu(), || counters.read().refused_by_cpu());
    }

    /// How many CPUs have a ring.
    #[must_use]
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// See [`Windows`].
    pub fn windows(&mut self) -> &mut Windows {
        &mut self.windows
    }

    /// Watches no port any more, and returns once every program that still did has ended: the next drain is the last.
    /// Returns the time of the end (CLOCK_MONOTONIC nanoseconds).
    pub fn stop(&mut self) -> u64 {
        if let Err(error) = attach::set_ports(&mut self.ebpf, &[]) {
            warn!(%error, "the probes could not be told to stop; what they see from here on is not drained");
        }
        // The last word on them is to be true.
        self.missed = MissedRuns::default();
        let now = monotonic_ns();
        // Bounded, should the kernel never answer; a grace period takes milliseconds.
        for _ in 0..500 {
            self.grace.request();
            if self.grace.passed_ns() >= now {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        now
    }

    /// Where capture stands. Reads the kernel's counters: not for every sample. By the way it follows the CPUs.
    pub fn status(&mut self) -> CaptureStatus {
        let counts = self.counters.read();
        self.follow(&counts);
        let missed_runs = self.missed.get(&self.ebpf, counts == self.counted);
        let listening = self.listeners.ports();
        let ports = self.settings.ports.iter();
        let status = CaptureStatus {
            backend: self.backend.to_owned(),
            backend_reason: self.reason.clone(),
            ports: ports.map(|port| PortStatus { port: *port, listening: listening.contains(port) }).collect(),
            cpus: self.cpu_status(&counts),
            ring_bytes: self.settings.ring_bytes as u64,
            open_at_start: self.open_at_start,
            failed_windows: self.windows.failed,
            missed_runs,
            verified_instructions: self.verified_instructions.clone(),
            tls: self.tls.as_ref().map(Tls::status).unwrap_or_default(),
        };
        self.counted = counts;
        status
    }

    fn cpu_status(&self, counts: &Counts) -> Vec<CpuStatus> {
        // A CPU without a ring is there once it has lost something.
        let cpus = (0..counts.possible_cpus()).filter_map(|cpu| {
            let counters = KernelCounter::ALL.iter().map(|counter| (*counter, counts.of(*counter, cpu)));
            let counted = counters.clone().any(|(_, count)| count != 0);
            let CpuRead { read, read_bytes, undecodable, reported_lost } =
                self.rings.read(cpu).or_else(|| counted.then(CpuRead::default))?;
            let others = counters.filter(|(counter, _)| *counter != KernelCounter::Emitted);
            Some(CpuStatus {
                cpu,
                emitted: counts.of(KernelCounter::Emitted, cpu),
                read,
                read_bytes,
                undecodable,
                reported_lost,
                counters: others.map(|(counter, count)| (counter.name().to_owned(), count)).collect(),
            })
        });
        cpus.collect()
    }
}

/// Of each program, where the kernel counts them.
fn verified_instructions(ebpf: &Ebpf) -> BTreeMap<String, u32> {
    let count = |program: &Program| program.info().ok()?.verified_instruction_count();
    ebpf.programs().filter_map(|(name, program)| Some((name.to_owned(), count(program)?))).collect()
}
