//! What may differ between MinIO's audit and ours, and why: each has a row in `docs/oracle.md`.

use crate::oracle::compare::Difference;
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
    Rule { name: "added-by-net-http", explains: added_by_net_http },
];

/// The first that fits is the reason.
pub(super) const SURPLUS: &[Reason] = &[];

/// All that is not `*REDACTED*` in our text stands in theirs, in order, from its first byte to its last.
fn redacted(difference: &Difference<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (difference.their_text(), difference.our_text()) else { return false };
    let mut pieces = ours.split("*REDACTED*");
    let Some(mut rest) = pieces.next().and_then(|first| theirs.strip_prefix(first)) else { return false };
    let mut redactions = 0;
    let mut last = "";
    for piece in pieces {
        redactions += 1;
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
        last = piece;
    }
    redactions > 0 && (rest.is_empty() || last.is_empty())
}

/// Go's server writes these after the handler, and so after the audit, has had its say.
fn added_by_net_http(difference: &Difference<'_>) -> bool {
    const ADDED: [&str; 5] = ["Date", "Content-Length", "Content-Type", "Connection", "Transfer-Encoding"];
    let header = difference.field.strip_prefix("responseHeader.");
    difference.theirs.is_none() && header.is_some_and(|header| ADDED.contains(&header))
}
