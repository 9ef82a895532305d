//! Samples in; audit records and losses out.
//!
//! Pure by construction: no IO, no clock, no async, no aya; time is an argument. It cannot fail: whatever the bytes
//! are, the answer is a record, a record marked partial, or a counted loss, never a panic and never a guess.
//!
//! The way through: [`sample`] (bytes of the ring become a `Sample`) -> [`pipeline`] -> `connection` (bounded table) ->
//! `assembler` (spans seen and unseen, by sequence number) -> [`http`] (framing and pairing: an [`exchange::Exchange`])
//! -> [`s3`] (what it meant) -> [`record`] (redacted, serialised).

mod account;
mod assembler;
mod connection;
pub mod counters;
pub mod exchange;
pub mod gap;
pub mod handshake;
pub mod http;
pub mod loss;
pub mod pipeline;
pub mod record;
pub mod redact;
pub mod replay;
pub mod s3;
pub mod sample;
mod stream;
mod tls_names;
