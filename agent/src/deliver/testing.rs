//! What several test modules need.

use crate::config::endpoint::{Endpoint, Filter, Hec, Tls};
use crate::config::token::TokenSource;
use crate::config::{Access, Compression, Format, Order, Proxy};
use std::time::Duration;

/// NDJSON to this URL, nothing special.
pub(super) fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        name: "default".to_owned(),
        url: url.parse().unwrap(),
        token: TokenSource::None,
        format: Format::Ndjson,
        hec: Hec { index: None, source: None, sourcetype: None, host: None, acknowledged_within: None },
        compression: Compression::None,
        tls: Tls::default(),
        proxy: Proxy::Off,
        requests_in_flight: 1,
        keep_order: Order::Connection,
        filter: Filter { buckets: vec![], operations: vec![], outcomes: vec![], access: Access::All },
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(5),
    }
}
