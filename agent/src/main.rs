//! `s3auditd`: see the README.
fn main() {}
