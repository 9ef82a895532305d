//! What a spool knows besides its frames: how far each reader is, what was given up. Pure: no IO, no clock.

use super::{GivenUp, GivenUpCause, Mark, Range};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// So many runs are told apart; beyond it runs of one cause, reader and instance become one wider run.
const MOST_RUNS: usize = 256;

/// Kept in one row, so every change of it is whole or did not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Number of the newest frame that ever was.
    pub(super) newest: u64,
    /// Frames up to here were settled or dropped: that they are not there is right.
    pub(super) gone: u64,
    /// By reader: everything up to here is settled.
    pub(super) cursors: BTreeMap<String, u64>,
    /// Of the newest frame.
    pub(super) mark: Option<Mark>,
    /// What was given up and not yet announced.
    pub(super) given_up: Vec<GivenUp>,
    /// The last id of a run.
    pub(super) last_id: u64,
    /// Frames that could not be read since the spool was made.
    pub(super) corrupt_frames: u64,
    /// Frames above `gone` that were lost and have been counted: first and last number.
    pub(super) holes: Vec<(u64, u64)>,
    /// Runs up to this id were handed to somebody who announces them: they do not change any more.
    #[serde(skip)]
    handed: u64,
}

impl State {
    /// The readers are these. A reader that is new begins behind the newest frame; the first ones begin with the oldest.
    pub(super) fn set_readers(&mut self, readers: &[String]) {
        let begin = if self.cursors.is_empty() { self.gone } else { self.newest };
        self.cursors.retain(|name, _| readers.contains(name));
        for reader in readers {
            self.cursors.entry(reader.clone()).or_insert(begin);
        }
        self.forget_settled();
    }

    /// One reader more.
    pub(super) fn add_reader(&mut self, reader: &str) {
        let begin = if self.cursors.is_empty() { self.gone } else { self.newest };
        self.cursors.entry(reader.to_owned()).or_insert(begin);
    }

    /// One reader less.
    pub(super) fn remove_reader(&mut self, reader: &str) {
        self.cursors.remove(reader);
        self.forget_settled();
    }

    /// How far a reader is; `None`: no such reader.
    pub(super) fn cursor(&self, reader: &str) -> Option<u64> {
        self.cursors.get(reader).copied()
    }

    /// Everything up to `number` is settled for this reader. A number below the cursor changes nothing. `false`: no such
    /// reader.
    pub(super) fn settle(&mut self, reader: &str, number: u64) -> bool {
        let newest = self.newest;
        let Some(cursor) = self.cursors.get_mut(reader) else { return false };
        *cursor = number.min(newest).max(*cursor);
        self.forget_settled();
        true
    }

    /// Without any reader nothing counts as settled.
    fn forget_settled(&mut self) {
        self.gone = self.gone.max(self.settled());
        self.prune_holes();
    }

    fn prune_holes(&mut self) {
        let gone = self.gone;
        self.holes.retain(|(_, last)| *last > gone);
    }

    /// A frame will not reach the readers that have not had it; those are returned. Without any reader: one `None`.
    pub(super) fn lose(&mut self, number: u64, cause: GivenUpCause, range: &Range) -> Vec<Option<String>> {
        let mut losers: Vec<_> =
            self.cursors.iter().filter(|(_, cursor)| **cursor < number).map(|(name, _)| Some(name.clone())).collect();
        if self.cursors.is_empty() {
            losers.push(None);
        }
        for reader in &losers {
            self.note(cause, reader.clone(), range);
        }
        losers
    }

    /// What every reader has settled.
    pub(super) fn settled(&self) -> u64 {
        self.cursors.values().min().copied().unwrap_or(0)
    }

    /// Every reader has settled up to here, as was heard from elsewhere.
    pub(super) fn settle_all(&mut self, number: u64) {
        self.gone = self.gone.max(number);
        for cursor in self.cursors.values_mut() {
            *cursor = number.max(*cursor);
        }
        self.prune_holes();
    }

    /// The oldest frame was dropped to make room.
    pub(super) fn dropped_oldest(&mut self, number: u64) {
        self.gone = self.gone.max(number);
        self.prune_holes();
    }

    /// These frames could not be read, and are not there any more.
    pub(super) fn hole(&mut self, first: u64, last: u64) {
        self.corrupt_frames = self.corrupt_frames.saturating_add((last - first).saturating_add(1));
        match self.holes.iter_mut().find(|hole| hole.1.saturating_add(1) == first || last.saturating_add(1) == hole.0) {
            Some(hole) => *hole = (hole.0.min(first), hole.1.max(last)),
            None => self.holes.push((first, last)),
        }
    }

    /// Notes a run and returns its id. It joins the run that it continues, unless that was handed out.
    pub(super) fn note(&mut self, cause: GivenUpCause, reader: Option<String>, range: &Range) -> u64 {
        let crowded = self.given_up.len() >= MOST_RUNS;
        let handed = self.handed;
        let joined = self.given_up.iter_mut().rev().find(|run| {
            let same = run.id > handed
                && (run.cause, &run.reader, run.instance_id.as_str()) == (cause, &reader, &*range.instance_id);
            same && (crowded || run.last.checked_add(1) == Some(range.first))
        });
        if let Some(run) = joined {
            run.first = run.first.min(range.first);
            run.last = run.last.max(range.last);
            run.records = run.records.saturating_add(range.records);
            return run.id;
        }
        self.last_id += 1;
        self.given_up.push(GivenUp {
            id: self.last_id,
            cause,
            reader,
            instance_id: range.instance_id.to_string(),
            first: range.first,
            last: range.last,
            records: range.records,
        });
        self.last_id
    }

    /// What is to be announced; it changes no more from here on.
    pub(super) fn hand_out(&mut self) -> Vec<GivenUp> {
        self.handed = self.last_id;
        self.given_up.clone()
    }

    /// These were said in the stream.
    pub(super) fn announced(&mut self, ids: &[u64]) {
        self.given_up.retain(|run| !ids.contains(&run.id));
    }
}
