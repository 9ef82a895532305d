//! What the client did against what the webhook received: one record a call, every field right, nothing else.

use crate::call::Call;
use crate::record::Record;
use std::collections::HashSet;
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

/// Each call has exactly one record that says the same, and each record belongs to a call.
///
/// # Errors
/// Every call without its record, next to the record that comes closest, and every record without a call.
pub fn same(calls: &[Call], records: &[Record]) -> anyhow::Result<()> {
    let mut left: Vec<&Record> = records.iter().filter(|record| record.is_operation()).collect();
    let mut without = Vec::new();
    for call in calls {
        match left.iter().position(|record| differences(call, record).is_empty()) {
            Some(at) => drop(left.swap_remove(at)),
            None => without.push(call),
        }
    }
    let mut report = String::new();
    for call in &without {
        let closest = left.iter().min_by_key(|record| distance(call, record));
        // Writing to a String cannot fail.
        let _ = match closest {
            Some(record) => {
                let wrong = differences(call, record).join("; ");
                writeln!(report, "no record for {call:?}\n  closest: {record}\n  differs: {wrong}")
            }
            None => writeln!(report, "no record for {call:?}, and none is left"),
        };
    }
    let surplus = left.len().saturating_sub(without.len());
    if surplus > 0 || (without.is_empty() && !left.is_empty()) {
        let _ = writeln!(report, "{surplus} records that no call explains, among:");
        for record in left.iter().take(10) {
            let _ = writeln!(report, "  {record}");
        }
    }
    anyhow::ensure!(
        report.is_empty(),
        "{} calls, {} operation records\n{report}",
        calls.len(),
        records.iter().filter(|record| record.is_operation()).count(),
    );
    distinct(records)
}

/// Every record equals some call; calls may lack theirs, but no two records share one.
///
/// # Errors
/// The records that no call explains.
pub fn none_wrong(calls: &[Call], records: &[Record]) -> anyhow::Result<()> {
    let mut left: Vec<&Call> = calls.iter().collect();
    for record in records.iter().filter(|record| record.is_operation()) {
        match left.iter().position(|call| differences(call, record).is_empty()) {
            Some(at) => drop(left.swap_remove(at)),
            None => {
                let closest = left.iter().min_by_key(|call| distance(call, record));
                let wrong = closest.map(|call| differences(call, record).join("; ")).unwrap_or_default();
                anyhow::bail!(
                    "a record that no call explains: {record}\n  closest call: {closest:?}\n  differs: {wrong}"
                );
            }
        }
    }
    distinct(records)
}

/// Event ids identify.
fn distinct(records: &[Record]) -> anyhow::Result<()> {
    let mut ids = HashSet::new();
    for record in records.iter().filter(|record| record.is_operation()) {
        let id = record.event_id();
        anyhow::ensure!(id.is_some(), "a record without an event id: {record}");
        anyhow::ensure!(ids.insert(id), "two records with one event id: {record}");
    }
    Ok(())
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
