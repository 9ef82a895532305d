//! What may differ between MinIO's audit and ours, and why: each has a row in `docs/oracle.md`.

use crate::oracle::compare::{Difference, text};
use serde_json::Value;

/// A class of differences.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) explains: fn(&Difference<'_>) -> bool,
}

/// Why MinIO has no entry of a request.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) name: &'static str,
    pub(super) holds: fn(&Value) -> bool,
}

/// The first that fits is the explanation.
pub(super) const RULES: &[Rule] = &[
    Rule { name: "redacted", explains: redacted },
    Rule { name: "secret-left-out", explains: secret_left_out },
    Rule { name: "cut-to-limit", explains: cut_to_limit },
    Rule { name: "canonical-names", explains: canonical_names },
    Rule { name: "added-by-net-http", explains: added_by_net_http },
    Rule { name: "removed-by-net-http", explains: removed_by_net_http },
    Rule { name: "pragma", explains: pragma },
    Rule { name: "added-to-request", explains: added_to_request },
    Rule { name: "gzip-unfinished", explains: gzip_unfinished },
    Rule { name: "announced-not-sent", explains: announced_not_sent },
    Rule { name: "length-not-told", explains: length_not_told },
    Rule { name: "unrouted", explains: unrouted },
    Rule { name: "refused-before-routing", explains: refused_before_routing },
    Rule { name: "copy-source", explains: copy_source },
    Rule { name: "one-key-of-many", explains: one_key_of_many },
    Rule { name: "listed-key", explains: listed_key },
    Rule { name: "acl-without-object", explains: acl_without_object },
    Rule { name: "form-fields", explains: form_fields },
    Rule { name: "cleaned-key", explains: cleaned_key },
    Rule { name: "key-not-proven", explains: key_not_proven },
    Rule { name: "first-forwarded-address", explains: first_forwarded_address },
    Rule { name: "sts-common-name", explains: sts_common_name },
    Rule { name: "issued-claims", explains: issued_claims },
    Rule { name: "admin-call", explains: admin_call },
];

/// The first that fits is the reason.
pub(super) const SURPLUS: &[Reason] = &[
    Reason {
        name: "not-audited-class",
        holds: |ours| matches!(text(ours, "/s3auditd/class"), Some("health" | "metrics" | "preflight")),
    },
    Reason { name: "refused-by-net-http", holds: refused_by_net_http },
    Reason { name: "rejected-api", holds: |ours| text(ours, "/s3auditd/s3ErrorCode") == Some("NotImplemented") },
    Reason { name: "dummy-handler", holds: |ours| text(ours, "/api/name") == Some("DeleteBucketWebsite") },
    Reason { name: "static-page", holds: |ours| text(ours, "/s3auditd/rawPath") == Some("/crossdomain.xml") },
];

/// Go's server answered itself: a head that it cannot read never gets to MinIO, and so gets none of its headers.
fn refused_by_net_http(ours: &Value) -> bool {
    ours.pointer("/api/statusCode").and_then(Value::as_u64) == Some(400)
        && text(ours, "/requestID").is_none()
        && text(ours, "/responseHeader/Server").is_none()
        && text(ours, "/responseHeader/Content-Type") == Some("text/plain; charset=utf-8")
}

/// All that is not `*REDACTED*` in our text stands in theirs, in order, from its first byte to its last.
fn redacted(difference: &Difference<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (difference.their_text(), difference.our_text()) else { return false };
    let mut pieces = ours.split("*REDACTED*");
    let Some(mut rest) = pieces.next().and_then(|first| theirs.strip_prefix(first)) else { return false };
    let mut last = None;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
        last = Some(piece);
    }
    last.is_some_and(|last| rest.is_empty() || last.is_empty())
}

/// MinIO drops the few values that it knows to be secret; we say that there was one.
fn secret_left_out(difference: &Difference<'_>) -> bool {
    difference.theirs.is_none() && difference.our_text() == Some("*REDACTED*")
}

fn cut_to_limit(difference: &Difference<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (difference.their_text(), difference.our_text()) else { return false };
    let map = difference.field.split('.').next().unwrap_or_default();
    let truncated = difference.ours("/s3auditd/truncated").and_then(Value::as_array);
    theirs.starts_with(ours) && truncated.is_some_and(|fields| fields.iter().any(|field| field == map))
}

/// The other side has it, in another spelling. MinIO writes some names of its replies in lower case.
fn canonical_names(difference: &Difference<'_>) -> bool {
    let Some(name) = difference.field.strip_prefix("responseHeader.") else { return false };
    let respelled = |side: &Value, value: &Option<Value>| {
        side.get("responseHeader").and_then(Value::as_object).is_some_and(|headers| {
            headers.iter().any(|(other, held)| other.eq_ignore_ascii_case(name) && Some(held) == value.as_ref())
        })
    };
    match (&difference.theirs, &difference.ours) {
        (Some(_), None) => respelled(difference.pair.ours, &difference.theirs),
        (None, Some(_)) => respelled(difference.pair.theirs, &difference.ours),
        _ => false,
    }
}

/// Go's server writes these after the handler, and so after the audit, has had its say.
fn added_by_net_http(difference: &Difference<'_>) -> bool {
    const ADDED: [&str; 5] = ["Date", "Content-Length", "Content-Type", "Connection", "Transfer-Encoding"];
    let header = difference.field.strip_prefix("responseHeader.");
    difference.theirs.is_none() && header.is_some_and(|header| ADDED.contains(&header))
}

/// Go's server writes no Content-Length with a 204.
fn removed_by_net_http(difference: &Difference<'_>) -> bool {
    difference.field == "responseHeader.Content-Length"
        && difference.their_text() == Some("0")
        && difference.ours.is_none()
        && difference.ours("/api/statusCode").and_then(Value::as_u64) == Some(204)
}

/// Go's server reads `Pragma: no-cache` as `Cache-Control: no-cache`.
fn pragma(difference: &Difference<'_>) -> bool {
    difference.field == "requestHeader.Cache-Control"
        && difference.their_text() == Some("no-cache")
        && difference.ours.is_none()
        && text(difference.pair.ours, "/requestHeader/Pragma") == Some("no-cache")
}

/// Handlers put notes for policies into the request's headers.
fn added_to_request(difference: &Difference<'_>) -> bool {
    matches!(difference.field.as_str(), "requestHeader.X-Amz-Tagging" | "requestHeader.X-Amz-Signature-Age")
        && difference.ours.is_none()
}

/// The audit runs before the compressing writer is closed: status and body are still in its hands.
fn gzip_unfinished(difference: &Difference<'_>) -> bool {
    let asked = text(difference.pair.ours, "/requestHeader/Accept-Encoding").is_some_and(|how| how.contains("gzip"));
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
    let (theirs, ours) = (number(&difference.theirs), number(&difference.ours));
    asked
        && match difference.field.as_str() {
            "tx" => theirs < ours,
            "api.statusCode" => theirs == Some(200) && ours == Some(204),
            "api.status" => difference.their_text() == Some("OK") && difference.our_text() == Some("No Content"),
            _ => false,
        }
}

/// Theirs is what the head announced. The client waited for a 100 that never came, and sent less.
fn announced_not_sent(difference: &Difference<'_>) -> bool {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
    let announced = text(difference.pair.ours, "/requestHeader/Content-Length").and_then(|length| length.parse().ok());
    difference.field == "rx"
        && number(&difference.theirs) == announced
        && number(&difference.ours) < announced
        && text(difference.pair.ours, "/requestHeader/Expect").is_some()
        && difference.ours("/api/statusCode").and_then(Value::as_u64) >= Some(400)
}

/// Theirs is -1 for a body in chunks, whatever came.
fn length_not_told(difference: &Difference<'_>) -> bool {
    difference.field == "rx"
        && difference.theirs.as_ref().and_then(Value::as_i64) == Some(-1)
        && difference.ours("/requestHeader/Content-Length").is_none()
}

/// No route took the request, so none of MinIO's middleware saw it, and its audit knows next to nothing.
fn unrouted(difference: &Difference<'_>) -> bool {
    const UNKNOWN: [&str; 7] =
        ["api.name", "api.bucket", "api.object", "api.status", "api.statusCode", "accessKey", "remotehost"];
    difference.theirs("/requestID").is_none()
        && (difference.theirs.is_none() && UNKNOWN.contains(&difference.field.as_str())
            || difference.field == "tx" && difference.theirs.as_ref().and_then(Value::as_i64) == Some(-1))
}

/// Middleware answered before a handler had named the operation.
fn refused_before_routing(difference: &Difference<'_>) -> bool {
    matches!(difference.field.as_str(), "api.name" | "api.bucket" | "api.object" | "accessKey")
        && difference.theirs("/api/name").is_none()
        && difference.theirs.is_none()
        && difference.ours("/api/statusCode").and_then(Value::as_u64) >= Some(400)
}

/// The check of the right to read the source overwrites what the entry names.
fn copy_source(difference: &Difference<'_>) -> bool {
    let source = match difference.field.as_str() {
        "api.bucket" => "/s3auditd/copySource/bucket",
        "api.object" => "/s3auditd/copySource/key",
        _ => return false,
    };
    difference.theirs.is_some() && difference.theirs.as_ref() == difference.ours(source)
}

/// The check of the right to delete each key does the same.
fn one_key_of_many(difference: &Difference<'_>) -> bool {
    let keys = difference.ours("/s3auditd/deleteKeys").and_then(Value::as_array);
    difference.field == "api.object"
        && difference.ours.is_none()
        && keys.is_some_and(|keys| keys.iter().any(|key| key.get("key") == difference.theirs.as_ref()))
}

/// And so does the check of the right to see each key's metadata in a listing.
fn listed_key(difference: &Difference<'_>) -> bool {
    difference.field == "api.object"
        && difference.ours.is_none()
        && text(difference.pair.ours, "/requestQuery/metadata") == Some("true")
        && text(difference.pair.theirs, "/api/name").is_some_and(|name| name.starts_with("List"))
}

/// The check of the right to see an ACL is one of the bucket, and so empties the entry's object.
fn acl_without_object(difference: &Difference<'_>) -> bool {
    difference.field == "api.object"
        && difference.theirs.is_none()
        && text(difference.pair.theirs, "/api/name").is_some_and(|name| name.ends_with("ObjectACL"))
}

/// A browser's form says in its body what it is about and who signed it.
fn form_fields(difference: &Difference<'_>) -> bool {
    matches!(difference.field.as_str(), "api.object" | "accessKey")
        && difference.theirs.is_none()
        && text(difference.pair.theirs, "/api/name") == Some("PostPolicyBucket")
}

/// Theirs is ours with repeated slashes made one, and none at the start.
fn cleaned_key(difference: &Difference<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (difference.their_text(), difference.our_text()) else { return false };
    let segments: Vec<_> = ours.split('/').filter(|segment| !segment.is_empty()).collect();
    difference.field == "api.object" && theirs == segments.join("/")
}

/// We say which key was claimed; MinIO says nothing until it has checked.
fn key_not_proven(difference: &Difference<'_>) -> bool {
    let Some(claimed) = difference.our_text() else { return false };
    let credential = ["/requestHeader/Authorization", "/requestQuery/X-Amz-Credential", "/requestQuery/AWSAccessKeyId"];
    let mut credentials = credential.iter().filter_map(|place| text(difference.pair.ours, place));
    difference.field == "accessKey" && difference.theirs.is_none() && credentials.any(|shown| shown.contains(claimed))
}

/// MinIO believes the first element of X-Forwarded-For, whoever wrote it.
fn first_forwarded_address(difference: &Difference<'_>) -> bool {
    let forwarded = text(difference.pair.ours, "/requestHeader/X-Forwarded-For");
    let first = forwarded.and_then(|list| list.split(',').next()).map(str::trim);
    difference.field == "remotehost" && first.is_some() && difference.their_text() == first
}

/// One handler serves two actions, and audits itself under a name of its own.
fn sts_common_name(difference: &Difference<'_>) -> bool {
    difference.field == "api.name"
        && difference.their_text() == Some("AssumeRoleSSOCommon")
        && text(difference.pair.ours, "/s3auditd/class") == Some("sts")
}

/// Theirs are of the session that is being issued, not of one that asks.
fn issued_claims(difference: &Difference<'_>) -> bool {
    difference.field.starts_with("requestClaims.")
        && difference.ours.is_none()
        && text(difference.pair.ours, "/s3auditd/class") == Some("sts")
}

/// We do not tell MinIO's administrative calls apart.
fn admin_call(difference: &Difference<'_>) -> bool {
    difference.field == "api.name"
        && difference.theirs.is_some()
        && text(difference.pair.ours, "/s3auditd/class") == Some("admin")
}
