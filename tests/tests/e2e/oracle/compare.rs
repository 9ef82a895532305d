//! Joins entries with records, and finds what differs.

use crate::oracle::rules::{RULES, SURPLUS};
use s3auditd_tests::record::Record;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// An entry of MinIO's with our record of the same request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) theirs: &'a Value,
    pub(super) ours: &'a Value,
}

/// One field that is not equal. `None`: that side does not have it.
#[derive(Clone, Debug)]
pub(super) struct Difference<'a> {
    pub(super) pair: Pair<'a>,
    /// `api.name`, `requestHeader.Expect` ...
    pub(super) field: String,
    pub(super) theirs: Option<Value>,
    pub(super) ours: Option<Value>,
}

/// What came of it all.
#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    pub(super) joined: usize,
    /// Their names of operations, with how many entries of each.
    pub(super) names: BTreeMap<&'a str, usize>,
    fields: usize,
    /// Differences by the rule that explains them.
    explained: BTreeMap<&'static str, usize>,
    pub(super) unexplained: Vec<Difference<'a>>,
    pub(super) missing: Vec<&'a Value>,
    /// Further entries of a request that had one.
    pub(super) doubled: Vec<&'a Value>,
    /// Our records that they do not have, by reason.
    surplus: BTreeMap<&'static str, BTreeMap<String, usize>>,
    pub(super) odd_surplus: Vec<&'a Record>,
}

/// Where both have a field of the same meaning: its name, their place, our place.
const FIELDS: &[(&str, &str, &str)] = &[
    ("api.name", "/api/name", "/api/name"),
    ("api.bucket", "/api/bucket", "/api/bucket"),
    ("api.object", "/api/object", "/api/object"),
    ("api.status", "/api/status", "/api/status"),
    ("api.statusCode", "/api/statusCode", "/api/statusCode"),
    ("rx", "/api/rx", "/s3auditd/requestBodyBytes"),
    ("tx", "/api/tx", "/s3auditd/responseBodyBytes"),
    ("remotehost", "/remotehost", "/remotehost"),
    ("requestID", "/requestID", "/requestID"),
    ("userAgent", "/userAgent", "/userAgent"),
    ("accessKey", "/accessKey", "/s3auditd/accessKey"),
];

const MAPS: [&str; 4] = ["requestQuery", "requestHeader", "responseHeader", "requestClaims"];

pub(super) fn compare<'a>(theirs: &'a [Record], ours: &'a [Record]) -> Comparison<'a> {
    let mut comparison = Comparison::default();
    let mut left: BTreeMap<usize, &Record> = ours.iter().enumerate().collect();
    let by_id: HashMap<&str, usize> =
        ours.iter().enumerate().filter_map(|(at, record)| Some((text(&record.0, "/requestID")?, at))).collect();
    for entry in theirs {
        let at = match text(&entry.0, "/requestID") {
            Some(id) => by_id.get(id).copied(),
            None => left.iter().find(|(_, record)| same_without_id(&entry.0, &record.0)).map(|(at, _)| *at),
        };
        let Some((at, record)) = at.and_then(|at| Some((at, ours.get(at)?))) else {
            comparison.missing.push(&entry.0);
            continue;
        };
        // Some of its STS handlers call each other, and each tells the audit.
        if left.remove(&at).is_none() && text(&record.0, "/s3auditd/class") != Some("sts") {
            comparison.doubled.push(&entry.0);
        }
        comparison.add(Pair { theirs: &entry.0, ours: &record.0 });
    }
    for record in left.into_values() {
        comparison.add_surplus(record);
    }
    comparison
}

impl<'a> Comparison<'a> {
    fn add(&mut self, pair: Pair<'a>) {
        self.joined += 1;
        *self.names.entry(text(pair.theirs, "/api/name").unwrap_or("(none)")).or_default() += 1;
        for (field, theirs, ours) in FIELDS {
            self.field(pair, (*field).to_owned(), pair.theirs.pointer(theirs), pair.ours.pointer(ours));
        }
        let empty = Map::new();
        for name in MAPS {
            let of = |side: &'a Value| side.get(name).and_then(Value::as_object);
            let (theirs, ours) = (of(pair.theirs).unwrap_or(&empty), of(pair.ours).unwrap_or(&empty));
            let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                self.field(pair, format!("{name}.{key}"), theirs.get(key), ours.get(key));
            }
        }
    }

    fn field(&mut self, pair: Pair<'a>, field: String, theirs: Option<&Value>, ours: Option<&Value>) {
        self.fields += 1;
        if theirs == ours {
            return;
        }
        let difference = Difference { pair, field, theirs: theirs.cloned(), ours: ours.cloned() };
        match RULES.iter().find(|rule| (rule.explains)(&difference)) {
            Some(rule) => *self.explained.entry(rule.name).or_default() += 1,
            None => self.unexplained.push(difference),
        }
    }

    fn add_surplus(&mut self, record: &'a Record) {
        match SURPLUS.iter().find(|reason| (reason.holds)(&record.0)) {
            Some(reason) => {
                let status = record.status().map_or_else(|| "no status".to_owned(), |status| status.to_string());
                let what = format!("{} {status}", record.api_name().unwrap_or("(none)"));
                *self.surplus.entry(reason.name).or_default().entry(what).or_default() += 1;
            }
            None => self.odd_surplus.push(record),
        }
    }

    /// Rules and reasons that this traffic gave no use to.
    pub(super) fn idle_rules(&self) -> Vec<&'static str> {
        let rules = RULES.iter().map(|rule| rule.name).filter(|name| !self.explained.contains_key(name));
        let reasons = SURPLUS.iter().map(|reason| reason.name).filter(|name| !self.surplus.contains_key(name));
        rules.chain(reasons).collect()
    }
}

impl Difference<'_> {
    pub(super) fn theirs(&self, pointer: &str) -> Option<&Value> {
        self.pair.theirs.pointer(pointer)
    }

    pub(super) fn ours(&self, pointer: &str) -> Option<&Value> {
        self.pair.ours.pointer(pointer)
    }

    pub(super) fn their_text(&self) -> Option<&str> {
        self.theirs.as_ref().and_then(Value::as_str)
    }

    pub(super) fn our_text(&self) -> Option<&str> {
        self.ours.as_ref().and_then(Value::as_str)
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        let own = |name: &str| self.pair.ours.pointer(&format!("/s3auditd/{name}")).map(Value::to_string);
        write!(
            formatter,
            "{}: MinIO {}, we {}; {} {} {}",
            self.field,
            show(&self.theirs),
            show(&self.ours),
            own("method").unwrap_or_default(),
            own("rawPath").unwrap_or_default(),
            self.pair.ours.pointer("/api").map(Value::to_string).unwrap_or_default(),
        )
    }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "MinIO's entries with our record   {:>7}", self.joined)?;
        writeln!(formatter, "MinIO's entries without           {:>7}", self.missing.len())?;
        writeln!(formatter, "names of operations               {:>7}", self.names.len())?;
        writeln!(formatter, "fields compared                   {:>7}", self.fields)?;
        writeln!(formatter, "differences without explanation   {:>7}", self.unexplained.len())?;
        writeln!(formatter, "differences by rule:")?;
        for (name, count) in &self.explained {
            writeln!(formatter, "  {name:<32}{count:>7}")?;
        }
        writeln!(formatter, "records of ours that MinIO has no entry of:")?;
        for (reason, whats) in &self.surplus {
            writeln!(formatter, "  {reason:<32}{:>7}", whats.values().sum::<usize>())?;
            for (what, count) in whats {
                writeln!(formatter, "    {what:<30}{count:>7}")?;
            }
        }
        let names: Vec<_> = self.names.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(formatter, "entries by name: {}", names.join(", "))
    }
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// For requests that MinIO answered before it gave them an id: the same path, client and reply.
fn same_without_id(entry: &Value, record: &Value) -> bool {
    let same = |pointer: &str| entry.pointer(pointer) == record.pointer(pointer);
    let path = text(record, "/s3auditd/rawPath").unwrap_or_default();
    text(record, "/requestID").is_none()
        && text(entry, "/requestPath").is_some_and(|decoded| decoded.as_bytes() == unescaped(path))
        && same("/requestQuery")
        && same("/requestHeader/User-Agent")
        && same("/requestHeader/Content-Length")
        && same("/responseHeader/Content-Length")
}

fn unescaped(path: &str) -> Vec<u8> {
    let mut rest = path.as_bytes();
    let mut plain = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(decoded.unwrap_or(byte));
        rest = decoded.and_then(|_| tail.get(2..)).unwrap_or(tail);
    }
    plain
}
