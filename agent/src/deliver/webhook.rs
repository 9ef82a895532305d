//! One POST of one batch: NDJSON, the token as it was given, the batch's idempotency key.

use super::batch::Batch;
use super::policy::{self, Outcome};
use crate::config::token::{TokenError, TokenSource};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use serde::Deserialize;
use std::error::Error as _;
use std::time::{Duration, SystemTime};

/// Sent as User-Agent.
pub const USER_AGENT: &str = concat!("s3auditd/", env!("CARGO_PKG_VERSION"));

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// The whole request and its reply.
    pub request: Duration,
}

/// Why the webhook cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The client cannot be built: for https, mostly because the system has no root certificates.
    #[error("endpoint: TLS cannot be set up: {0}")]
    Client(String),
}

/// The webhook, with its connection pool.
pub struct Webhook {
    client: Client,
    endpoint: Url,
    token: TokenSource,
    authorization: Option<HeaderValue>,
}

impl Webhook {
    /// Reads the token and prepares TLS with the system's root certificates. Connects to nothing yet.
    ///
    /// # Errors
    /// The token cannot be read, or TLS cannot be set up.
    pub fn new(endpoint: Url, token: TokenSource, timeouts: Timeouts) -> Result<Self, WebhookError> {
        let client = client(&endpoint)
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.request)
            .build()
            .map_err(|error| WebhookError::Client(describe(error)))?;
        let authorization = token.read()?;
        Ok(Self { client, endpoint, token, authorization })
    }

    /// Reads the token again. `true`: it is another one. After an error the old one stays.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is no token.
    pub async fn read_token(&mut self) -> Result<bool, TokenError> {
        let token = self.token.clone();
        // A file may stand on a network; the wait must not hold up the runtime.
        let Ok(read) = tokio::task::spawn_blocking(move || token.read()).await else { return Ok(false) };
        let read = read?;
        let changed = read != self.authorization;
        self.authorization = read;
        Ok(changed)
    }

    /// Sends the batch once. Returns what came of it, and the same in words without token and URL.
    pub async fn post(&self, batch: &Batch) -> (Outcome, String) {
        let mut request = self
            .client
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("Idempotency-Key", batch.key().to_string())
            .body(batch.body());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => (Outcome::NoReply, describe(error)),
        }
    }
}

/// A client for this URL that follows nothing and identifies itself.
pub(crate) fn client(url: &Url) -> reqwest::ClientBuilder {
    // `Err`: another part of the process has installed one already, which is ring too.
    let _present = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().user_agent(USER_AGENT).redirect(redirect::Policy::none()).pool_max_idle_per_host(1);
    // Without TLS a system without root certificates is good enough.
    if url.scheme() == "https" { client } else { client.tls_certs_only([]) }
}

/// As much of a reply's body as is looked at.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// The head decides; its body may take this much longer, then it is left.
const REPLY_BODY_TIMEOUT: Duration = Duration::from_secs(2);

async fn read(mut response: Response) -> (Outcome, String) {
    let status = response.status().as_u16();
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = header.and_then(|header| policy::retry_after(header, SystemTime::now()));
    let mut body = Vec::new();
    let whole = async {
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > MAX_REPLY_BYTES {
                break;
            }
        }
    };
    // A body that is late or torn changes nothing: the status stands.
    let _late = tokio::time::timeout(REPLY_BODY_TIMEOUT, whole).await;
    let hec_code = serde_json::from_slice::<HecReply>(&body).ok().map(|reply| reply.code);
    let detail = match hec_code {
        Some(code) => format!("HTTP {status}, Splunk code {code}"),
        None => format!("HTTP {status}"),
    };
    (Outcome::Reply { status, retry_after, hec_code }, detail)
}

/// Splunk's `{"text": "..", "code": N}`. The text is not kept: a receiver could echo the token in it.
#[derive(Deserialize)]
struct HecReply {
    code: u64,
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
