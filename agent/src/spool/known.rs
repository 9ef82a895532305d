//! What a process knows of its spool without asking the disk: the state, and every frame without its lines.

use super::database::Contents;
use super::state::State;
use super::tail::Said;
use super::{Range, ReaderStatus, SpoolStatus};
use crate::ledger::{Count, DropCause};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A frame without its lines: about 64 bytes.
#[derive(Clone, Debug)]
pub(super) struct Info {
    pub(super) range: Range,
    pub(super) time_ns: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) state: State,
    pub(super) index: BTreeMap<u64, Info>,
}

impl Known {
    /// A frame more. Neighbours share the text of their instance.
    pub(super) fn insert(&mut self, number: u64, mut info: Info) {
        if let Some((_, last)) = self.index.last_key_value()
            && last.range.instance_id == info.range.instance_id
        {
            info.range.instance_id = Arc::clone(&last.range.instance_id);
        }
        self.index.insert(number, info);
    }

    /// Forgets the frames that are gone.
    pub(super) fn forget_gone(&mut self) {
        let gone = self.state.gone;
        while self.index.first_key_value().is_some_and(|(number, _)| *number <= gone) {
            self.index.pop_first();
        }
    }

    /// The first frame above `after`.
    pub(super) fn next(&self, after: u64) -> Option<u64> {
        self.index.range((Bound::Excluded(after), Bound::Unbounded)).next().map(|(number, _)| *number)
    }

    /// The first frame above `number`, with what is known of it.
    pub(super) fn after(&self, number: u64) -> Option<(u64, Info)> {
        let mut above = self.index.range((Bound::Excluded(number), Bound::Unbounded));
        above.next().map(|(number, info)| (*number, info.clone()))
    }

    /// How it stands; what only the store knows is left at 0.
    pub(super) fn status(&self) -> SpoolStatus {
        let (_, kept) = self.above(0);
        let reader = |cursor: u64| {
            let (frames, waiting) = self.above(cursor);
            ReaderStatus { cursor, frames, waiting }
        };
        SpoolStatus {
            frames: self.index.len() as u64,
            kept,
            oldest_ns: self.index.first_key_value().map(|(_, info)| info.time_ns),
            newest_ns: self.index.last_key_value().map(|(_, info)| info.time_ns),
            corrupt_frames: self.state.corrupt_frames,
            given_up: self.state.given_up.len() as u64,
            readers: self.state.cursors.iter().map(|(name, cursor)| (name.clone(), reader(*cursor))).collect(),
            ..SpoolStatus::default()
        }
    }

    fn above(&self, number: u64) -> (u64, Count) {
        let above = self.index.range((Bound::Excluded(number), Bound::Unbounded));
        above.fold((0, Count::default()), |(frames, sum), (_, info)| {
            let records = sum.records.saturating_add(info.range.records);
            (frames + 1, Count { records, bytes: sum.bytes.saturating_add(info.range.bytes) })
        })
    }

    /// Puts together what the database holds and what the tail says. Frames that should be there and are not, or whose head is
    /// damaged, are counted and given up; the latter are returned, to be deleted.
    ///
    /// `state`: as this process has it; without, that of the database counts, and if that is damaged, what the rest tells.
    pub(super) fn reconcile(contents: Contents, said: Option<Said>, state: Option<State>) -> (Self, Vec<u64>) {
        let said = said.unwrap_or_default();
        let lost_state = state.is_none() && contents.state.is_none();
        let written = contents.state.unwrap_or_default();
        let mut known = Self { state: state.unwrap_or_else(|| written.clone()), index: BTreeMap::new() };
        if lost_state {
            let before_first = contents.heads.keys().next().map_or(said.newest, |first| first.saturating_sub(1));
            known.state.gone = before_first.min(said.settled);
            if contents.has_state {
                known.state.corrupt_frames += 1;
            }
        }
        known.state.settle_all(said.settled);
        let highest = contents.heads.keys().next_back().copied().unwrap_or(0);
        let newest = known.state.newest.max(said.newest).max(highest);
        let mut damaged = Vec::new();
        // The last number known of each frame, to tell what lies between two.
        let mut ends: BTreeMap<u64, (Arc<str>, u64)> = BTreeMap::new();
        for (number, mark) in
            [(written.newest, &written.mark), (said.newest, &said.mark), (known.state.newest, &known.state.mark)]
        {
            if let Some(mark) = mark {
                ends.insert(number, (mark.instance_id.as_str().into(), mark.sequence));
            }
        }
        if said.newest > known.state.newest && said.mark.is_some() {
            known.state.mark = said.mark;
        }
        for (number, head) in contents.heads {
            let Some(head) = head else {
                damaged.push(number);
                continue;
            };
            let info = head.info();
            ends.insert(number, (Arc::clone(&info.range.instance_id), info.range.last));
            if number == newest {
                known.state.mark = Some(head.mark);
            }
            if number > known.state.gone {
                known.insert(number, info);
            }
        }
        known.state.newest = newest;
        known.count_missing(&ends);
        (known, damaged)
    }

    /// Every frame that should be there, is not, and was not counted yet.
    fn count_missing(&mut self, ends: &BTreeMap<u64, (Arc<str>, u64)>) {
        let mut runs = Vec::new();
        let mut expected = self.state.gone.saturating_add(1);
        for number in self.index.keys().copied().chain([self.state.newest.saturating_add(1)]) {
            if number > expected {
                runs.push((expected, number - 1));
            }
            expected = number.saturating_add(1);
        }
        for (first, last) in runs.into_iter().flat_map(|run| self.uncounted(run)).collect::<Vec<_>>() {
            let range = self.between(first, last, ends);
            self.state.lose(last, DropCause::Corrupt, &range);
            self.state.hole(first, last);
        }
    }

    /// The parts of a run that are no known holes.
    fn uncounted(&self, (first, last): (u64, u64)) -> Vec<(u64, u64)> {
        let mut holes = self.state.holes.clone();
        holes.sort_unstable();
        let (mut parts, mut at) = (Vec::new(), first);
        for (hole_first, hole_last) in holes {
            if hole_last < at || hole_first > last {
                continue;
            }
            if hole_first > at {
                parts.push((at, hole_first - 1));
            }
            at = hole_last.saturating_add(1);
        }
        if at <= last {
            parts.push((at, last));
        }
        parts
    }

    /// What the neighbours tell of the frames from `first` to `last`.
    fn between(&self, first: u64, last: u64, ends: &BTreeMap<u64, (Arc<str>, u64)>) -> Range {
        let unknown = Range { instance_id: "".into(), first: 0, last: 0, records: 0, bytes: 0 };
        let end = ends.get(&last).cloned().or_else(|| {
            let next = &self.index.get(&last.saturating_add(1))?.range;
            Some((Arc::clone(&next.instance_id), next.first.checked_sub(1)?))
        });
        let before = ends.get(&first.saturating_sub(1));
        let (Some((instance, end)), Some((instance_before, before))) = (end, before) else { return unknown };
        if instance != *instance_before || end <= *before {
            return unknown;
        }
        Range { instance_id: instance, first: before + 1, last: end, records: end - before, bytes: 0 }
    }
}
