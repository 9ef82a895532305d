//! Splunk's indexer acknowledgement ("About HTTP Event Collector Indexer Acknowledgment").
//!
//! A 200 carries an `ackId`; that the indexers have the batch is only known once `/services/collector/ack` says `true` for
//! it. `false` also means that nobody knows the id, so there is a deadline. Splunk forgets an id that it has told, so one
//! task asks for everybody, and nobody who waits can cut its request short. It lives only as long as somebody waits.

use super::webhook::Webhook;
use reqwest::Url;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The acknowledgements of one channel.
pub(super) struct Acks {
    url: Url,
    within: Duration,
    /// Whether Splunk was not heard to say that the token is without acknowledgements.
    possible: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Bounded by the requests that may be on their way.
    batches: HashMap<u64, oneshot::Sender<Ack>>,
    /// Whether somebody asks.
    asking: bool,
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// The indexers have it.
    Acknowledged,
    /// The deadline has passed, or its id was given out again.
    TimedOut,
    /// Splunk's code 14: the token is without acknowledgements.
    Impossible,
}

/// Splunk's "ACK is disabled".
pub(super) const DISABLED: u64 = 14;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    acks: HashMap<String, bool>,
    code: Option<u64>,
}

impl Acks {
    pub(super) fn new(url: Url, within: Duration) -> Self {
        Self { url, within, possible: AtomicBool::new(false), waiting: Mutex::default() }
    }

    /// Before the first batch: whether the token has acknowledgements at all. A batch that is sent without would be stored
    /// by Splunk again with each retry. Anything but a clear no counts as yes: the batch itself will meet the problem.
    pub(super) async fn are_possible(&self, webhook: &Webhook) -> bool {
        if !self.possible.load(Ordering::Relaxed) {
            let told = self.ask(webhook, &[0]).await;
            self.possible.store(told.code != Some(DISABLED), Ordering::Relaxed);
        }
        self.possible.load(Ordering::Relaxed)
    }

    /// A batch was taken without an id: ask again before the next one.
    pub(super) fn doubt(&self) {
        self.possible.store(false, Ordering::Relaxed);
    }

    /// Waits for one batch.
    pub(super) async fn wait(&self, webhook: &Arc<Webhook>, id: u64) -> Ack {
        let (tell, told) = oneshot::channel();
        let ask = {
            let mut waiting = self.lock();
            // An id that is there already was given out twice: Splunk was restarted, and the older one is lost.
            waiting.batches.insert(id, tell);
            !std::mem::replace(&mut waiting.asking, true)
        };
        if ask {
            tokio::spawn(ask_until_nobody_waits(Arc::clone(webhook)));
        }
        // Who no longer waits is known by the closed channel.
        match tokio::time::timeout(self.within, told).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(_)) | Err(_) => Ack::TimedOut,
        }
    }

    /// One question for all. Ends asking when nobody waits.
    async fn round(&self, webhook: &Webhook) -> bool {
        let ids: Vec<_> = {
            let mut waiting = self.lock();
            waiting.batches.retain(|_, tell| !tell.is_closed());
            waiting.asking = !waiting.batches.is_empty();
            waiting.batches.keys().copied().collect()
        };
        if ids.is_empty() {
            return false;
        }
        let told = self.ask(webhook, &ids).await;
        let mut waiting = self.lock();
        let mut settle = |id, ack| {
            if let Some(tell) = waiting.batches.remove(&id) {
                // Nobody there: the deadline was faster.
                let _late = tell.send(ack);
            }
        };
        if told.code == Some(DISABLED) {
            self.doubt();
            ids.into_iter().for_each(|id| settle(id, Ack::Impossible));
        } else {
            let ids = told.acks.into_iter().filter(|(_, acknowledged)| *acknowledged);
            ids.filter_map(|(id, _)| id.parse().ok()).for_each(|id| settle(id, Ack::Acknowledged));
        }
        true
    }

    async fn ask(&self, webhook: &Webhook, ids: &[u64]) -> Told {
        let question = serde_json::json!({ "acks": ids }).to_string();
        let reply = webhook.ask(&self.url, question).await;
        reply.and_then(|reply| serde_json::from_slice(&reply).ok()).unwrap_or_default()
    }

    /// Often enough for the deadline, seldom enough for Splunk.
    fn interval(&self) -> Duration {
        (self.within / 20).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask_until_nobody_waits(webhook: Arc<Webhook>) {
    let Some(acks) = webhook.acks() else { return };
    loop {
        tokio::time::sleep(acks.interval()).await;
        if !acks.round(&webhook).await {
            return;
        }
    }
}
