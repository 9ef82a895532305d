//! What the other parts of the daemon have to say in the audit stream: only the audit thread writes it.

use crate::config::keys::Config;
use crate::stream::gaps::RecordLoss;
use s3auditd_rebuild::record::event::ConfigurationRecord;
use std::sync::{Arc, Mutex, PoisonError};

/// Something to be said, or done, by the audit thread.
#[derive(Debug)]
pub enum Notice {
    /// Records were lost.
    Lost {
        /// Which.
        loss: RecordLoss,
        /// What the spool has noted of it, to be forgotten when it has been said.
        noted: Option<u64>,
    },
    /// Records of this instance did not get into the spool.
    NotKept {
        /// Which, and why.
        loss: RecordLoss,
        /// The first one's number.
        first: u64,
        /// The last one's number.
        last: u64,
        /// What the spool has noted, and they would have said.
        unsaid: Vec<u64>,
    },
    /// The configuration changed, or was to.
    Configuration {
        /// What is said of it.
        said: ConfigurationRecord,
        /// How records are made from now on, if that is what changed.
        settings: Option<Box<Config>>,
    },
}

/// A pile that the audit thread takes away at every turn (`ring-flush-ms` at the latest), so it stays small.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Vec<Notice>>>);

impl Notices {
    /// Puts one on the pile.
    pub fn put(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// Takes the pile.
    #[must_use]
    pub fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
