//! A spool without a directory: bounded, and gone with the process.

use super::known::{Info, Known};
use super::state::State;
use super::{Appended, Frame, Mark, Range, RefusedCause};
use crate::ledger::{Count, DropCause};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// See the module.
pub(super) struct Memory {
    pub(super) max_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) known: Known,
    frames: VecDeque<Frame>,
}

impl Memory {
    pub(super) fn new(max_bytes: u64, readers: &[String]) -> Self {
        let mut held = Held::default();
        held.known.state.set_readers(readers);
        Self { max_bytes, held: Mutex::new(held) }
    }

    /// No code under this lock can leave it half changed, so a poisoned lock is as good as another.
    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, lines: Vec<Bytes>, key: Uuid, mark: Mark, announced: &[u64]) -> Appended {
        let mut held = self.lock();
        let count = Count::of(&lines);
        let bytes: u64 = held.known.index.values().map(|info| info.range.bytes).sum();
        if count.bytes > self.max_bytes {
            return Appended::Refused(RefusedCause::TooLarge);
        }
        if bytes.saturating_add(count.bytes) > self.max_bytes {
            return Appended::Refused(RefusedCause::Full);
        }
        let number = held.known.state.newest + 1;
        let range = Range::of(&mark, count);
        let frame = Frame::of(number, key, lines, &range);
        held.known.insert(number, Info { range, time_ns: mark.time_ns });
        held.known.state.newest = number;
        held.known.state.mark = Some(mark);
        held.known.state.announced(announced);
        held.frames.push_back(frame);
        Appended::Stored { number, dropped: Vec::new() }
    }

    pub(super) fn next(&self, after: u64) -> Option<Frame> {
        let held = self.lock();
        let at = held.frames.partition_point(|frame| frame.number <= after);
        held.frames.get(at).cloned()
    }

    /// Changes the state, and forgets what is settled.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut held = self.lock();
        let done = change(&mut held.known.state);
        let gone = held.known.state.gone;
        while held.frames.front().is_some_and(|frame| frame.number <= gone) {
            held.frames.pop_front();
        }
        held.known.index.retain(|number, _| *number > gone);
        done
    }

    pub(super) fn give_up(&self, cause: DropCause, reader: Option<String>, range: &Range) -> u64 {
        self.change(|state| state.note(cause, reader, range))
    }
}
