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

    /// Puts a frame in; returns its number.
    pub fn put(&self, instance_id: &str, first_sequence: u64, lines: Vec<Bytes>) -> u64 {
        let mut state = self.lock();
        let number = state.frames.last_key_value().map_or(1, |(number, _)| number + 1);
        let frame = Frame { number, key: Uuid::now_v7(), lines, instance_id: instance_id.into(), first_sequence };
        state.frames.insert(number, frame);
        drop(state);
        self.newest.send_replace(number);
        number
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
    pub fn give_up(&self, given_up: GivenUp) -> Result<(), SpoolError> {
        self.lock().given_up.push(given_up);
        Ok(())
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
        state.frames.range(after.saturating_add(1)..).fold(Count::default(), |sum, (_, frame)| sum.plus(Count::of(&frame.lines)))
    }
}
