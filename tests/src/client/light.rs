//! A light client: reqwest over one kept connection, requests presigned by `rusty-s3`.

use super::sign;
use crate::call::Call;
use crate::gateway::{ACCESS_KEY, Gateway, SECRET_KEY};
use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rusty_s3::Method;
use tokio::runtime::Runtime;

/// What it calls itself.
pub const USER_AGENT: &str = concat!("s3auditd-light-client/", env!("CARGO_PKG_VERSION"));
/// The least that S3 takes for any part of an upload but the last.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Light<'a> {
    gateway: &'a Gateway,
    http: reqwest::Client,
    runtime: Runtime,
}

/// A request to make.
#[derive(Debug)]
struct Ask<'a> {
    op: &'a str,
    method: Method,
    bucket: Option<&'a str>,
    key: Option<&'a str>,
    query: &'a str,
    secret: &'a str,
    /// Signed and sent.
    header: Option<(&'static str, String)>,
    body: Vec<u8>,
}

/// What later calls need of a reply.
#[derive(Debug)]
struct Answer {
    body: String,
    tag: String,
}

impl<'a> Light<'a> {
    /// A client of that gateway.
    ///
    /// # Errors
    /// The runtime's or the HTTP client's.
    pub fn of(gateway: &'a Gateway) -> anyhow::Result<Self> {
        // Needed by the HTTP client even though it speaks no TLS here; a second client finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder().no_proxy().user_agent(USER_AGENT);
        if let Some(authority) = &gateway.authority {
            http = http.add_root_certificate(reqwest::Certificate::from_pem(authority.as_bytes())?);
        }
        let http = http.build()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { gateway, http, runtime })
    }

    /// One round over a bucket of that name, which is empty and deleted afterwards: 23 calls of 16 operations, with one
    /// 404 and one 403 among them.
    ///
    /// # Errors
    /// A call that could not be made, or ended with another status than it should.
    pub fn round(&self, bucket: &str) -> anyhow::Result<Vec<Call>> {
        let b = bucket;
        let mut calls = Vec::new();
        let mut make = |expected: u16, ask: Ask<'_>| -> anyhow::Result<Answer> {
            let (call, answer) = self.make(ask)?;
            anyhow::ensure!(call.status == expected, "{call:?} should have ended with {expected}: {}", answer.body);
            calls.push(call);
            Ok(answer)
        };
        make(200, ask("CreateBucket", Method::Put, b, ""))?;
        make(200, Ask { bucket: None, ..ask("ListBuckets", Method::Get, b, "") })?;
        make(200, ask("HeadBucket", Method::Head, b, ""))?;
        let hello = || b"hello, audit".to_vec();
        make(200, Ask { body: hello(), ..on("PutObject", Method::Put, b, "hello.txt") })?;
        make(200, Ask { body: hello(), ..on("PutObject", Method::Put, b, "a folder/two.txt") })?;
        make(200, Ask { body: vec![b'l'; 1 << 20], ..on("PutObject", Method::Put, b, "large.bin") })?;
        make(200, on("GetObject", Method::Get, b, "hello.txt"))?;
        make(200, on("GetObject", Method::Get, b, "large.bin"))?;
        let range = Some(("range", "bytes=0-4".to_owned()));
        make(206, Ask { header: range, ..on("GetObject", Method::Get, b, "hello.txt") })?;
        make(200, on("HeadObject", Method::Head, b, "hello.txt"))?;
        make(200, ask("ListObjects", Method::Get, b, "prefix=a"))?;
        make(200, ask("ListObjectsV2", Method::Get, b, "list-type=2"))?;
        let source = Some(("x-amz-copy-source", format!("/{b}/hello.txt")));
        make(200, Ask { header: source, ..on("CopyObject", Method::Put, b, "copy.txt") })?;

        let started = Ask { query: "uploads=", ..on("CreateMultipartUpload", Method::Post, b, "parts.bin") };
        let started = make(200, started)?;
        let upload = between(&started.body, "<UploadId>", "</UploadId>").context("no upload id")?;
        let mut parts = String::new();
        for (number, size) in [(1, PART_BYTES), (2, 100)] {
            let query = format!("partNumber={number}&uploadId={upload}");
            let part = Ask { query: &query, body: vec![b'p'; size], ..on("UploadPart", Method::Put, b, "parts.bin") };
            let tag = make(200, part)?.tag;
            parts.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"));
        }
        let query = format!("uploadId={upload}");
        make(200, Ask { query: &query, ..on("ListParts", Method::Get, b, "parts.bin") })?;
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into_bytes();
        make(200, Ask { query: &query, body, ..on("CompleteMultipartUpload", Method::Post, b, "parts.bin") })?;

        make(404, on("GetObject", Method::Get, b, "not-there"))?;
        make(403, Ask { secret: "not the secret", ..on("GetObject", Method::Get, b, "hello.txt") })?;
        make(204, on("DeleteObject", Method::Delete, b, "copy.txt"))?;
        let rest = ["hello.txt", "a folder/two.txt", "large.bin", "parts.bin"];
        let rest: String = rest.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
        let body = format!("<Delete>{rest}</Delete>").into_bytes();
        make(200, Ask { body, ..ask("DeleteObjects", Method::Post, b, "delete=") })?;
        make(204, ask("DeleteBucket", Method::Delete, b, ""))?;
        Ok(calls)
    }

    fn make(&self, ask: Ask<'_>) -> anyhow::Result<(Call, Answer)> {
        let encoded = ask.key.map(|key| key.replace(' ', "%20"));
        let path: Vec<_> = [Some(""), ask.bucket, encoded.as_deref()].into_iter().flatten().collect();
        let path = if ask.bucket.is_some() { path.join("/") } else { "/".to_owned() };
        let path = if ask.query.is_empty() { path } else { format!("{path}?{}", ask.query) };
        let signed: Vec<_> = ask.header.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let target = sign::target_with(self.gateway, ask.method, &path, ask.secret, &signed)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &signed {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        }
        let method = reqwest::Method::from_bytes(ask.method.to_str().as_bytes())?;
        let request = self.http.request(method, format!("{}{target}", self.gateway.url())).headers(headers);
        let request = if ask.body.is_empty() { request } else { request.body(ask.body) };
        let (status, answer) = self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
            let body = String::from_utf8_lossy(&response.bytes().await?).into_owned();
            anyhow::Ok((status, Answer { body, tag }))
        })?;
        let mut call = Call::new(ask.op, ask.bucket, ask.key, status);
        call.user_agent = Some(USER_AGENT.to_owned());
        call.access_key = Some(ACCESS_KEY.to_owned());
        Ok((call, answer))
    }
}

fn ask<'a>(op: &'a str, method: Method, bucket: &'a str, query: &'a str) -> Ask<'a> {
    Ask { op, method, bucket: Some(bucket), key: None, query, secret: SECRET_KEY, header: None, body: Vec::new() }
}

fn on<'a>(op: &'a str, method: Method, bucket: &'a str, key: &'a str) -> Ask<'a> {
    Ask { key: Some(key), ..ask(op, method, bucket, "") }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_through_on_s3s() {
        let gateway = crate::gateway::s3s::start().unwrap();
        let light = Light::of(&gateway).unwrap();
        let calls = light.round("a-round").unwrap();
        let again = light.round("a-round").unwrap();
        let operations: std::collections::BTreeSet<_> = calls.iter().map(|call| call.op.as_str()).collect();
        assert_eq!((calls.len(), operations.len(), again.len()), (23, 16, 23));
    }
}
