//! HTTP/1 as it is on the wire of S3 gateways: heads, framing, pairing of requests and replies.

pub mod head;
