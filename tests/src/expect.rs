//! What the client did against what the webhook received: one record a call, every field right, nothing else.

use crate::call::Call;
use crate::gateway::SECRET_KEY;
use crate::record::Record;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// How the default dialect (`weka`: MinIO's names of 2021) calls an operation of AWS.
#[must_use]
pub fn weka_name(operation: &str) -> &str {
    match operation {
        "CreateBucket" => "PutBucket",
        "CreateMultipartUpload" => "NewMultipartUpload",
        "UploadPart" => "PutObjectPart",
        "UploadPartCopy" => "CopyObjectPart",
        "ListParts" => "ListObjectParts",
        "ListObjects" => "ListObjectsV1",
        "DeleteObjects" => "DeleteMultipleObjects",
        "GetBucketAcl" => "GetBucketACL",
        "GetObjectAcl" => "GetObjectACL",
        same => same,
    }
}

/// The most findings that a message shows.
const SHOWN: usize = 8;

/// Each call has exactly one record that says the same, and each record belongs to a call.
///
/// # Errors
/// Calls without their record, next to the record that comes closest, and records without a call.
pub fn same(calls: &[Call], records: &[Record]) -> anyhow::Result<()> {
    let mut left = ByPlace::of(records);
    let without: Vec<_> = calls.iter().filter(|call| !left.take(call, |r| differences(call, r).is_empty())).collect();
    let surplus = left.rest();
    if without.is_empty() && surplus.is_empty() {
        return sound(records);
    }
    let operations = records.iter().filter(|record| record.is_operation()).count();
    let mut report = format!("{} calls, {operations} operation records\n", calls.len());
    let _ = writeln!(report, "{} calls have no record, {} records no call", without.len(), surplus.len());
    for call in without.iter().take(SHOWN) {
        let _ = writeln!(report, "no record for {call:?}");
        if let Some(record) = surplus.iter().min_by_key(|record| distance(call, record)) {
            let _ = writeln!(report, "  closest: {record}\n  differs: {}", differences(call, record).join("; "));
        }
    }
    for record in surplus.iter().take(SHOWN) {
        let _ = writeln!(report, "no call for {record}");
    }
    anyhow::bail!(report)
}

/// For a run that loses samples: a complete record says exactly what some call was, a partial one nothing that
/// contradicts it, and no two records speak of one call.
///
/// # Errors
/// The first record that no call explains.
pub fn none_wrong(calls: &[Call], records: &[Record]) -> anyhow::Result<()> {
    let mut left: HashMap<_, Vec<&Call>> = HashMap::new();
    for call in calls {
        left.entry(call.client).or_default().push(call);
    }
    for record in records.iter().filter(|record| record.is_operation()) {
        let candidates = left.entry(record.client()).or_default();
        match candidates.iter().position(|call| contradictions(call, record).is_empty()) {
            // A record that names no key does not say which of the calls it was.
            Some(at) if record.key().is_some() => drop(candidates.swap_remove(at)),
            Some(_) => {}
            None => {
                let closest = candidates.iter().min_by_key(|call| contradictions(call, record).len());
                let wrong = closest.map(|call| contradictions(call, record).join("; ")).unwrap_or_default();
                anyhow::bail!("no call explains {record}\n  closest: {closest:?}\n  differs: {wrong}");
            }
        }
    }
    sound(records)
}

/// Records by operation, bucket and key, so that thousands are matched in a moment.
struct ByPlace<'a>(HashMap<Place<'a>, Vec<&'a Record>>);

type Place<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

impl<'a> ByPlace<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut places: HashMap<Place<'a>, Vec<&Record>> = HashMap::new();
        for record in records.iter().filter(|record| record.is_operation()) {
            places.entry((record.operation(), record.bucket(), record.key())).or_default().push(record);
        }
        Self(places)
    }

    /// Takes one record of the call's place that is right.
    fn take(&mut self, call: &'a Call, right: impl Fn(&Record) -> bool) -> bool {
        let place = (Some(call.op.as_str()), call.bucket.as_deref(), call.key.as_deref());
        let Some(records) = self.0.get_mut(&place) else { return false };
        let found = records.iter().position(|record| right(record));
        found.map(|at| records.swap_remove(at)).is_some()
    }

    fn rest(self) -> Vec<&'a Record> {
        self.0.into_values().flatten().collect()
    }
}

/// What holds for every record, whatever was called: ids identify, and no secret is in it.
fn sound(records: &[Record]) -> anyhow::Result<()> {
    let mut ids = HashSet::new();
    for record in records.iter().filter(|record| record.is_operation()) {
        let id = record.event_id();
        anyhow::ensure!(id.is_some(), "a record without an event id: {record}");
        anyhow::ensure!(ids.insert(id), "two records with one event id: {record}");
        let text = record.to_string();
        anyhow::ensure!(!text.contains(SECRET_KEY), "the secret key is in a record: {text}");
        for after in text.split("Signature").skip(1) {
            // A SigV4 signature is 64 hexadecimal digits.
            let value = after.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
            let digits = value.chars().take_while(char::is_ascii_hexdigit).count();
            anyhow::ensure!(digits < 64, "a signature is in a record: {text}");
        }
    }
    Ok(())
}

/// What a record states and the call did otherwise. A complete record has to state everything.
fn contradictions(call: &Call, record: &Record) -> Vec<String> {
    if record.completion() == Some("complete") {
        return differences(call, record);
    }
    let mut found = Vec::new();
    let mut compare = |field: &str, stated: Option<String>, did: Option<String>| {
        if stated.is_some() && stated != did {
            found.push(format!("{field} is {stated:?}, not {did:?}"));
        }
    };
    let own = |text: Option<&str>| text.map(str::to_owned);
    compare("operation", own(record.operation()), Some(call.op.clone()));
    compare("bucket", own(record.bucket()), call.bucket.clone());
    compare("key", own(record.key()), call.key.clone());
    compare("status", record.status().map(|code| code.to_string()), Some(call.status.to_string()));
    compare("user agent", own(record.user_agent()), call.user_agent.clone());
    compare("access key", own(record.access_key()), call.access_key.clone());
    found
}

/// How alike, for messages: the place of the object weighs more than a count that is off.
fn distance(call: &Call, record: &Record) -> (bool, bool, usize) {
    (
        record.operation() != Some(&call.op),
        record.bucket() != call.bucket.as_deref() || record.key() != call.key.as_deref(),
        differences(call, record).len(),
    )
}

/// Every field that the call knows and the record has otherwise.
#[must_use]
pub fn differences(call: &Call, record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |field: &str, expected: Option<String>, got: Option<String>| {
        if expected != got {
            let show = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
            found.push(format!("{field} is {}, not {}", show(got), show(expected)));
        }
    };
    let own = |text: Option<&str>| text.map(str::to_owned);
    compare("operation", Some(call.op.clone()), own(record.operation()));
    compare("api.name", Some(weka_name(&call.op).to_owned()), own(record.api_name()));
    compare("bucket", call.bucket.clone(), own(record.bucket()));
    compare("key", call.key.clone(), own(record.key()));
    compare("status", Some(call.status.to_string()), record.status().map(|code| code.to_string()));
    compare("completion", Some("complete".to_owned()), own(record.completion()));
    if call.sent.is_some() {
        compare("bytes in", call.sent.map(|n| n.to_string()), record.bytes_in().map(|n| n.to_string()));
    }
    if call.received.is_some() {
        compare("bytes out", call.received.map(|n| n.to_string()), record.bytes_out().map(|n| n.to_string()));
    }
    if call.user_agent.is_some() {
        compare("user agent", call.user_agent.clone(), own(record.user_agent()));
    }
    if call.access_key.is_some() {
        compare("access key", call.access_key.clone(), own(record.access_key()));
    }
    if call.client.is_some() {
        compare("client", call.client.map(|c| c.to_string()), record.client().map(|c| c.to_string()));
    }
    found
}
