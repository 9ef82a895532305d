//! The body of a request: the records as the endpoint's format carries them, packed as it is configured.

use crate::config::endpoint::{Endpoint, Hec};
use crate::config::{Compression, Format};
use bytes::Bytes;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::io::Write as _;

/// A request's body, and the headers that speak of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) content_type: &'static str,
    pub(super) encoding: Option<&'static str>,
}

/// How bodies are made for one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    format: Format,
    compression: Compression,
    /// Of a Splunk envelope: what stands between the time and the record.
    metadata: String,
}

/// The fastest: audit records are so alike that more effort hardly helps, and the gateway needs the CPU.
const GZIP_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;

impl Packing {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let metadata = Metadata::of(&endpoint.hec);
        // A struct of optional texts is an object always; its braces go.
        let json = serde_json::to_string(&metadata).unwrap_or_default();
        let inner = json.trim_start_matches('{').trim_end_matches('}');
        let metadata = if inner.is_empty() { String::new() } else { format!("{inner},") };
        Self { format: endpoint.format, compression: endpoint.compression, metadata }
    }

    /// Takes a while for large batches; not for the runtime's threads.
    pub(super) fn pack<'a>(&self, lines: impl Iterator<Item = &'a Bytes> + Clone) -> Body {
        let envelope = if self.format == Format::HecEvent { self.metadata.len() + 48 } else { 0 };
        let mut plain = Vec::with_capacity(lines.clone().map(|line| line.len() + 1 + envelope).sum());
        for line in lines {
            match self.format {
                Format::HecEvent => self.wrap(line, &mut plain),
                Format::HecRaw | Format::Ndjson | Format::Auto => plain.extend_from_slice(line),
            }
            plain.push(b'\n');
        }
        let content_type = if self.format == Format::HecEvent { "application/json" } else { "application/x-ndjson" };
        let (bytes, encoding) = match self.compression {
            Compression::None => (plain, None),
            Compression::Gzip => encoded(plain, gzip, "gzip"),
            Compression::Zstd => encoded(plain, |plain| zstd::bulk::compress(plain, ZSTD_LEVEL), "zstd"),
        };
        Body { bytes: bytes.into(), content_type, encoding }
    }

    /// Splunk's envelope, "Format events for HTTP Event Collector": the record itself goes in byte for byte.
    fn wrap(&self, line: &[u8], to: &mut Vec<u8>) {
        to.push(b'{');
        if let Some(time) = epoch_time(line) {
            to.extend_from_slice(b"\"time\":");
            to.extend_from_slice(time.as_bytes());
            to.push(b',');
        }
        to.extend_from_slice(self.metadata.as_bytes());
        to.extend_from_slice(b"\"event\":");
        to.extend_from_slice(line);
        to.push(b'}');
    }
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
    encoder.write_all(plain)?;
    encoder.finish()
}

/// An encoder that cannot (no memory for its tables) is no reason to lose records: they go as they are.
fn encoded(
    plain: Vec<u8>,
    encode: impl Fn(&[u8]) -> std::io::Result<Vec<u8>>,
    name: &'static str,
) -> (Vec<u8>, Option<&'static str>) {
    match encode(&plain) {
        Ok(packed) => (packed, Some(name)),
        Err(_) => (plain, None),
    }
}

/// What Splunk keeps beside each event.
#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcetype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
}

impl<'a> Metadata<'a> {
    pub(super) fn of(hec: &'a Hec) -> Self {
        Self {
            host: hec.host.as_deref(),
            source: hec.source.as_deref(),
            sourcetype: hec.sourcetype.as_deref(),
            index: hec.index.as_deref(),
        }
    }

    /// The same as parameters of a query.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let all =
            [("host", self.host), ("source", self.source), ("sourcetype", self.sourcetype), ("index", self.index)];
        all.into_iter().filter_map(|(name, text)| Some((name, text?)))
    }
}

/// The record's `time` as Splunk wants it: seconds since 1970 with three digits behind the point. None: Splunk takes the
/// time at which it gets the event.
fn epoch_time(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Time<'a> {
        time: &'a str,
    }
    let record: Time = serde_json::from_slice(line).ok()?;
    let milliseconds = record.time.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    let milliseconds = u64::try_from(milliseconds).ok()?;
    Some(format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn packing(format: Format, compression: Compression, index: Option<&str>) -> Packing {
        let hec = Hec {
            index: index.map(str::to_owned),
            source: Some("s3\"auditd".to_owned()),
            sourcetype: None,
            host: Some("node-1".to_owned()),
            acknowledged_within: None,
        };
        Packing::of(&Endpoint { format, compression, hec, ..crate::deliver::testing::endpoint("http://h") })
    }

    fn lines() -> Vec<Bytes> {
        [r#"{"a": 1,"time":"2025-03-21T06:37:27.915955685Z"}"#, r#"{"time":"now"}"#].map(Bytes::from).to_vec()
    }

    const NDJSON: &str = "{\"a\": 1,\"time\":\"2025-03-21T06:37:27.915955685Z\"}\n{\"time\":\"now\"}\n";

    #[test]
    fn lines_are_lines_and_envelopes_hold_them_byte_for_byte() {
        for format in [Format::Ndjson, Format::HecRaw] {
            let body = packing(format, Compression::None, None).pack(lines().iter());
            assert_eq!((body.bytes.as_ref(), body.content_type), (NDJSON.as_bytes(), "application/x-ndjson"));
        }
        let body = packing(Format::HecEvent, Compression::None, Some("audit")).pack(lines().iter());
        let expected = concat!(
            r#"{"time":1742539047.915,"host":"node-1","source":"s3\"auditd","index":"audit","event":"#,
            r#"{"a": 1,"time":"2025-03-21T06:37:27.915955685Z"}}"#,
            "\n",
            r#"{"host":"node-1","source":"s3\"auditd","index":"audit","event":{"time":"now"}}"#,
            "\n"
        );
        assert_eq!(std::str::from_utf8(&body.bytes).unwrap(), expected);
        assert_eq!((body.content_type, body.encoding), ("application/json", None));
    }

    #[test]
    fn packed_bodies_unpack_to_the_same_and_are_the_same_each_time() {
        for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
            let packing = packing(Format::Ndjson, compression, None);
            let body = packing.pack(lines().iter());
            assert_eq!((body.encoding, &body), (Some(name), &packing.pack(lines().iter())));
            let mut text = String::new();
            match compression {
                Compression::Gzip => {
                    flate2::read::GzDecoder::new(body.bytes.as_ref()).read_to_string(&mut text).unwrap()
                }
                _ => zstd::stream::Decoder::new(body.bytes.as_ref()).unwrap().read_to_string(&mut text).unwrap(),
            };
            assert_eq!(text, NDJSON);
        }
    }
}
