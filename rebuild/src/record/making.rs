//! How a record is put together.

use super::asked::{Asked, UNKNOWN_NAME};
use super::client::ClientAddress;
use super::document::{self, Api, DeleteKey, Document, Endpoint, Own, Process};
use super::headers::{self, TextMap};
use super::{Clock, Number, Record, RecordSettings, facts, status};
use crate::exchange::Exchange;
use crate::http::head::{Headers, ResponseHead, Version};
use crate::s3::aws_chunked;
use crate::s3::caller::{Caller, Expiry};
use crate::s3::multi_delete::{Limits, MultiDelete};
use crate::s3::operation::{Ambiguity, Class, Dialect};
use crate::s3::outcome;
use crate::s3::post_form::PostForm;
use crate::s3::sts;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Makes the record of an exchange; `asked` was read from its request, if that was seen.
pub(super) fn record(
    settings: &RecordSettings,
    exchange: &Exchange,
    asked: Option<Asked<'_>>,
    clock: Clock,
    number: Number,
) -> Record {
    Making { settings, exchange, asked, truncated: Vec::new() }.record(clock, number)
}

/// A record on its way. `truncated` gathers the names of fields that were cut.
struct Making<'a> {
    settings: &'a RecordSettings,
    exchange: &'a Exchange,
    asked: Option<Asked<'a>>,
    truncated: Vec<&'static str>,
}

impl Making<'_> {
    fn record(mut self, clock: Clock, number: Number) -> Record {
        let exchange = self.exchange;
        let connection = &exchange.connection;
        let request = exchange.request.as_ref();
        let response = exchange.response.as_ref();
        let no_headers = Headers::default();
        let request_headers = request.map_or(&no_headers, |request| &request.headers);
        let client = ClientAddress::of(connection.client, request_headers, &self.settings.trusted_proxies);

        let class = self.asked.as_ref().map_or(Class::Unknown, Asked::class);
        let name = self.asked.as_ref().and_then(Asked::name);
        let deletes = (name == Some("DeleteObjects")).then(|| {
            let limits = Limits { keys: self.settings.max_delete_keys, bytes: self.settings.max_delete_key_bytes };
            MultiDelete::read(
                &aws_chunked::content(request_headers, &exchange.request_body),
                &exchange.response_body,
                limits,
            )
        });
        let (outcome, error) = outcome::judge(exchange, name, deletes.as_ref().map(MultiDelete::in_full));

        let mut own = Own {
            schema: document::SCHEMA,
            event_id: number.event_id,
            sequence: number.sequence,
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
        Record { document, class, outcome }
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
                _ => facts::key(&asked.address.bucket, &asked.address.key, redaction),
            };
            let bucket = redaction.path(asked.address.bucket.as_bytes());
            api.bucket = (!bucket.is_empty()).then(|| self.cut("api.bucket", bucket));
            api.object = (!object.is_empty()).then(|| self.cut("api.object", object));
        }

        let mut ambiguities = asked.operation.ambiguities.clone();
        if caller.several {
            ambiguities.push(Ambiguity::SeveralCredentials);
        }
        own.ambiguous = ambiguities.into_iter().map(Ambiguity::name).collect();
        own.read_only = Some(asked.operation.is_read_only(&request.method));
        own.method = Some(self.cut("method", redaction.text(&request.method)));
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
            let source = source.and_then(|source| facts::copy_source(source, redaction));
            own.copy_source = source.map(|source| document::CopySource {
                bucket: self.cut("copySource", source.bucket),
                key: source.key.map(|key| self.cut("copySource", key)),
                version_id: source.version_id.map(|id| self.cut("copySource", id)),
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
        let keys = deletes.keys.into_iter().map(|entry| DeleteKey {
            key: redaction.path(entry.key.as_bytes()),
            version_id: entry.version_id.map(|id| redaction.text(id.as_bytes())),
            error: entry.error,
        });
        own.delete_keys = keys.collect();
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
