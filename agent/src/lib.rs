//! The agent as a library: what `s3auditd` runs and what the tests reach.

pub mod capture;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod exit;
pub mod health;
pub mod ledger;
pub mod queue;
pub mod rebuild;
pub mod recorder;
pub mod replay;
pub mod status;
