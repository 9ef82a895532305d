//! The bounded queue between rebuild and delivery, and the ledger of every record that was made.
//!
//! Bounded in records and in bytes. A full queue drops the newest record and counts it: the producer never waits. The
//! ledger lives under the same lock as the queue, so every [`Ledger`] that is read balances exactly:
//!
//! `made = queued + in_flight + delivered + dropped (by cause)`

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of their lines, line ends not counted.
    pub bytes: u64,
}

/// When a batch is complete: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub records: usize,
    /// Bytes of their lines, line ends included. A single longer record is a batch of its own.
    pub bytes: u64,
    /// Time since the first record of the batch was seen.
    pub delay: Duration,
}

macro_rules! drop_causes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $field:ident;)+) => {
        /// Why a record was not delivered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropCause { $($(#[doc = $doc])+ $variant,)+ }

        impl DropCause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that metrics and `status` use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }
        }

        /// Records dropped, by cause.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Dropped { $($(#[doc = $doc])+ pub $field: Count,)+ }

        impl Dropped {
            /// The count of one cause.
            #[must_use]
            pub const fn of(&self, cause: DropCause) -> Count {
                match cause { $(DropCause::$variant => self.$field,)+ }
            }

            fn of_mut(&mut self, cause: DropCause) -> &mut Count {
                match cause { $(DropCause::$variant => &mut self.$field,)+ }
            }
        }
    };
}

drop_causes! {
    /// The queue was full.
    QueueFull = queue_full;
    /// The webhook refuses this very record (400, 422).
    Poison = poison;
    /// The webhook says of this single record that it is too large (413).
    TooLarge = too_large;
    /// Left when the time to drain had passed, or made after delivery had ended. What was in flight then may have arrived.
    Shutdown = shutdown;
    /// The reader of standard output went away.
    StdoutClosed = stdout_closed;
}

/// Records and the bytes of their lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Bytes of their lines, line ends not counted.
    pub bytes: u64,
}

impl Count {
    /// The count of these lines.
    #[must_use]
    pub fn of(lines: &[Bytes]) -> Self {
        lines.iter().fold(Self::default(), |count, line| count.plus(Self::line(line)))
    }

    fn line(line: &Bytes) -> Self {
        Self { records: 1, bytes: line.len() as u64 }
    }

    const fn plus(self, other: Self) -> Self {
        Self { records: self.records.saturating_add(other.records), bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { records: self.records.saturating_sub(other.records), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What became of every record since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Offered to the queue.
    pub made: Count,
    /// In the queue.
    pub queued: Count,
    /// Taken by delivery and not settled yet.
    pub in_flight: Count,
    /// Acknowledged by the webhook, or written to standard output.
    pub delivered: Count,
    /// Not delivered and never will be.
    pub dropped: Dropped,
}

impl Ledger {
    /// Whether every record made is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        let there = self.queued.plus(self.in_flight).plus(self.delivered);
        self.made == DropCause::ALL.iter().fold(there, |sum, cause| sum.plus(self.dropped.of(*cause)))
    }
}

struct State {
    lines: VecDeque<Bytes>,
    ledger: Ledger,
    /// The consumer waits until this much is queued.
    wanted: Count,
    producers: usize,
    /// Set when delivery has ended: whatever comes is dropped for this cause.
    closed: Option<DropCause>,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    /// No code under this lock can leave the state half changed, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue with its two ends.
#[must_use]
pub fn queue(limits: Limits) -> (Producer, Consumer) {
    let state = State {
        lines: VecDeque::new(),
        ledger: Ledger::default(),
        wanted: Count { records: 1, bytes: 1 },
        producers: 1,
        closed: None,
    };
    let shared = Arc::new(Shared { limits, state: Mutex::new(state), changed: Notify::new() });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

/// The end that puts records in. When the last one is dropped, the consumer ends after what is queued.
pub struct Producer(Arc<Shared>);

impl Producer {
    /// Offers one record: a JSON line without its line end. Never waits. `false`: dropped and counted.
    pub fn push(&self, line: Bytes) -> bool {
        let mut state = self.0.lock();
        let count = Count::line(&line);
        let queued = state.ledger.queued.plus(count);
        let full = state.lines.len() >= self.0.limits.records || queued.bytes > self.0.limits.bytes;
        state.ledger.made = state.ledger.made.plus(count);
        if let Some(cause) = state.closed.or(full.then_some(DropCause::QueueFull)) {
            let dropped = state.ledger.dropped.of_mut(cause);
            *dropped = dropped.plus(count);
            return false;
        }
        state.lines.push_back(line);
        state.ledger.queued = queued;
        let wake = queued.records >= state.wanted.records || queued.bytes >= state.wanted.bytes;
        drop(state);
        if wake {
            self.0.changed.notify_one();
        }
        true
    }

    /// A view of the ledger, for whoever reports it.
    #[must_use]
    pub fn view(&self) -> LedgerView {
        LedgerView(Arc::clone(&self.0))
    }
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        self.0.lock().producers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.lock().producers -= 1;
        self.0.changed.notify_one();
    }
}

/// Reads the ledger.
#[derive(Clone)]
pub struct LedgerView(Arc<Shared>);

impl LedgerView {
    /// The ledger at this moment.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.0.lock().ledger
    }

    /// What the queue holds at most.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits
    }
}

/// The end that takes batches out and settles what became of them. There is one.
pub struct Consumer(Arc<Shared>);

impl Consumer {
    /// Waits for a batch. `None`: every producer is gone and nothing is queued. Safe to cancel: nothing is taken before the
    /// last wait is over.
    pub async fn next_batch(&mut self, limits: BatchLimits) -> Option<Vec<Bytes>> {
        self.wait_for(Count { records: 1, bytes: 1 }, None).await;
        let full = Count { records: limits.records as u64, bytes: limits.bytes };
        self.wait_for(full, Some(Instant::now() + limits.delay)).await;
        self.take(limits)
    }

    /// Takes what there is, without waiting.
    pub fn take(&mut self, limits: BatchLimits) -> Option<Vec<Bytes>> {
        let mut state = self.0.lock();
        let mut batch = Vec::new();
        let mut bytes = 0u64;
        while let Some(line) = state.lines.front() {
            bytes += line.len() as u64 + 1;
            if !batch.is_empty() && (bytes > limits.bytes || batch.len() >= limits.records) {
                break;
            }
            batch.extend(state.lines.pop_front());
        }
        let count = Count::of(&batch);
        state.ledger.queued = state.ledger.queued.minus(count);
        state.ledger.in_flight = state.ledger.in_flight.plus(count);
        (!batch.is_empty()).then_some(batch)
    }

    /// Until this much is queued, every producer is gone, or the deadline has passed.
    async fn wait_for(&self, wanted: Count, deadline: Option<Instant>) {
        loop {
            {
                let mut state = self.0.lock();
                let queued = state.ledger.queued;
                if queued.records >= wanted.records || queued.bytes >= wanted.bytes || state.producers == 0 {
                    return;
                }
                state.wanted = wanted;
            }
            // A push between the lock and this line leaves its permit in `changed`: no wake-up is lost.
            match deadline {
                None => self.0.changed.notified().await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, self.0.changed.notified()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// These records, taken before, have arrived.
    pub fn delivered(&mut self, count: Count) {
        let mut state = self.0.lock();
        state.ledger.in_flight = state.ledger.in_flight.minus(count);
        state.ledger.delivered = state.ledger.delivered.plus(count);
    }

    /// These records, taken before, are given up.
    pub fn dropped(&mut self, cause: DropCause, count: Count) {
        let mut state = self.0.lock();
        state.ledger.in_flight = state.ledger.in_flight.minus(count);
        let dropped = state.ledger.dropped.of_mut(cause);
        *dropped = dropped.plus(count);
    }

    /// Ends delivery: what is queued or in flight is dropped for this cause, and so is what comes later. Returns how much it
    /// was.
    pub fn close(self, cause: DropCause) -> Count {
        let mut state = self.0.lock();
        let left = state.ledger.queued.plus(state.ledger.in_flight);
        state.ledger.queued = Count::default();
        state.ledger.in_flight = Count::default();
        let dropped = state.ledger.dropped.of_mut(cause);
        *dropped = dropped.plus(left);
        state.closed = Some(cause);
        state.lines = VecDeque::new();
        left
    }

    /// A view of the ledger, for whoever reports it.
    #[must_use]
    pub fn view(&self) -> LedgerView {
        LedgerView(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests;
