//! Delivery against webhooks on real sockets that misbehave. Counts, keys and order are asserted, times never.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is the report of its failure")]

mod answers;
mod dead_letters;
mod lanes;
mod manners;
mod model;
mod orders;
mod requests;
mod splunk;
mod stdout;
mod support;
mod tls;
