//! Which lines of a frame are sent, and in which lane.
//!
//! Only what is needed is parsed, and nothing is copied. A line that cannot be read is sent: nothing gets lost by that.

use crate::config::Access;
use crate::config::endpoint::Filter;
use crate::ledger::Count;
use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;

/// What becomes of a frame's lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// By lane, the lines by their place in the frame; never an empty lane.
    pub(super) lanes: Vec<(usize, Vec<usize>)>,
    /// What the filter keeps back.
    pub(super) filtered: Count,
}

/// Splits a frame. With one lane all lines go there.
pub(super) fn plan(lines: &[Bytes], filter: &Filter, lanes: usize) -> Plan {
    if filter.is_open() && lanes <= 1 {
        return Plan { lanes: vec![(0, (0..lines.len()).collect())], filtered: Count::default() };
    }
    let mut filtered = Count::default();
    let mut split = vec![Vec::new(); lanes.max(1)];
    for (place, line) in lines.iter().enumerate() {
        let peek: Peek = serde_json::from_slice(line).unwrap_or_default();
        if !peek.passes(filter) {
            filtered = filtered.plus(Count::line(line));
        } else if let Some(lane) = split.get_mut(peek.lane(lanes)) {
            lane.push(place);
        }
    }
    let lanes = split.into_iter().enumerate().filter(|(_, lines)| !lines.is_empty()).collect();
    Plan { lanes, filtered }
}

/// What a line says of itself, as far as it matters here.
#[derive(Default, Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    api: Option<Api<'a>>,
    #[serde(borrow)]
    s3auditd: Option<Own<'a>>,
}

#[derive(Deserialize)]
struct Api<'a> {
    #[serde(borrow)]
    bucket: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own<'a> {
    #[serde(borrow)]
    operation: Option<Text<'a>>,
    #[serde(borrow)]
    outcome: Option<Text<'a>>,
    read_only: Option<bool>,
    #[serde(borrow)]
    connection: Option<Text<'a>>,
}

/// Borrowed unless it holds an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Peek<'_> {
    /// A field that is not there (its part of the exchange was not seen) is in no list; a request that was not seen may
    /// have changed something.
    fn passes(&self, filter: &Filter) -> bool {
        let Some(api) = &self.api else { return true };
        let own = self.s3auditd.as_ref();
        let read_only = own.and_then(|own| own.read_only) == Some(true);
        let access = match filter.access {
            Access::All => true,
            Access::Read => read_only,
            Access::Write => !read_only,
        };
        access
            && listed(&filter.buckets, api.bucket.as_ref())
            && listed(&filter.operations, own.and_then(|own| own.operation.as_ref()))
            && listed(&filter.outcomes, own.and_then(|own| own.outcome.as_ref()))
    }

    /// The same connection always has the same lane, also after a restart. Records of the agent's own are in lane 0, all
    /// of them, so that they too stay in order among themselves.
    fn lane(&self, lanes: usize) -> usize {
        let connection = self.s3auditd.as_ref().and_then(|own| own.connection.as_ref());
        match (&self.api, connection) {
            (Some(_), Some(Text(connection))) => {
                usize::try_from(fnv1a(connection.as_bytes()) % lanes.max(1) as u64).unwrap_or_default()
            }
            _ => 0,
        }
    }
}

fn listed(list: &[String], text: Option<&Text>) -> bool {
    list.is_empty() || text.is_some_and(|text| list.iter().any(|item| *item == text.0))
}

/// FNV-1a with 64 bits (RFC 9923), its bits mixed once more: connections are small numbers that differ little.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Filter = Filter { buckets: vec![], operations: vec![], outcomes: vec![], access: Access::All };

    fn lines(of: &[&str]) -> Vec<Bytes> {
        of.iter().map(|line| Bytes::copy_from_slice(line.as_bytes())).collect()
    }

    fn passes(filter: &Filter) -> Vec<usize> {
        let lines = lines(&[
            r#"{"api":{"bucket":"a","name":"x"},"s3auditd":{"operation":"GetObject","outcome":"success","readOnly":true,"connection":"1"}}"#,
            r#"{"api":{"bucket":"b\u0022"},"s3auditd":{"operation":"PutObject","outcome":"failure","readOnly":false,"connection":"2"}}"#,
            r#"{"api":{"name":"Unknown"},"s3auditd":{"outcome":"unknown","connection":"3"}}"#,
            r#"{"s3auditd":{"event":"gap"},"time":"2025-03-21T06:37:27.915055685Z"}"#,
            "no JSON",
        ]);
        let plan = plan(&lines, filter, 1);
        let sent: Vec<_> = plan.lanes.into_iter().flat_map(|(_, lines)| lines).collect();
        assert_eq!(plan.filtered.records, (lines.len() - sent.len()) as u64);
        sent
    }

    #[test]
    fn a_filter_lets_through_what_it_names_and_always_what_is_the_agents_own() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(passes(&OPEN), [0, 1, 2, 3, 4]);
        assert_eq!(passes(&Filter { buckets: list(&["a", "c"]), ..OPEN }), [0, 3, 4]);
        assert_eq!(passes(&Filter { buckets: list(&["b\""]), ..OPEN }), [1, 3, 4]);
        assert_eq!(passes(&Filter { operations: list(&["PutObject"]), ..OPEN }), [1, 3, 4]);
        assert_eq!(passes(&Filter { outcomes: list(&["failure", "unknown"]), ..OPEN }), [1, 2, 3, 4]);
        assert_eq!(passes(&Filter { access: Access::Read, ..OPEN }), [0, 3, 4]);
        assert_eq!(passes(&Filter { access: Access::Write, ..OPEN }), [1, 2, 3, 4]);
        assert_eq!(passes(&Filter { access: Access::Write, buckets: list(&["a"]), ..OPEN }), [3, 4]);
    }

    #[test]
    fn a_connection_has_one_lane_and_connections_spread() {
        let record = |connection: usize| format!(r#"{{"api":{{}},"s3auditd":{{"connection":"{connection}"}}}}"#);
        let texts: Vec<_> = (0..400).map(|nth| record(4000 + nth % 100)).chain(["{}".to_owned()]).collect();
        let lines: Vec<_> = texts.into_iter().map(Bytes::from).collect();
        let plan = plan(&lines, &OPEN, 4);
        assert_eq!(plan.lanes.len(), 4);
        for (lane, places) in &plan.lanes {
            assert!(places.len() > 40 && places.is_sorted());
            for place in places.iter().filter(|place| **place < 300) {
                assert!(places.contains(&(place + 100)), "a connection is in one lane");
            }
            assert_eq!(places.contains(&400), *lane == 0);
        }
    }
}
