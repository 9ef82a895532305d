//! The agent as a library: what `s3auditd` runs and what the tests reach.

pub mod balance;
pub mod capture;
pub mod config;
pub mod control;
pub mod daemon;
pub mod deliver;
pub mod exit;
pub mod health;
pub mod ledger;
pub mod losses;
pub mod notices;
pub mod queue;
pub mod rebuild;
pub mod recorder;
pub mod replay;
pub mod spool;
pub mod status;
pub mod stream;
mod task;
pub mod verify;
pub mod writer;
