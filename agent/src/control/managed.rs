//! The webhook as `s3auditd webhook` set it: kept in the spool's directory, so that it outlives restarts, and stronger
//! than the configuration's `endpoint` until it is changed again.

use crate::config::token::Secret;
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What `enable` says. What it leaves out is as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Webhook {
    /// The URL, as `endpoint`.
    pub endpoint: String,
    /// As `auth-token`.
    #[serde(default, serialize_with = "super::reveal", skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<Secret>,
    /// As `auth-token-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token_file: Option<PathBuf>,
    /// As `format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Managed {
    /// Records wait in the spool until it is enabled again.
    #[serde(default)]
    pub disabled: bool,
    /// None: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// The file cannot be read, understood or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}; `s3auditd webhook` keeps it, and without it the configuration alone decides", path.display())]
pub struct ManagedError {
    path: PathBuf,
    problem: String,
}

/// Its name in the spool's directory.
const FILE: &str = "webhook.toml";

impl Managed {
    /// Reads it; nothing is set where there is no file.
    ///
    /// # Errors
    /// It is there and cannot be read or understood.
    pub fn read(directory: &Path) -> Result<Self, ManagedError> {
        let path = directory.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                // The message alone: the whole error shows the line, which may hold the token.
                ManagedError { problem: error.message().replace('\n', ", "), path }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ManagedError { problem: error.to_string(), path }),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, directory: &Path) -> Result<(), ManagedError> {
        let path = directory.join(FILE);
        let failed = |problem: String| ManagedError { path: path.clone(), problem };
        let text = toml::to_string(self).map_err(|error| failed(error.to_string()))?;
        let new = directory.join(format!("{FILE}.new"));
        let write = || -> io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(b"# Written by `s3auditd webhook`.\n")?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(directory)?.sync_all()
        };
        write().map_err(|error| failed(error.to_string()))
    }
}
