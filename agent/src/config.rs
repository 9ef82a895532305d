//! The configuration: flags, then environment, then file, then defaults; parsed once, here.
//!
//! One table ([`keys`]) holds every key. All three sources give text, one parser a key turns it into a value, and every
//! error is one line that names the flag, the variable, or the file's line.

pub mod endpoint;
pub mod keys;
mod origin;
pub mod reload;
pub mod token;
mod value;

use crate::control::managed::Webhook;
use keys::{Config, Flags};
use origin::{Layers, Origin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use token::{Secret, TokenSource};

/// Read if it is there and nothing else is asked for.
pub const DEFAULT_FILE: &str = "/etc/s3auditd/s3auditd.toml";

/// Names the file as `--config` does.
const CONFIG_VARIABLE: &str = "S3AUDITD_CONFIG";

value::named! {
    /// Whose names `api.name` uses.
    Dialect {
        /// MinIO's of 2021, as WEKA has them.
        Weka = "weka",
        /// MinIO's of today.
        Minio = "minio",
        /// The AWS model's.
        Aws = "aws",
    }

    /// How sockets are hooked.
    BackendChoice {
        /// The best that the kernel takes.
        Auto = "auto",
        /// Typed tracepoints of sockets (6.3).
        SocketTracepoints = "socket-tracepoints",
        /// Programs at the end of TCP's functions.
        Fexit = "fexit",
        /// Kprobes at their entry and return.
        Kprobe = "kprobe",
        /// The end of system calls.
        Syscall = "syscall",
    }

    /// Which headers and query parameters keep their values in a record.
    RedactMode {
        /// All that are not known as secret.
        DenyList = "deny-list",
        /// Only the named ones that are not.
        AllowList = "allow-list",
    }

    /// How a request carries records.
    Format {
        /// What the endpoint's path names: Splunk's two paths mean their formats, all others NDJSON.
        Auto = "auto",
        /// One JSON a line.
        Ndjson = "ndjson",
        /// Splunk's `/services/collector/event`: each record in an envelope.
        HecEvent = "hec-event",
        /// Splunk's `/services/collector/raw`: one JSON a line, metadata in the query.
        HecRaw = "hec-raw",
    }

    /// How a request's body is packed.
    Compression {
        /// Not at all.
        None = "none",
        /// RFC 1952.
        Gzip = "gzip",
        /// RFC 8878.
        Zstd = "zstd",
    }

    /// What stays in order when several requests are on their way.
    Order {
        /// The records of a gateway connection.
        Connection = "connection",
        /// Nothing.
        None = "none",
    }

    /// Which operations a filter lets through.
    Access {
        /// Both.
        All = "all",
        /// Those that only read.
        Read = "read",
        /// Those that may change something.
        Write = "write",
    }

    /// What goes when the spool is full.
    WhenFull {
        /// The oldest frames, whoever has not had them.
        DropOldest = "drop-oldest",
        /// The new frame is refused.
        DropNewest = "drop-newest",
    }

    /// How the spool packs a frame's lines.
    SpoolCompression {
        /// The LZ4 block format.
        Lz4 = "lz4",
        /// Not at all.
        None = "none",
    }

    /// When what the spool wrote is forced to the disk.
    SpoolSync {
        /// Before an append or a settle returns.
        Always = "always",
        /// Once a second.
        EverySecond = "second",
        /// When the kernel likes.
        Never = "never",
    }

    /// A class of requests that are not S3 operations and give records only on demand.
    AuditClass {
        /// Liveness and readiness probes.
        Health = "health",
        /// Metrics scrapes.
        Metrics = "metrics",
        /// The gateway's administration interface.
        Admin = "admin",
        /// The gateway's web console.
        Console = "console",
        /// The gateway's nodes among themselves.
        Internode = "internode",
        /// CORS preflight.
        Preflight = "preflight",
        /// Whatever is not understood.
        Unknown = "unknown",
    }
}

/// On the way to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// What the usual environment variables say.
    System,
    /// None.
    Off,
    /// This one.
    Url(reqwest::Url),
}

/// What is wrong with the configuration, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key that does not exist.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value does not fit.
    #[error("{place}: {problem}")]
    Value {
        /// The flag, variable, or line of the file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// `run` has nothing to watch.
    #[error(
        "listen: no port given; --listen 9000, S3AUDITD_LISTEN, or listen = [9000] in the file says which to watch"
    )]
    NoPorts,
}

impl ConfigError {
    fn value(origin: &Origin, problem: impl Into<String>) -> Self {
        Self::Value { place: origin.to_string(), problem: problem.into() }
    }
}

/// Where the file is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileChoice {
    /// [`DEFAULT_FILE`] or the one that `S3AUDITD_CONFIG` names.
    #[default]
    Usual,
    /// This one, which must exist.
    Given(PathBuf),
    /// None.
    Skip,
}

impl FileChoice {
    /// For a command that needs one value: with that `at_hand` no file is read, which only root may be able to.
    #[must_use]
    pub fn unless(at_hand: bool, given: Option<PathBuf>) -> Self {
        match given {
            _ if at_hand => Self::Skip,
            Some(path) => Self::Given(path),
            None => Self::Usual,
        }
    }
}

/// A configuration with what is to be said of it.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The effective configuration as a TOML file, each line with its source, secrets redacted.
    pub effective: String,
    /// The same, to be compared with what a reload brings.
    pub settings: reload::Settings,
    /// To be logged: variables that look like the agent's and are not.
    pub warnings: Vec<String>,
}

/// Where a configuration came from, so that a reload can ask again.
#[derive(Clone)]
pub struct Sources {
    /// The file.
    pub file: FileChoice,
    /// The command line.
    pub flags: Flags,
    /// The environment; what a process was started with does not change.
    pub variables: BTreeMap<String, String>,
}

impl Sources {
    /// See [`load`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.file, self.flags.clone(), &self.variables)
    }
}

/// Reads the configuration from all sources.
///
/// # Errors
/// The first thing that is wrong.
pub fn load(file: &FileChoice, flags: Flags, variables: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::default();
    let unknown = layers.add_environment(variables);
    match (file, variables.get(CONFIG_VARIABLE)) {
        (FileChoice::Given(path), _) => read_file(&mut layers, path)?,
        (FileChoice::Usual, Some(path)) => read_file(&mut layers, Path::new(path))?,
        (FileChoice::Usual, None) => match read_file(&mut layers, Path::new(DEFAULT_FILE)) {
            Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        },
        (FileChoice::Skip, _) => {}
    }
    layers.add_flags(flags);
    layers.add_rust_log(variables);
    let config = layers.build()?;
    let fits = |fits: bool, field, problem: &str| {
        if fits { Ok(()) } else { Err(ConfigError::value(&layers.origin(field), problem)) }
    };
    fits(
        config.ring_watermark_bytes <= config.ring_bytes / 2,
        "ring_watermark_bytes",
        "must be at most half of ring-bytes",
    )?;
    fits(config.batch_bytes <= config.queue_bytes, "batch_bytes", "must be at most queue-bytes")?;
    let spool = config.spool_dir.is_none() || config.batch_bytes <= config.spool_bytes / 4;
    fits(spool, "batch_bytes", "must be at most a quarter of spool-bytes")?;
    let warnings = unknown.into_iter().map(|name| format!("{name}: no such variable; ignored")).collect();
    Ok(Loaded { config, effective: layers.show(), settings: layers.settings(), warnings })
}

fn read_file(layers: &mut Layers, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    layers.add_file(path, &text)
}

/// The process's variables, those that are not UTF-8 left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))).collect()
}

impl Config {
    /// What `run` needs besides what every command needs.
    ///
    /// # Errors
    /// No port is given.
    pub fn check_run(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() { Err(ConfigError::NoPorts) } else { Ok(()) }
    }

    /// With the webhook that `s3auditd webhook enable` set instead of the flat keys' own.
    ///
    /// # Errors
    /// What it set is no URL, token or format.
    pub fn with_webhook(&self, webhook: &Webhook) -> Result<Self, String> {
        let text = |text: &str| value::Value::Text(text.to_owned());
        let mut config = self.clone();
        let named = |name: &'static str| move |problem: String| format!("{name}: {problem}");
        config.endpoint = Some(value::endpoint(&text(&webhook.endpoint)).map_err(named("endpoint"))?);
        if webhook.auth_token.is_some() || webhook.auth_token_file.is_some() {
            config.auth_token = webhook.auth_token.clone();
            config.auth_token_file = webhook.auth_token_file.clone();
        }
        config.format = match &webhook.format {
            Some(format) => Format::of(format).map_err(named("format"))?,
            None => self.format,
        };
        config.token().read().map_err(|error| error.to_string())?;
        config.endpoints.retain(|endpoint| endpoint.name != endpoint::DEFAULT);
        config.endpoints.splice(0..0, endpoint::Endpoint::of(endpoint::DEFAULT, &config));
        Ok(config)
    }

    fn token(&self) -> TokenSource {
        match (&self.auth_token, &self.auth_token_file) {
            (Some(secret), _) => TokenSource::Given(secret.clone()),
            (None, Some(path)) => TokenSource::File(path.clone()),
            (None, None) => TokenSource::None,
        }
    }
}

#[cfg(test)]
mod tests;
