//! HTTP/1 as it is on the wire of S3 gateways: heads, framing, pairing of requests and replies.
//!
//! [`conversation`] is the core: it takes both streams of a connection and gives exchanges.

pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod conversation;
pub(crate) mod doubt;
mod encrypted;
pub(crate) mod framing;
pub mod head;
pub(crate) mod open;
mod pairing;
pub(crate) mod parse;
mod plain;
mod preface;
pub(crate) mod probe;
pub(crate) mod reader;
mod reply_gap;
pub(crate) mod reply_side;
mod request_gap;
pub(crate) mod request_side;
mod side;
pub(crate) mod span;
