//! End to end: a real gateway, a real client, a real webhook and the daemon's probes on this machine's kernel.
//!
//! The way through: a [`gateway`] starts, a [`webhook`] listens, the [`daemon`] watches; a [`client`] makes calls and
//! says what each was ([`call::Call`]); [`expect`] holds those against the records that the webhook received. Nothing
//! here shares code with what it tests: the wire contract is read a second time, from the JSON.

pub mod backend;
pub mod call;
pub mod client;
pub mod daemon;
pub mod expect;
pub mod gateway;
pub mod http;
pub mod mptcp;
pub mod need;
pub mod patience;
pub mod record;
pub mod stream;
pub mod tls;
pub mod webhook;
pub mod world;
