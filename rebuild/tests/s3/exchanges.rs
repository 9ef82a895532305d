//! Exchanges for tests, made of few words.

use s3auditd_rebuild::exchange::{BodyStart, Completion, ConnectionInfo, Exchange};
use s3auditd_rebuild::http::head::{Headers, RequestHead, ResponseHead, Version};
use s3auditd_rebuild::record::{Clock, RecordMaker, RecordSettings};

/// The wall clock of tests: the exchange of [`exchange`] ends at 2025-03-21T06:37:27.915055685Z.
pub(crate) const CLOCK: Clock = Clock { wall_minus_monotonic_ns: 1_742_539_047_000_000_000 };

pub(crate) fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    headers
}

pub(crate) fn request<'a>(
    method: &str,
    target: &str,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> RequestHead {
    RequestHead {
        method: method.as_bytes().to_vec(),
        target: target.as_bytes().to_vec(),
        version: Version::Http11,
        headers: headers(fields),
    }
}

pub(crate) fn response<'a>(status: u16, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> ResponseHead {
    ResponseHead { status, version: Version::Http11, headers: headers(fields) }
}

pub(crate) fn body(text: &str) -> BodyStart {
    BodyStart { bytes: text.as_bytes().to_vec(), whole: true }
}

/// A complete exchange of 10,531,825 ns with bodies as given by the caller.
pub(crate) fn exchange(request: RequestHead, response: ResponseHead) -> Exchange {
    Exchange {
        connection: ConnectionInfo {
            cookie: 4097,
            client: "216.58.114.14:51234".parse().unwrap(),
            announced: None,
            server: "10.26.211.72:9001".parse().unwrap(),
            netns: 4_026_531_840,
            tgid: 2211,
            cgroup_id: 7305,
            comm: "minio".to_owned(),
            preexisting: false,
            tls: None,
        },
        ordinal: 3,
        request: Some(request),
        response: Some(response),
        interim_replies: 0,
        started_ns: 904_500_000,
        head_read_ns: 904_523_860,
        first_byte_ns: Some(915_000_000),
        ended_ns: 915_055_685,
        request_head_bytes: 600,
        request_body_bytes: 0,
        response_head_bytes: 250,
        response_body_bytes: 0,
        request_body: BodyStart { bytes: Vec::new(), whole: true },
        response_body: BodyStart { bytes: Vec::new(), whole: true },
        completion: Completion::Complete,
        unseen: Vec::new(),
        oddities: Vec::new(),
    }
}

pub(crate) fn settings() -> RecordSettings {
    RecordSettings { instance_id: "node-1/boot-1".to_owned(), ..RecordSettings::default() }
}

/// The record as a line of JSON.
pub(crate) fn line(settings: RecordSettings, exchange: &Exchange) -> String {
    let mut maker = RecordMaker::new(settings, 1);
    let record = maker.record(maker.read(exchange), CLOCK);
    let line = String::from_utf8(record.to_json()).unwrap();
    assert!(!line.contains('\n'), "one line: {line}");
    line
}

/// The record, parsed.
pub(crate) fn record(settings: RecordSettings, exchange: &Exchange) -> serde_json::Value {
    serde_json::from_str(&line(settings, exchange)).unwrap()
}
