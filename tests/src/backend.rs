//! The backend that a run is about: a matrix of kernels and backends runs the same scenarios with each.

/// Names it; unset or `auto` leaves the choice to the daemon.
pub const VARIABLE: &str = "S3AUDITD_TEST_BACKEND";

/// The one that every daemon of this run has to use, if any.
#[must_use]
pub fn forced() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|name| !name.is_empty() && name != "auto")
}
