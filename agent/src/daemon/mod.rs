//! The daemon: what starts, in which order, and how it ends.
//!
//! Three things run, and this is the only place that starts them: the [`audit`] thread (probes to records), delivery, and
//! the health server. The queue between the first two is the only way records go.

mod audit;

use crate::capture::{AttachError, Capture, CaptureSettings, status::PortStatus};
use crate::config::keys::Config;
use crate::deliver::{self, Sink, stats::DeliveryStats, webhook::WebhookError};
use crate::exit::Exit;
use crate::health::{self, BindError, Health};
use crate::queue::{self, DropCause, Limits};
use crate::rebuild::redaction;
use crate::recorder::Recorder;
use audit::Audit;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};
use tracing::{info, warn};

/// Why the daemon could not run, or how it ended other than in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// See [`BindError`].
    #[error(transparent)]
    Bind(#[from] BindError),
    /// See [`AttachError`].
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// See [`WebhookError`].
    #[error(transparent)]
    Webhook(#[from] WebhookError),
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
    /// A bug: the thread is gone without being told to stop.
    #[error("the audit thread ended by itself; this is a bug, see the log")]
    AuditDied,
    /// Told to stop, but the webhook did not take everything in time.
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
            Self::Bind(_) => Exit::Bind,
            Self::Attach(AttachError::Privilege { .. }) => Exit::Privilege,
            Self::Attach(
                AttachError::Btf(_)
                | AttachError::Structure { .. }
                | AttachError::NoBackend { .. }
                | AttachError::Load(_),
            ) => Exit::Kernel,
            // The token's file is part of the configuration; the recording's was named by who started us.
            Self::Webhook(_) | Self::Record { .. } => Exit::Usage,
            Self::Attach(AttachError::Ring { .. } | AttachError::System { .. })
            | Self::System { .. }
            | Self::AuditDied => Exit::Internal,
            Self::Undelivered { .. } => Exit::Undelivered,
            Self::StdoutClosed { .. } => Exit::StdoutClosed,
        }
    }
}

/// Runs until SIGTERM or SIGINT, then delivers what is left. With `record`, samples are recorded there, scrubbed.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: Config, record: Option<&Path>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "the async runtime", source })?;
    runtime.block_on(supervise(config, record))
}

async fn supervise(config: Config, record: Option<&Path>) -> Result<(), RunError> {
    // Whatever can be wrong with the surroundings is found before the first probe is in the kernel.
    let mut signals = Signals::new().map_err(|source| RunError::System { what: "signal handlers", source })?;
    let listener = match config.metrics_listen {
        Some(address) => Some(health::bind(address).await?),
        None => None,
    };
    let sink = Sink::open(&config)?;
    let recorder = record
        .map(|path| {
            Recorder::start(path, config.record_bytes, redaction(&config))
                .map_err(|source| RunError::Record { path: path.to_owned(), source })
        })
        .transpose()?;
    let capture = Capture::start(capture_settings(&config))?;

    let instance_id = uuid::Uuid::now_v7().to_string();
    let (producer, consumer) = queue::queue(Limits { records: config.queue_records, bytes: config.queue_bytes });
    let ledger = producer.view();
    let delivery_stats = Arc::new(DeliveryStats::default());
    let health =
        Arc::new(Health::new(instance_id.clone(), SystemTime::now(), ledger.clone(), Arc::clone(&delivery_stats)));
    let (stop, stopped) = watch::channel(false);

    let mut audit =
        AuditThread::start(Audit::new(&config, capture, producer, recorder, Arc::clone(&health), instance_id))?;
    let delivery = deliver::run(sink, (&config).into(), consumer, delivery_stats, stopped.clone());
    let mut delivery = tokio::spawn(delivery);
    // Said before it can be asked for.
    announce(&config, &health);
    let health_server = listener.map(|listener| tokio::spawn(health::serve(listener, Arc::clone(&health), stopped)));

    let mut ended = None;
    let died = tokio::select! {
        () = signals.next() => false,
        early = &mut delivery => {
            ended = Some(early);
            false
        }
        _gone = &mut audit.gone => true,
    };
    info!("stopping: no more is captured, what is there is delivered");
    audit.stop().await;
    // Everything is in the queue and its producer is gone: delivery ends when it is empty, or the time is over.
    let _all_stopped = stop.send(true);
    let ended = match ended {
        Some(ended) => ended,
        None => delivery.await,
    };
    if let Some(server) = health_server {
        server.abort();
    }
    let records = ledger.ledger();
    info!(
        made = records.made.records,
        delivered = records.delivered.records,
        dropped = records.made.records.saturating_sub(records.delivered.records),
        "stopped"
    );
    if died {
        return Err(RunError::AuditDied);
    }
    match ended {
        Err(_panicked) => Err(RunError::AuditDied),
        Ok(ended) if ended.cause == DropCause::StdoutClosed => {
            Err(RunError::StdoutClosed { records: ended.undelivered.records })
        }
        Ok(ended) if ended.undelivered.records > 0 => Err(RunError::Undelivered { records: ended.undelivered.records }),
        Ok(_) => Ok(()),
    }
}

fn capture_settings(config: &Config) -> CaptureSettings {
    CaptureSettings {
        backend: config.backend,
        ports: config.listen.clone(),
        ring_bytes: usize::try_from(config.ring_bytes).unwrap_or(usize::MAX),
        ring_watermark_bytes: u32::try_from(config.ring_watermark_bytes).unwrap_or(u32::MAX),
        max_connections: u32::try_from(config.max_connections).unwrap_or(u32::MAX),
    }
}

/// One line on what runs, and one for each port on which there is nobody yet.
fn announce(config: &Config, health: &Health) {
    let capture = health.status().capture;
    let endpoint = config.endpoint.as_ref().map_or("standard output", reqwest::Url::as_str);
    info!(backend = capture.backend, ports = ?config.listen, endpoint, "capturing");
    for PortStatus { port, .. } in capture.ports.iter().filter(|port| !port.listening) {
        warn!(port, "nobody listens on this port yet (in this network namespace): waiting for the gateway");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The thread that must not wait for anything but the rings.
struct AuditThread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
    /// Resolves when the thread has ended, in whatever way.
    gone: oneshot::Receiver<()>,
}

impl AuditThread {
    fn start(audit: Audit) -> Result<Self, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (alive, gone) = oneshot::channel();
        let of_thread = Arc::clone(&stop);
        let handle = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                let _alive: oneshot::Sender<()> = alive;
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
