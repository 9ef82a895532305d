//! Stub until the lead's daemon comes: everything but capture.

use crate::config::keys::Config;
use crate::exit::Exit;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not there yet.
    #[error("capture is not built in yet")]
    NoCapture,
}

impl RunError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoCapture => Exit::Internal,
        }
    }
}

/// Runs until a signal.
///
/// # Errors
/// Why it could not.
pub fn run(_config: Config) -> Result<(), RunError> {
    Err(RunError::NoCapture)
}
