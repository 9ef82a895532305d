//! One audit record as a receiver reads it: JSON, by the documented names.

use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;

/// The object that holds what the WEKA shape has no field for.
const OWN: &str = "s3auditd";

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(pub Value);

impl Record {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn own(&self, name: &str) -> Option<&Value> {
        self.0.get(OWN)?.get(name)
    }

    /// Whether it speaks of an S3 operation, not of the daemon itself.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        self.0.get("api").is_some()
    }

    /// AWS name of the operation.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.own("operation").and_then(Value::as_str)
    }

    /// Name in the configured dialect.
    #[must_use]
    pub fn api_name(&self) -> Option<&str> {
        self.text("/api/name")
    }

    /// Bucket.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        self.text("/api/bucket")
    }

    /// Key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.text("/api/object")
    }

    /// Status code.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.pointer("/api/statusCode").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok())
    }

    /// Bytes of the request on the wire, head and body.
    #[must_use]
    pub fn bytes_in(&self) -> Option<u64> {
        self.own("bytesIn").and_then(Value::as_u64)
    }

    /// Bytes of the reply on the wire, interim replies, head and body.
    #[must_use]
    pub fn bytes_out(&self) -> Option<u64> {
        self.own("bytesOut").and_then(Value::as_u64)
    }

    /// `complete`, or how else it ended.
    #[must_use]
    pub fn completion(&self) -> Option<&str> {
        self.own("completion").and_then(Value::as_str)
    }

    /// Access key of whoever signed.
    #[must_use]
    pub fn access_key(&self) -> Option<&str> {
        self.own("accessKey").and_then(Value::as_str)
    }

    /// User agent.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.text("/userAgent")
    }

    /// The peer of the gateway's socket.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        let peer = self.own("peer")?;
        let address = peer.get("ip")?.as_str()?.parse().ok()?;
        Some(SocketAddr::new(address, u16::try_from(peer.get("port")?.as_u64()?).ok()?))
    }

    /// Identifies the record: no two have the same.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.own("eventId").and_then(Value::as_str)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
