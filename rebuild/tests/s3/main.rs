//! What exchanges mean, and the records made of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is a test's failure report; clippy.toml allows it in test functions, not in their helpers"
)]

mod clients;
mod described;
mod edge_cases;
mod events;
mod exchanges;
mod golden;
mod hostile;
mod secrets;
mod table;
