//! The daemon: what starts, in which order, and how it ends.
//!
//! ```text
//! audit thread: rings -> rebuild -> stream -> queue -> writer -> spool -> workers, one for each endpoint
//! ```
//!
//! This is the only place that starts them, beside the health server and the control socket. [`manager`] changes what may
//! change while they run.

mod audit;
mod coverage;
pub mod drain;
mod endpoints;
mod manager;
mod recovery;
mod rest;

use crate::capture::{self, AttachError, Capture, CaptureSettings, status::PortStatus};
use crate::config::{Loaded, Sources, keys::Config};
use crate::control::{Control, ControlError};
use crate::deliver::dead_letter::{DeadLetter, DeadLetterError};
use crate::deliver::webhook::WebhookError;
use crate::exit::Exit;
use crate::health::{self, BindError, Health};
use crate::ledger::{Count, Ledger};
use crate::notices::Notices;
use crate::queue::{self, BatchLimits, Limits};
use crate::rebuild::{Rebuild, record_settings, redaction};
use crate::recorder::Recorder;
use crate::spool::{Recovered, Settings as SpoolSettings, Spool, SpoolError};
use crate::stream::chain::{Hash, Key, KeyError, Seal};
use crate::stream::{Author, boot_id};
use crate::writer::Writer;
use audit::{Audit, Begin};
use endpoints::{Endpoints, Shared};
use manager::{Manager, Settings};
use rustix::process::{getpriority_process, setpriority_process};
use s3auditd_rebuild::record::RecordMaker;
use s3auditd_rebuild::record::event::StartRecord;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};
use tracing::{error, info, warn};

/// Why the daemon could not run, or how it ended other than in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// See [`BindError`].
    #[error(transparent)]
    Bind(#[from] BindError),
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// See [`AttachError`].
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// See [`WebhookError`].
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// See [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// See [`DeadLetterError`].
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// See [`KeyError`].
    #[error("checkpoint-key-file: {0}")]
    Key(#[from] KeyError),
    /// What `s3auditd webhook` keeps does not fit.
    #[error("{0}")]
    Managed(String),
    /// `--record`: the file cannot be made.
    #[error("--record {}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused something that is always there.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A bug: a part is gone without being told to stop.
    #[error("{part} ended by itself; this is a bug, see the log")]
    Died {
        /// Which.
        part: &'static str,
    },
    /// Told to stop, but the webhook did not take everything in time, and there is no spool on disk.
    #[error("{records} records were left undelivered when drain-seconds had passed")]
    Undelivered {
        /// How many.
        records: u64,
    },
    /// The reader of standard output went away.
    #[error("standard output is closed; {records} records were not written")]
    StdoutClosed {
        /// How many.
        records: u64,
    },
}

impl RunError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Bind(_) | Self::Control(_) => Exit::Bind,
            Self::Attach(AttachError::Privilege { .. }) => Exit::Privilege,
            Self::Attach(
                AttachError::Btf(_)
                | AttachError::Structure { .. }
                | AttachError::NoBackend { .. }
                | AttachError::Load(_),
            ) => Exit::Kernel,
            // Files that the configuration names; the recording's was named by who started us.
            Self::Webhook(_)
            | Self::Spool(SpoolError::Directory { .. } | SpoolError::Open { .. } | SpoolError::Locked { .. })
            | Self::DeadLetter(_)
            | Self::Key(_)
            | Self::Managed(_)
            | Self::Record { .. } => Exit::Usage,
            // A full disk, for example: it may heal by itself, so whoever restarts us is to go on with it.
            Self::Spool(SpoolError::Database { .. } | SpoolError::NoReader(_))
            | Self::Attach(AttachError::Ring { .. } | AttachError::System { .. })
            | Self::System { .. }
            | Self::Died { .. } => Exit::Internal,
            Self::Undelivered { .. } => Exit::Undelivered,
            Self::StdoutClosed { .. } => Exit::StdoutClosed,
        }
    }
}

/// Runs until SIGTERM or SIGINT, then delivers what is left. With `record`, samples are recorded there, scrubbed.
/// `sources` is where `loaded` came from, and is read again on SIGHUP.
///
/// # Errors
/// See [`RunError`].
pub fn run(sources: Sources, loaded: Loaded, record: Option<&Path>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "the async runtime", source })?;
    runtime.block_on(supervise(sources, loaded, record))
}

async fn supervise(sources: Sources, loaded: Loaded, record: Option<&Path>) -> Result<(), RunError> {
    // Whatever can be wrong with the surroundings is found before the first probe is in the kernel.
    capture::privileges()?;
    let mut signals = Signals::new().map_err(|source| RunError::System { what: "signal handlers", source })?;
    let settings = Settings::of(sources, loaded).map_err(RunError::Managed)?;
    let config = settings.config().clone();
    let listener = match config.metrics_listen {
        Some(address) => Some(health::bind(address).await?),
        None => None,
    };
    let control = match &config.control_socket {
        Some(path) => Some(Control::bind(path).await?),
        None => None,
    };
    let wanted = settings.wanted()?;
    let key = config.checkpoint_key_file.as_deref().map(Key::read).transpose()?;
    let (spool, recovered) = open_spool(&config)?;
    let dead_letter = match &config.dead_letter_file {
        Some(path) if !config.endpoints.is_empty() => Some(DeadLetter::open(path, config.dead_letter_bytes)?),
        _ => None,
    };
    let recorder = record
        .map(|path| {
            Recorder::start(path, config.record_bytes, redaction(&config))
                .map_err(|source| RunError::Record { path: path.to_owned(), source })
        })
        .transpose()?;
    let capture = Capture::start(capture_settings(&config))?;

    let (instance_id, boot_id) = (uuid::Uuid::now_v7().to_string(), boot_id());
    let (ledger, notices) = (Ledger::default(), Notices::default());
    let limits = Limits { records: config.queue_records, bytes: config.queue_bytes };
    let (producer, consumer) = queue::queue(limits, ledger.clone());
    let queue_limit = Count { records: limits.records as u64, bytes: limits.bytes };
    let now = SystemTime::now();
    let health = Arc::new(Health::new(instance_id.clone(), now, ledger.clone(), queue_limit, spool.clone()));

    let appending = Arc::default();
    let shared = Shared {
        spool: spool.clone(),
        ledger: ledger.clone(),
        health: Arc::clone(&health),
        dead_letter,
        appending: Arc::clone(&appending),
    };
    let drain = Duration::from_secs(config.drain_seconds);
    let mut endpoints = Endpoints::new(shared, drain);
    endpoints.apply(wanted).await;

    let kept_below = Arc::new(AtomicU64::new(0));
    let (limits, limits_now) = watch::channel(batch_limits(&config));
    let (stop, stopped) = watch::channel(false);
    let writer = Writer {
        spool: spool.clone(),
        ledger: ledger.clone(),
        notices: notices.clone(),
        appending,
        kept_below: Arc::clone(&kept_below),
        limits: limits_now,
        instance_id: instance_id.clone(),
        boot_id: boot_id.clone(),
        given_up_before: recovered.given_up.iter().map(|given_up| given_up.id).max().unwrap_or_default(),
    };
    let mut writer = tokio::spawn(writer.run(consumer, stopped.clone(), drain));

    let previous = recovered.mark.as_ref().and_then(|mark| Hash::parse(mark.chain.as_ref()?.as_bytes()));
    let maker = RecordMaker::new(record_settings(&config, instance_id, boot_id), 0);
    let author = Author::new(maker, Seal::new(config.chain, key, previous));
    let audit = Audit::new(Begin {
        capture,
        rebuild: Rebuild::with_author(&config, author),
        producer,
        recorder,
        flush: Duration::from_millis(config.ring_flush_ms),
        ring_bytes: config.ring_bytes,
        health: Arc::clone(&health),
        notices: notices.clone(),
        kept_below,
        start: StartRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            previous: recovery::previous(&recovered),
            backend: String::new(),
            ports: config.listen.clone(),
        },
        recovery: recovery::record(&recovered),
    });
    let mut audit = AuditThread::start(audit, config.ring_priority)?;
    // Said before it can be asked for.
    announce(&config, &health, &recovered);
    let health_server = listener.map(|listener| tokio::spawn(health::serve(listener, Arc::clone(&health), stopped)));
    let (asking, asked) = Control::channel();
    let control_server = control.map(|control| tokio::spawn(control.serve(asking)));

    let mut manager = Manager { settings, endpoints, notices, limits, health, asked };
    let died = tokio::select! {
        () = manager.run(&mut signals) => None,
        ended = &mut writer => Some(("the writer of the spool", ended.err())),
        _gone = &mut audit.gone => Some(("the audit thread", None)),
    };
    info!("stopping: no more is captured, what is there is delivered");
    if let Some(server) = control_server {
        server.abort();
    }
    audit.stop().await;
    // Everything is in the queue and its producer is gone: the writer ends when it is empty, or the time is over.
    stop.send_replace(true);
    if let Some((part, error)) = died {
        error!(part, ?error, "ended by itself");
        return Err(RunError::Died { part });
    }
    if writer.await.is_err() {
        return Err(RunError::Died { part: "the writer of the spool" });
    }
    let drained = manager.endpoints.drain().await;
    let durable = spool.is_durable();
    let synced = tokio::task::spawn_blocking(move || spool.flush()).await;
    if let Ok(Err(error)) = synced {
        error!(%error, "the spool could not be written out");
    }
    if let Some(server) = health_server {
        server.abort();
    }
    let books = ledger.books();
    let delivered = books.endpoints.values().map(|books| books.delivered.records).max().unwrap_or_default();
    info!(made = books.made.records, delivered, left = drained.left.records, "stopped");
    match drained {
        drained if drained.died => Err(RunError::Died { part: "delivery" }),
        drained if drained.stdout_closed => Err(RunError::StdoutClosed { records: drained.left.records }),
        drained if drained.left.records > 0 && !durable => Err(RunError::Undelivered { records: drained.left.records }),
        _ => Ok(()),
    }
}

/// On disk where there is somebody who may be away; what goes to standard output only passes through memory.
fn open_spool(config: &Config) -> Result<(Spool, Recovered), SpoolError> {
    let readers: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    match &config.spool_dir {
        Some(dir) if !readers.is_empty() => {
            let settings = SpoolSettings {
                dir: dir.clone(),
                max_bytes: config.spool_bytes,
                min_free_bytes: config.spool_min_free,
                when_full: config.spool_when_full,
                sync: config.spool_sync,
                compression: config.spool_compression,
            };
            Spool::open(settings, &readers)
        }
        // The queue is what bounds the memory: here is only what is on its way from it to the endpoints.
        _ => Ok((Spool::memory(MEMORY_BATCHES.saturating_mul(config.batch_bytes), &readers), Recovered::default())),
    }
}

/// Batches that a spool in memory holds.
const MEMORY_BATCHES: u64 = 4;

fn batch_limits(config: &Config) -> BatchLimits {
    BatchLimits {
        records: config.batch_records,
        bytes: config.batch_bytes,
        delay: Duration::from_millis(config.batch_delay_ms),
    }
}

/// What is captured, as configured.
#[must_use]
pub fn capture_settings(config: &Config) -> CaptureSettings {
    CaptureSettings {
        backend: config.backend,
        tls: config.tls,
        tls_exclude: config.tls_exclude.clone(),
        ports: config.listen.clone(),
        ring_bytes: usize::try_from(config.ring_bytes).unwrap_or(usize::MAX),
        ring_watermark_bytes: u32::try_from(config.ring_watermark_bytes).unwrap_or(u32::MAX),
        max_connections: u32::try_from(config.max_connections).unwrap_or(u32::MAX),
    }
}

/// One line on what runs, and one for each port on which there is nobody yet.
fn announce(config: &Config, health: &Health, recovered: &Recovered) {
    let capture = health.status().capture;
    let endpoints: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    let endpoints = if endpoints.is_empty() { "standard output".to_owned() } else { endpoints.join(", ") };
    info!(backend = capture.backend, ports = ?config.listen, endpoints, "capturing");
    if recovered.records > 0 {
        info!(records = recovered.records, "the spool has records of before, which are delivered first");
    }
    if recovered.corrupt_frames > 0 || recovered.set_aside.is_some() {
        let set_aside = recovered.set_aside.as_deref().map(Path::display).map(|path| path.to_string());
        warn!(frames = recovered.corrupt_frames, set_aside, "the spool was damaged; what could be read is kept");
    }
    for PortStatus { port, .. } in capture.ports.iter().filter(|port| !port.listening) {
        warn!(port, "nobody listens on this port yet, in any network namespace: waiting for the gateway");
    }
}

/// What a process may be told.
struct Signals {
    stop: Stop,
    reload: Reload,
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

struct Reload(Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        let stop = Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { stop, reload: Reload(signal(SignalKind::hangup())?) })
    }
}

impl Stop {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Reload {
    async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// The thread that must not wait for anything but the rings.
struct AuditThread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
    /// Resolves when the thread has ended, in whatever way.
    gone: oneshot::Receiver<()>,
}

/// Lets the calling thread go before those of the same nice value, five steps from wherever the process was put.
fn go_ahead() -> io::Result<()> {
    const STEPS: i32 = 5;
    Ok(setpriority_process(None, getpriority_process(None)? - STEPS)?)
}

impl AuditThread {
    fn start(audit: Audit, ahead: bool) -> Result<Self, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (alive, gone) = oneshot::channel();
        let of_thread = Arc::clone(&stop);
        let handle = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                let _alive: oneshot::Sender<()> = alive;
                if ahead && let Err(error) = go_ahead() {
                    info!(%error, "ring-priority: the rings' thread stays where it is; on a full machine samples may be lost");
                }
                audit.run(&of_thread);
            })
            .map_err(|source| RunError::System { what: "the audit thread", source })?;
        Ok(Self { stop, handle: Some(handle), gone })
    }

    async fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take() {
            // A panic of the thread was noticed by `gone` and is reported as such.
            let _joined = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }
}
