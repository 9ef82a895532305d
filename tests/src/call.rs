//! What a client did, in its own words.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One request with its reply, as the client saw it. `None`: this client cannot tell.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Call {
    /// AWS name of the operation.
    pub op: String,
    /// Bucket, if the operation has one.
    pub bucket: Option<String>,
    /// Object key, if the operation has one; not encoded.
    pub key: Option<String>,
    /// Status code.
    pub status: u16,
    /// Bytes sent: head and body, as they went over the wire.
    #[serde(default)]
    pub sent: Option<u64>,
    /// Bytes received: interim replies, head and body.
    #[serde(default)]
    pub received: Option<u64>,
    /// As in the request's header.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// Of the credential that signed it.
    #[serde(default)]
    pub access_key: Option<String>,
    /// The client's end of the connection.
    #[serde(default)]
    pub client: Option<SocketAddr>,
}

impl Call {
    /// A call of which only the outcome is known; the rest is filled in by the caller.
    #[must_use]
    pub fn new(op: &str, bucket: Option<&str>, key: Option<&str>, status: u16) -> Self {
        Self {
            op: op.to_owned(),
            bucket: bucket.map(str::to_owned),
            key: key.map(str::to_owned),
            status,
            sent: None,
            received: None,
            user_agent: None,
            access_key: None,
            client: None,
        }
    }
}
