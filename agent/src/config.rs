//! The configuration: flags, then environment, then file, then defaults; parsed once, here.
//!
//! One table ([`keys`]) holds every key. All three sources give text, one parser a key turns it into a value, and every
//! error is one line that names the flag, the variable, or the file's line.

pub mod keys;
mod origin;
pub mod token;
mod value;

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

/// A configuration with what is to be said of it.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The effective configuration as a TOML file, each line with its source, secrets redacted.
    pub effective: String,
    /// To be logged: variables that look like the agent's and are not.
    pub warnings: Vec<String>,
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
    layers.settle_token()?;
    let config = keys::build(&layers)?;
    let fits = |fits: bool, field, problem: &str| {
        if fits { Ok(()) } else { Err(ConfigError::value(&layers.origin(field), problem)) }
    };
    fits(
        config.ring_watermark_bytes <= config.ring_bytes / 2,
        "ring_watermark_bytes",
        "must be at most half of ring-bytes",
    )?;
    fits(config.batch_bytes <= config.queue_bytes, "batch_bytes", "must be at most queue-bytes")?;
    let warnings = unknown.into_iter().map(|name| format!("{name}: no such variable; ignored")).collect();
    Ok(Loaded { config, effective: layers.show(), warnings })
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

    /// Where the webhook's token comes from.
    #[must_use]
    pub fn token(&self) -> TokenSource {
        match (&self.auth_token, &self.auth_token_file) {
            (Some(secret), _) => TokenSource::Given(secret.clone()),
            (None, Some(path)) => TokenSource::File(path.clone()),
            (None, None) => TokenSource::None,
        }
    }
}

#[cfg(test)]
mod tests;
