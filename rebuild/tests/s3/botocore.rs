//! Every operation of botocore's model, path and virtual-host style, signed in the header and presigned in both ways:
//! the name, the bucket and the key come out exactly. `data/botocore_requests.py` made the requests.

use crate::exchanges;
use s3auditd_rebuild::s3::address::{Address, HostCase};
use s3auditd_rebuild::s3::operation::{Dialect, Operation, Reading};
use s3auditd_rebuild::s3::query::{Query, Target};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Deserialize)]
struct Request {
    operation: String,
    bucket: String,
    key: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
}

#[test]
fn what_botocore_sends_is_named_as_botocore_names_it() {
    let domains = ["s3.example.test".to_owned()];
    let mut failures = Vec::new();
    let mut operations = BTreeSet::new();
    for line in include_str!("data/botocore_requests.jsonl").lines() {
        let sent: Request = serde_json::from_str(line).unwrap();
        let headers = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = exchanges::request(&sent.method, &sent.target, headers);
        let target = Target::parse(&request.target);
        let query = Query::parse(target.query);
        let address = Address::of(&target, &request.headers, &domains, HostCase::Ignored);
        let reading = Reading { dialect: Dialect::Weka, domains: &domains, reserved_prefixes: &[] };
        let operation = Operation::of(&request, &target, &query, &address, reading);
        // That call has no bucket; its path and host only look like one.
        let addressed = sent.operation != "WriteGetObjectResponse";
        let named = operation.aws == Some(sent.operation.as_str()) && operation.ambiguities.is_empty();
        if !named || (addressed && (&address.bucket, &address.key) != (&sent.bucket, &sent.key)) {
            failures.push(format!("{sent:?}\n    is {operation:?} at {address:?}"));
        }
        operations.insert(sent.operation);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // 111 of the model's operations in botocore 1.43.11, less four twins and ListDirectoryBuckets.
    assert_eq!(operations.len(), 106);
}
