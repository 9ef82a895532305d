//! The audit stream as an auditor reads it: which numbers are there, which are missing, and what the stream itself says of
//! those. Reads lines by the documented names, and keeps little of each.

use anyhow::Context as _;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Everything that was received, duplicates left out.
#[derive(Debug, Default)]
pub struct Stream {
    /// By instance: the numbers that are there.
    pub sequences: BTreeMap<String, BTreeSet<u64>>,
    /// Keys of operations that were seen whole, and how many records each has.
    pub complete: HashMap<String, u64>,
    /// Records of operations that were not seen whole.
    pub partial: u64,
    /// Gap records.
    pub gaps: Vec<Gap>,
    /// By instance that was recovered: the last number that was kept.
    pub recoveries: BTreeMap<String, Option<u64>>,
    /// Instances in the order of their start records, and which one each names as the one before.
    pub starts: Vec<(String, Option<Previous>)>,
    /// Instances with a stop record: its number.
    pub stops: BTreeMap<String, u64>,
    /// Records by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Lines that came more than once with the same id and the same bytes.
    pub repeated: u64,
    events: HashMap<String, u64>,
}

/// What a gap record says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Where.
    pub stage: String,
    /// Why.
    pub cause: String,
    /// For one endpoint.
    pub endpoint: Option<String>,
    /// Records that were lost.
    #[serde(default)]
    pub records: u64,
    /// Bytes of a connection.
    #[serde(default)]
    pub bytes: u64,
    /// Their numbers.
    #[serde(default)]
    pub sequences: Vec<Range>,
    /// Operations that are missing at least.
    pub operations_min: u64,
    /// Operations that are missing at most; none: no bound is known.
    pub operations_max: Option<u64>,
    /// The instance that says so.
    #[serde(skip)]
    pub instance: String,
}

/// A run of numbers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// None: of the instance that says so.
    pub instance_id: Option<String>,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// The instance before, as a start record names it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Its id.
    pub instance_id: String,
    /// The last number that is known of it.
    pub last_sequence: u64,
    /// It ended in order.
    pub stopped: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    api: Option<Api>,
    s3auditd: Own,
}

#[derive(Deserialize)]
struct Api {
    object: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    kind: String,
    event_id: String,
    sequence: u64,
    instance_id: String,
    completion: Option<String>,
    gap: Option<Gap>,
    start: Option<Start>,
    recovery: Option<Recovery>,
}

#[derive(Deserialize)]
struct Start {
    previous: Option<Previous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recovery {
    instance_id: String,
    last_sequence: Option<u64>,
}

impl Stream {
    /// Reads these lines, each without its line end.
    ///
    /// # Errors
    /// A line that is no record, or two different ones with one id or one number.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> anyhow::Result<Self> {
        let mut stream = Self::default();
        for line in lines {
            stream.take(line).with_context(|| String::from_utf8_lossy(line).into_owned())?;
        }
        Ok(stream)
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Line { api, s3auditd: own } = serde_json::from_slice(bytes)?;
        let digest = fnv1a(bytes);
        if let Some(known) = self.events.insert(own.event_id.clone(), digest) {
            anyhow::ensure!(known == digest, "two records have the id {}", own.event_id);
            self.repeated += 1;
            return Ok(());
        }
        let fresh = self.sequences.entry(own.instance_id.clone()).or_default().insert(own.sequence);
        anyhow::ensure!(fresh, "two records of {} have the number {}", own.instance_id, own.sequence);
        *self.kinds.entry(own.kind.clone()).or_default() += 1;
        anyhow::ensure!((own.kind == "operation") == api.is_some(), "only operations have an api");
        match own.kind.as_str() {
            "operation" if own.completion.as_deref() == Some("complete") => {
                let key = api.and_then(|api| api.object).context("a complete operation without a key")?;
                *self.complete.entry(key).or_default() += 1;
            }
            "operation" => self.partial += 1,
            "gap" => {
                let gap = own.gap.context("a gap record without a gap")?;
                self.gaps.push(Gap { instance: own.instance_id, ..gap });
            }
            "start" => {
                let start = own.start.context("a start record without a start")?;
                self.starts.push((own.instance_id, start.previous));
            }
            "recovery" => {
                let recovery = own.recovery.context("a recovery record without a recovery")?;
                self.recoveries.insert(recovery.instance_id, recovery.last_sequence);
            }
            "stop" => drop(self.stops.insert(own.instance_id, own.sequence)),
            _ => {}
        }
        Ok(())
    }

    /// Numbers that are missing and that nothing in the stream names: neither a gap record, nor a recovery record that says
    /// where the instance's records end.
    #[must_use]
    pub fn unexplained(&self) -> Vec<(String, u64)> {
        let mut named: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
        for gap in &self.gaps {
            for range in &gap.sequences {
                let instance = range.instance_id.as_deref().unwrap_or(&gap.instance);
                named.entry(instance).or_default().push((range.first, range.last));
            }
        }
        let mut unexplained = Vec::new();
        for (instance, there) in &self.sequences {
            let end = self.stops.get(instance).copied().or_else(|| self.recoveries.get(instance).copied().flatten());
            let last = end.or_else(|| there.last().copied()).unwrap_or_default();
            let is_named = |number| {
                let ranges = named.get(instance.as_str()).map(Vec::as_slice).unwrap_or_default();
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
            };
            let missing = (0..=last).filter(|number| !there.contains(number) && !is_named(*number));
            unexplained.extend(missing.map(|number| (instance.clone(), number)));
        }
        unexplained
    }

    /// How many operations may be missing, as the gap records say: at least, and at most (none: no bound is known).
    #[must_use]
    pub fn admitted(&self) -> (u64, Option<u64>) {
        let least = self.gaps.iter().map(|gap| gap.operations_min).sum();
        (least, self.gaps.iter().map(|gap| gap.operations_max).sum())
    }

    /// Records of operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.kinds.get("operation").copied().unwrap_or_default()
    }

    /// The keys have one complete record each, and there is no other.
    ///
    /// # Errors
    /// The first keys that have none, or several, and the first that nobody asked for.
    pub fn has_exactly(&self, keys: impl Iterator<Item = String>) -> anyhow::Result<()> {
        let keys: HashSet<_> = keys.collect();
        let wrong: Vec<_> = keys.iter().filter(|key| self.complete.get(*key) != Some(&1)).take(5).collect();
        let strange: Vec<_> = self.complete.keys().filter(|key| !keys.contains(*key)).take(5).collect();
        let counts =
            format!("{} keys, {} with a record, {} partial records", keys.len(), self.complete.len(), self.partial);
        anyhow::ensure!(wrong.is_empty(), "{counts}; not exactly one record for {wrong:?} and maybe more");
        anyhow::ensure!(strange.is_empty() && self.partial == 0, "{counts}; nobody asked for {strange:?}");
        Ok(())
    }
}

/// FNV-1a: two different lines under one id have to be told apart, not hidden from an attacker.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(instance: &str, sequence: u64) -> String {
        format!(
            r#"{{"api":{{"object":"k{sequence}"}},"s3auditd":{{"kind":"operation","eventId":"{instance}-{sequence}","sequence":{sequence},"instanceId":"{instance}","completion":"complete"}}}}"#
        )
    }

    fn own(instance: &str, sequence: u64, kind: &str, content: &str) -> String {
        format!(
            r#"{{"s3auditd":{{"kind":"{kind}","eventId":"{instance}-{sequence}","sequence":{sequence},"instanceId":"{instance}","{kind}":{content}}}}}"#
        )
    }

    fn read(lines: &[String]) -> Stream {
        Stream::read(lines.iter().map(String::as_bytes)).unwrap()
    }

    #[test]
    fn holes_are_found_and_those_that_are_named_are_not() {
        let gap = r#"{"stage":"spool","cause":"spool_full","records":2,"sequences":[{"first":1,"last":2}],"operationsMin":0,"operationsMax":2}"#;
        let lines = [operation("a", 0), operation("a", 4), own("a", 5, "gap", gap), operation("a", 4)];
        let stream = read(&lines);
        assert_eq!(stream.unexplained(), [("a".to_owned(), 3)]);
        assert_eq!((stream.admitted(), stream.repeated, stream.operations()), ((0, Some(2)), 1, 2));
        stream.has_exactly(["k0", "k4"].map(str::to_owned).into_iter()).unwrap();
        assert!(stream.has_exactly(["k0", "k4", "k5"].map(str::to_owned).into_iter()).is_err());
        assert!(stream.has_exactly(["k0"].map(str::to_owned).into_iter()).is_err());
    }

    #[test]
    fn the_end_of_an_instance_is_where_its_recovery_or_stop_says() {
        let recovery = r#"{"instanceId":"a","lastSequence":2}"#;
        let lines = [operation("a", 0), own("b", 0, "recovery", recovery), own("b", 2, "stop", "{}")];
        let missing = [("a", 1), ("a", 2), ("b", 1)].map(|(instance, number)| (instance.to_owned(), number));
        assert_eq!(read(&lines).unexplained(), missing);
    }

    #[test]
    fn two_records_with_one_number_are_refused() {
        let twice = operation("a", 1).replace("\"a-1\"", "\"another id\"");
        assert!(Stream::read([operation("a", 1).as_bytes(), twice.as_bytes()]).is_err());
        let edited = operation("a", 1).replace("k1", "k2");
        assert!(Stream::read([operation("a", 1).as_bytes(), edited.as_bytes()]).is_err());
    }
}
