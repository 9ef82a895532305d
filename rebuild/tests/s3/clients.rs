//! Requests as clients send them, and the names the clients have for them.
//!
//! - `data/botocore_requests.jsonl`: every operation of botocore's model, path and virtual-host style, signed in the
//!   header and presigned in both ways. `data/botocore_requests.py` made it.
//! - `data/recorded_requests.jsonl`: heads out of recorded conversations of boto3 1.44.5 with s3s-fs, Garage and moto,
//!   one of each kind; signatures taken out.

use crate::exchanges;
use s3auditd_rebuild::s3::address::{Address, HostCase};
use s3auditd_rebuild::s3::operation::{Dialect, Operation, Reading};
use s3auditd_rebuild::s3::query::{Query, Target};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Deserialize)]
struct Sent {
    operation: String,
    bucket: Option<String>,
    key: Option<String>,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
}

#[test]
fn what_botocore_sends_is_named_as_botocore_names_it() {
    // 111 operations of botocore 1.43.11, less four twins and ListDirectoryBuckets.
    check(include_str!("data/botocore_requests.jsonl"), 106);
}

#[test]
fn what_clients_were_recorded_to_send_is_named_as_they_name_it() {
    check(include_str!("data/recorded_requests.jsonl"), RECORDED_OPERATIONS);
}

/// The 116 operations of botocore 1.44.5 less the twins, ListDirectoryBuckets, and three that were not recorded; and
/// PostObject.
const RECORDED_OPERATIONS: usize = 109;

fn check(lines: &str, operations: usize) {
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let sent: Sent = serde_json::from_str(line).unwrap();
        if let Err(failure) = check_one(&sent) {
            failures.push(failure);
        }
        seen.insert(sent.operation);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(seen.len(), operations);
}

fn check_one(sent: &Sent) -> Result<(), String> {
    let domains = ["s3.example.test".to_owned(), "localhost".to_owned()];
    let headers = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = exchanges::request(&sent.method, &sent.target, headers);
    let target = Target::parse(&request.target);
    let query = Query::parse(target.query);
    let address = Address::of(&target, &request.headers, &domains, HostCase::Ignored);
    let reading = Reading { dialect: Dialect::Weka, domains: &domains, reserved_prefixes: &[] };
    let operation = Operation::of(&request, &target, &query, &address, reading);
    let named = operation.aws == Some(sent.operation.as_str()) && operation.ambiguities.is_empty();
    // That call has no bucket; its path and host only look like one.
    let addressed = sent.operation != "WriteGetObjectResponse";
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let points = is(&sent.bucket, &address.bucket) && is(&sent.key, &address.key);
    if named && (points || !addressed) { Ok(()) } else { Err(format!("{sent:?}\n    is {operation:?} at {address:?}")) }
}
