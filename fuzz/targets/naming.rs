//! Any head of a request: naming, description, redaction, serialisation. One line is `method target`, the others are
//! `name: value`; a reply's follow an empty line.
#![no_main]
use libfuzzer_sys::fuzz_target;
use s3auditd_rebuild::exchange::{BodyStart, Completion, ConnectionInfo, Exchange};
use s3auditd_rebuild::http::head::{Headers, RequestHead, ResponseHead, Version};

fn headers(lines: &[u8]) -> Headers {
    let mut headers = Headers::default();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        headers.push(parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim_ascii());
    }
    headers
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let (line, rest) = s3auditd_fuzz::split(data, b"\n");
    let (method, target) = s3auditd_fuzz::split(line, b" ");
    let (fields, rest) = s3auditd_fuzz::split(rest, b"\n\n");
    let (reply_fields, rest) = s3auditd_fuzz::split(rest, b"\n\n");
    let (body, reply_body) = s3auditd_fuzz::split(rest, b"\0");
    let request = RequestHead {
        method: method.to_vec(),
        target: target.to_vec(),
        version: Version::Http11,
        headers: headers(fields),
    };
    let status = 100 + u16::from(*choice) * 3;
    let whole = choice & 1 == 0;
    let exchange = Exchange {
        connection: ConnectionInfo {
            cookie: 1,
            client: "127.0.0.1:1".parse().unwrap(),
            announced: None,
            server: "[::1]:9000".parse().unwrap(),
            netns: 1,
            tgid: 1,
            cgroup_id: 1,
            comm: "gw".to_owned(),
            preexisting: false,
            tls: None,
        },
        ordinal: 0,
        request: Some(request),
        response: Some(ResponseHead { status, version: Version::Http11, headers: headers(reply_fields) }),
        interim_replies: 0,
        started_ns: 1,
        head_read_ns: 2,
        first_byte_ns: Some(3),
        ended_ns: 4,
        request_head_bytes: 1,
        request_body_bytes: body.len() as u64,
        response_head_bytes: 1,
        response_body_bytes: reply_body.len() as u64,
        request_body: BodyStart { bytes: body.to_vec(), whole },
        response_body: BodyStart { bytes: reply_body.to_vec(), whole },
        completion: Completion::Complete,
        unseen: Vec::new(),
        oddities: Vec::new(),
    };
    s3auditd_fuzz::record(&mut s3auditd_fuzz::maker(*choice), &exchange);
});
