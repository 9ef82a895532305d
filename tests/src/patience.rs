//! How long to wait for what should come. No test asserts a time: patience only bounds how late a failure is told.

use std::time::Duration;

/// By how much this machine is slower than one that the constants fit: an emulated one is, by far.
const VARIABLE: &str = "S3AUDITD_PATIENCE";

/// That long on the machine that we run on.
#[must_use]
pub fn stretched(patience: Duration) -> Duration {
    let factor = std::env::var(VARIABLE).ok().and_then(|factor| factor.parse().ok());
    patience.saturating_mul(factor.unwrap_or(1))
}
