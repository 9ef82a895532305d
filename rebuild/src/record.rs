//! The audit record: what an exchange meant, redacted, in the shape of WEKA's audit entry with a part of our own.
//!
//! A record never states what was not seen: what is not known is left out, and `s3auditd.completion` and
//! `s3auditd.unseen` say why. Redaction happens here, before a record can be queued. Every text is bounded, so a record
//! is. `docs/record.md` is the reference of all fields.

pub mod client;
mod document;
mod facts;
pub mod headers;
pub mod status;

pub use document::WekaInfo;

use crate::exchange::Exchange;
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::redact::Redaction;
use crate::s3::address::{Address, HostCase};
use crate::s3::caller::{Caller, Expiry};
use crate::s3::multi_delete::{Limits, MultiDelete};
use crate::s3::operation::{Ambiguity, Class, Dialect, Operation, Reading};
use crate::s3::outcome::{self, Outcome};
use crate::s3::post_form::PostForm;
use crate::s3::query::{Query, Target};
use crate::s3::sts;
use crate::s3::table::Naming;
use client::{Cidr, ClientAddress};
use document::{Api, DeleteKey, Document, Endpoint, Own, Process};
use headers::TextMap;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// `api.name` where no operation can be named: the request's head was not seen, or no router knows the request.
const UNKNOWN_NAME: &str = "Unknown";

/// How records are made.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordSettings {
    /// Whose names `api.name` speaks.
    pub dialect: Dialect,
    /// Domains under which the gateway serves virtual-host style; empty: path style only.
    pub domains: Vec<String>,
    /// Path prefixes the gateway keeps for itself, each with both slashes.
    pub reserved_prefixes: Vec<String>,
    /// `deploymentid`; empty: left out.
    pub deployment_id: String,
    /// See [`WekaInfo`].
    pub weka_info: WekaInfo,
    /// What tells this run of this agent from all others; event ids are unique within it. A fresh random text per
    /// start, unless the sequence goes on where it ended.
    pub instance_id: String,
    /// See [`Redaction`].
    pub redaction: Redaction,
    /// Hops whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// How many keys of a multi-delete are listed.
    pub max_delete_keys: usize,
    /// How many bytes these keys and their version ids may have together.
    pub max_delete_key_bytes: usize,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            domains: Vec::new(),
            reserved_prefixes: vec!["/minio/".to_owned(), "/wekas3api/".to_owned()],
            deployment_id: String::new(),
            weka_info: WekaInfo::default(),
            instance_id: String::new(),
            redaction: Redaction::default(),
            trusted_proxies: Cidr::LOOPBACK.to_vec(),
            max_delete_keys: 1000,
            max_delete_key_bytes: 128 * 1024,
        }
    }
}

/// How the exchange's clock stands to the wall's: time is an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Wall time (nanoseconds since 1970, UTC) minus CLOCK_MONOTONIC, at about the time of the exchange.
    pub wall_minus_monotonic_ns: i128,
}

impl Clock {
    /// The wall time; the nearest end of time for what no calendar holds.
    fn wall(self, monotonic_ns: u64) -> Timestamp {
        let wall = self.wall_minus_monotonic_ns.saturating_add(i128::from(monotonic_ns));
        let nearest = if wall < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_nanosecond(wall).unwrap_or(nearest)
    }
}

/// Turns exchanges into records and numbers them.
#[derive(Clone, Debug)]
pub struct RecordMaker {
    settings: RecordSettings,
    next_sequence: u64,
}

impl RecordMaker {
    /// A maker whose first record gets `next_sequence`.
    #[must_use]
    pub fn new(settings: RecordSettings, next_sequence: u64) -> Self {
        Self { settings, next_sequence }
    }

    /// How it makes records.
    #[must_use]
    pub fn settings(&self) -> &RecordSettings {
        &self.settings
    }

    /// Changes how records are made from here on; the numbering goes on.
    pub fn reconfigure(&mut self, settings: RecordSettings) {
        self.settings = settings;
    }

    /// The sequence number of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What kind of request an exchange was, so that kinds can be left out before a record is made of them. No number
    /// is used up.
    #[must_use]
    pub fn classify(&self, exchange: &Exchange) -> Class {
        exchange
            .request
            .as_ref()
            .map_or(Class::Unknown, |request| Asked::read(request, exchange, &self.settings).class())
    }

    /// Makes the record of an exchange.
    pub fn record(&mut self, exchange: &Exchange, clock: Clock) -> Record {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.wrapping_add(1);
        let asked = exchange.request.as_ref().map(|request| Asked::read(request, exchange, &self.settings));
        let ended = clock.wall(exchange.ended_ns);
        let event_id = event_id(ended, &self.settings.instance_id, sequence);
        let making = Making { settings: &self.settings, exchange, asked, truncated: Vec::new() };
        let (document, class, outcome) = making.document(clock, sequence, event_id);
        Record { document, class, outcome }
    }
}

/// An audit record. It is made by a [`RecordMaker`] and has nothing in it that must not be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    document: Document,
    class: Class,
    outcome: Outcome,
}

impl Record {
    /// Its number; consecutive per maker.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.document.s3auditd.sequence
    }

    /// Its id: a UUID of version 7.
    #[must_use]
    pub fn event_id(&self) -> &str {
        &self.document.s3auditd.event_id
    }

    /// See [`Class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// See [`Outcome`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The AWS name of the operation, where there is one.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.document.s3auditd.operation
    }

    /// When the operation ended: RFC 3339, UTC, nanoseconds.
    #[must_use]
    pub fn time(&self) -> &str {
        &self.document.time
    }

    /// The record as one line of JSON with its newline. No other byte of it is a control character.
    #[must_use]
    pub fn to_json_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(2048);
        // Strings, numbers and maps of strings into memory: serde_json has no way to fail on these.
        if serde_json::to_writer(&mut line, &self.document).is_err() {
            line.clear();
        }
        line.push(b'\n');
        line
    }
}

/// What a request asked for, read once.
struct Asked<'a> {
    request: &'a RequestHead,
    target: Target<'a>,
    query: Query,
    address: Address,
    operation: Operation,
    sts_action: Option<&'static str>,
}

impl<'a> Asked<'a> {
    fn read(request: &'a RequestHead, exchange: &Exchange, settings: &RecordSettings) -> Self {
        let target = Target::parse(&request.target);
        let query = Query::parse(target.query);
        let address = Address::of(&target, &request.headers, &settings.domains, HostCase::Ignored);
        let reading = Reading {
            dialect: settings.dialect,
            domains: &settings.domains,
            reserved_prefixes: &settings.reserved_prefixes,
        };
        let operation = Operation::of(request, &target, &query, &address, reading);
        let is_sts = operation.class == Class::Sts;
        let sts_action = is_sts.then(|| sts::action(&query, &exchange.request_body)).flatten();
        Self { request, target, query, address, operation, sts_action }
    }

    fn class(&self) -> Class {
        self.operation.class
    }

    /// The AWS name, or the action of STS.
    fn name(&self) -> Option<&'static str> {
        self.operation.aws.or(self.sts_action)
    }

    /// What the dialect calls it. What its router would not serve under a name of its own goes by its AWS name.
    fn api_name(&self) -> &'static str {
        match self.operation.class {
            Class::S3 | Class::Preflight | Class::Unknown => match self.operation.routed {
                Some(Naming::Api(name)) => name,
                Some(Naming::Refused(_)) | None => self.operation.aws.unwrap_or(UNKNOWN_NAME),
            },
            Class::Sts => self.sts_action.unwrap_or("STS"),
            Class::Health => "Health",
            Class::Metrics => "Metrics",
            Class::Admin => "Admin",
            Class::Console => "Console",
            Class::Internode => "Internode",
        }
    }

    /// Whether path and host mean a bucket and a key.
    fn is_addressed(&self) -> bool {
        matches!(self.operation.class, Class::S3 | Class::Preflight | Class::Unknown)
            && self.operation.aws != Some("WriteGetObjectResponse")
    }
}

/// A record on its way.
struct Making<'a> {
    settings: &'a RecordSettings,
    exchange: &'a Exchange,
    asked: Option<Asked<'a>>,
    truncated: Vec<&'static str>,
}

impl Making<'_> {
    fn document(mut self, clock: Clock, sequence: u64, event_id: String) -> (Document, Class, Outcome) {
        let exchange = self.exchange;
        let connection = &exchange.connection;
        let request = exchange.request.as_ref();
        let response = exchange.response.as_ref();
        let no_headers = crate::http::head::Headers::default();
        let request_headers = request.map_or(&no_headers, |request| &request.headers);
        let client = ClientAddress::of(connection.client, request_headers, &self.settings.trusted_proxies);

        let class = self.asked.as_ref().map_or(Class::Unknown, Asked::class);
        let name = self.asked.as_ref().and_then(Asked::name);
        let deletes = (name == Some("DeleteObjects")).then(|| {
            let limits = Limits { keys: self.settings.max_delete_keys, bytes: self.settings.max_delete_key_bytes };
            MultiDelete::read(&exchange.request_body, &exchange.response_body, limits)
        });
        let (outcome, error) = outcome::judge(exchange, name, deletes.as_ref().map(MultiDelete::in_full));

        let mut own = Own {
            schema: document::SCHEMA,
            event_id,
            sequence,
            instance_id: self.settings.instance_id.clone(),
            operation: name,
            class: class.name(),
            outcome: outcome.name(),
            s3_error_code: error,
            completion: facts::completion(exchange.completion),
            unseen: exchange.unseen.iter().map(|&part| facts::unseen(part)).collect(),
            oddities: exchange.oddities.iter().map(|&oddity| facts::oddity(oddity)).collect(),
            interim_replies: exchange.interim_replies,
            bytes_in: exchange.request_head_bytes.saturating_add(exchange.request_body_bytes),
            bytes_out: exchange.response_head_bytes.saturating_add(exchange.response_body_bytes),
            request_body_bytes: exchange.request_body_bytes,
            response_body_bytes: exchange.response_body_bytes,
            client_address: Endpoint {
                ip: client.ip.to_string(),
                port: client.port,
                source: Some(client.source.name()),
            },
            peer: endpoint(connection.client),
            server: endpoint(connection.server),
            process: Process {
                pid: connection.tgid,
                comm: connection.comm.chars().take(64).collect(),
                cgroup_id: (connection.cgroup_id != 0).then(|| connection.cgroup_id.to_string()),
                netns: connection.netns,
            },
            start_time: rfc3339(clock.wall(exchange.started_ns)),
            connection: connection.cookie.to_string(),
            connection_preexisting: connection.preexisting,
            exchange: exchange.ordinal,
            ..Own::default()
        };
        if let Some(deletes) = deletes {
            self.put_deletes(&mut own, deletes);
        }
        let mut api = Api { name: UNKNOWN_NAME.to_owned(), ..Api::default() };
        let mut request_query = BTreeMap::new();
        if let Some(asked) = self.asked.take() {
            self.put_request(&mut own, &mut api, &asked);
            request_query = self.map("requestQuery", TextMap::of_query(&asked.query, &self.settings.redaction));
        }
        if let Some(response) = response {
            self.put_response(&mut own, &mut api, response);
        }
        let request_header = request
            .map(|request| self.map("requestHeader", TextMap::of_request(&request.headers, &self.settings.redaction)));
        let response_header = response.map(|response| {
            self.map("responseHeader", TextMap::of_response(&response.headers, &self.settings.redaction))
        });
        let user_agent = request_header.as_ref().and_then(|headers| headers.get("User-Agent").cloned());
        let request_id = response_header.as_ref().and_then(|headers| headers.get("X-Amz-Request-Id").cloned());
        self.truncated.sort_unstable();
        self.truncated.dedup();
        own.truncated = self.truncated;
        let document = Document {
            api,
            audit_version: "1.weka",
            deployment_id: self.settings.deployment_id.clone(),
            remote_host: remote_host(client.ip, self.settings.dialect),
            request_header,
            request_id,
            request_query,
            response_header,
            s3auditd: own,
            time: rfc3339(clock.wall(exchange.ended_ns)),
            user_agent,
            weka_info: self.settings.weka_info.clone(),
        };
        (document, class, outcome)
    }

    fn put_request(&mut self, own: &mut Own, api: &mut Api, asked: &Asked<'_>) {
        let (exchange, redaction) = (self.exchange, &self.settings.redaction);
        let (request, query) = (asked.request, &asked.query);
        let is_post_object = asked.operation.aws == Some("PostObject");
        let form = is_post_object.then(|| PostForm::parse(&request.headers, &exchange.request_body)).flatten();
        let caller = Caller::of(&request.headers, query, form.as_ref());

        asked.api_name().clone_into(&mut api.name);
        if asked.is_addressed() {
            let form_key = form.as_ref().and_then(|form| form.key.as_deref());
            let object = match form_key {
                Some(key) if asked.address.key.is_empty() => redaction.path(key),
                _ => redaction.path(asked.address.key.as_bytes()),
            };
            let bucket = asked.address.bucket.clone();
            api.bucket = (!bucket.is_empty()).then(|| self.cut("api.bucket", bucket));
            api.object = (!object.is_empty()).then(|| self.cut("api.object", object));
        }

        let mut ambiguities = asked.operation.ambiguities.clone();
        if caller.several {
            ambiguities.push(Ambiguity::SeveralCredentials);
        }
        own.ambiguous = ambiguities.into_iter().map(Ambiguity::name).collect();
        own.read_only = Some(asked.operation.is_read_only(&request.method));
        own.method = Some(self.cut("method", String::from_utf8_lossy(&request.method).into_owned()));
        own.host = asked.address.host.as_ref().map(|host| self.cut("host", redaction.text(host.as_bytes())));
        own.raw_path = Some(self.cut("rawPath", redaction.path(asked.target.path)));
        own.http_version = Some(match request.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        });

        own.access_key = caller.access_key;
        own.auth_type = Some(caller.auth_type.name());
        own.signature_version = Some(caller.signature_version.name());
        own.signed_headers = caller.signed_headers;
        own.region = caller.region;
        match caller.expiry {
            Some(Expiry::Seconds(seconds)) => own.presign_expires_seconds = Some(seconds),
            Some(Expiry::At(second)) => own.presign_expires_at = Some(second),
            None => {}
        }
        if asked.operation.class == Class::Sts {
            own.issued_access_key = sts::issued_access_key(&exchange.response_body);
        }
        if asked.is_addressed() {
            let value = |name: &str| query.first(name).filter(|value| !value.is_empty());
            let text = |value: &[u8]| redaction.text(value);
            own.version_id = value("versionId").map(|value| self.cut("versionId", text(value)));
            own.upload_id = value("uploadId").map(|value| self.cut("uploadId", text(value)));
            own.part_number = value("partNumber").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
            own.range = request.headers.first("range").map(|value| self.cut("range", text(value)));
            let source = request.headers.first("x-amz-copy-source");
            let source = source.or_else(|| query.first_ignoring_case("x-amz-copy-source"));
            own.copy_source = source.and_then(facts::copy_source).map(|source| document::CopySource {
                bucket: self.cut("copySource", source.bucket),
                key: source.key.map(|key| self.cut("copySource", redaction.path(key.as_bytes()))),
                version_id: source.version_id.map(|id| self.cut("copySource", redaction.text(id.as_bytes()))),
            });
            own.object_size = asked.operation.aws.and_then(|name| facts::object_size(exchange, name));
        }
        if let Some(first_byte) = exchange.first_byte_ns {
            api.time_to_first_byte = Some(format!("{}ns", first_byte.saturating_sub(exchange.head_read_ns)));
        }
        if exchange.response.is_some() {
            api.time_to_response = Some(format!("{}ns", exchange.ended_ns.saturating_sub(exchange.head_read_ns)));
        }
    }

    fn put_response(&mut self, own: &mut Own, api: &mut Api, response: &ResponseHead) {
        let redaction = &self.settings.redaction;
        api.status_code = Some(response.status);
        api.status = status::text(response.status);
        let header = |name: &str| response.headers.first(name).map(|value| redaction.header(name.as_bytes(), value));
        own.content_range = header("content-range").map(|value| self.cut("contentRange", value));
        own.amz_id_2 = header("x-amz-id-2").map(|value| self.cut("amzId2", value));
        if own.version_id.is_none() {
            own.version_id = header("x-amz-version-id").map(|value| self.cut("versionId", value));
        }
    }

    fn put_deletes(&mut self, own: &mut Own, deletes: MultiDelete) {
        let redaction = &self.settings.redaction;
        own.delete_keys_cut = deletes.cut;
        own.delete_keys = Some(
            deletes
                .keys
                .into_iter()
                .map(|entry| DeleteKey {
                    key: redaction.path(entry.key.as_bytes()),
                    version_id: entry.version_id,
                    error: entry.error,
                })
                .collect(),
        );
    }

    fn map(&mut self, name: &'static str, map: TextMap) -> BTreeMap<String, String> {
        if map.truncated {
            self.truncated.push(name);
        }
        map.entries
    }

    fn cut(&mut self, name: &'static str, text: String) -> String {
        let mut truncated = false;
        let text = headers::cut(text, headers::MAX_VALUE_BYTES, &mut truncated);
        if truncated {
            self.truncated.push(name);
        }
        text
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { ip: address.ip().to_canonical().to_string(), port: Some(address.port()), source: None }
}

/// Current MinIO writes IPv6 addresses in brackets; WEKA's lineage does not.
fn remote_host(ip: IpAddr, dialect: Dialect) -> String {
    match (ip, dialect) {
        (IpAddr::V6(v6), Dialect::Minio) => format!("[{v6}]"),
        _ => ip.to_string(),
    }
}

fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// A UUID of version 7 (RFC 9562, 5.7) without a random source: 48 bits of milliseconds, then 32 bits of a hash of the
/// instance and 42 bits of the sequence where the RFC has random ones. So ids are in order of time, do not repeat
/// within an instance, and the same exchange in the same place gives the same id.
fn event_id(time: Timestamp, instance_id: &str, sequence: u64) -> String {
    let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff;
    let instance = fnv1a(instance_id.as_bytes());
    let (high, low) = ((instance >> 20) & 0xfff, instance & 0xf_ffff);
    let first = (milliseconds << 16) | 0x7000 | high;
    let second = (0b10 << 62) | (low << 42) | (sequence & 0x3ff_ffff_ffff);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        first >> 32,
        (first >> 16) & 0xffff,
        first & 0xffff,
        second >> 48,
        second & 0xffff_ffff_ffff
    )
}

/// FNV-1a, 64 bits. Not a cryptographic hash; an instance id is not a secret.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_are_uuids_of_version_7() {
        let time = Timestamp::from_millisecond(1_742_539_047_915).unwrap();
        let id = event_id(time, "an instance", 5);
        assert!(id.starts_with("0195b76b-c3eb-7"), "{id}");
        assert!(id.ends_with("00000005"), "{id}");
        assert!(matches!(id.as_bytes()[19], b'8'..=b'b'), "{id}");
        assert_eq!(id.len(), 36);
    }
}
