//! What delivery to one endpoint says of itself. What became of each record stands in the ledger, not here.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// The last attempt succeeded, or there was none yet.
    #[default]
    Ok,
    /// The webhook is away or busy; the same batch is tried again and again.
    Retrying,
    /// Somebody has to repair token or endpoint; nothing is dropped.
    Held,
    /// Switched off by command; records wait in the spool.
    Disabled,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: &[Self] = &[Self::Ok, Self::Retrying, Self::Held, Self::Disabled];

    /// The name that `status` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Disabled => "disabled",
        }
    }
}

/// A snapshot; all counts since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryStatus {
    /// How it stands.
    pub state: DeliveryState,
    /// Batches that arrived.
    pub batches: u64,
    /// Attempts that were followed by another one of the same batch.
    pub retries: u64,
    /// Batches that were cut in halves because the webhook refused them.
    pub splits: u64,
    /// Batches that were taken but not acknowledged in time, and therefore sent again.
    pub ack_timeouts: u64,
    /// Requests on their way, and batches that wait for their acknowledgement.
    pub in_flight: u64,
    /// When a batch last arrived, in seconds since 1970.
    pub last_success: Option<u64>,
    /// What the last failed attempt said; never holds the token or the URL.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    status: DeliveryStatus,
    disabled: bool,
    /// Which states were told in the log, and when.
    told: HashMap<DeliveryState, Instant>,
}

/// Shared between delivery and whoever reports it.
#[derive(Debug, Default)]
pub struct DeliveryStats(Mutex<State>);

/// A webhook that fails every other request must not fill the log: each state is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl DeliveryStats {
    /// As it stands now.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        let state = self.lock();
        let mut status = state.status.clone();
        if state.disabled {
            status.state = DeliveryState::Disabled;
        }
        status
    }

    /// A batch arrived. `true`: it had not been so before, and that is to be told.
    pub(super) fn delivered(&self) -> bool {
        let mut state = self.lock();
        state.status.batches += 1;
        state.status.last_success = Some(unix_seconds(SystemTime::now()));
        state.turn(DeliveryState::Ok)
    }

    /// The same batch will be tried again.
    pub(super) fn retried(&self) {
        self.lock().status.retries += 1;
    }

    /// Something failed. `true`: the state has changed, and that is to be told.
    pub(crate) fn failed(&self, to: DeliveryState, error: String) -> bool {
        let mut state = self.lock();
        state.status.last_error = Some(error);
        state.turn(to)
    }

    /// A batch was cut in halves.
    pub(super) fn split(&self) {
        self.lock().status.splits += 1;
    }

    /// An acknowledgement did not come.
    pub(super) fn not_acknowledged(&self) {
        self.lock().status.ack_timeouts += 1;
    }

    /// A single record was refused; the webhook itself works.
    pub(super) fn refused(&self, error: String) {
        let mut state = self.lock();
        state.status.last_error = Some(error);
        state.status.state = DeliveryState::Ok;
    }

    /// Switched on or off. What was is forgotten: the endpoint may be another one.
    pub(super) fn enabled(&self, enabled: bool) {
        let mut state = self.lock();
        state.disabled = !enabled;
        state.status.state = DeliveryState::Ok;
        state.told.clear();
    }

    /// Counts as a request on its way until it is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.lock().status.in_flight += 1;
        Request(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change can be left half done, so a poisoned lock is as good as another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn(&mut self, to: DeliveryState) -> bool {
        let changed = std::mem::replace(&mut self.status.state, to) != to;
        let tell = changed && self.told.get(&to).is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if tell {
            self.told.insert(to, Instant::now());
        }
        tell
    }
}

/// See [`DeliveryStats::request`].
pub(super) struct Request(Arc<DeliveryStats>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.lock().status.in_flight -= 1;
    }
}

/// Whole seconds since 1970; 0 for a clock before that.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
