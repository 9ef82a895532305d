//! One line of a stream, as far as it matters for whether the stream is whole.

use crate::stream::chain::Sealed;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A line taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) own: Own<'a>,
    /// None: the line is not chained.
    pub(super) sealed: Option<Sealed<'a>>,
}

#[derive(Debug, Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    s3auditd: Own<'a>,
}

/// Our own part of a record.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Own<'a> {
    #[serde(borrow, default = "operation")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) instance_id: Cow<'a, str>,
    pub(super) sequence: u64,
    pub(super) start: Option<Start>,
    pub(super) stop: Option<Stop>,
    pub(super) recovery: Option<Recovery>,
    pub(super) gap: Option<Gap>,
    pub(super) checkpoint: Option<Checkpoint>,
}

fn operation() -> Cow<'static, str> {
    Cow::Borrowed("operation")
}

#[derive(Debug, Deserialize)]
pub(super) struct Start {
    pub(super) previous: Option<Previous>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Previous {
    pub(super) instance_id: String,
    pub(super) last_sequence: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stop {
    pub(super) records: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) losses: Vec<Loss>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Loss {
    pub(super) merged: u64,
    pub(super) operations_min: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recovery {
    pub(super) instance_id: String,
    #[serde(default)]
    pub(super) operations_may_be_missing: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gap {
    pub(super) endpoint: Option<String>,
    #[serde(default)]
    pub(super) sequences: Vec<Range>,
    pub(super) operations_min: u64,
    pub(super) operations_max: Option<u64>,
    pub(super) merged: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    pub(super) instance_id: Option<String>,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: Option<u64>,
    pub(super) previous: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checkpoint {
    pub(super) covers: Covers,
    pub(super) hash: String,
    pub(super) key_id: String,
    pub(super) public_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Covers {
    pub(super) instance_id: String,
    pub(super) last: u64,
}

impl<'a> Line<'a> {
    /// The line, or what is wrong with it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let Document { s3auditd: own } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let told = match &*own.kind {
            "start" => own.start.is_some(),
            "stop" => own.stop.is_some(),
            "recovery" => own.recovery.is_some(),
            "gap" => own.gap.is_some(),
            "checkpoint" => own.checkpoint.is_some(),
            // Also of kinds that are still to come.
            _ => true,
        };
        if !told {
            return Err(format!("a record of the kind {} that says nothing of it", own.kind));
        }
        Ok(Self { own, sealed: Sealed::read(bytes) })
    }
}
