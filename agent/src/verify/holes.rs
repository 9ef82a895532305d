//! Holes and what names them. Gap records come after the losses they tell of, so both are kept until the end.

use super::report::{Hole, MAX_TOLD, Place, Problem, Report};
use crate::stream::chain::Hash;
use std::collections::{BTreeMap, BTreeSet};

/// So many holes, and so many named ranges, are kept.
const MAX_KEPT: usize = 100_000;

/// Records that are not there.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) instance: String,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) at: Place,
    /// The chain's value of the line before, where there is one.
    pub(super) before: Option<Hash>,
    /// Lines before it that no signature covers, unless a gap record ties both sides together.
    pub(super) unsigned: u64,
}

/// What a gap record names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) instance: String,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: Option<u64>,
    pub(super) previous: Option<String>,
    /// The gap record: instance and number.
    pub(super) by: String,
}

/// Both, until the end.
#[derive(Debug, Default)]
pub(super) struct Holes {
    missing: Vec<Missing>,
    named: BTreeMap<String, Vec<Named>>,
    kept: usize,
    overflowed: bool,
}

impl Holes {
    pub(super) fn missing(&mut self, missing: Missing) {
        if self.missing.len() < MAX_KEPT {
            self.missing.push(missing);
        } else {
            self.overflowed = true;
        }
    }

    pub(super) fn named(&mut self, named: Named) {
        if self.kept < MAX_KEPT {
            self.kept += 1;
            self.named.entry(named.instance.clone()).or_default().push(named);
        } else {
            self.overflowed = true;
        }
    }

    /// Holds them against each other. Returns the last numbers of explained holes, by instance: where its stop record may
    /// be.
    pub(super) fn settle(mut self, report: &mut Report) -> BTreeSet<(String, u64)> {
        if self.overflowed {
            report.find(
                Problem::TooMuch,
                None,
                format!("more than {MAX_KEPT} runs of missing records, or names of them"),
            );
        }
        for named in self.named.values_mut() {
            named.sort_by_key(|named| (named.first, named.last));
        }
        let mut explained_ends = BTreeSet::new();
        let mut none = Vec::new();
        for missing in self.missing {
            let named = self.named.get_mut(&missing.instance).unwrap_or(&mut none);
            let (rest, named_by) = subtract(&missing, named);
            let explained = rest.is_empty();
            let Missing { instance, first, last, at, before, unsigned } = missing;
            if !explained {
                let rest: Vec<String> = rest.iter().map(|(first, last)| format!("{first} to {last}")).collect();
                let detail = format!("of {instance}, {} are missing and no gap record names them", rest.join(", "));
                report.find(Problem::Missing, Some(at.clone()), detail);
            }
            let tie = named.iter().find(|named| named.first == first && named.count.is_none());
            match (tie.and_then(|named| named.previous.as_deref().zip(Some(&named.by))), before) {
                (Some((previous, _)), Some(before)) if previous == before.as_str() => {}
                (Some((_, by)), Some(_)) => {
                    let detail = format!("gap record {by} says that another line came before {first} of {instance}");
                    report.find(Problem::FalseGap, Some(at.clone()), detail);
                }
                _ => report.unsigned_lines += unsigned,
            }
            if explained {
                explained_ends.insert((instance.clone(), last));
            }
            report.hole_count += 1;
            report.missing_records = report.missing_records.saturating_add((last - first).saturating_add(1));
            if report.holes.len() < MAX_TOLD {
                let named_by = named_by.into_iter().collect();
                report.holes.push(Hole { instance_id: instance, first, last, at, named_by, explained });
            }
        }
        explained_ends
    }
}

/// What is left of a hole when the named ranges are taken away, and who names them. A range that tells only how many of
/// it are missing explains that many.
fn subtract(missing: &Missing, named: &mut [Named]) -> (Vec<(u64, u64)>, BTreeSet<String>) {
    let mut by = BTreeSet::new();
    let mut rest = Vec::new();
    let mut next = Some(missing.first);
    let exact = |named: &&Named| named.count.is_none();
    for named in named.iter().take_while(|named| named.first <= missing.last).filter(exact) {
        let Some(at) = next.filter(|at| *at <= missing.last) else { break };
        if named.last < at {
            continue;
        }
        if named.first > at {
            rest.push((at, named.first - 1));
        }
        by.insert(named.by.clone());
        next = named.last.checked_add(1);
    }
    if let Some(at) = next.filter(|at| *at <= missing.last) {
        rest.push((at, missing.last));
    }
    rest.retain(|&(first, last)| {
        let mut next = Some(first);
        for named in named.iter_mut() {
            let Some(at) = next.filter(|at| *at <= last) else { break };
            let (Some(count), true) = (named.count, named.first <= at && named.last >= at) else { continue };
            let end = named.last.min(last);
            let size = (end - at).saturating_add(1);
            if count >= size {
                named.count = Some(count - size);
                by.insert(named.by.clone());
                next = end.checked_add(1);
            }
        }
        next.is_some_and(|at| at <= last)
    });
    (rest, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(holes: &[(u64, u64)], named: &[(u64, u64, Option<u64>)]) -> Vec<bool> {
        let at = Place { file: "f".into(), line: 1 };
        let (mut book, mut report) = (Holes::default(), Report::default());
        for &(first, last) in holes {
            book.missing(Missing { instance: "a".to_owned(), first, last, at: at.clone(), before: None, unsigned: 0 });
        }
        for &(first, last, count) in named {
            let (instance, by) = ("a".to_owned(), "1 of a".to_owned());
            book.named(Named { instance, first, last, count, previous: None, by });
        }
        let _ends = book.settle(&mut report);
        assert_eq!(report.finding_count, report.holes.iter().filter(|hole| !hole.explained).count() as u64);
        report.holes.iter().map(|hole| hole.explained).collect()
    }

    #[test]
    fn names_explain_what_they_name() {
        assert_eq!(settled(&[(5, 9)], &[(5, 9, None)]), [true]);
        assert_eq!(settled(&[(5, 9)], &[(8, 12, None), (1, 6, None), (7, 7, None)]), [true]);
        assert_eq!(settled(&[(5, 9)], &[(5, 6, None), (8, 9, None)]), [false]);
        assert_eq!(settled(&[(5, 9)], &[]), [false]);
        assert_eq!(settled(&[(0, u64::MAX)], &[(0, u64::MAX, None)]), [true]);
    }

    #[test]
    fn a_range_that_only_counts_explains_so_many() {
        assert_eq!(settled(&[(5, 6), (8, 8)], &[(1, 20, Some(3))]), [true, true]);
        assert_eq!(settled(&[(5, 6), (8, 9)], &[(1, 20, Some(3))]), [true, false]);
        assert_eq!(settled(&[(5, 9)], &[(1, 6, Some(2)), (7, 20, Some(3))]), [true]);
        assert_eq!(settled(&[(5, 9)], &[(5, 5, None), (6, 20, Some(4))]), [true]);
        assert_eq!(settled(&[(5, 9)], &[(6, 20, Some(9))]), [false]);
    }
}
