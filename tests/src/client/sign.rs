//! Requests for [`crate::http`]: a presigned target, and the bytes of a whole request.

use crate::gateway::{ACCESS_KEY, Gateway, REGION, SECRET_KEY};
use rusty_s3::{Method, signing};
use std::time::Duration;

/// How long a presigned target is good for; a whole scenario fits in.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// A presigned origin-form target, signed for the gateway's `Host`.
///
/// # Errors
/// A path that makes no URL.
pub fn target(gateway: &Gateway, method: Method, path: &str) -> anyhow::Result<String> {
    target_with(gateway, method, path, SECRET_KEY, &[])
}

/// The same with another secret, and with headers that the request must then carry.
///
/// # Errors
/// A path that makes no URL.
pub fn target_with(
    gateway: &Gateway,
    method: Method,
    path: &str,
    secret: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<String> {
    let mut url = reqwest::Url::parse(&format!("{}{path}", gateway.url()))?;
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.set_query(None);
    let host = gateway.address.to_string();
    let mut signed = vec![("host", host.as_str())];
    signed.extend_from_slice(headers);
    signed.sort_unstable();
    let signed = signing::sign(
        &jiff::Timestamp::now(),
        method,
        url,
        ACCESS_KEY,
        secret,
        None,
        REGION,
        GOOD_FOR.as_secs(),
        query.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        signed.iter().copied(),
    );
    let query = signed.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}{query}", signed.path()))
}

/// A request with a User-Agent and, when it has a body, its length; `headers` are whole lines.
#[must_use]
pub fn request(gateway: &Gateway, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: raw-socket/1\r\n", gateway.address);
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty() || method == "PUT" || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}
