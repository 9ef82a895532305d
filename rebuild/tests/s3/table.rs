//! The table of operations: nothing is missing, nothing is dead.

use crate::exchanges;
use s3auditd_rebuild::s3::address::{Address, HostCase};
use s3auditd_rebuild::s3::operation::{Dialect, Operation, Reading};
use s3auditd_rebuild::s3::query::{Query, Target};
use s3auditd_rebuild::s3::table::{Field, Naming, Param, Row, Scope, TABLE, TWINS};
use std::collections::BTreeSet;

/// The operations of the AWS model (botocore 1.44.5), one a line.
const AWS: &str = include_str!("data/aws_operations.txt");

/// What either MinIO generation writes into `api.name`, one a line.
const MINIO: &str = include_str!("data/minio_names.txt");

#[test]
fn every_aws_operation_is_there() {
    let listed: BTreeSet<&str> = AWS.lines().collect();
    let mut named: BTreeSet<&str> = TABLE.iter().filter_map(|row| api(row.aws)).collect();
    named.extend(TWINS.iter().map(|(twin, _)| *twin));
    // A browser's upload is no operation of the model; AWS's logs call it so.
    assert!(named.remove("PostObject"));
    assert_eq!(listed.len(), 116);
    assert_eq!(named, listed);
}

#[test]
fn every_minio_name_is_there() {
    let listed: BTreeSet<&str> = MINIO.lines().collect();
    let mut named: BTreeSet<&str> = TABLE.iter().flat_map(|row| [row.weka, row.minio]).filter_map(api).collect();
    // Served without an audit entry of MinIO's own.
    assert!(named.remove("DeleteBucketWebsite"));
    assert_eq!(named, listed);
}

/// For every row and every router that names it, the plainest request that fits the row comes out under its name.
#[test]
fn every_row_can_be_reached() {
    for row in TABLE {
        for method in row.methods {
            for (dialect, naming) in [(Dialect::Aws, row.aws), (Dialect::Weka, row.weka), (Dialect::Minio, row.minio)] {
                let Some(naming) = naming else { continue };
                let found = read(row, method, dialect);
                assert_eq!(found, Some(naming), "{dialect} {method} {row:?}");
            }
        }
    }
}

#[test]
fn names_are_words() {
    for row in TABLE {
        assert!(row.aws.is_some() || row.weka.is_some() || row.minio.is_some(), "{row:?}");
        for naming in [row.aws, row.weka, row.minio].into_iter().flatten() {
            let (Naming::Api(name) | Naming::Refused(name)) = naming;
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
        }
    }
}

fn read(row: &Row, method: &str, dialect: Dialect) -> Option<Naming> {
    let path = match row.scope {
        Scope::Service => "/",
        Scope::Bucket => "/bucket",
        Scope::Object => "/bucket/key",
        Scope::Path(path) => path,
    };
    let query: Vec<String> = row
        .query
        .iter()
        .map(|&param| match param {
            Param::Has(name) => name.to_owned(),
            Param::Is(name, value) => format!("{name}={value}"),
            Param::Digits(name) => format!("{name}=1"),
        })
        .collect();
    let headers = match row.field {
        Field::Any => None,
        Field::CopySource | Field::CopySourceWithSlash => Some(("x-amz-copy-source", "/b/k")),
        Field::Has(name) => Some((name, "1")),
        Field::Contains("content-type", text) => {
            assert_eq!(text, "multipart/form-dat");
            Some(("content-type", "multipart/form-data; boundary=x"))
        }
        Field::Contains(name, text) | Field::Starts(name, text) => Some((name, text)),
        Field::MediaType(media_type) => Some(("content-type", media_type)),
    };
    let request = exchanges::request(method, &format!("{path}?{}", query.join("&")), headers);
    let target = Target::parse(&request.target);
    let query = Query::parse(target.query);
    let address = Address::of(&target, &request.headers, &[], HostCase::Ignored);
    Operation::of(&request, &target, &query, &address, Reading { dialect, domains: &[], reserved_prefixes: &[] }).routed
}

fn api(naming: Option<Naming>) -> Option<&'static str> {
    match naming {
        Some(Naming::Api(name)) => Some(name),
        Some(Naming::Refused(_)) | None => None,
    }
}
