//! How a record is put together.

use super::asked::{Asked, UNKNOWN_NAME};
use super::client::ClientAddress;
use super::document::{self, Api, DeleteKey, Document, Endpoint, Identity, Own, Process, Tls};
use super::event::Kind;
use super::headers::{self, TextMap, Texts};
use super::served::{Cgroups, Served};
use super::{Clock, Number, Reading, Record, RecordSettings, facts, status, texts};
use crate::exchange::{BodyStart, Exchange};
use crate::http::head::{Headers, ResponseHead, Version};
use crate::s3::caller::{AuthType, Caller, Expiry, SignatureVersion};
use crate::s3::claims::{Claim, Claims};
use crate::s3::content;
use crate::s3::multi_delete::{Limits, MultiDelete};
use crate::s3::operation::{Ambiguity, Class, Dialect};
use crate::s3::outcome;
use crate::s3::post_form::PostForm;
use crate::s3::sts;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Makes the record of an exchange.
pub(super) fn record<'a>(
    settings: &'a RecordSettings,
    cgroups: &'a Cgroups,
    reading: Reading<'a>,
    clock: Clock,
    number: Number,
) -> Record<'a> {
    let Reading { exchange, mut asked } = reading;
    let reply = match &exchange.response {
        Some(response) => content::of_reply(&response.headers, &exchange.response_body),
        None => Cow::Owned(BodyStart::default()),
    };
    if let Some(asked) = &mut asked {
        asked.settle(&reply, settings);
    }
    let served = cgroups.of(exchange.connection.cgroup_id);
    Making { settings, exchange, served, asked, reply, truncated: Vec::new() }.record(clock, number)
}

/// A record on its way. `reply` is the content of the reply's body, `truncated` gathers the names of fields that were cut.
struct Making<'a> {
    settings: &'a RecordSettings,
    exchange: &'a Exchange,
    served: Option<&'a Served>,
    asked: Option<Asked<'a>>,
    reply: Cow<'a, BodyStart>,
    truncated: Vec<&'static str>,
}

impl<'a> Making<'a> {
    fn record(mut self, clock: Clock, number: Number) -> Record<'a> {
        let (settings, exchange) = (self.settings, self.exchange);
        let connection = &exchange.connection;
        let request = exchange.request.as_ref();
        let response = exchange.response.as_ref();
        let no_headers = Headers::default();
        let request_headers = request.map_or(&no_headers, |request| &request.headers);
        let client = ClientAddress::of(connection, request_headers, &self.settings.trusted_proxies);

        let class = self.asked.as_ref().map_or(Class::Unknown, Asked::class);
        let name = self.asked.as_ref().and_then(Asked::name);
        let deletes = (name == Some("DeleteObjects")).then(|| {
            let limits = Limits { keys: self.settings.max_delete_keys, bytes: self.settings.max_delete_key_bytes };
            MultiDelete::read(&content::of_request(request_headers, &exchange.request_body), &self.reply, limits)
        });
        let (outcome, error) = outcome::judge(exchange, name, deletes.as_ref().map(MultiDelete::in_full), &self.reply);

        let mut own = Own {
            identity: Identity::new(self.settings, Kind::Operation, number),
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
                ip: texts::ip(client.ip),
                port: client.port,
                source: Some(client.source.name()),
            },
            peer: endpoint(connection.client),
            server: endpoint(connection.server),
            process: self.process(),
            start_time: texts::rfc3339(clock.wall(exchange.started_ns)),
            connection: connection.cookie.to_string(),
            connection_preexisting: connection.preexisting,
            exchange: exchange.ordinal,
            tls: connection.tls.as_deref().map(Tls::of),
            ..Own::default()
        };
        if let Some(deletes) = deletes {
            self.put_deletes(&mut own, deletes);
        }
        let mut api = Api { name: UNKNOWN_NAME.to_owned(), ..Api::default() };
        let mut request_query = Texts::default();
        let mut request_claims = BTreeMap::new();
        if let Some(asked) = self.asked.take() {
            request_claims = self.put_request(&mut own, &mut api, &asked);
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
            audit_version: document::AUDIT_VERSION,
            deployment_id: &settings.deployment_id,
            remote_host: remote_host(client.ip, self.settings.dialect),
            request_claims,
            request_header,
            request_id,
            request_query,
            response_header,
            s3auditd: own,
            time: texts::rfc3339(clock.wall(exchange.ended_ns)),
            user_agent,
            weka_info: &settings.weka_info,
        };
        Record { document, class, outcome }
    }

    fn process(&mut self) -> Process {
        let (connection, served) = (&self.exchange.connection, self.served);
        Process {
            pid: connection.tgid,
            comm: connection.comm.chars().take(64).collect(),
            cgroup_id: (connection.cgroup_id != 0).then(|| connection.cgroup_id.to_string()),
            cgroup: served.map(|served| self.cut("process.cgroup", served.cgroup.clone())),
            unit: served.and_then(|served| Some(self.cut("process.unit", served.unit.clone()?))),
            container: served.and_then(|served| served.container.clone()),
            netns: connection.netns,
        }
    }

    fn put_request(&mut self, own: &mut Own, api: &mut Api, asked: &Asked<'_>) -> BTreeMap<&'static str, Claim> {
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

        let claims = self.put_session(own, asked, &caller);
        own.access_key = caller.access_key;
        // A form names its caller, unless what was seen of it ends before that: then nobody is no answer.
        let caller_unseen = is_post_object
            && caller.auth_type == AuthType::None
            && !exchange.request_body.whole
            && memchr::memmem::find(&exchange.request_body.bytes, b"name=\"file\"").is_none();
        own.auth_type = (!caller_unseen).then(|| caller.auth_type.name());
        own.signature_version = (!caller_unseen).then(|| caller.signature_version.name());
        own.signed_headers = caller.signed_headers;
        own.region = caller.region;
        match caller.expiry {
            Some(Expiry::Seconds(seconds)) => own.presign_expires_seconds = Some(seconds),
            Some(Expiry::At(second)) => own.presign_expires_at = Some(second),
            None => {}
        }
        if asked.operation.class == Class::Sts {
            own.issued_access_key = sts::issued_access_key(&self.reply);
        }
        if asked.is_addressed() {
            let value = |name: &str| query.first(name).filter(|value| !value.is_empty());
            let parameter = |name: &str| Some(redaction.parameter(name.as_bytes(), value(name)?));
            own.version_id = parameter("versionId").map(|value| self.cut("versionId", value));
            own.upload_id = parameter("uploadId").map(|value| self.cut("uploadId", value));
            own.part_number = parameter("partNumber").and_then(|value| value.parse().ok());
            let range = request.headers.first("range").map(|value| redaction.header(b"range", value).into_owned());
            own.range = range.map(|value| self.cut("range", value));
            let source = request.headers.first("x-amz-copy-source");
            let source = source.or_else(|| query.first_ignoring_case("x-amz-copy-source"));
            let source = source.filter(|_| redaction.is_let_through(b"x-amz-copy-source"));
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
        claims
    }

    /// What the session token says, where it is one that says anything.
    fn put_session(&self, own: &mut Own, asked: &Asked<'_>, caller: &Caller) -> BTreeMap<&'static str, Claim> {
        let redaction = &self.settings.redaction;
        let Some(claims) = caller.session_token(&asked.request.headers, &asked.query).and_then(Claims::of_token) else {
            return BTreeMap::new();
        };
        let text = |text: &str| redaction.text(text.as_bytes());
        let named = |name: &str| claims.text(name).map(text);
        // MinIO checks a token only together with a signature, and against the key that signed.
        let granted = self.exchange.response.as_ref().is_some_and(|response| matches!(response.status, 200..=299));
        let signed = matches!(caller.signature_version, SignatureVersion::SigV4 | SignatureVersion::SigV2);
        let of_the_caller = claims.text("accessKey").is_some_and(|key| Some(key) == caller.access_key.as_deref());
        own.session = Some(document::Session {
            access_key: named("accessKey"),
            parent: named("parent"),
            subject: named("sub"),
            issuer: named("iss"),
            expires_at: claims.number("exp"),
            accepted: granted && signed && of_the_caller,
        });
        let clean = |claim: &Claim| match claim {
            Claim::Text(value) => Claim::Text(text(value)),
            Claim::Number(number) => Claim::Number(*number),
            Claim::List(values) => Claim::List(values.iter().map(|value| text(value)).collect()),
        };
        claims.iter().map(|(name, claim)| (name, clean(claim))).collect()
    }

    fn put_response(&mut self, own: &mut Own, api: &mut Api, response: &ResponseHead) {
        let redaction = &self.settings.redaction;
        api.status_code = Some(response.status);
        api.status = status::text(response.status);
        let header = |name: &str| {
            response.headers.first(name).map(|value| redaction.header(name.as_bytes(), value).into_owned())
        };
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

    fn map<'t>(&mut self, name: &'static str, map: TextMap<'t>) -> Texts<'t> {
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
    Endpoint { ip: texts::ip(address.ip().to_canonical()), port: Some(address.port()), source: None }
}

/// Current MinIO writes IPv6 addresses in brackets; WEKA's lineage does not.
fn remote_host(ip: IpAddr, dialect: Dialect) -> String {
    match (ip, dialect) {
        (IpAddr::V6(v6), Dialect::Minio) => format!("[{v6}]"),
        _ => texts::ip(ip),
    }
}
