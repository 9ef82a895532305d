//! Against a plain list.

use super::*;
use proptest::prelude::*;
use s3auditd::ledger::{Count, DropCause};
use s3auditd::spool::{GivenUp, JOURNAL_LIMIT, RefusedCause};
use std::collections::BTreeMap;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Little room, so that frames are dropped.
const MAX_BYTES: u64 = 5 << 18;

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, length: usize, announce: bool },
    Settle { reader: usize, ahead: u64 },
    Add(usize),
    Remove(usize),
    GiveUp,
    Restart { newest: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4u64, 1..30_000usize, any::<bool>())
            .prop_map(|(count, length, announce)| Step::Append { count, length, announce }),
        3 => (0..3usize, 0..4u64).prop_map(|(reader, ahead)| Step::Settle { reader, ahead }),
        1 => (0..3usize).prop_map(Step::Add),
        1 => (0..3usize).prop_map(Step::Remove),
        1 => Just(Step::GiveUp),
        1 => any::<bool>().prop_map(|newest| Step::Restart { newest }),
    ]
}

#[derive(Default)]
struct Model {
    frames: Vec<(u64, u64, Vec<Bytes>, Uuid)>,
    newest: u64,
    sequence: u64,
    gone: u64,
    cursors: BTreeMap<&'static str, u64>,
    /// The last frame that each reader was given: those are not counted as dropped, delivery has them.
    handed: BTreeMap<String, u64>,
    /// Records given up and not announced, by reader and cause.
    given_up: BTreeMap<(Option<String>, DropCause), u64>,
}

impl Model {
    fn forget(&mut self) {
        self.gone = self.gone.max(self.cursors.values().min().copied().unwrap_or(0));
        self.frames.retain(|frame| frame.0 > self.gone);
    }

    fn names(&self) -> Vec<String> {
        self.cursors.keys().map(|name| (*name).to_owned()).collect()
    }

    /// The oldest frame goes; what each reader loses.
    fn drop_oldest(&mut self, dropped: &mut BTreeMap<String, Count>) {
        let (number, _, lines, _) = self.frames.remove(0);
        self.gone = number;
        let count = Count::of(&lines);
        let mut losers: Vec<_> = self
            .cursors
            .iter()
            .filter(|(_, cursor)| **cursor < number)
            .map(|(name, _)| Some((*name).to_owned()))
            .collect();
        if self.cursors.is_empty() {
            losers.push(None);
        }
        for loser in losers {
            *self.given_up.entry((loser.clone(), DropCause::SpoolFull)).or_default() += count.records;
            if let Some(name) = loser.filter(|name| self.handed.get(name).is_none_or(|handed| number > *handed)) {
                let sum = dropped.entry(name).or_default();
                *sum = Count { records: sum.records + count.records, bytes: sum.bytes + count.bytes };
            }
        }
    }
}

fn sums(runs: &[GivenUp]) -> BTreeMap<(Option<String>, DropCause), u64> {
    runs.iter().fold(BTreeMap::new(), |mut sums, run| {
        assert_eq!(run.instance_id, INSTANCE);
        assert_eq!(run.records, run.last - run.first + 1);
        *sums.entry((run.reader.clone(), run.cause)).or_default() += run.records;
        sums
    })
}

fn check(steps: Vec<Step>, when_full: WhenFull) -> Result<(), TestCaseError> {
    let dir = private_dir();
    let settings = Settings { max_bytes: MAX_BYTES, when_full, ..settings(dir.path()) };
    let mut model = Model { cursors: BTreeMap::from([("a", 0), ("b", 0)]), ..Model::default() };
    let (mut spool, _) = Spool::open(settings.clone(), &model.names()).unwrap();
    for (nth, step) in (0u32..).zip(steps) {
        match step {
            Step::Append { count, length, announce } => {
                let (lines, key, mark) = frame(model.newest + 1, model.sequence, count, length);
                let announced: Vec<_> =
                    if announce { spool.given_up().iter().map(|run| run.id).collect() } else { Vec::new() };
                match spool.append(lines.clone(), key, mark, &announced) {
                    Appended::Stored { number, dropped } => {
                        prop_assert_eq!(number, model.newest + 1);
                        if announce {
                            model.given_up.clear();
                        }
                        model.newest = number;
                        model.frames.push((number, model.sequence, lines, key));
                        model.sequence += count;
                        let mut expected = BTreeMap::new();
                        while model.frames.len() as u64 > spool.status().frames {
                            prop_assert_eq!(when_full, WhenFull::DropOldest);
                            model.drop_oldest(&mut expected);
                        }
                        prop_assert_eq!(dropped.into_iter().collect::<BTreeMap<_, _>>(), expected);
                    }
                    Appended::Refused(cause) => {
                        prop_assert_eq!((when_full, cause), (WhenFull::DropNewest, RefusedCause::Full));
                        prop_assert!(
                            model.frames.iter().flat_map(|frame| &frame.2).map(Bytes::len).sum::<usize>() > 1 << 18
                        );
                    }
                }
                let database = std::fs::metadata(dir.path().join("spool.db")).unwrap().len();
                prop_assert!(database <= MAX_BYTES);
                prop_assert!(spool.status().disk_bytes <= MAX_BYTES + JOURNAL_LIMIT + (1 << 20));
            }
            Step::Settle { reader, ahead } => {
                let name = NAMES[reader];
                let number = spool.cursor(name) + ahead;
                prop_assert_eq!(spool.settle(name, number).is_ok(), model.cursors.contains_key(name));
                let newest = model.newest;
                model.cursors.entry(name).and_modify(|cursor| *cursor = number.min(newest).max(*cursor));
                model.forget();
            }
            Step::Add(reader) => {
                spool.add_reader(NAMES[reader]).unwrap();
                let begin = if model.cursors.is_empty() { model.gone } else { model.newest };
                model.cursors.entry(NAMES[reader]).or_insert(begin);
            }
            Step::Remove(reader) => {
                spool.remove_reader(NAMES[reader]).unwrap();
                model.cursors.remove(NAMES[reader]);
                model.forget();
            }
            Step::GiveUp => {
                let run = GivenUp {
                    id: 0,
                    cause: DropCause::Poison,
                    reader: Some("a".to_owned()),
                    instance_id: INSTANCE.to_owned(),
                    first: 5,
                    last: 6,
                    records: 2,
                    bytes: 0,
                };
                spool.give_up(&run).unwrap();
                *model.given_up.entry((Some("a".to_owned()), DropCause::Poison)).or_default() += 2;
            }
            Step::Restart { newest } => {
                drop(spool);
                model.handed.clear();
                if newest {
                    let begin = if model.cursors.is_empty() { model.gone } else { model.newest };
                    model.cursors.entry("c").or_insert(begin);
                }
                let opened = Spool::open(settings.clone(), &model.names()).unwrap();
                spool = opened.0;
                prop_assert_eq!((opened.1.corrupt_frames, opened.1.set_aside), (0, None));
                prop_assert_eq!(opened.1.frames, model.frames.len() as u64);
                prop_assert_eq!(sums(&opened.1.given_up), model.given_up.clone());
            }
        }
        for (name, cursor) in &model.cursors {
            prop_assert_eq!(spool.cursor(name), *cursor);
            // Not every time: what was read is handed out, and is dropped in another way.
            if nth % 3 != 0 {
                continue;
            }
            let found: Vec<_> = all(&spool, name, *cursor);
            let expected: Vec<_> = model
                .frames
                .iter()
                .filter(|frame| frame.0 > *cursor)
                .map(|(number, first_sequence, lines, key)| Frame {
                    number: *number,
                    key: *key,
                    lines: lines.clone(),
                    instance_id: INSTANCE.into(),
                    first_sequence: *first_sequence,
                })
                .collect();
            prop_assert!(found == expected, "reader {}", name);
            if let Some(last) = found.last() {
                model.handed.insert((*name).to_owned(), last.number);
            }
            prop_assert_eq!(spool.status().readers[*name].frames, expected.len() as u64);
        }
    }
    prop_assert_eq!(sums(&spool.given_up()), model.given_up);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_its_model(
        steps in proptest::collection::vec(step(), 1..40),
        when_full in prop_oneof![Just(WhenFull::DropOldest), Just(WhenFull::DropNewest)],
    ) {
        check(steps, when_full)?;
    }
}
