//! What delivery says of itself. What became of each record stands in the queue's ledger, not here.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// How delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// The last attempt succeeded, or there was none yet.
    #[default]
    Ok,
    /// The webhook is away or busy; the same batch is tried again and again.
    Retrying,
    /// Somebody has to repair token or endpoint; nothing is dropped.
    Held,
}

impl DeliveryState {
    /// The name that `status` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retrying => "retrying",
            Self::Held => "held",
        }
    }
}

/// A snapshot; all counts since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// How it stands.
    pub state: DeliveryState,
    /// Batches that arrived.
    pub batches: u64,
    /// Attempts that were followed by another one of the same batch.
    pub retries: u64,
    /// Batches that were cut in halves because the webhook refused them.
    pub splits: u64,
    /// When a batch last arrived, in seconds since 1970.
    pub last_success: Option<u64>,
    /// What the last failed attempt said; never holds the token or the URL.
    pub last_error: Option<String>,
}

/// Shared between delivery and whoever reports it.
#[derive(Debug, Default)]
pub struct DeliveryStats(Mutex<DeliveryStatus>);

impl DeliveryStats {
    /// As it stands now.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        self.change(|status| status.clone())
    }

    /// A batch arrived. `true`: it had not been so before.
    pub(super) fn delivered(&self) -> bool {
        self.change(|status| {
            status.batches += 1;
            status.last_success = Some(unix_seconds(SystemTime::now()));
            std::mem::take(&mut status.state) != DeliveryState::Ok
        })
    }

    /// The same batch will be tried again.
    pub(super) fn retried(&self) {
        self.change(|status| status.retries += 1);
    }

    /// Something failed. `true`: the state has changed.
    pub(crate) fn failed(&self, state: DeliveryState, error: String) -> bool {
        self.change(|status| {
            status.last_error = Some(error);
            std::mem::replace(&mut status.state, state) != state
        })
    }

    /// A batch was cut in halves.
    pub(super) fn split(&self) {
        self.change(|status| status.splits += 1);
    }

    /// A single record was refused; the webhook itself works.
    pub(super) fn refused(&self, error: String) {
        self.change(|status| {
            status.last_error = Some(error);
            status.state = DeliveryState::Ok;
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut DeliveryStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whole seconds since 1970; 0 for a clock before that.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
