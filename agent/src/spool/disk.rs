//! The spool on disk: one process writes, one lock, one database, one tail.
//!
//! Locks are taken in this order: `writer`, `reader`, `known`. `known` changes only while `writer` is held, and after what
//! it tells of has been committed, settled cursors aside: those may be written later, because a frame that is sent twice
//! under the same key does no harm.

use super::database::{Database, FILE, Fault, PAGE_BYTES, Pages, sync_journal};
use super::frame::{Body, Row};
use super::fresh::Fresh;
use super::known::Known;
use super::place::{self, Lock};
use super::state::State;
use super::tail::{self, Tail};
use super::{
    Appended, Frame, GivenUp, JOURNAL_LIMIT, Mark, Range, Recovered, RefusedCause, Settings, SpoolError, SpoolStatus,
    salvage,
};
use crate::config::{SpoolSync, WhenFull};
use crate::ledger::{Count, DropCause};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{error, warn};
use uuid::Uuid;

/// An empty file that is longer than this is cut.
const SHRINK_PAGES: u64 = (64 << 20) / PAGE_BYTES;

/// See the module.
pub(super) struct Disk {
    settings: Settings,
    writer: Mutex<Writer>,
    /// `None`: to be opened at the next read.
    reader: Mutex<Option<Database>>,
    known: Mutex<Known>,
    /// The last frame that each reader was given.
    handed: Mutex<BTreeMap<String, u64>>,
    /// Held for a moment, and no other lock is taken meanwhile.
    fresh: Mutex<Fresh>,
}

struct Writer {
    /// `None`: to be opened again.
    database: Option<Database>,
    tail: Tail,
    /// Pages that what was set aside takes from the limit.
    aside_pages: u64,
    /// `known` has what the database has not.
    dirty: bool,
    /// Something was written that was not forced to the disk.
    unsynced: bool,
    _lock: Lock,
}

impl Disk {
    pub(super) fn open(settings: Settings, readers: &[String]) -> Result<(Self, Recovered), SpoolError> {
        place::prepare(&settings.dir)?;
        let lock = place::lock(&settings.dir)?;
        let failed = |source| SpoolError::Directory { dir: settings.dir.clone(), source };
        let (tail, said) = Tail::open(&settings.dir).map_err(failed)?;
        let (database, contents, set_aside) =
            salvage::open(&settings.dir, settings.sync, said.as_ref().map_or(0, |said| said.newest))
                .map_err(|fault| SpoolError::Database { dir: settings.dir.clone(), problem: fault.to_string() })?;
        let before = contents.state.as_ref().map_or(0, |state| state.corrupt_frames);
        let (mut known, damaged) = Known::reconcile(contents, said, None);
        known.state.set_readers(readers);
        known.forget_gone();
        let writer =
            Writer { database: Some(database), tail, aside_pages: 0, dirty: true, unsynced: true, _lock: lock };
        let recovered = Recovered {
            mark: known.state.mark.clone(),
            frames: known.index.len() as u64,
            records: known.status().kept.records,
            corrupt_frames: known.state.corrupt_frames.saturating_sub(before),
            set_aside,
            given_up: known.state.hand_out(),
        };
        let (writer, known) = (Mutex::new(writer), Mutex::new(known));
        let (handed, fresh) = (Mutex::default(), Mutex::default());
        let disk = Self { settings, writer, reader: Mutex::new(None), known, handed, fresh };
        let mut writer = disk.writer();
        disk.set_limits(&mut writer);
        if let Err(problem) = disk.write(&mut writer, &damaged) {
            // A full disk: what was read stays true, and is written as soon as there is room.
            warn!(%problem, "the spool's state cannot be written yet");
        }
        drop(writer);
        Ok((disk, recovered))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, lines: &[Bytes], key: Uuid, mark: &Mark, announced: &[u64]) -> Appended {
        let Some(body) = Body::of(lines, self.settings.compression) else {
            return Appended::Refused(RefusedCause::TooLarge);
        };
        let mut writer = self.writer();
        let mut done = self.try_append(&mut writer, &body, key, mark, announced);
        if let Err(fault @ Fault::Corrupt(_)) = &done {
            done = self
                .repair(&mut writer, fault)
                .and_then(|()| self.try_append(&mut writer, &body, key, mark, announced));
        }
        match done {
            Ok((number, dropped)) => {
                self.fresh().keep(Frame::of(number, key, lines.to_vec(), &Range::of(mark, body.count)));
                Appended::Stored { number, dropped: dropped.into_iter().collect() }
            }
            Err(fault) => Appended::Refused(fault.refused()),
        }
    }

    /// The frame's number, and what every reader lost to the room it needed.
    fn try_append(
        &self,
        writer: &mut Writer,
        body: &Body,
        key: Uuid,
        mark: &Mark,
        announced: &[u64],
    ) -> Result<(u64, BTreeMap<String, Count>), Fault> {
        let mut state = self.known().state.clone();
        let number = state.newest + 1;
        let (row, head) = Row::new(number, key, mark, body).ok_or(Fault::TooLarge)?;
        let room = self.room(writer, &row)?;
        writer.unsynced = true;
        let database = self.database(writer)?;
        let mut dropped: BTreeMap<String, Count> = BTreeMap::new();
        // Held from the first drop to the end, so that no frame is both dropped and handed out.
        let mut handed = None;
        database.whole(|| {
            database.delete_up_to(state.gone)?;
            while !room.is_enough(database.pages()?) {
                let oldest = self.known().after(state.gone);
                let Some((oldest, info)) = oldest.filter(|_| self.settings.when_full == WhenFull::DropOldest) else {
                    return Err(room.refusal());
                };
                let handed: &MutexGuard<'_, BTreeMap<String, u64>> = handed.get_or_insert_with(|| self.handed());
                for reader in state.lose(oldest, DropCause::SpoolFull, &info.range).into_iter().flatten() {
                    // Delivery holds it in memory, and may still deliver it.
                    if handed.get(&reader).is_some_and(|handed| oldest <= *handed) {
                        continue;
                    }
                    let count = dropped.entry(reader).or_default();
                    count.records += info.range.records;
                    count.bytes += info.range.bytes;
                }
                database.delete(oldest)?;
                state.dropped_oldest(oldest);
            }
            database.insert(number, &row)?;
            state.newest = number;
            state.mark = Some(mark.clone());
            state.announced(announced);
            database.write_state(&state)
        })?;
        writer.dirty = false;
        let mut known = self.known();
        known.state = state;
        known.forget_gone();
        known.insert(number, head.info());
        say(&mut writer.tail, &known.state);
        Ok((number, dropped))
    }

    /// How much room there is for this row, after making some outside of the database.
    fn room(&self, writer: &mut Writer, row: &Row) -> Result<Room, Fault> {
        let bytes = (row.head.len() + row.body.len()) as u64;
        let needed = bytes.div_ceil(PAGE_BYTES - 4) + SPARE_PAGES;
        let limit = self.settings.max_bytes / PAGE_BYTES;
        if needed + SPARE_PAGES > limit {
            return Err(Fault::TooLarge);
        }
        let aside = writer.aside_pages;
        let database = self.database(writer)?;
        if database.journal_bytes() > JOURNAL_LIMIT {
            // Somebody reads and does not end; or the disk is full, which comes out below.
            let _stopped = database.checkpoint();
            if database.journal_bytes() > JOURNAL_LIMIT {
                return Err(Fault::Full);
            }
        }
        let pages = database.pages()?;
        let grows = needed.saturating_sub(pages.free) * PAGE_BYTES;
        let journal = bytes + needed * PAGE_BYTES / 8 + SPARE_PAGES * PAGE_BYTES;
        let wanted = self.settings.min_free_bytes.saturating_add(journal);
        let mut free = place::free_bytes(&self.settings.dir);
        if free < wanted.saturating_add(grows) {
            // The journal gives back what it has; then it is known what there really is.
            let _stopped = database.checkpoint();
            free = place::free_bytes(&self.settings.dir);
        }
        if free < wanted.saturating_add(grows)
            || (aside > 0 && pages.free + limit.saturating_sub(aside + pages.all) < needed)
        {
            self.remove_aside(writer);
            free = place::free_bytes(&self.settings.dir);
        }
        if free < wanted {
            return Err(Fault::NoSpace);
        }
        let allowed = pages.all + (free - wanted) / PAGE_BYTES;
        let limit = limit.saturating_sub(writer.aside_pages);
        Ok(Room { needed, pages: limit.min(allowed), tight: allowed < limit })
    }

    /// The database; opened again if it had to be closed.
    fn database<'w>(&self, writer: &'w mut Writer) -> Result<&'w Database, Fault> {
        if writer.database.is_none() {
            let database = Database::open(&self.settings.dir.join(FILE), self.settings.sync)?;
            return Ok(writer.database.insert(database));
        }
        writer.database.as_ref().ok_or(Fault::NoSpace)
    }

    fn handed(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next(&self, reader: &str, mut after: u64) -> Result<Option<Frame>, SpoolError> {
        loop {
            let (number, read) = {
                let mut handed = self.handed();
                let Some(number) = self.known().next(after) else { return Ok(None) };
                let fresh = self.fresh().frame(number);
                if fresh.is_some() {
                    handed.insert(reader.to_owned(), number);
                    return Ok(fresh);
                }
                let read = self.read(number);
                if let Ok(Some(_)) = read {
                    handed.insert(reader.to_owned(), number);
                }
                (number, read)
            };
            let fault = match read {
                Ok(Some(row)) => match row.frame(number) {
                    Some(frame) => return Ok(Some(frame)),
                    None => None,
                },
                Ok(None) => None,
                Err(fault @ Fault::Corrupt(_)) => Some(fault),
                Err(fault) => return Err(self.failed(&fault)),
            };
            self.discard(number, fault)?;
            after = number;
        }
    }

    fn read(&self, number: u64) -> Result<Option<Row>, Fault> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = reader.as_ref() {
            return database.row(number);
        }
        reader.insert(Database::open_read_only(&self.settings.dir.join(FILE))?).row(number)
    }

    /// A frame is damaged, or the whole database is: it goes, and is counted.
    fn discard(&self, number: u64, fault: Option<Fault>) -> Result<(), SpoolError> {
        let mut writer = self.writer();
        let Some((_, info)) = self.known().after(number - 1).filter(|(found, _)| *found == number) else {
            // It was settled, or dropped, while it was read.
            return Ok(());
        };
        if let Some(fault) = fault {
            return self.repair(&mut writer, &fault).map_err(|fault| self.failed(&fault));
        }
        {
            let mut known = self.known();
            known.state.lose(number, DropCause::Corrupt, &info.range);
            known.state.hole(number, number);
            known.index.remove(&number);
        }
        warn!(number, records = info.range.records, "a damaged frame of the spool was given up");
        self.write_or_repair(&mut writer, &[number]).map_err(|fault| self.failed(&fault))
    }

    /// Changes the state, which is written at once or soon.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, SpoolError> {
        let mut writer = self.writer();
        let mut known = self.known();
        let done = change(&mut known.state);
        known.forget_gone();
        self.fresh().forget_up_to(known.state.gone);
        say(&mut writer.tail, &known.state);
        drop(known);
        (writer.dirty, writer.unsynced) = (true, true);
        if self.settings.sync == SpoolSync::Always {
            self.write_or_repair(&mut writer, &[]).map_err(|fault| self.failed(&fault))?;
        }
        Ok(done)
    }

    pub(super) fn hand_out(&self) -> Vec<GivenUp> {
        let _writer = self.writer();
        self.known().state.hand_out()
    }

    pub(super) fn flush(&self) -> Result<(), SpoolError> {
        {
            let mut writer = self.writer();
            if writer.dirty {
                self.write_or_repair(&mut writer, &[]).map_err(|fault| self.failed(&fault))?;
            }
            if self.settings.sync == SpoolSync::Never || !std::mem::take(&mut writer.unsynced) {
                return Ok(());
            }
            if let Err(error) = writer.tail.sync() {
                writer.unsynced = true;
                return Err(self.failed(&Fault::Io(error.to_string())));
            }
        }
        // Without the lock: what is written meanwhile is for the next time.
        sync_journal(&self.settings.dir.join(FILE)).map_err(|error| {
            self.writer().unsynced = true;
            self.failed(&Fault::Io(error.to_string()))
        })
    }

    /// What is due once a second.
    fn tick(&self) {
        let done = if self.settings.sync == SpoolSync::EverySecond {
            self.flush()
        } else {
            let mut writer = self.writer();
            if writer.dirty {
                self.write_or_repair(&mut writer, &[]).map_err(|fault| self.failed(&fault))
            } else {
                Ok(())
            }
        };
        if let Err(problem) = done {
            warn!(%problem, "the spool's state is not on disk yet");
        }
    }

    /// Brings the database to what is known, deletes these frames, and cuts a long file that is empty.
    fn write(&self, writer: &mut Writer, damaged: &[u64]) -> Result<(), Fault> {
        writer.unsynced = true;
        let (state, empty) = {
            let known = self.known();
            (known.state.clone(), known.index.is_empty())
        };
        let database = self.database(writer)?;
        database.whole(|| {
            database.delete_up_to(state.gone)?;
            damaged.iter().try_for_each(|number| database.delete(*number))?;
            database.write_state(&state)
        })?;
        if empty && database.pages()?.all > SHRINK_PAGES {
            database.shrink()?;
        }
        writer.dirty = false;
        say(&mut writer.tail, &state);
        Ok(())
    }

    fn write_or_repair(&self, writer: &mut Writer, damaged: &[u64]) -> Result<(), Fault> {
        writer.dirty = true;
        match self.write(writer, damaged) {
            Err(fault @ Fault::Corrupt(_)) => self.repair(writer, &fault),
            other => other,
        }
    }

    /// The database turned out to be damaged while it was used: it is set aside, and what can be read goes into a new one.
    fn repair(&self, writer: &mut Writer, fault: &Fault) -> Result<(), Fault> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *reader = None;
        writer.database = None;
        let newest = self.known().state.newest;
        let (database, contents, _) = salvage::salvage(&self.settings.dir, self.settings.sync, newest, fault)?;
        writer.database = Some(database);
        drop(reader);
        let state = self.known().state.clone();
        let (known, damaged) = Known::reconcile(contents, None, Some(state));
        *self.known() = known;
        self.set_limits(writer);
        self.write(writer, &damaged)
    }

    /// The database gets its limit. What was set aside counts as the spool's, and goes if there is no room for it.
    fn set_limits(&self, writer: &mut Writer) {
        if let Some(database) = &writer.database
            && let Err(problem) = database.limit(self.settings.max_bytes / PAGE_BYTES)
        {
            warn!(%problem, "the database takes no limit; the spool keeps to it by itself");
        }
        writer.aside_pages = salvage::aside_bytes(&self.settings.dir).div_ceil(PAGE_BYTES);
        let used = place::length(&self.settings.dir.join(FILE)) / PAGE_BYTES;
        if used + writer.aside_pages > self.settings.max_bytes / PAGE_BYTES {
            self.remove_aside(writer);
        }
    }

    fn remove_aside(&self, writer: &mut Writer) {
        if writer.aside_pages > 0 {
            warn!(dir = %self.settings.dir.display(), "the damaged spool that was set aside is removed: its room is needed");
            if let Err(problem) = salvage::remove_aside(&self.settings.dir) {
                error!(%problem, "it cannot be removed");
                return;
            }
            writer.aside_pages = 0;
        }
    }

    pub(super) fn status(&self) -> SpoolStatus {
        let mut status = self.known().status();
        status.dir = Some(self.settings.dir.display().to_string());
        status.disk_bytes = place::total_bytes(&self.settings.dir);
        status.limit = self.settings.max_bytes;
        status.free_bytes = place::free_bytes(&self.settings.dir);
        status
    }

    fn failed(&self, fault: &Fault) -> SpoolError {
        SpoolError::Database { dir: self.settings.dir.clone(), problem: fault.to_string() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _full = self.flush();
    }
}

fn say(tail: &mut Tail, state: &State) {
    if let Err(problem) = tail.write(state.newest, state.settled(), state.mark.as_ref()) {
        warn!(%problem, file = tail::FILE, "the spool's tail cannot be written: damage at its end may go uncounted");
    }
}

/// Pages that a row may need besides its own: of the tree, of the state, of the list of free pages.
const SPARE_PAGES: u64 = 16;

/// How much room there is.
struct Room {
    needed: u64,
    /// The file may get so long.
    pages: u64,
    /// The file system sets that limit, not the configuration.
    tight: bool,
}

impl Room {
    fn is_enough(&self, pages: Pages) -> bool {
        pages.free + self.pages.saturating_sub(pages.all) >= self.needed
    }

    fn refusal(&self) -> Fault {
        if self.tight { Fault::NoSpace } else { Fault::Full }
    }
}

/// Writes once a second what is due; ends when it is dropped.
pub(super) struct Ticker {
    /// Dropped first: that ends the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(disk: &Arc<Disk>) -> Result<Self, SpoolError> {
        let (ticker, ended) = channel::<()>();
        let weak = Arc::downgrade(disk);
        let dir = disk.settings.dir.clone();
        let started = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let Some(disk) = weak.upgrade() else { return };
                disk.tick();
            }
        });
        let thread = started.map_err(|source| SpoolError::Directory { dir, source })?;
        Ok(Self { running: Some(ticker), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    /// Waits: as long as the thread ticks it holds the directory's lock, and the next one to open it would be refused.
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A tick that panicked has logged it.
            let _ended = thread.join();
        }
    }
}
