//! One batch, from the first attempt to its fate.

use super::Orders;
use super::ack::{self, Ack};
use super::batch::Batch;
use super::body::Body;
use super::policy::{self, Action, Backoff, Guard, Hold, Outcome};
use super::stats::{DeliveryState, DeliveryStats};
use super::webhook::{Answer, Webhook};
use crate::ledger::DropCause;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrived.
    Delivered,
    /// It has to be sent in two halves.
    Split,
    /// It is a single record, which will never be accepted.
    Refused(Refusal),
}

/// How a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Of its loss, if the dead-letter file does not take it.
    pub(super) cause: DropCause,
    /// HTTP.
    pub(super) status: u16,
    /// Splunk's.
    pub(super) code: Option<u64>,
}

/// What the requests of one worker share.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) endpoint: Arc<str>,
    pub(super) stats: Arc<DeliveryStats>,
    pub(super) guard: Arc<Guard>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Carrier {
    /// Tries for as long as it takes. Dropping the future gives the batch up in the middle of an attempt.
    pub(super) async fn carry(mut self, batch: Batch) -> (Batch, Fate) {
        let batch = Arc::new(batch);
        let mut packed: Option<(Arc<Webhook>, Body)> = None;
        let mut attempt = 0;
        let fate = loop {
            let webhook = self.webhook().await;
            let body = match packed.take() {
                Some((of, body)) if Arc::ptr_eq(&of, &webhook) => body,
                _ => {
                    // Packed anew for another webhook, which also begins with the shortest wait.
                    attempt = 0;
                    pack(&webhook, &batch).await
                }
            };
            let Answer { outcome, detail, .. } = self.attempt(&webhook, &batch, &body).await;
            packed = Some((Arc::clone(&webhook), body));
            let backoff = Backoff::from(webhook.endpoint());
            match self.judge(&outcome, &batch, attempt, &backoff) {
                Action::Done => {
                    self.guard.reset();
                    if self.stats.delivered() {
                        tracing::info!(endpoint = &*self.endpoint, "the webhook accepts records");
                    }
                    break Fate::Delivered;
                }
                Action::Split => {
                    self.stats.split();
                    break Fate::Split;
                }
                Action::Refused(cause) => {
                    self.stats.refused(detail);
                    let (status, code) = match outcome {
                        Outcome::Reply { status, hec_code, .. } => (status, hec_code),
                        _ => (0, None),
                    };
                    break Fate::Refused(Refusal { cause, status, code });
                }
                Action::Retry(wait) => {
                    self.say(DeliveryState::Retrying, detail, "the webhook is away; records wait");
                    self.pause(wait).await;
                }
                Action::Hold(why, wait) => {
                    self.say(DeliveryState::Held, detail, advice(why));
                    self.pause(wait).await;
                    self.read_token(&webhook).await;
                }
            }
            self.stats.retried();
            attempt = attempt.saturating_add(1);
        };
        drop(packed);
        (Arc::unwrap_or_clone(batch), fate)
    }

    /// The webhook as ordered now; waits while delivery is switched off.
    async fn webhook(&mut self) -> Arc<Webhook> {
        loop {
            {
                let orders = self.orders.borrow_and_update();
                if orders.enabled {
                    return Arc::clone(&orders.webhook);
                }
            }
            changed(&mut self.orders).await;
        }
    }

    /// Sends once, and waits for the acknowledgement where one is wanted.
    async fn attempt(&self, webhook: &Arc<Webhook>, batch: &Batch, body: &Body) -> Answer {
        let _on_its_way = self.stats.request();
        let Some(acks) = webhook.acks() else { return webhook.post(batch.key(), body).await };
        let impossible = || {
            let outcome = Outcome::Reply { status: 400, retry_after: None, hec_code: Some(ack::DISABLED) };
            Answer { outcome, detail: "Splunk code 14: the token is without acknowledgements".to_owned(), ack: None }
        };
        if !acks.are_possible(webhook).await {
            return impossible();
        }
        let mut answer = webhook.post(batch.key(), body).await;
        if !matches!(answer.outcome, Outcome::Reply { status: 200..=299, .. }) {
            return answer;
        }
        let Some(id) = answer.ack else {
            acks.doubt();
            answer.outcome = Outcome::NoAcknowledgement;
            answer.detail.push_str(", without an ackId");
            return answer;
        };
        match acks.wait(webhook, id).await {
            Ack::Acknowledged => answer,
            Ack::Impossible => impossible(),
            Ack::TimedOut => {
                self.stats.not_acknowledged();
                answer.outcome = Outcome::NotAcknowledged;
                answer.detail.push_str(", then no acknowledgement in time");
                answer
            }
        }
    }

    fn judge(&self, outcome: &Outcome, batch: &Batch, attempt: u32, backoff: &Backoff) -> Action {
        let random = random();
        match policy::decide(outcome, batch.count().records, attempt, backoff, random) {
            Action::Refused(_) if !self.guard.lets_go() => {
                Action::Hold(Hold::Everything, backoff.wait(attempt, random))
            }
            action => action,
        }
    }

    /// One log line for each change of state, not for each attempt.
    fn say(&self, state: DeliveryState, detail: String, what: &'static str) {
        if self.stats.failed(state, detail.clone()) {
            tracing::warn!(endpoint = &*self.endpoint, detail, "{what}");
        }
    }

    async fn read_token(&self, webhook: &Webhook) {
        match webhook.read_token().await {
            Ok(true) => tracing::info!(endpoint = &*self.endpoint, "auth-token-file has a new token"),
            Ok(false) => {}
            Err(error) => self.say(DeliveryState::Held, error.to_string(), "the token cannot be read; records wait"),
        }
    }

    /// Waits. The signal to stop ends every wait once, so that each batch gets another chance before the end; other orders
    /// end it as well.
    async fn pause(&mut self, wait: Duration) {
        let stopping = *self.stop.borrow();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stop), if !stopping => {}
            () = changed(&mut self.orders) => {}
        }
    }
}

fn advice(why: Hold) -> &'static str {
    match why {
        Hold::Token => "the webhook refuses the token; records wait for a good one in auth-token-file",
        Hold::Endpoint => "the webhook refuses every record; check endpoint and its settings; records wait",
        Hold::Redirect => "the webhook redirects, which is not followed; correct endpoint; records wait",
        Hold::Everything => "the webhook refuses record after record; check what it expects; the rest waits",
    }
}

async fn pack(webhook: &Arc<Webhook>, batch: &Arc<Batch>) -> Body {
    let (of, records) = (Arc::clone(webhook), Arc::clone(batch));
    // Packing takes milliseconds for a batch of the usual size, seconds for the largest.
    let packed = tokio::task::spawn_blocking(move || of.packing().pack(records.lines()));
    match packed.await {
        Ok(body) => body,
        Err(_) => webhook.packing().pack(batch.lines()),
    }
}

/// Returns once `stop` is true or has no sender any more, which means the same.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// Returns at the next change; never, if there is nobody left to make one.
pub(super) async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Spread, not secrecy: the standard library's hash seeds are random, and need no further crate.
fn random() -> u32 {
    let hash = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default()
}
