//! An endpoint of delivery: by the flat keys, or by a table `[endpoints.NAME]` of the file.

use super::keys::Config;
use super::token::TokenSource;
use super::{Access, Compression, Format, Order, Proxy};
use reqwest::Url;
use std::path::PathBuf;
use std::time::Duration;

/// The name of the endpoint that the flat keys configure, and `s3auditd webhook` changes.
pub const DEFAULT: &str = "default";

/// The keys that a table may hold; each means for its endpoint what the flat one means for [`DEFAULT`].
pub(super) const FIELDS: &[&str] = &[
    "endpoint",
    "auth_token",
    "auth_token_file",
    "format",
    "hec_index",
    "hec_source",
    "hec_sourcetype",
    "hec_host",
    "hec_ack",
    "hec_ack_seconds",
    "compression",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "proxy",
    "requests_in_flight",
    "keep_order",
    "filter_buckets",
    "filter_operations",
    "filter_outcomes",
    "filter_access",
    "request_timeout_ms",
    "connect_timeout_ms",
    "retry_first_ms",
    "retry_most_ms",
];

/// Where records go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Tells it from the others; its place in the spool hangs on it.
    pub name: String,
    /// The webhook.
    pub url: Url,
    /// See [`TokenSource`].
    pub token: TokenSource,
    /// Never [`Format::Auto`].
    pub format: Format,
    /// See [`Hec`].
    pub hec: Hec,
    /// See [`Compression`].
    pub compression: Compression,
    /// See [`Tls`].
    pub tls: Tls,
    /// See [`Proxy`].
    pub proxy: Proxy,
    /// Requests on their way at once.
    pub requests_in_flight: usize,
    /// Matters for more than one request on its way.
    pub keep_order: Order,
    /// See [`Filter`].
    pub filter: Filter,
    /// To connect, TLS included.
    pub connect_timeout: Duration,
    /// A whole request and its reply.
    pub request_timeout: Duration,
    /// First bound of the wait after a failed request.
    pub retry_first: Duration,
    /// Last bound of it.
    pub retry_most: Duration,
}

/// What only Splunk's HTTP Event Collector knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hec {
    /// None: the token's own.
    pub index: Option<String>,
    /// None: the token's own.
    pub source: Option<String>,
    /// None: the token's own.
    pub sourcetype: Option<String>,
    /// None: this node's name.
    pub host: Option<String>,
    /// How long an acknowledgement by the indexers may take; None: none is asked for.
    pub acknowledged_within: Option<Duration>,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM; None: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Which operations are sent. Records of the agent's own always are. Every list: empty lets everything through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Names of buckets.
    pub buckets: Vec<String>,
    /// AWS names of operations.
    pub operations: Vec<String>,
    /// `success`, `failure`, `unknown`.
    pub outcomes: Vec<String>,
    /// See [`Access`].
    pub access: Access,
}

impl Endpoint {
    /// The endpoint of a configuration's flat keys, if it has one. `client-cert-file` and `client-key-file` were checked
    /// to come together.
    pub(super) fn of(name: &str, config: &Config) -> Option<Self> {
        let url = config.endpoint.clone()?;
        let format = match config.format {
            Format::Auto => format_of(url.path()),
            given => given,
        };
        Some(Self {
            name: name.to_owned(),
            token: config.token(),
            format,
            hec: Hec {
                index: config.hec_index.clone(),
                source: config.hec_source.clone(),
                sourcetype: config.hec_sourcetype.clone(),
                host: config.hec_host.clone(),
                acknowledged_within: config.hec_ack.then(|| Duration::from_secs(config.hec_ack_seconds)),
            },
            compression: config.compression,
            tls: Tls {
                ca_file: config.ca_file.clone(),
                client: config.client_cert_file.clone().zip(config.client_key_file.clone()),
            },
            proxy: config.proxy.clone(),
            requests_in_flight: config.requests_in_flight,
            keep_order: config.keep_order,
            filter: Filter {
                buckets: config.filter_buckets.clone(),
                operations: config.filter_operations.clone(),
                outcomes: config.filter_outcomes.clone(),
                access: config.filter_access,
            },
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            request_timeout: Duration::from_millis(config.request_timeout_ms),
            retry_first: Duration::from_millis(config.retry_first_ms),
            retry_most: Duration::from_millis(config.retry_most_ms),
            url,
        })
    }
}

/// Splunk's documented paths, also with a version behind them (`/services/collector/event/1.0`).
fn format_of(path: &str) -> Format {
    let Some((_, rest)) = path.split_once("/services/collector") else { return Format::Ndjson };
    match rest.split('/').nth(1) {
        None | Some("" | "event") => Format::HecEvent,
        Some("raw") => Format::HecRaw,
        Some(_) => Format::Ndjson,
    }
}

impl Filter {
    /// Whether everything goes through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.buckets.is_empty() && self.operations.is_empty() && self.outcomes.is_empty() && self.access == Access::All
    }
}
