//! The webhook's token: where it comes from, and a type that does not show it.

use reqwest::header::HeaderValue;
use std::fmt;
use std::path::PathBuf;

/// A text that neither `Debug` nor `Display` shows.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Secret(String);

/// What is shown instead.
pub(super) const REDACTED: &str = "(redacted)";

impl Secret {
    /// Wraps the text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the two places that keep it: see `control::reveal`.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The value of the `Authorization` header: the text as it is, white space around it removed.
    ///
    /// # Errors
    /// The text is empty, or holds a character that a header cannot carry.
    pub fn header(&self) -> Result<HeaderValue, &'static str> {
        let text = self.0.trim();
        if text.is_empty() {
            return Err("must not be empty");
        }
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| "must be one line of printable characters, as an HTTP header carries them")?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Where the `Authorization` header comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// No header is sent.
    None,
    /// From `auth-token`.
    Given(Secret),
    /// From this file, which is read at start and again whenever the webhook answers 401 or 403.
    File(PathBuf),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("auth-token-file: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it holds is no token.
    #[error("auth-token-file: {}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// `auth-token` is no token.
    #[error("auth-token: {0}")]
    Given(&'static str),
}

/// More than any token: a wrong path (a log, a device) must not fill the memory.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;

impl TokenSource {
    /// Reads the token as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds cannot stand in a header.
    pub fn read(&self) -> Result<Option<HeaderValue>, TokenError> {
        match self {
            Self::None => Ok(None),
            Self::Given(secret) => secret.header().map(Some).map_err(TokenError::Given),
            Self::File(path) => {
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| {
                        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN_BYTES), &mut text)
                    })
                    .map_err(|source| TokenError::Read { path: path.clone(), source })?;
                let header = Secret(text).header();
                header.map(Some).map_err(|problem| TokenError::Content { path: path.clone(), problem })
            }
        }
    }
}
