//! From the queue to the webhook, in order, one request in flight.
//!
//! [`batch`] is what travels, [`webhook`] and [`stdout`] carry it, [`policy`] decides what an outcome means, and
//! [`stats`] tells the world. Every record that is taken from the queue is settled there as delivered or dropped.

pub mod batch;
pub mod policy;
pub mod stats;
pub mod stdout;
pub mod webhook;

use crate::config::keys::Config;
use crate::queue::{BatchLimits, Consumer, Count, DropCause};
use batch::Batch;
use policy::{Action, Backoff, Hold};
use stats::{DeliveryState, DeliveryStats};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stdout::Stdout;
use tokio::sync::watch;
use uuid::Uuid;
use webhook::{Webhook, WebhookError};

/// How batches are made and how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When a batch is complete.
    pub batch: BatchLimits,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Time to deliver what is left after the signal to stop.
    pub drain: Duration,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            batch: BatchLimits {
                records: config.batch_records,
                bytes: config.batch_bytes,
                delay: Duration::from_millis(config.batch_delay_ms),
            },
            backoff: Backoff::default(),
            drain: Duration::from_secs(config.drain_seconds),
        }
    }
}

/// Where records go.
pub enum Sink {
    /// An HTTP webhook.
    Webhook(Webhook),
    /// Standard output.
    Stdout(Stdout),
}

impl Sink {
    /// The sink that the configuration asks for. Nothing is sent yet.
    ///
    /// # Errors
    /// The token cannot be read, or TLS cannot be set up.
    pub fn open(config: &Config) -> Result<Self, WebhookError> {
        match &config.endpoint {
            None => Ok(Self::Stdout(Stdout::new(Box::new(std::io::stdout())))),
            Some(endpoint) => {
                let timeouts = webhook::Timeouts {
                    connect: Duration::from_millis(config.connect_timeout_ms),
                    request: Duration::from_millis(config.request_timeout_ms),
                };
                Webhook::new(endpoint.clone(), config.token(), timeouts).map(Self::Webhook)
            }
        }
    }
}

/// How delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What was left, and is dropped.
    pub undelivered: Count,
    /// Why: [`DropCause::Shutdown`] or [`DropCause::StdoutClosed`].
    pub cause: DropCause,
}

/// Delivers until every producer is gone and the queue is empty, or until standard output is closed.
///
/// `stop` turning true (or its sender going away) starts the time to drain: waiting ends at once, batches go without delay,
/// and when [`Settings::drain`] has passed whatever is left is dropped and counted. So on shutdown: set `stop`, flush
/// rebuild into the queue, drop the producer, await this.
pub async fn run(
    sink: Sink,
    settings: Settings,
    consumer: Consumer,
    stats: Arc<DeliveryStats>,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    let mut delivery = Delivery { sink, settings, consumer, stats, stop: stop.clone(), drops_logged: None };
    let drained = async {
        stopped(&mut stop).await;
        tokio::time::sleep(settings.drain).await;
    };
    let cause = tokio::select! {
        cause = delivery.work() => cause,
        () = drained => DropCause::Shutdown,
    };
    let undelivered = delivery.consumer.close(cause);
    if undelivered.records > 0 {
        tracing::error!(records = undelivered.records, cause = cause.name(), "delivery ended with records left");
    }
    Ended { undelivered, cause }
}

/// Returns once `stop` is true or has no sender any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is the sender that went away, which means the same.
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// What one attempt left to do.
enum Next {
    Done,
    Again(Batch),
    Closed,
}

struct Delivery {
    sink: Sink,
    settings: Settings,
    consumer: Consumer,
    stats: Arc<DeliveryStats>,
    stop: watch::Receiver<bool>,
    drops_logged: Option<Instant>,
}

/// At most one log line about dropped records in this time.
const DROP_LOG_EVERY: Duration = Duration::from_secs(60);

impl Delivery {
    async fn work(&mut self) -> DropCause {
        while let Some(lines) = self.next_lines().await {
            // Halves of a split batch go before anything that was queued later.
            let mut pending = VecDeque::from([Batch::new(lines, Uuid::now_v7())]);
            while let Some(batch) = pending.pop_front() {
                if !self.settle(batch, &mut pending).await {
                    return DropCause::StdoutClosed;
                }
            }
        }
        DropCause::Shutdown
    }

    async fn next_lines(&mut self) -> Option<Vec<bytes::Bytes>> {
        let limits = self.settings.batch;
        tokio::select! {
            lines = self.consumer.next_batch(limits) => return lines,
            () = stopped(&mut self.stop) => {}
        }
        self.consumer.next_batch(BatchLimits { delay: Duration::ZERO, ..limits }).await
    }

    /// Until the batch is delivered, dropped, or split into `pending`. `false`: the sink is closed for good.
    async fn settle(&mut self, mut batch: Batch, pending: &mut VecDeque<Batch>) -> bool {
        let mut attempt = 0;
        loop {
            let next = match &mut self.sink {
                Sink::Stdout(stdout) => match stdout.write(batch.body()).await {
                    Ok(()) => {
                        self.consumer.delivered(batch.count());
                        self.stats.delivered();
                        Next::Done
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot write to standard output");
                        self.stats.failed(DeliveryState::Held, format!("standard output: {error}"));
                        Next::Closed
                    }
                },
                Sink::Webhook(_) => self.post(batch, attempt, pending).await,
            };
            match next {
                Next::Done => return true,
                Next::Closed => return false,
                Next::Again(same) => batch = same,
            }
            attempt += 1;
        }
    }

    async fn post(&mut self, batch: Batch, attempt: u32, pending: &mut VecDeque<Batch>) -> Next {
        let Sink::Webhook(webhook) = &mut self.sink else { return Next::Closed };
        let (outcome, detail) = webhook.post(&batch).await;
        let count = batch.count();
        match policy::decide(&outcome, count.records, attempt, &self.settings.backoff, random()) {
            Action::Done => {
                self.consumer.delivered(count);
                if self.stats.delivered() {
                    tracing::info!("the webhook accepts records");
                }
                Next::Done
            }
            Action::Retry(wait) => {
                self.say(DeliveryState::Retrying, detail, "the webhook is away; records wait");
                self.pause(wait).await;
                self.stats.retried();
                Next::Again(batch)
            }
            Action::Hold(why, wait) => {
                let advice = match why {
                    Hold::Token => "the webhook refuses the token; records wait for a good one in auth-token-file",
                    Hold::Endpoint => "the webhook refuses every record; check endpoint and its settings; records wait",
                    Hold::Redirect => "the webhook redirects, which is not followed; correct endpoint; records wait",
                };
                self.say(DeliveryState::Held, detail, advice);
                self.pause(wait).await;
                self.read_token().await;
                self.stats.retried();
                Next::Again(batch)
            }
            Action::Split => {
                self.stats.split();
                let [first, second] = batch.halves(Uuid::now_v7);
                pending.push_front(second);
                pending.push_front(first);
                Next::Done
            }
            Action::Drop(cause) => {
                self.consumer.dropped(cause, count);
                self.stats.refused(detail.clone());
                if self.drops_logged.is_none_or(|last| last.elapsed() >= DROP_LOG_EVERY) {
                    self.drops_logged = Some(Instant::now());
                    tracing::warn!(detail, cause = cause.name(), "the webhook refuses a record; dropped and counted");
                }
                Next::Done
            }
        }
    }

    /// One log line for each change of state, not for each attempt.
    fn say(&self, state: DeliveryState, detail: String, what: &'static str) {
        if self.stats.failed(state, detail.clone()) {
            tracing::warn!(detail, "{what}");
        }
    }

    async fn read_token(&mut self) {
        let Sink::Webhook(webhook) = &mut self.sink else { return };
        match webhook.read_token().await {
            Ok(true) => tracing::info!("auth-token-file has a new token"),
            Ok(false) => {}
            Err(error) => self.say(DeliveryState::Held, error.to_string(), "the token cannot be read; records wait"),
        }
    }

    /// Waits; the signal to stop ends every wait once, so that each batch gets another chance before the end.
    async fn pause(&mut self, wait: Duration) {
        let stopping = *self.stop.borrow();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stop), if !stopping => {}
        }
    }
}

/// Spread, not secrecy: the standard library's hash seeds are random, and need no further crate.
fn random() -> u32 {
    let hash = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default()
}
