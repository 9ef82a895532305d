//! Requests whose names are easy to get wrong, one a line in `data/edge_cases.jsonl`: what AWS and both MinIO
//! generations call them, and where they point. `rejected:x` is a request that the router refuses by its route `x`,
//! `STS:Action` one whose name is the action in the form, null one without a name.

use crate::exchanges;
use s3auditd_rebuild::s3::address::{Address, HostCase, Style};
use s3auditd_rebuild::s3::operation::{Class, Dialect, Operation, Reading};
use s3auditd_rebuild::s3::query::{Query, Target};
use s3auditd_rebuild::s3::table::Naming;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    domains: Vec<String>,
    aws: Option<String>,
    weka: Option<String>,
    minio: Option<String>,
    bucket: String,
    key: String,
    style: String,
}

#[test]
fn every_edge_case_has_its_names() {
    let mut failures = Vec::new();
    let mut count = 0;
    for line in include_str!("data/edge_cases.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        count += 1;
        for (dialect, wanted) in [(Dialect::Weka, &case.weka), (Dialect::Minio, &case.minio), (Dialect::Aws, &case.aws)]
        {
            let found = read(&case, dialect);
            let wanted = Read {
                name: wanted.clone(),
                aws: case.aws.clone(),
                bucket: case.bucket.clone(),
                key: case.key.clone(),
                style: case.style.clone(),
            };
            if found != wanted {
                failures.push(format!("{} {dialect}: {found:?}, wanted {wanted:?}", case.id));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(count, 63);
}

#[derive(Debug, PartialEq)]
struct Read {
    name: Option<String>,
    aws: Option<String>,
    bucket: String,
    key: String,
    style: String,
}

fn read(case: &Case, dialect: Dialect) -> Read {
    let headers = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = exchanges::request(&case.method, &case.target, headers);
    let target = Target::parse(&request.target);
    let query = Query::parse(target.query);
    let address = Address::of(&target, &request.headers, &case.domains, HostCase::Ignored);
    let reading = Reading { dialect, domains: &case.domains, reserved_prefixes: &[] };
    let operation = Operation::of(&request, &target, &query, &address, reading);
    let aws = match operation.class {
        Class::Sts => Some("STS:Action".to_owned()),
        _ => operation.aws.map(str::to_owned),
    };
    let name = match operation.routed {
        Some(Naming::Api(name)) => Some(name.to_owned()),
        Some(Naming::Refused(route)) => Some(format!("rejected:{route}")),
        None => None,
    };
    Read {
        name: if dialect == Dialect::Aws { aws.clone() } else { name },
        aws,
        bucket: address.bucket,
        key: address.key,
        style: match address.style {
            Style::Path => "path".to_owned(),
            Style::VirtualHost => "virtual".to_owned(),
        },
    }
}
