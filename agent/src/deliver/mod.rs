//! From the spool to the endpoints: one [`worker`] for each, or [`stdout`] if there is none.
//!
//! A worker reads frames, makes batches of them ([`plan`], [`batch`]), and sends each ([`carry`]) with its endpoint's
//! [`webhook`], packed as configured ([`body`]). [`policy`] decides what an outcome means, [`ack`] waits for Splunk's
//! indexers, [`dead_letter`] keeps what is refused for good, and [`stats`] tells the world. Every record that is taken
//! from the spool is booked in the ledger exactly once: delivered, filtered, dropped by cause, or put back.

mod ack;
mod batch;
mod body;
mod carry;
pub mod dead_letter;
mod plan;
pub mod policy;
mod splunk;
pub mod stats;
pub mod stdout;
pub mod tls;
pub mod webhook;
pub mod worker;

use crate::ledger::{Count, DropCause};
use std::sync::Arc;
use webhook::Webhook;

/// What a worker is told to do. Others may come at any time: they take effect between two requests, end every wait, and
/// give records that were refused one after the other another chance.
#[derive(Clone)]
pub struct Orders {
    /// Where records go, and how. Its endpoint's name stays the same.
    pub webhook: Arc<Webhook>,
    /// `false`: nothing is sent, records wait in the spool.
    pub enabled: bool,
}

/// How delivery to one endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What was taken from the spool and is put back, not settled. Of a part of it nobody knows whether it arrived.
    pub undelivered: Count,
    /// Why: [`DropCause::Shutdown`] or [`DropCause::StdoutClosed`].
    pub cause: DropCause,
}

#[cfg(test)]
mod testing;
