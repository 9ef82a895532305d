//! What `verify` says: for people, and as JSON.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// So many of each list are told; the rest is counted.
pub const MAX_TOLD: usize = 1000;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named; `-` is standard input.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A line is no record.
    Invalid,
    /// A line is not what was written: its bytes do not give its hash.
    Edited,
    /// A line does not follow the one before it.
    Broken,
    /// A line is not chained, and those before it are; or the other way round.
    Unchained,
    /// A record comes later than one with a higher number, or its number is there with other bytes.
    Reordered,
    /// Records are missing, and no gap record names them.
    Missing,
    /// A gap record says of a hole what does not fit.
    FalseGap,
    /// An instance does not begin with a start record.
    NoStart,
    /// An instance has no stop record, and no later one says what became of it.
    OpenEnd,
    /// There are records after a stop record, or of an instance after the next one's start.
    AfterEnd,
    /// The stop record's sums are not those of the records.
    Totals,
    /// A checkpoint's signature or content is wrong.
    Checkpoint,
    /// A checkpoint is signed by another key than the one that was given.
    ForeignKey,
    /// A key was given, and lines are covered by no signature of it.
    Unsigned,
    /// More than the memory limits allow: not all could be checked.
    TooMuch,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// Where; None: it is about no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
    /// In words.
    pub detail: String,
}

/// Records that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hole {
    /// Whose.
    pub instance_id: String,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The line after it.
    pub at: Place,
    /// The gap records that name it: instance and number.
    pub named_by: Vec<String>,
    /// Whether they name all of it.
    pub explained: bool,
}

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// With a stop record.
    Stopped,
    /// Without; the next instance says so.
    Recovered,
    /// Its stop record is in a hole that a gap record names.
    Lost,
    /// Nobody knows: it may run still.
    Open,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReport {
    /// Its id.
    pub instance_id: String,
    /// Number of its first record here.
    pub first: u64,
    /// Number of its last record here.
    pub last: u64,
    /// Records by kind.
    pub records: BTreeMap<String, u64>,
    /// See [`End`].
    pub end: End,
    /// Whether its lines are chained.
    pub chained: bool,
}

/// All that `verify` has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing is wrong, and every hole is explained.
    pub whole: bool,
    /// Lines read.
    pub lines: u64,
    /// Lines that were there before, byte for byte, as a batch that is sent again brings them.
    pub duplicates: u64,
    /// Records by kind, duplicates not counted.
    pub records: BTreeMap<String, u64>,
    /// Operations without a record, as gap records say: at least.
    pub operations_min: u64,
    /// At most; None: for some losses there is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_max: Option<u64>,
    /// Instances in the order in which they begin; the first [`MAX_TOLD`].
    pub instances: Vec<InstanceReport>,
    /// How many there are.
    pub instance_count: u64,
    /// Runs of missing records; the first [`MAX_TOLD`].
    pub holes: Vec<Hole>,
    /// How many runs there are.
    pub hole_count: u64,
    /// Records in them.
    pub missing_records: u64,
    /// Good signatures.
    pub checkpoints: u64,
    /// Keys that made them.
    pub key_ids: BTreeSet<String>,
    /// Whether these signatures were held against a key that was given.
    pub key_given: bool,
    /// Lines that no good signature covers.
    pub unsigned_lines: u64,
    /// What is wrong; the first [`MAX_TOLD`].
    pub findings: Vec<Finding>,
    /// How many things are wrong.
    pub finding_count: u64,
}

impl Report {
    pub(super) fn find(&mut self, problem: Problem, at: Option<Place>, detail: impl Into<String>) {
        self.finding_count += 1;
        if self.findings.len() < MAX_TOLD {
            self.findings.push(Finding { problem, at, detail: detail.into() });
        }
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let kinds = |records: &BTreeMap<String, u64>| {
            records.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(text, "{} lines, {} of them sent again", self.lines, self.duplicates)?;
        writeln!(text, "records: {}", kinds(&self.records))?;
        for instance in &self.instances {
            let InstanceReport { instance_id, first, last, records, end, chained } = instance;
            let end = match end {
                End::Stopped => "stopped",
                End::Recovered => "did not stop in order; the next instance says so",
                End::Lost => "its stop record is lost, as a gap record says",
                End::Open => "OPEN END",
            };
            let chained = if *chained { "chained" } else { "not chained" };
            writeln!(text, "instance {instance_id}: {first} to {last} ({}), {chained}, {end}", kinds(records))?;
        }
        for hole in &self.holes {
            let Hole { instance_id, first, last, at, named_by, explained } = hole;
            let named = match (explained, named_by.as_slice()) {
                (true, by) => format!("named by gap record {}", by.join(", ")),
                (false, []) => "NOT explained".to_owned(),
                (false, by) => format!("NOT explained, but for a part, by gap record {}", by.join(", ")),
            };
            writeln!(text, "missing: {instance_id} {first} to {last}, before {at}: {named}")?;
        }
        let most = self.operations_max.map_or("nobody knows how many".to_owned(), |most| most.to_string());
        writeln!(text, "operations without a record, as admitted: {} to {most}", self.operations_min)?;
        if self.checkpoints > 0 || self.key_given {
            let keys: Vec<&str> = self.key_ids.iter().map(String::as_str).collect();
            let trust = if self.key_given { "the key that was given" } else { "keys as the stream names them" };
            writeln!(text, "{} good signatures by {trust} ({})", self.checkpoints, keys.join(", "))?;
            writeln!(text, "{} lines are covered by no signature", self.unsigned_lines)?;
        }
        for Finding { problem, at, detail } in &self.findings {
            let at = at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
            writeln!(text, "WRONG: {at}{problem:?}: {detail}")?;
        }
        let more = [
            ("instances", self.instance_count, self.instances.len()),
            ("runs of missing records", self.hole_count, self.holes.len()),
            ("things wrong", self.finding_count, self.findings.len()),
        ];
        for (what, all, told) in more {
            let rest = all.saturating_sub(told as u64);
            if rest > 0 {
                writeln!(text, "and {rest} more {what}")?;
            }
        }
        if self.whole {
            writeln!(text, "whole: nothing is wrong, and every missing record is explained")
        } else {
            writeln!(text, "NOT WHOLE: {} things are wrong", self.finding_count)
        }
    }
}
