//! The SQLite file: frames and one row of state. Every row carries its own checksum, because SQLite has none for pages.

use super::RefusedCause;
use super::frame::{Head, Row};
use super::place::{self, private_file, with_suffix};
use super::state::State;
use crate::config::SpoolSync;
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row as SqlRow, params};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of its file.
pub(super) const FILE: &str = "spool.db";

/// Large frames want large pages; docs/decisions/0050-spool-store.md has the numbers.
pub(super) const PAGE_BYTES: u64 = 32 * 1024;

/// Pages in the journal that SQLite moves into the file: 32 MiB.
const CHECKPOINT_PAGES: u32 = 1024;

/// The journal is cut back to this when it begins anew.
const JOURNAL_BYTES: u64 = 40 << 20;

/// Pages that a connection keeps: two frames of the usual size. Each is written once and read once, so more would only lie there.
const CACHE_KIB: u32 = 2048;

/// Others only read, so nothing takes long.
const BUSY: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS frame (number INTEGER PRIMARY KEY, head BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL);
";

/// RefusedCause the database did not do it.
#[derive(Debug)]
pub(super) enum Fault {
    /// What it holds makes no sense, or cannot be read.
    Corrupt(String),
    /// The disk, or the file's limit, is full.
    NoSpace,
    /// The spool's own limit was reached.
    Full,
    /// The frame fits into no spool of this limit.
    TooLarge,
    /// Anything else.
    Io(String),
}

impl Fault {
    /// As a refusal.
    pub(super) fn refused(&self) -> RefusedCause {
        match self {
            Self::NoSpace => RefusedCause::NoSpace,
            Self::Full => RefusedCause::Full,
            Self::TooLarge => RefusedCause::TooLarge,
            Self::Corrupt(_) | Self::Io(_) => RefusedCause::Io,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corrupt(problem) => write!(to, "the database is damaged: {problem}"),
            Self::NoSpace => to.write_str("no space left"),
            Self::Full => to.write_str("the spool is full"),
            Self::TooLarge => to.write_str("the frame is larger than the spool"),
            Self::Io(problem) => to.write_str(problem),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        /// `SQLITE_IOERR_SHORT_READ`, `SQLITE_IOERR_CORRUPTFS`: the file ends where it should not, or the file system is damaged.
        const DAMAGE: [i32; 2] = [522, 8458];
        let text = error.to_string();
        let rusqlite::Error::SqliteFailure(code, _) = &error else { return Self::Corrupt(text) };
        match code.code {
            ErrorCode::DiskFull => Self::NoSpace,
            ErrorCode::SystemIoFailure if !DAMAGE.contains(&code.extended_code) => Self::Io(text),
            ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::TooBig => Self::Io(text),
            _ => Self::Corrupt(text),
        }
    }
}

/// What the database holds, bodies aside.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) state: Option<State>,
    /// A row of state is there.
    pub(super) has_state: bool,
    /// `None`: that row's head is damaged.
    pub(super) heads: BTreeMap<u64, Option<Head>>,
}

/// How many pages there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) all: u64,
    pub(super) free: u64,
}

/// A connection.
pub(super) struct Database {
    sql: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens it to write; makes it if it is not there.
    pub(super) fn open(path: &Path, sync: SpoolSync) -> Result<Self, Fault> {
        // SQLite gives its journal the mode of the database.
        private_file(path).map_err(|error| Fault::Io(error.to_string()))?;
        let database = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let synchronous = match sync {
            SpoolSync::Always => "FULL",
            SpoolSync::EverySecond => "NORMAL",
            SpoolSync::Never => "OFF",
        };
        database.sql.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {JOURNAL_BYTES}; {SCHEMA}"
        ))?;
        Ok(database)
    }

    /// Opens it to read, beside whoever writes.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, Fault> {
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, Fault> {
        let sql = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        sql.busy_timeout(BUSY)?;
        sql.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA mmap_size = 0;"
        ))?;
        Ok(Self { sql, path: path.to_owned() })
    }

    /// The file gets no longer than this.
    pub(super) fn limit(&self, pages: u64) -> Result<(), Fault> {
        Ok(self.sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    }

    /// Whether its structure is sound: every page is read.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let said: String = self.sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if said == "ok" { Ok(()) } else { Err(Fault::Corrupt(said)) }
    }

    /// All of it but the bodies.
    pub(super) fn contents(&self) -> Result<Contents, Fault> {
        let mut contents = Contents::default();
        (contents.has_state, contents.state) = self.state()?;
        let mut all = self.sql.prepare("SELECT number, head, checksum FROM frame ORDER BY number")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let number = number(row)?;
            contents.heads.insert(number, head(row, number));
        }
        Ok(contents)
    }

    /// Whether there is a row of state, and what it says if it is whole.
    pub(super) fn state(&self) -> Result<(bool, Option<State>), Fault> {
        let mut all = self.sql.prepare_cached("SELECT value, checksum FROM state WHERE id = 1")?;
        let mut rows = all.query([])?;
        let Some(row) = rows.next()? else { return Ok((false, None)) };
        let (Ok(value), Ok(checksum)) = (row.get::<_, Vec<u8>>(0), row.get::<_, u32>(1)) else {
            return Ok((true, None));
        };
        let whole = crc32fast::hash(&value) == checksum;
        Ok((true, whole.then(|| serde_json::from_slice(&value).ok()).flatten()))
    }

    /// The row of a frame; `None`: there is none. A row that is not of the right types is an empty one, which no checksum fits.
    pub(super) fn row(&self, number: u64) -> Result<Option<Row>, Fault> {
        let mut one = self.sql.prepare_cached("SELECT head, checksum, body FROM frame WHERE number = ?1")?;
        let row = one.query_row([signed(number)], |row| {
            let columns = (row.get(0), row.get(1), row.get(2));
            let (Ok(head), Ok(checksum), Ok(body)) = columns else {
                return Ok(Row { head: Vec::new(), checksum: 1, body: Bytes::new() });
            };
            Ok(Row { head, checksum, body: Vec::into(body) })
        });
        Ok(row.optional()?)
    }

    /// The lowest number above `after`, or the highest below it.
    pub(super) fn neighbour(&self, after: u64, upward: bool) -> Result<Option<u64>, Fault> {
        let text = if upward {
            "SELECT number FROM frame WHERE number > ?1 ORDER BY number LIMIT 1"
        } else {
            "SELECT number FROM frame WHERE number < ?1 ORDER BY number DESC LIMIT 1"
        };
        let mut one = self.sql.prepare_cached(text)?;
        Ok(one.query_row([signed(after)], number_of).optional()?)
    }

    /// How many pages there are, as of now, within a transaction too.
    pub(super) fn pages(&self) -> Result<Pages, Fault> {
        let pragma = |name: &str| {
            let value: i64 = self.sql.prepare_cached(name)?.query_row([], |row| row.get(0))?;
            Ok::<_, Fault>(u64::try_from(value).unwrap_or(0))
        };
        Ok(Pages { all: pragma("PRAGMA page_count")?, free: pragma("PRAGMA freelist_count")? })
    }

    /// Does all of `work`, or nothing.
    pub(super) fn whole<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.sql.execute_batch("BEGIN IMMEDIATE")?;
        let done = work().and_then(|done| Ok(self.sql.execute_batch("COMMIT").map(|()| done)?));
        if done.is_err() {
            // After some errors SQLite has rolled back by itself, and says so here.
            let _already = self.sql.execute_batch("ROLLBACK");
        }
        done
    }

    /// Writes a frame.
    pub(super) fn insert(&self, number: u64, row: &Row) -> Result<(), Fault> {
        let mut insert = self.sql.prepare_cached("INSERT INTO frame VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute(params![signed(number), row.head, row.checksum, row.body.as_ref()])?;
        Ok(())
    }

    /// Deletes the frames up to this one.
    pub(super) fn delete_up_to(&self, number: u64) -> Result<(), Fault> {
        self.sql.prepare_cached("DELETE FROM frame WHERE number <= ?1")?.execute([signed(number)])?;
        Ok(())
    }

    /// Deletes this one.
    pub(super) fn delete(&self, number: u64) -> Result<(), Fault> {
        self.sql.prepare_cached("DELETE FROM frame WHERE number = ?1")?.execute([signed(number)])?;
        Ok(())
    }

    /// Writes the row of state.
    pub(super) fn write_state(&self, state: &State) -> Result<(), Fault> {
        let value = serde_json::to_vec(state).map_err(|error| Fault::Io(error.to_string()))?;
        let mut write = self.sql.prepare_cached("INSERT OR REPLACE INTO state VALUES (1, ?1, ?2)")?;
        write.execute(params![value, crc32fast::hash(&value)])?;
        Ok(())
    }

    /// Gives free pages back to the file system.
    pub(super) fn shrink(&self) -> Result<(), Fault> {
        let mut shrink = self.sql.prepare("PRAGMA incremental_vacuum")?;
        let mut rows = shrink.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(shrink);
        self.checkpoint()
    }

    /// Moves the journal into the file and cuts it to nothing, as far as readers let it.
    pub(super) fn checkpoint(&self) -> Result<(), Fault> {
        Ok(self.sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// The length of the journal.
    pub(super) fn journal_bytes(&self) -> u64 {
        place::length(&with_suffix(&self.path, "-wal"))
    }
}

/// Everything that was committed reaches the disk. SQLite's own locks are not on this file, so opening it breaks none.
pub(super) fn sync_journal(path: &Path) -> std::io::Result<()> {
    match File::open(with_suffix(path, "-wal")) {
        Ok(journal) => journal.sync_data(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn head(row: &SqlRow<'_>, number: u64) -> Option<Head> {
    Head::read(number, &row.get::<_, Vec<u8>>(1).ok()?, row.get(2).ok()?)
}

fn number(row: &SqlRow<'_>) -> Result<u64, Fault> {
    number_of(row).map_err(Fault::from)
}

fn number_of(row: &SqlRow<'_>) -> rusqlite::Result<u64> {
    let number: i64 = row.get(0)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
}

/// As SQLite has it. Numbers count frames from 1, so none is beyond.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
