//! The table of keys: name, type, default, how its text is read. Flags, variables, the file, the typed [`Config`], the
//! output of `validate` and `docs/configure.md` all come from it.

use super::endpoint::Endpoint;
use super::origin::Layers;
use super::value::{self, Value};
use super::{
    Access, AuditClass, BackendChoice, Compression, ConfigError, Dialect, Format, Order, RedactMode, Secret,
    SpoolCompression, SpoolSync, WhenFull,
};
use ipnet::IpNet;
use reqwest::Url;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What is known of a key without reading any configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name as a field; see [`Key::name`] and [`Key::variable`].
    pub(super) field: &'static str,
    /// Its default as text; empty is "not set".
    pub default: &'static str,
    /// What stands for its value in the help text.
    pub value_name: &'static str,
    /// What it means.
    pub help: &'static [&'static str],
}

impl Key {
    /// Its name in the file, and as a flag behind `--`.
    #[must_use]
    pub fn name(&self) -> String {
        self.field.replace('_', "-")
    }

    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("S3AUDITD_{}", self.field.to_ascii_uppercase())
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.field == "auth_token"
    }
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:literal, $value_name:literal, $parse:expr;)+) => {
        /// The configuration; every field is a key of `docs/configure.md`, where units and limits stand.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $type,)+
            /// Where records go: the endpoint of the flat keys, if it is set, then those of the file's tables, by name.
            pub endpoints: Vec<Endpoint>,
        }

        /// The flags: the same keys, as text.
        #[derive(Clone, Default, clap::Args)]
        pub struct Flags { $($(#[doc = $doc])+ #[arg(long, value_name = $value_name)] pub $field: Option<String>,)+ }

        impl Flags {
            pub(super) fn into_pairs(self) -> impl Iterator<Item = (&'static str, String)> {
                [$((stringify!($field), self.$field),)+].into_iter().filter_map(|(field, text)| Some((field, text?)))
            }
        }

        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            field: stringify!($field), default: $default, value_name: $value_name, help: &[$($doc,)+],
        },)+];

        pub(super) fn build(layers: &Layers) -> Result<Config, ConfigError> {
            Ok(Config {
                $($field: {
                    let parse: fn(&Value) -> value::Parsed<$type> = $parse;
                    layers.parse(stringify!($field), $default, parse)?
                },)+
                endpoints: Vec::new(),
            })
        }
    };
}

keys! {
    /// Ports of the S3 gateway on this node. `run` needs at least one.
    listen: Vec<u16> = "", "PORT,...", value::ports;
    /// Webhook that gets the records; not set: standard output, one JSON a line.
    endpoint: Option<Url> = "", "URL", |v| value::optional(v, value::endpoint);
    /// Value of the Authorization header, sent exactly as given ("Splunk TOKEN", "Bearer TOKEN"). As a flag it shows in
    /// the process list: prefer `auth-token-file`.
    auth_token: Option<Secret> = "", "TOKEN", |v| value::optional(v, value::secret);
    /// File with the value of the Authorization header; read at start and again after a 401 or 403.
    auth_token_file: Option<PathBuf> = "", "FILE", |v| value::optional(v, value::path);
    /// How a request carries records: ndjson, hec-event or hec-raw (Splunk's), or auto: what the endpoint's path names.
    format: Format = "auto", "FORMAT", |v| value::word(v, Format::of);
    /// Splunk: index of the events; not set: the token's own.
    hec_index: Option<String> = "", "NAME", |v| value::optional(v, value::text);
    /// Splunk: source of the events.
    hec_source: Option<String> = "s3auditd", "TEXT", |v| value::optional(v, value::text);
    /// Splunk: source type of the events.
    hec_sourcetype: Option<String> = "s3auditd:json", "TEXT", |v| value::optional(v, value::text);
    /// Splunk: host of the events; not set: this node's name.
    hec_host: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Splunk: a batch counts as delivered only when the indexers have acknowledged it; the token has to allow that.
    hec_ack: bool = "off", "on|off", value::switch;
    /// Splunk: how long an acknowledgement may take before the batch is sent again, in seconds.
    hec_ack_seconds: u64 = "120", "SECONDS", |v| value::whole(v, 1..=86_400);
    /// How a request's body is packed: none, gzip or zstd.
    compression: Compression = "none", "METHOD", |v| value::word(v, Compression::of);
    /// Certificates (PEM) that are trusted instead of the system's.
    ca_file: Option<PathBuf> = "", "FILE", |v| value::optional(v, value::path);
    /// The agent's own certificate chain (PEM), for a webhook that asks for one.
    client_cert_file: Option<PathBuf> = "", "FILE", |v| value::optional(v, value::path);
    /// Its private key (PEM).
    client_key_file: Option<PathBuf> = "", "FILE", |v| value::optional(v, value::path);
    /// HTTP proxy on the way to the webhook; not set: what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say; off: none.
    proxy: super::Proxy = "", "URL|off", value::proxy;
    /// Requests on their way at once.
    requests_in_flight: usize = "1", "N", |v| value::whole(v, 1..=64);
    /// With more than one request on its way: connection keeps the records of a gateway connection in order, none does not.
    keep_order: Order = "connection", "connection|none", |v| value::word(v, Order::of);
    /// Only operations on these buckets are sent.
    filter_buckets: Vec<String> = "", "NAME,...", value::texts;
    /// Only these operations are sent, by the AWS name (`s3auditd.operation`).
    filter_operations: Vec<String> = "", "NAME,...", value::texts;
    /// Only operations that ended so are sent: success, failure, unknown.
    filter_outcomes: Vec<String> = "", "OUTCOME,...", value::outcomes;
    /// Only operations of this kind are sent: read, write, or all.
    filter_access: Access = "all", "ACCESS", |v| value::word(v, Access::of);
    /// Names of operations in `api.name`: weka, minio or aws.
    dialect: Dialect = "weka", "DIALECT", |v| value::word(v, Dialect::of);
    /// Host names of the gateway: `bucket.NAME` is then a bucket in virtual-host style.
    domain: Vec<String> = "", "NAME,...", value::domains;
    /// Unix socket for `s3auditd webhook`, for root only, or "off".
    control_socket: Option<PathBuf> = "/run/s3auditd/control.sock", "FILE|off", value::path_or_off;
    /// Address of /metrics, /health and /status, or "off".
    metrics_listen: Option<SocketAddr> = "127.0.0.1:9466", "ADDR|off", value::listener;

    /// Record field `wekaInfo.clusterGUID`.
    cluster_guid: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Record field `wekaInfo.clusterName`.
    cluster_name: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Record field `wekaInfo.release`.
    release: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Record field `wekaInfo.serverIP`.
    server_ip: Option<IpAddr> = "", "IP", |v| value::optional(v, value::address);
    /// Record field `wekaInfo.serverName`.
    server_name: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Record field `wekaInfo.version`.
    version: Option<String> = "", "TEXT", |v| value::optional(v, value::text);
    /// Record field `deploymentid`.
    deployment_id: Option<String> = "", "TEXT", |v| value::optional(v, value::text);

    /// Classes besides S3 and STS that give records: health, metrics, admin, console, internode, preflight, unknown.
    audit_classes: Vec<AuditClass> = "", "CLASS,...", value::classes;
    /// Proxies whose X-Forwarded-For, Forwarded and PROXY protocol header is believed.
    trusted_proxies: Vec<IpNet> = "127.0.0.0/8,::1", "NETWORK,...", value::networks;
    /// Further headers and query parameters whose values never reach a record.
    redact_names: Vec<String> = "", "NAME,...", value::names;
    /// Whose values reach a record: those of all headers and query parameters that are not known as secret (deny-list), or
    /// only those of `keep-names` that are not (allow-list).
    redact_mode: RedactMode = "deny-list", "MODE", |v| value::word(v, RedactMode::of);
    /// With `redact-mode = "allow-list"`: the headers and query parameters that keep their values.
    keep_names: Vec<String> = "authorization,content-length,content-range,content-type,date,etag,last-modified,list-type,max-keys,partnumber,range,server,uploadid,user-agent,versionid,x-amz-algorithm,x-amz-content-sha256,x-amz-copy-source,x-amz-credential,x-amz-date,x-amz-decoded-content-length,x-amz-expires,x-amz-id-2,x-amz-request-id,x-amz-signedheaders,x-amz-version-id", "NAME,...", value::names;
    /// Connections that are followed at once; beyond it the longest idle one is given up, and counted.
    max_connections: usize = "65536", "N", |v| value::whole(v, 1..=16_777_216);
    /// The longest head of a request or reply; a longer one gives a partial record.
    max_head_bytes: u64 = "1MiB", "SIZE", |v| value::bytes(v, 4096..=1 << 20);
    /// How much of the start of a body is kept where it says something: lists of keys to delete, errors, forms.
    max_body_start_bytes: u64 = "64KiB", "SIZE", |v| value::bytes(v, 4096..=1 << 20);

    /// How sockets are hooked: auto (the best that the kernel takes), socket-tracepoints, fexit, kprobe or syscall.
    backend: BackendChoice = "auto", "BACKEND", |v| value::word(v, BackendChoice::of);
    /// Whether the TLS of the gateway is read as plaintext, by probes in its library (`tls.md`): on or off.
    tls: bool = "on", "on|off", value::switch;
    /// Processes whose TLS is not read all the same: by name, or by a cgroup that they are in, such as a systemd unit; what
    /// ends with `*` is a beginning.
    tls_exclude: Vec<String> = "", "NAME,...", value::texts;
    /// Perf ring of each CPU: a power of two.
    ring_bytes: u64 = "4MiB", "SIZE", value::ring;
    /// Bytes in a ring that wake the agent.
    ring_watermark_bytes: u64 = "64KiB", "SIZE", |v| value::bytes(v, 1..=512 << 20);
    /// Longest time that a sample waits in a ring, in milliseconds. After a second without any, the first one may wait 250, and after five seconds 500.
    ring_flush_ms: u64 = "50", "MS", |v| value::whole(v, 1..=10_000);
    /// Whether the thread that reads the rings goes before other threads (five steps of nice), so that nothing is lost while
    /// every CPU is busy: on or off.
    ring_priority: bool = "on", "on|off", value::switch;

    /// Records that wait for delivery; beyond it the newest is dropped, and counted.
    queue_records: usize = "100000", "N", |v| value::whole(v, 1..=100_000_000);
    /// Bytes of the records that wait for delivery; beyond it the newest is dropped, and counted.
    queue_bytes: u64 = "256MiB", "SIZE", |v| value::bytes(v, 1 << 20..=1 << 40);
    /// Most records in one request.
    batch_records: usize = "1000", "N", |v| value::whole(v, 1..=100_000);
    /// Most bytes in one request; a single longer record goes alone.
    batch_bytes: u64 = "1MiB", "SIZE", |v| value::bytes(v, 1024..=1 << 30);
    /// Longest time that a record waits for its batch to fill, in milliseconds.
    batch_delay_ms: u64 = "1000", "MS", |v| value::whole(v, 0..=60_000);
    /// Directory that keeps records on disk until they are delivered, or "off".
    spool_dir: Option<PathBuf> = "/var/lib/s3auditd/spool", "DIR|off", value::directory;
    /// How long the spool's database may get.
    spool_bytes: u64 = "1GiB", "SIZE", |v| value::bytes(v, 16 << 20..=1 << 44);
    /// How much of its file system the spool leaves free.
    spool_min_free: u64 = "256MiB", "SIZE", |v| value::bytes(v, 0..=1 << 44);
    /// How the spool packs what it keeps: lz4 or none.
    spool_compression: SpoolCompression = "lz4", "METHOD", |v| value::word(v, SpoolCompression::of);
    /// What goes when the spool is full: the oldest batch (drop-oldest) or the new one (drop-newest).
    spool_when_full: WhenFull = "drop-oldest", "WHICH", |v| value::word(v, WhenFull::of);
    /// When the spool forces what it wrote to the disk: before each batch counts as kept (always), every second (second), or
    /// never.
    spool_sync: SpoolSync = "second", "WHEN", |v| value::word(v, SpoolSync::of);

    /// Time for a whole request and its reply, in milliseconds.
    request_timeout_ms: u64 = "30000", "MS", |v| value::whole(v, 1..=600_000);
    /// Time to connect, TLS included, in milliseconds.
    connect_timeout_ms: u64 = "5000", "MS", |v| value::whole(v, 1..=600_000);
    /// First bound of the random wait after a failed request, in milliseconds; it doubles with each further one.
    retry_first_ms: u64 = "500", "MS", |v| value::whole(v, 1..=600_000);
    /// Last bound of that wait, in milliseconds.
    retry_most_ms: u64 = "60000", "MS", |v| value::whole(v, 1..=3_600_000);
    /// File for records that the webhook refuses for good, one JSON a line; "off": they are dropped, and counted.
    dead_letter_file: Option<PathBuf> = "/var/lib/s3auditd/dead-letter.ndjson", "FILE|off", value::path_or_off;
    /// Most bytes in that file; what comes then is dropped, and counted.
    dead_letter_bytes: u64 = "64MiB", "SIZE", |v| value::bytes(v, 1024..=1 << 40);
    /// Time to deliver what is left when the daemon is told to stop, in seconds.
    drain_seconds: u64 = "10", "SECONDS", |v| value::whole(v, 0..=3600);

    /// A hash chain through all records, for `s3auditd verify`: on or off.
    chain: bool = "off", "on|off", value::switch;
    /// Ed25519 key (PKCS#8, PEM or DER) that signs checkpoints of the chain; with it there is a chain in any case.
    checkpoint_key_file: Option<PathBuf> = "", "FILE", |v| value::optional(v, value::path);

    /// The longest file that `run --record` writes; recording stops there, and says so.
    record_bytes: u64 = "1GiB", "SIZE", |v| value::bytes(v, 1 << 20..=1 << 40);

    /// Level or filter of the agent's own log, which goes to standard error; RUST_LOG is used if this is not set.
    log: String = "info", "FILTER", value::log_filter;
}
