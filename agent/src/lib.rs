//! The agent as a library: what `s3auditd` runs and what the tests reach.

pub mod capture;
