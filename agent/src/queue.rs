//! The bounded queue between rebuild and the spool.
//!
//! Bounded in records and in bytes. The producer asks for room before it makes a record, so that a record which is
//! refused never gets a number; it never waits. Every step is booked in the [`Ledger`].

use crate::ledger::{Count, DropCause, Ledger};
use bytes::Bytes;
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
    /// Bytes of their lines, line ends not counted. The last record may reach over it.
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

/// A record on its way into the spool, and where the stream stands with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A JSON line without its line end.
    pub line: Bytes,
    /// Its number.
    pub sequence: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// What the spool noted as given up and this record tells of; see `spool::GivenUp`.
    pub announces: Vec<u64>,
    /// Nothing comes after it: the stream ends in order.
    pub last: bool,
}

impl Entry {
    /// How much it is.
    #[must_use]
    pub fn count(&self) -> Count {
        Count::line(&self.line)
    }

    /// How much these are.
    #[must_use]
    pub fn count_all(entries: &[Self]) -> Count {
        entries.iter().fold(Count::default(), |sum, entry| sum.plus(entry.count()))
    }
}

struct State {
    entries: VecDeque<Entry>,
    queued: Count,
    /// The consumer waits until this much is queued.
    wanted: Count,
    producing: bool,
    /// Set when the consumer has ended: whatever comes is dropped for this cause.
    closed: Option<DropCause>,
}

struct Shared {
    limits: Limits,
    ledger: Ledger,
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
pub fn queue(limits: Limits, ledger: Ledger) -> (Producer, Consumer) {
    let state = State {
        entries: VecDeque::new(),
        queued: Count::default(),
        wanted: Count { records: 1, bytes: 1 },
        producing: true,
        closed: None,
    };
    let shared = Arc::new(Shared { limits, ledger, state: Mutex::new(state), changed: Notify::new() });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

/// What the queue has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    records: usize,
    bytes: u64,
}

impl Room {
    /// Whether another record may be made.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.records > 0 && self.bytes > 0
    }

    /// One of this length was put in.
    pub const fn take(&mut self, bytes: usize) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// The end that puts records in. There is one; when it is dropped, the consumer ends after what is queued.
pub struct Producer(Arc<Shared>);

impl Producer {
    /// How many more records may be made. Only this end makes it less.
    #[must_use]
    pub fn room(&self) -> Room {
        let state = self.0.lock();
        if state.closed.is_some() {
            return Room::default();
        }
        let Limits { records, bytes } = self.0.limits;
        Room { records: records.saturating_sub(state.entries.len()), bytes: bytes.saturating_sub(state.queued.bytes) }
    }

    /// Books a record that was not made because there is no room. Returns the cause.
    pub fn refuse(&self) -> DropCause {
        let cause = self.0.lock().closed.unwrap_or(DropCause::QueueFull);
        self.0.ledger.refused(cause, Count { records: 1, bytes: 0 });
        cause
    }

    /// Puts a record in, also above the limits: to ask before is the caller's part. Never waits.
    pub fn push(&self, entry: Entry) {
        let mut state = self.0.lock();
        let count = entry.count();
        if let Some(cause) = state.closed {
            self.0.ledger.refused(cause, count);
            return;
        }
        self.0.ledger.queued(count);
        state.entries.push_back(entry);
        state.queued = state.queued.plus(count);
        let wake = state.queued.records >= state.wanted.records || state.queued.bytes >= state.wanted.bytes;
        drop(state);
        if wake {
            self.0.changed.notify_one();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.lock().producing = false;
        self.0.changed.notify_one();
    }
}

/// The end that takes batches out. There is one.
pub struct Consumer(Arc<Shared>);

impl Consumer {
    /// Waits for a batch. `None`: the producer is gone and nothing is queued. Safe to cancel: nothing is taken before the
    /// last wait is over.
    pub async fn next_batch(&mut self, limits: BatchLimits) -> Option<Vec<Entry>> {
        self.wait_for(Count { records: 1, bytes: 1 }, None).await;
        let full = Count { records: limits.records as u64, bytes: limits.bytes };
        self.wait_for(full, Some(Instant::now() + limits.delay)).await;
        self.take(limits)
    }

    /// Takes what there is, without waiting.
    pub fn take(&mut self, limits: BatchLimits) -> Option<Vec<Entry>> {
        let mut state = self.0.lock();
        let mut batch: Vec<Entry> = Vec::new();
        let mut bytes = 0u64;
        while let Some(entry) = state.entries.front() {
            bytes += entry.line.len() as u64 + 1;
            if !batch.is_empty() && (bytes > limits.bytes || batch.len() >= limits.records) {
                break;
            }
            batch.extend(state.entries.pop_front());
        }
        let count = Entry::count_all(&batch);
        state.queued = state.queued.minus(count);
        self.0.ledger.writing(count);
        (!batch.is_empty()).then_some(batch)
    }

    /// Until this much is queued, the producer is gone, or the deadline has passed.
    async fn wait_for(&self, wanted: Count, deadline: Option<Instant>) {
        loop {
            {
                let mut state = self.0.lock();
                let queued = state.queued;
                if queued.records >= wanted.records || queued.bytes >= wanted.bytes || !state.producing {
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

    /// Ends: what is queued is dropped for this cause, and so is what comes later. Returns how much it was.
    pub fn close(self, cause: DropCause) -> Count {
        let mut state = self.0.lock();
        let left = std::mem::take(&mut state.queued);
        self.0.ledger.left_in_queue(cause, left);
        state.closed = Some(cause);
        state.entries = VecDeque::new();
        left
    }
}

#[cfg(test)]
mod tests;
