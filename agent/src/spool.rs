//! STUB, in memory, with the interface of the real one; it is replaced when the parts come together.

use crate::ledger::{Count, DropCause};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use uuid::Uuid;

/// An immutable batch. Line i has the sequence `first_sequence + i`.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its place in the spool, from 1.
    pub number: u64,
    /// Names it for ever.
    pub key: Uuid,
    /// JSON without line ends.
    pub lines: Vec<Bytes>,
    /// Who made its records.
    pub instance_id: Arc<str>,
    /// Of its first record.
    pub first_sequence: u64,
}

/// Records that were given up, to be told in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The spool's name for it.
    pub id: u64,
    /// Why.
    pub cause: DropCause,
    /// Whose loss it is; None: everybody's.
    pub reader: Option<String>,
    /// Whose numbers.
    pub instance_id: String,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// How many.
    pub records: u64,
    /// Of their lines.
    pub bytes: u64,
}

/// Where the stream stood.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Who made them.
    pub instance_id: String,
    /// Of the kernel.
    pub boot_id: String,
    /// Of the last record.
    pub sequence: u64,
    /// When.
    pub time_ns: u64,
    /// Of the chain.
    pub chain: Option<String>,
    /// In order.
    pub stopped: bool,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is kept.
    Stored {
        /// Its number.
        number: u64,
    },
}

/// What the disk says.
#[derive(Debug, thiserror::Error)]
#[error("spool: {0}")]
pub struct SpoolError(pub String);

#[derive(Default)]
struct State {
    frames: BTreeMap<u64, Frame>,
    cursors: HashMap<String, u64>,
    given_up: Vec<GivenUp>,
}

/// See the module.
#[derive(Clone)]
pub struct Spool {
    state: Arc<Mutex<State>>,
    newest: Arc<watch::Sender<u64>>,
}

impl Default for Spool {
    fn default() -> Self {
        Self { state: Arc::default(), newest: Arc::new(watch::Sender::new(0)) }
    }
}

impl Spool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In memory.
    #[must_use]
    pub fn memory(_max_bytes: u64, _readers: &[String]) -> Self {
        Self::default()
    }

    /// Puts a frame in.
    #[must_use]
    pub fn append(&self, lines: Vec<Bytes>, key: Uuid, mark: Mark, _announced: &[u64]) -> Appended {
        let mut state = self.lock();
        let number = state.frames.last_key_value().map_or(1, |(number, _)| number + 1);
        let first_sequence = mark.sequence + 1 - lines.len() as u64;
        let frame = Frame { number, key, lines, instance_id: mark.instance_id.into(), first_sequence };
        state.frames.insert(number, frame);
        drop(state);
        self.newest.send_replace(number);
        Appended::Stored { number }
    }

    /// The first frame above `after`.
    ///
    /// # Errors
    /// The disk's.
    pub fn next(&self, _reader: &str, after: u64) -> Result<Option<Frame>, SpoolError> {
        Ok(self.lock().frames.range(after.saturating_add(1)..).next().map(|(_, frame)| frame.clone()))
    }

    /// Everything up to it is settled.
    #[must_use]
    pub fn cursor(&self, reader: &str) -> u64 {
        self.lock().cursors.get(reader).copied().unwrap_or_default()
    }

    /// Settles everything up to this frame.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle(&self, reader: &str, number: u64) -> Result<(), SpoolError> {
        self.lock().cursors.insert(reader.to_owned(), number);
        Ok(())
    }

    /// Notes what was given up.
    ///
    /// # Errors
    /// The disk's.
    pub fn give_up(&self, given_up: &GivenUp) -> Result<u64, SpoolError> {
        self.lock().given_up.push(given_up.clone());
        Ok(0)
    }

    /// The newest frame's number.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What was given up so far.
    #[must_use]
    pub fn given_up(&self) -> Vec<GivenUp> {
        self.lock().given_up.clone()
    }

    /// What waits above a reader's cursor.
    #[must_use]
    pub fn waiting(&self, reader: &str) -> Count {
        let after = self.cursor(reader);
        let state = self.lock();
        state
            .frames
            .range(after.saturating_add(1)..)
            .fold(Count::default(), |sum, (_, frame)| sum.plus(Count::of(&frame.lines)))
    }
}
