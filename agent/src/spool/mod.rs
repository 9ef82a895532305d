//! The spool: batches that wait for delivery, on disk or in memory, under the idempotency key they are sent with.
//!
//! Frames are numbered upwards. Each reader has a cursor; a frame is deleted when every reader has settled it. What is
//! given up on the way (dropped for room, damaged, refused by the webhook) is kept as runs of sequence numbers until it
//! was announced in the stream. `docs/spool.md` has the layout on disk and what survives what.

mod database;
mod disk;
mod frame;
mod fresh;
mod known;
mod memory;
mod place;
mod salvage;
mod state;
mod tail;
pub mod tool;

use crate::config::{SpoolCompression, SpoolSync, WhenFull};
use crate::ledger::{Count, DropCause};
use bytes::Bytes;
use disk::Disk;
use memory::Memory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// How a spool on disk is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory, for its owner alone; it is made if it is not there.
    pub dir: PathBuf,
    /// The database gets no longer; its journal adds at most [`JOURNAL_LIMIT`] and one frame.
    pub max_bytes: u64,
    /// So much stays free on the file system.
    pub min_free_bytes: u64,
    /// What goes when there is no room.
    pub when_full: WhenFull,
    /// What a power loss may cost.
    pub sync: SpoolSync,
    /// How new frames are kept; those that are there may be kept otherwise.
    pub compression: SpoolCompression,
}

/// The database's journal is cut back before it gets longer; while somebody stops that, appends are refused.
pub const JOURNAL_LIMIT: u64 = 64 << 20;

/// One immutable batch under one idempotency key. Numbers only go up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From 1.
    pub number: u64,
    /// Stays the same however often it is sent.
    pub key: Uuid,
    /// The records, without line ends.
    pub lines: Vec<Bytes>,
    /// Who numbered them.
    pub instance_id: Arc<str>,
    /// The first one's number; the others follow.
    pub first_sequence: u64,
}

impl Frame {
    /// Of lines that have these numbers.
    fn of(number: u64, key: Uuid, lines: Vec<Bytes>, range: &Range) -> Self {
        Self { number, key, lines, instance_id: Arc::clone(&range.instance_id), first_sequence: range.first }
    }
}

/// Where the record stream stood behind a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of the daemon's run that made the records.
    pub instance_id: String,
    /// Of the kernel's run.
    pub boot_id: String,
    /// Of the frame's last record. The others have the numbers before it: a frame never mixes instances.
    pub sequence: u64,
    /// When it was written, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Of the hash chain, in hex digits, if there is one.
    pub chain: Option<String>,
    /// The stream ended here as asked.
    pub stopped: bool,
}

/// A run of sequence numbers that was given up, kept on disk until announced in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The spool gives it; [`Spool::append`] is told of it when the run is announced.
    pub id: u64,
    /// Why.
    pub cause: DropCause,
    /// Who will not get them; `None`: nobody was there to get them.
    pub reader: Option<String>,
    /// Whose numbers; empty: what was lost was too damaged to tell, and the numbers mean nothing.
    pub instance_id: String,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// Records; less than the numbers tell if runs were put together because there were too many.
    pub records: u64,
    /// Bytes of their lines, line ends not counted.
    pub bytes: u64,
}

/// What was found when a spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Of the newest frame that ever was.
    pub mark: Option<Mark>,
    /// Frames that are kept.
    pub frames: u64,
    /// Their records.
    pub records: u64,
    /// Frames that were lost to damage, found now.
    pub corrupt_frames: u64,
    /// The damaged database, if one was set aside now.
    pub set_aside: Option<PathBuf>,
    /// To be announced.
    pub given_up: Vec<GivenUp>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is kept.
    Stored {
        /// Its number.
        number: u64,
        /// What every reader lost to the room it needed.
        dropped: Vec<(String, Count)>,
    },
    /// It is not, and nothing was dropped.
    Refused(RefusedCause),
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedCause {
    /// The spool is full, and set to keep the oldest; or its journal cannot be cut back.
    Full,
    /// The file system is full, or as full as it may get.
    NoSpace,
    /// Writing failed.
    Io,
    /// It is larger than the whole spool: waiting does not help.
    TooLarge,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be made or looked at.
    #[error("spool-dir {}: {source}", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could get at it.
    #[error("spool-dir {}: mode {mode:o} and owner {uid}; it must be closed to all others (chmod 700) and owned by user {own}", dir.display())]
    Open {
        /// Which.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Who we are.
        own: u32,
    },
    /// Another daemon has it.
    #[error("spool-dir {}: in use by another s3auditd, pid {pid}", dir.display())]
    Locked {
        /// Which.
        dir: PathBuf,
        /// Its process id.
        pid: String,
    },
    /// The database does not work.
    #[error("spool-dir {}: {problem}", dir.display())]
    Database {
        /// Which.
        dir: PathBuf,
        /// What it says.
        problem: String,
    },
    /// There is no reader of this name.
    #[error("the spool has no reader {0:?}")]
    NoReader(String),
}

/// How a spool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Its directory; None: memory.
    pub dir: Option<String>,
    /// The files' length; in memory: of the lines.
    pub disk_bytes: u64,
    /// What the configuration allows the database.
    pub limit: u64,
    /// Left on the file system; in memory: to the limit.
    pub free_bytes: u64,
    /// Frames that are kept.
    pub frames: u64,
    /// Their records and bytes.
    pub kept: Count,
    /// Of the oldest frame, in nanoseconds since 1970.
    pub oldest_ns: Option<u64>,
    /// Of the newest frame.
    pub newest_ns: Option<u64>,
    /// Frames lost to damage since the spool was made.
    pub corrupt_frames: u64,
    /// Runs that wait to be announced.
    pub given_up: u64,
    /// How far everybody is.
    pub readers: BTreeMap<String, ReaderStatus>,
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// Everything up to this frame is settled.
    pub cursor: u64,
    /// Frames behind it that are kept.
    pub frames: u64,
    /// Their records and bytes.
    pub waiting: Count,
}

/// Sequence numbers of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    instance_id: Arc<str>,
    first: u64,
    last: u64,
    records: u64,
    bytes: u64,
}

impl Range {
    fn of(mark: &Mark, count: Count) -> Self {
        let Count { records, bytes } = count;
        let first = mark.sequence.saturating_add(1).saturating_sub(records);
        Self { instance_id: mark.instance_id.as_str().into(), first, last: mark.sequence, records, bytes }
    }
}

enum Store {
    Disk(Arc<Disk>),
    Memory(Box<Memory>),
}

struct Inner {
    store: Store,
    appended: watch::Sender<u64>,
    /// The newest run that was given up.
    given_up: watch::Sender<u64>,
    /// Dropped before the store: the thread that syncs ends.
    _ticker: Option<disk::Ticker>,
}

/// See the module. Its methods may wait for the disk: an async caller uses `spawn_blocking`.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

impl Spool {
    /// Opens the spool of this directory for this process alone. Readers that it does not know yet begin behind its newest
    /// frame, the first ones with its oldest; those it knows and that are not named here are forgotten.
    ///
    /// Reads the whole database once, to find damage before it is written to.
    ///
    /// # Errors
    /// The directory cannot be used, another process has it, or no database works there. Damage is no error.
    pub fn open(settings: Settings, readers: &[String]) -> Result<(Self, Recovered), SpoolError> {
        let (disk, recovered) = Disk::open(settings, readers)?;
        let disk = Arc::new(disk);
        let ticker = Some(disk::Ticker::start(&disk)?);
        let newest = disk.known().state.newest;
        Ok((Self::new(Store::Disk(disk), newest, ticker), recovered))
    }

    /// A spool that is gone with the process. When it is full it refuses.
    #[must_use]
    pub fn memory(max_bytes: u64, readers: &[String]) -> Self {
        Self::new(Store::Memory(Box::new(Memory::new(max_bytes, readers))), 0, None)
    }

    fn new(store: Store, newest: u64, ticker: Option<disk::Ticker>) -> Self {
        let (appended, given_up) = (watch::Sender::new(newest), watch::Sender::new(0));
        let spool = Self(Arc::new(Inner { store, appended, given_up, _ticker: ticker }));
        spool.tell_given_up();
        spool
    }

    /// Keeps these lines as one frame. `mark` tells of the last of them; `announced` are the runs that are said in them. All of
    /// it is kept, or nothing.
    #[must_use]
    pub fn append(&self, lines: Vec<Bytes>, key: Uuid, mark: Mark, announced: &[u64]) -> Appended {
        let appended = match &self.0.store {
            Store::Disk(disk) => disk.append(&lines, key, &mark, announced),
            Store::Memory(memory) => memory.append(lines, key, mark, announced),
        };
        if let Appended::Stored { number, .. } = appended {
            self.0.appended.send_replace(number);
        }
        self.tell_given_up();
        appended
    }

    /// The first readable frame above `after`. Damaged ones on the way are counted and given up.
    ///
    /// # Errors
    /// There is no such reader, or reading failed for a reason that may pass.
    pub fn next(&self, reader: &str, after: u64) -> Result<Option<Frame>, SpoolError> {
        self.read(|state| state.cursor(reader)).ok_or_else(|| SpoolError::NoReader(reader.to_owned()))?;
        match &self.0.store {
            Store::Disk(disk) => {
                let next = disk.next(reader, after);
                self.tell_given_up();
                next
            }
            Store::Memory(memory) => Ok(memory.next(after)),
        }
    }

    /// Everything up to this frame is settled; 0 for a reader that is not known.
    #[must_use]
    pub fn cursor(&self, reader: &str) -> u64 {
        self.read(|state| state.cursor(reader)).unwrap_or(0)
    }

    /// Everything up to this frame is settled from here on; a frame that was dropped meanwhile, or settled, may be named.
    ///
    /// # Errors
    /// There is no such reader, or it could not be written (with [`SpoolSync::Always`]; it holds for this process all the same).
    pub fn settle(&self, reader: &str, number: u64) -> Result<(), SpoolError> {
        let known = self.change(|state| state.settle(reader, number))?;
        if known { Ok(()) } else { Err(SpoolError::NoReader(reader.to_owned())) }
    }

    /// Notes a run that delivery gave up, and returns its id; that of `given_up` is not looked at. It is written together with
    /// the next settle or append.
    ///
    /// # Errors
    /// It could not be written (with [`SpoolSync::Always`]).
    pub fn give_up(&self, given_up: &GivenUp) -> Result<u64, SpoolError> {
        let GivenUp { cause, reader, instance_id, first, last, records, bytes, .. } = given_up;
        let instance_id = instance_id.as_str().into();
        let range = Range { instance_id, first: *first, last: *last, records: *records, bytes: *bytes };
        let noted = match &self.0.store {
            Store::Disk(disk) => disk.change(|state| state.note(*cause, reader.clone(), &range)),
            Store::Memory(memory) => Ok(memory.give_up(*cause, reader.clone(), &range)),
        };
        self.tell_given_up();
        noted
    }

    /// The runs that were not announced yet. What is returned changes no more until it is announced: later losses are runs of
    /// their own.
    #[must_use]
    pub fn given_up(&self) -> Vec<GivenUp> {
        match &self.0.store {
            Store::Disk(disk) => disk.hand_out(),
            Store::Memory(memory) => memory.change(state::State::hand_out),
        }
    }

    /// A new reader: it begins behind the newest frame, or with the oldest if it is the only one.
    ///
    /// # Errors
    /// It could not be written (with [`SpoolSync::Always`]).
    pub fn add_reader(&self, reader: &str) -> Result<(), SpoolError> {
        self.change(|state| state.add_reader(reader))
    }

    /// This reader no longer holds frames back. Without any reader frames are kept until the limit.
    ///
    /// # Errors
    /// It could not be written (with [`SpoolSync::Always`]).
    pub fn remove_reader(&self, reader: &str) -> Result<(), SpoolError> {
        self.change(|state| state.remove_reader(reader))
    }

    /// Whether what it keeps outlives the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self.0.store, Store::Disk(_))
    }

    /// How much waits for a reader.
    #[must_use]
    pub fn waiting(&self, reader: &str) -> Count {
        self.status().readers.get(reader).map(|reader| reader.waiting).unwrap_or_default()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        match &self.0.store {
            Store::Disk(disk) => disk.status(),
            Store::Memory(memory) => {
                let held = memory.lock();
                let mut status = held.known.status();
                status.disk_bytes = status.kept.bytes;
                status.limit = memory.max_bytes;
                status.free_bytes = memory.max_bytes.saturating_sub(status.kept.bytes);
                status
            }
        }
    }

    /// Tells the newest frame's number whenever one was appended.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.appended.subscribe()
    }

    /// Tells whenever there is more in [`Spool::given_up`]. What is found damaged while nobody reads or appends is told with the
    /// next read or append.
    #[must_use]
    pub fn watch_given_up(&self) -> watch::Receiver<u64> {
        self.0.given_up.subscribe()
    }

    fn tell_given_up(&self) {
        let newest = self.read(|state| state.last_id);
        self.0.given_up.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }

    /// Writes what is not in the database yet, and forces it to the disk unless that is never done.
    ///
    /// # Errors
    /// It could not be written.
    pub fn flush(&self) -> Result<(), SpoolError> {
        match &self.0.store {
            Store::Disk(disk) => disk.flush(),
            Store::Memory(_) => Ok(()),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&state::State) -> T) -> T {
        match &self.0.store {
            Store::Disk(disk) => read(&disk.known().state),
            Store::Memory(memory) => read(&memory.lock().known.state),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut state::State) -> T) -> Result<T, SpoolError> {
        match &self.0.store {
            Store::Disk(disk) => disk.change(change),
            Store::Memory(memory) => Ok(memory.change(change)),
        }
    }
}
