//! One endpoint's webhook: one POST of one batch, with the token as it was given and the batch's idempotency key.

use super::ack::Acks;
use super::body::{Body, Packing};
use super::policy::{self, Outcome};
use super::splunk;
use super::tls::{self, TlsError};
use crate::config::endpoint::Endpoint;
use crate::config::token::TokenError;
use crate::config::{Format, Proxy};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use serde::Deserialize;
use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Sent as User-Agent.
pub const USER_AGENT: &str = concat!("s3auditd/", env!("CARGO_PKG_VERSION"));

/// Why the webhook cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Certificates or keys are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client cannot be built: for https, mostly because the system has no root certificates.
    #[error("endpoint: TLS cannot be set up: {0}")]
    Client(String),
}

/// The webhook, with its connection pool.
pub struct Webhook {
    endpoint: Endpoint,
    client: Client,
    url: Url,
    packing: Packing,
    authorization: Mutex<Option<HeaderValue>>,
    /// Splunk: what tells our acknowledgements from those of others.
    channel: HeaderValue,
    /// None: they are not asked for.
    acks: Option<Acks>,
}

/// What came of one request, and the same in words without token and URL.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    /// By it Splunk will tell that the indexers have the batch.
    pub(super) ack: Option<u64>,
}

impl Webhook {
    /// Reads token and certificates, and prepares TLS. Connects to nothing yet. Blocks for the files.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be, or TLS cannot be set up. The message is one line that names the
    /// key of the configuration and the file.
    pub fn open(mut endpoint: Endpoint) -> Result<Self, WebhookError> {
        if endpoint.format != Format::Ndjson && endpoint.hec.host.is_none() {
            endpoint.hec.host = node_name();
        }
        let by_tls = |url: &Url| url.scheme() == "https";
        let proxied_by_tls = matches!(&endpoint.proxy, Proxy::Url(proxy) if by_tls(proxy));
        // Without TLS a system without root certificates is good enough.
        let mut client = builder(by_tls(&endpoint.url) || proxied_by_tls)
            .connect_timeout(endpoint.connect_timeout)
            .timeout(endpoint.request_timeout)
            .pool_max_idle_per_host(endpoint.requests_in_flight);
        client = tls::apply(client, &endpoint.tls)?;
        client = match &endpoint.proxy {
            Proxy::System => client,
            Proxy::Off => client.no_proxy(),
            Proxy::Url(proxy) => {
                let proxy = reqwest::Proxy::all(proxy.clone());
                client.proxy(proxy.map_err(|error| WebhookError::Client(describe(error)))?)
            }
        };
        let client = client.build().map_err(|error| WebhookError::Client(describe(error)))?;
        let channel = Uuid::now_v7().to_string();
        let acks = endpoint
            .hec
            .acknowledged_within
            .filter(|_| endpoint.format != Format::Ndjson)
            .map(|within| Acks::new(splunk::acknowledgements(&endpoint, &channel), within));
        Ok(Self {
            client,
            url: splunk::events(&endpoint),
            packing: Packing::of(&endpoint),
            authorization: Mutex::new(endpoint.token.read()?),
            channel: HeaderValue::from_str(&channel).unwrap_or_else(|_| HeaderValue::from_static("s3auditd")),
            acks,
            endpoint,
        })
    }

    /// As it is configured.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn packing(&self) -> &Packing {
        &self.packing
    }

    pub(super) fn acks(&self) -> Option<&Acks> {
        self.acks.as_ref()
    }

    /// Reads the token again. `true`: it is another one. After an error the old one stays.
    pub(super) async fn read_token(&self) -> Result<bool, TokenError> {
        let token = self.endpoint.token.clone();
        // A file may stand on a network; the wait must not hold up the runtime.
        let Ok(read) = tokio::task::spawn_blocking(move || token.read()).await else { return Ok(false) };
        let read = read?;
        let mut authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = read != *authorization;
        *authorization = read;
        Ok(changed)
    }

    /// Sends a batch once.
    pub(super) async fn post(&self, key: Uuid, body: &Body) -> Answer {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, body.content_type)
            .header("Idempotency-Key", key.to_string())
            .body(body.bytes.clone());
        if let Some(encoding) = body.encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        // Splunk wants a channel with raw events always, with others only for acknowledgements.
        if self.endpoint.format == Format::HecRaw || self.acks.is_some() {
            request = request.header("X-Splunk-Request-Channel", self.channel.clone());
        }
        match self.authorized(request).send().await {
            Ok(response) => self.answer(response).await,
            Err(error) => Answer { outcome: Outcome::NoReply, detail: describe(error), ack: None },
        }
    }

    /// Asks Splunk for acknowledgements. None: it did not say.
    pub(super) async fn ask(&self, url: &Url, question: String) -> Option<Vec<u8>> {
        let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(question);
        let mut response = self.authorized(request).send().await.ok()?;
        read_body(&mut response).await
    }

    /// Finds out whether the webhook would take records, without sending anything that it could keep. Returns what was
    /// proven, or what is wrong.
    ///
    /// Splunk is asked for its health, with the token. Others get an OPTIONS, which changes nothing (RFC 9110, section
    /// 9.2.1): an answer proves name, connection, TLS and proxy; few receivers look at token and path then.
    ///
    /// # Errors
    /// What is wrong, in one line without token and URL.
    pub async fn verify(&self) -> Result<String, String> {
        let splunk = self.endpoint.format != Format::Ndjson;
        let request = if splunk {
            self.client.get(splunk::health(&self.endpoint))
        } else {
            self.client.request(reqwest::Method::OPTIONS, self.url.clone())
        };
        let response = self.authorized(request).send().await.map_err(describe)?;
        let Answer { outcome, detail, .. } = self.answer(response).await;
        let Outcome::Reply { status, .. } = outcome else { return Err(detail) };
        match status {
            300..=399 => Err(format!("{detail}: it redirects, which is not followed")),
            401 | 403 => Err(format!("{detail}: it refuses the token")),
            200..=299 if splunk => Ok(format!("{detail}: Splunk is there and healthy")),
            _ if splunk => Err(format!("{detail}: Splunk is not healthy, refuses the token, or is not there")),
            500..=599 if status != 501 => Err(format!("{detail}: it is there, but not able to answer")),
            _ => Ok(format!(
                "{detail} to OPTIONS: it is there; only records show whether it takes the token and the path"
            )),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self.authorization.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    async fn answer(&self, mut response: Response) -> Answer {
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|header| policy::retry_after(header, SystemTime::now()));
        let body = if self.acks.is_some() {
            read_body(&mut response).await
        } else {
            // The head decides; a body that is late or torn changes nothing.
            tokio::time::timeout(REPLY_BODY_TIMEOUT, read_body(&mut response)).await.ok().flatten()
        };
        let hec = body.as_deref().and_then(|body| serde_json::from_slice::<HecReply>(body).ok());
        let hec_code = hec.as_ref().map(|reply| reply.code);
        let detail = match hec_code {
            Some(code) => format!("HTTP {status}, Splunk code {code}"),
            None => format!("HTTP {status}"),
        };
        if self.acks.is_some() && body.is_none() && (200..300).contains(&status) {
            let detail = format!("{detail}, then the reply was cut");
            return Answer { outcome: Outcome::NoReply, detail, ack: None };
        }
        let ack = hec.and_then(|reply| reply.ack_id);
        Answer { outcome: Outcome::Reply { status, retry_after, hec_code }, detail, ack }
    }
}

/// A client that follows nothing and identifies itself.
fn builder(with_roots: bool) -> reqwest::ClientBuilder {
    // `Err`: another part of the process has installed one already, which is ring too.
    let _present = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().user_agent(USER_AGENT).redirect(redirect::Policy::none());
    if with_roots { client } else { client.tls_certs_only([]) }
}

/// A client for this URL that follows nothing and identifies itself.
pub(crate) fn client(url: &Url) -> reqwest::ClientBuilder {
    builder(url.scheme() == "https").pool_max_idle_per_host(1)
}

/// As much of a reply's body as is looked at.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// The head decides; its body may take this much longer, then it is left.
const REPLY_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The whole body, or None if it is cut. Of one that is too long only the beginning.
async fn read_body(response: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_REPLY_BYTES {
            break;
        }
    }
    Some(body)
}

/// Splunk's `{"text": "..", "code": N, "ackId": N}`. The text is not kept: a receiver could echo the token in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HecReply {
    code: u64,
    ack_id: Option<u64>,
}

/// The kernel's, as `hostname` shows it.
fn node_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The error and its causes, without the URL, which may hold a token in its query.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
