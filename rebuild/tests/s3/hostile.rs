//! Whatever the bytes are: no panic, one line of valid JSON, of bounded size.

use crate::exchanges::{self, CLOCK, settings};
use proptest::prelude::*;
use s3auditd_rebuild::exchange::{BodyStart, Completion, Exchange};
use s3auditd_rebuild::http::head::{Headers, RequestHead, ResponseHead, Version};
use s3auditd_rebuild::record::{RecordMaker, RecordSettings};
use s3auditd_rebuild::s3::operation::Dialect;

/// What a record can grow to: four maps' and some more texts' worth of characters, each six bytes in JSON at worst.
const MAX_LINE_BYTES: usize = 6 * (3 * 64 * 1024 + 128 * 1024 + 20 * 8 * 1024);

fn words(words: &[&'static [u8]]) -> BoxedStrategy<Vec<u8>> {
    proptest::sample::select(words.to_vec()).prop_map(<[u8]>::to_vec).boxed()
}

/// Bytes that come near to what is looked for.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let word = words(&[
        b"/",
        b"?",
        b"&",
        b"=",
        b"%",
        b"%25",
        b"%3D",
        b"%ff",
        b":",
        b"@",
        b"://",
        b"[",
        b"]",
        b",",
        b";",
        b"\"",
        b"\r\n",
        b"\0",
        b"X-Amz-Signature",
        b"uploadId",
        b"partNumber",
        b"versionId",
        b"acl",
        b"delete",
        b"bucket",
        b"s3.example",
        b"http://",
        b"Action=AssumeRole",
        b"/minio/health/",
        b"AWS4-HMAC-SHA256 ",
        b"Credential=",
        b"AWS ",
        b"Bearer ",
        b"\xe2\x82",
        b"\xff",
    ]);
    let piece = prop_oneof![4 => word, 1 => proptest::collection::vec(any::<u8>(), 0..8)];
    proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

fn markup() -> impl Strategy<Value = Vec<u8>> {
    let word = words(&[
        b"<Error>",
        b"</Error>",
        b"<Code>",
        b"</Code>",
        b"<Delete>",
        b"</Delete>",
        b"<Object>",
        b"</Object>",
        b"<Key>",
        b"</Key>",
        b"<Key/>",
        b"<DeleteResult>",
        b"</DeleteResult>",
        b"&amp;",
        b"&#x41;",
        b"&",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"<?xml ?>",
        b"--x\r\n",
        b"Content-Disposition: form-data; name=\"key\"",
        b"\r\n\r\n",
        b"\r\n--x",
        b"AccessDenied",
        b"\xff",
        b" ",
    ]);
    proptest::collection::vec(word, 0..24).prop_map(|pieces| pieces.concat())
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    words(&[
        b"host",
        b"authorization",
        b"x-amz-copy-source",
        b"content-type",
        b"etag",
        b"x-forwarded-for",
        b"forwarded",
        b"range",
        b"content-range",
        b"content-length",
        b"x-amz-decoded-content-length",
        b"referer",
        b"user-agent",
        b"cookie",
    ])
    .prop_union(wire().boxed())
}

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::vec((name(), wire()), 0..8).prop_map(|fields| {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(&name, &value);
        }
        headers
    })
}

fn method() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![Just("GET"), Just("PUT"), Just("POST"), Just("DELETE"), Just("HEAD"), Just("OPTIONS")];
    prop_oneof![8 => known.prop_map(|method| method.as_bytes().to_vec()), 1 => wire()]
}

prop_compose! {
    fn exchange()(
        method in method(), target in wire(), request_headers in headers(), response_headers in headers(),
        status in 100..1000_u16, request_body in markup(), response_body in markup(), whole in any::<bool>(),
        heads in any::<(bool, bool)>(), times in any::<[u64; 3]>(), bytes in any::<[u64; 4]>(),
    ) -> Exchange {
        let mut exchange = exchanges::exchange(exchanges::request("GET", "/", []), exchanges::response(200, []));
        let version = Version::Http11;
        exchange.request = heads.0.then_some(RequestHead { method, target, version, headers: request_headers });
        exchange.response = heads.1.then_some(ResponseHead { status, version, headers: response_headers });
        exchange.request_body = BodyStart { bytes: request_body, whole };
        exchange.response_body = BodyStart { bytes: response_body, whole };
        [exchange.started_ns, exchange.head_read_ns, exchange.ended_ns] = times;
        [exchange.request_head_bytes, exchange.request_body_bytes, exchange.response_head_bytes, exchange.response_body_bytes] = bytes;
        exchange.completion = if whole { Completion::Complete } else { Completion::Partial };
        exchange
    }
}

fn check(exchange: &Exchange) {
    for dialect in [Dialect::Weka, Dialect::Minio, Dialect::Aws] {
        let settings = RecordSettings { dialect, domains: vec!["s3.example".to_owned()], ..settings() };
        let mut maker = RecordMaker::new(settings, 7);
        let reading = maker.read(exchange);
        let class = reading.class();
        let record = maker.record(reading, CLOCK);
        assert_eq!(record.class(), class);
        let line = record.to_json();
        assert!(line.len() <= MAX_LINE_BYTES, "{} bytes", line.len());
        assert!(line.iter().all(|byte| *byte >= 0x20), "control characters are escaped");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["auditVersion"], "1.weka");
        assert_eq!(value["s3auditd"]["sequence"], 7);
        assert_eq!(value["api"].get("statusCode").is_some(), exchange.response.is_some());
    }
}

proptest! {
    #[test]
    fn any_exchange_is_one_line(exchange in exchange()) {
        check(&exchange);
    }

    /// A maker keeps what it has written.
    #[test]
    fn what_was_written_before_changes_no_record(exchanges in proptest::collection::vec(exchange(), 1..8)) {
        let mut maker = RecordMaker::new(settings(), 0);
        for exchange in exchanges.iter().cycle().take(3 * exchanges.len()) {
            let mut fresh = RecordMaker::new(settings(), maker.next_sequence());
            let reading = fresh.read(exchange);
            let expected = fresh.record(reading, CLOCK).to_json();
            let reading = maker.read(exchange);
            assert_eq!(maker.record(reading, CLOCK).to_json(), expected);
        }
    }
}

/// As much as heads and bodies can hold, of the characters that grow most in JSON.
#[test]
fn floods_are_bounded() {
    for byte in [b'\x01', b'"', b'\xff', b'%', b'a', b'/', b'&', b'='] {
        let flood = vec![byte; 300_000];
        let mut headers = Headers::default();
        for name in
            ["host", "authorization", "range", "x-amz-copy-source", "x-forwarded-for", "user-agent", "content-range"]
        {
            headers.push(name.as_bytes(), &flood);
        }
        headers.push(&flood, b"x");
        let version = Version::Http11;
        let mut exchange = exchanges::exchange(exchanges::request("GET", "/", []), exchanges::response(200, []));
        let target = [b"/b/", flood.as_slice(), b"?versionId=", &flood, b"&uploadId=", &flood].concat();
        exchange.request =
            Some(RequestHead { method: flood.clone(), target: target.clone(), version, headers: headers.clone() });
        exchange.response = Some(ResponseHead { status: 999, version, headers });
        check(&exchange);

        exchange.request = Some(exchanges::request("POST", "/b?delete", []));
        let key = format!("<Object><Key>{}</Key></Object>", String::from_utf8_lossy(&flood[..900])).repeat(1500);
        exchange.request_body = exchanges::body(&format!("<Delete>{key}</Delete>"));
        check(&exchange);
    }
}

#[test]
fn many_parameters_and_many_failures_take_linear_time() {
    let query = "a&".repeat(50_000);
    let mut exchange =
        exchanges::exchange(exchanges::request("GET", &format!("/b?{query}"), []), exchanges::response(200, []));
    check(&exchange);
    exchange.request = Some(exchanges::request("POST", "/b?delete", []));
    let failures = "<Error><Key>k</Key><Code>AccessDenied</Code></Error>".repeat(5000);
    exchange.response_body = exchanges::body(&format!("<DeleteResult>{failures}</DeleteResult>"));
    check(&exchange);
}
