//! Samples to rebuild: signed GETs over kept connections, and the recorded conversations of the tests.

use anyhow::Context as _;
use flate2::read::GzDecoder;
use s3auditd_rebuild::replay::conversation::{Bytes, Event, From, Line, Reader};
use s3auditd_rebuild::replay::recording::Frame;
use s3auditd_rebuild::sample::OwnedSample;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;

/// Samples as they lie in a ring, one after the other.
pub(crate) struct Batch {
    pub(crate) name: &'static str,
    /// Whether the target speaks of it.
    pub(crate) is_target: bool,
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

const CONNECTIONS: usize = 64;
const EACH: usize = 128;
/// In [`keep_alive`].
#[cfg(test)]
pub(crate) const KEEP_ALIVE_OPERATIONS: u64 = (CONNECTIONS * EACH) as u64;

/// Length, kind: what stands before a sample in a recording's frame.
const FRAME_HEAD_BYTES: usize = 5;

impl Batch {
    fn new(name: &'static str, is_target: bool) -> Self {
        Self { name, is_target, bytes: Vec::new(), places: Vec::new() }
    }

    fn push(&mut self, sample: OwnedSample) {
        let from = self.bytes.len() + FRAME_HEAD_BYTES;
        Frame::Sample(sample).write(&mut self.bytes);
        self.places.push(from..self.bytes.len());
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().filter_map(|place| self.bytes.get(place.clone()))
    }
}

/// A SigV4 client and MinIO's replies with 4 KiB of body each: one sample a request, one a reply.
pub(crate) fn keep_alive() -> anyhow::Result<Batch> {
    let mut batch = Batch::new("signed 4 KiB GETs", true);
    let mut reader = Reader::default();
    let mut time_us = 1_700_000_000_000_000;
    let mut take = |line: Line| -> anyhow::Result<()> {
        for sample in reader.take(&line)? {
            batch.push(sample);
        }
        Ok(())
    };
    let mut line = |nth: usize| {
        time_us += 7;
        Line { connection: nth.to_string(), time_us, ..Line::default() }
    };
    for nth in 0..CONNECTIONS {
        take(Line { event: Some(Event::Opened), ..line(nth) })?;
    }
    for round in 0..EACH {
        // Many at once: every other reply comes after the next request of another connection.
        for nth in 0..CONNECTIONS {
            take(Line { from: Some(From::Client), bytes: Some(Bytes::Text(request(nth, round))), ..line(nth) })?;
        }
        for nth in 0..CONNECTIONS {
            take(Line { from: Some(From::Gateway), bytes: Some(Bytes::Text(reply(nth, round))), ..line(nth) })?;
        }
    }
    for nth in 0..CONNECTIONS {
        for event in [Event::ClientClosed, Event::GatewayClosed, Event::Closed] {
            take(Line { event: Some(event), ..line(nth) })?;
        }
    }
    Ok(batch)
}

fn request(connection: usize, round: usize) -> String {
    format!(
        "GET /bucket-a/data/2026/11/22/part-{connection:05}-{round:05}.parquet HTTP/1.1\r\n\
         Host: 10.1.2.3:9000\r\n\
         User-Agent: aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64 api/s3#1.58.2\r\n\
         Accept-Encoding: identity\r\n\
         Amz-Sdk-Invocation-Id: 4b1d3c0e-8a8f-4e0a-9d55-{round:012x}\r\n\
         Amz-Sdk-Request: attempt=1; max=3\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261122/us-east-1/s3/aws4_request, \
         SignedHeaders=accept-encoding;amz-sdk-invocation-id;amz-sdk-request;host;range;x-amz-content-sha256;x-amz-date, \
         Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024\r\n\
         Range: bytes=0-4095\r\n\
         X-Amz-Content-Sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
         X-Amz-Date: 20261122T101112Z\r\n\r\n"
    )
}

fn reply(connection: usize, round: usize) -> String {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n\
         Accept-Ranges: bytes\r\n\
         Content-Length: 4096\r\n\
         Content-Range: bytes 0-4095/1048576\r\n\
         Content-Type: application/octet-stream\r\n\
         ETag: \"9bb58f26192e4ba00f01e2e7b136bbd8\"\r\n\
         Last-Modified: Sun, 22 Nov 2026 09:00:00 GMT\r\n\
         Server: MinIO\r\n\
         Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
         Vary: Origin\r\n\
         Vary: Accept-Encoding\r\n\
         X-Amz-Id-2: dd9025bab4ad464b049177c95eb6ebf374d3b3fd1af9251148b658df7ac2e3e8\r\n\
         X-Amz-Request-Id: 18A1{connection:06X}{round:06X}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Xss-Protection: 1; mode=block\r\n\
         Date: Sun, 22 Nov 2026 10:11:12 GMT\r\n\r\n"
    );
    let body = "x".repeat(4096);
    head + &body
}

/// What clients and gateways really said: `rebuild/tests/data`. Long bodies come whole, as nobody sets windows here.
pub(crate) fn corpus() -> anyhow::Result<Batch> {
    let packed = include_bytes!("../../../../rebuild/tests/data/conversations.jsonl.gz");
    let mut batch = Batch::new("recorded conversations", false);
    let mut reader = Reader::default();
    for text in BufReader::new(GzDecoder::new(packed.as_slice())).lines() {
        let line = Line::parse(text?.as_bytes()).context("a recorded conversation")?;
        for sample in reader.take(&line)? {
            batch.push(sample);
        }
    }
    Ok(batch)
}
