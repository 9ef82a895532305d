//! Records as they are written, for people to read. `INSTA_UPDATE=always cargo test -p s3auditd-rebuild` blesses
//! them anew; the diff is to be reviewed.

use crate::exchanges::{body, exchange, record, request, response, settings};
use s3auditd_rebuild::exchange::{Completion, Exchange, UnseenPart};
use s3auditd_rebuild::record::{RecordSettings, WekaInfo};

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20250321/us-east-1/s3/aws4_request, \
                             SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, Signature=5d672d79c15b13162d92";

fn show(name: &str, settings: RecordSettings, exchange: &Exchange) {
    let text = serde_json::to_string_pretty(&record(settings, exchange)).unwrap();
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, text);
    });
}

fn put_object() -> Exchange {
    let request = request(
        "PUT",
        "/phg-sandman/cat-and-dog.jpg",
        [
            ("Host", "s3.weka.example:9000"),
            ("User-Agent", "aws-sdk-go/1.44.235 (go1.18.10; linux; amd64) S3Manager"),
            ("Content-Length", "27"),
            ("Authorization", AUTHORIZATION),
            ("content-type", "image/jpeg"),
            ("X-Amz-Security-Token", "FwoGZXIvYXdzEBYaDH"),
        ],
    );
    let response = response(
        200,
        [
            ("Content-Length", "0"),
            ("ETag", "\"5d64dcd326aa93f6542e27f757ec8146\""),
            ("Server", "S3"),
            ("x-amz-request-id", "1773CE9A70A978BB"),
            ("x-amz-version-id", "e4a1b2"),
        ],
    );
    Exchange { request_body_bytes: 27, ..exchange(request, response) }
}

#[test]
fn put_object_as_weka_writes_it() {
    let weka_info = WekaInfo {
        cluster_guid: "079f7a1f-be3b-44c8-b36f-4484fe1ae4b2".to_owned(),
        cluster_name: "DAD08-B".to_owned(),
        release: "4.4.6.11".to_owned(),
        server_ip: "10.26.211.72".to_owned(),
        server_name: "obj-115-07".to_owned(),
        version: "4.4.6".to_owned(),
    };
    let deployment_id = "079f7a1f-be3b-44c8-b36f-4484fe1ae4b2".to_owned();
    show("put_object", RecordSettings { weka_info, deployment_id, ..settings() }, &put_object());
}

/// The keys of WEKA's documented sample are all there and have its types.
#[test]
fn the_weka_shape_is_kept() {
    let deployment_id = "d".to_owned();
    let weka_info = WekaInfo { release: "4.4.6.11".to_owned(), ..WekaInfo::default() };
    let record = record(RecordSettings { deployment_id, weka_info, ..settings() }, &put_object());
    let keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "api",
            "auditVersion",
            "deploymentid",
            "remotehost",
            "requestHeader",
            "requestID",
            "responseHeader",
            "s3auditd",
            "time",
            "userAgent",
            "wekaInfo"
        ]
    );
    assert_eq!(record["time"], "2025-03-21T06:37:27.915055685Z");
    assert_eq!(record["api"]["timeToResponse"], "10531825ns");
    assert_eq!(record["requestID"], "1773CE9A70A978BB");
    assert_eq!(record["responseHeader"]["ETag"], "5d64dcd326aa93f6542e27f757ec8146");
    assert_eq!(record["requestHeader"].get("Host"), None);
}

#[test]
fn presigned_get_of_a_range_behind_a_proxy() {
    let request = request(
        "GET",
        "/a%2Fb?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20250321%2Feu-west-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20250321T063727Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=00ff&versionId=v7",
        [("host", "data.s3.example"), ("Range", "bytes=0-9"), ("X-Forwarded-For", "9.9.9.9, 203.0.113.7")],
    );
    let response =
        response(206, [("Content-Length", "10"), ("Content-Range", "bytes 0-9/1048576"), ("X-Amz-Request-Id", "17")]);
    let mut exchange = Exchange { response_body_bytes: 10, ..exchange(request, response) };
    exchange.connection.client = "127.0.0.1:40000".parse().unwrap();
    show("presigned_get", RecordSettings { domains: vec!["s3.example".to_owned()], ..settings() }, &exchange);
}

#[test]
fn multi_delete_with_a_key_that_failed() {
    let request = request("POST", "/b/?delete", [("Host", "h"), ("Authorization", AUTHORIZATION)]);
    let mut exchange = exchange(request, response(200, [("X-Amz-Request-Id", "18")]));
    exchange.request_body = body(
        "<?xml version=\"1.0\"?><Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>\
         <Object><Key>a &amp; b</Key></Object><Object><Key>locked</Key><VersionId>v1</VersionId></Object></Delete>",
    );
    exchange.response_body = body(
        "<DeleteResult><Error><Key>locked</Key><VersionId>v1</VersionId><Code>AccessDenied</Code>\
         <Message>No</Message></Error></DeleteResult>",
    );
    show("multi_delete", settings(), &exchange);
}

#[test]
fn a_copy_that_failed_behind_a_status_of_200() {
    let request = request("PUT", "/b/new", [("Host", "h"), ("x-amz-copy-source", "/src/old%20one?versionId=v3")]);
    let mut exchange = exchange(request, response(200, [("X-Amz-Request-Id", "19"), ("X-Amz-Id-2", "host")]));
    exchange.response_body =
        body("<?xml version=\"1.0\"?>\n   <Error><Code>InternalError</Code><Message>m</Message></Error>");
    show("copy_failed", settings(), &exchange);
}

#[test]
fn a_request_without_a_reply() {
    let mut exchange = put_object();
    exchange.response = None;
    exchange.first_byte_ns = None;
    exchange.response_head_bytes = 0;
    exchange.completion = Completion::NoReply;
    show("no_reply", settings(), &exchange);
}

#[test]
fn a_reply_whose_request_was_not_seen() {
    let mut exchange = put_object();
    exchange.request = None;
    exchange.completion = Completion::Partial;
    exchange.unseen = vec![UnseenPart::RequestHead];
    exchange.connection.preexisting = true;
    show("request_unseen", settings(), &exchange);
}

/// A form whose fields were not seen says nothing of who sent it, and not that nobody did.
#[test]
fn a_form_that_was_not_seen_has_no_caller() {
    let fields = [("Content-Type", "multipart/form-data; boundary=b")];
    let mut exchange = exchange(request("POST", "/b", fields), response(204, []));
    exchange.request_body.whole = false;
    let seen_not = record(settings(), &exchange);
    assert_eq!(seen_not["s3auditd"]["operation"], "PostObject");
    assert_eq!(seen_not["s3auditd"].get("authType"), None);
    exchange.request_body.bytes = b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx".to_vec();
    assert_eq!(record(settings(), &exchange)["s3auditd"]["authType"], "-");
}

#[test]
fn outcomes() {
    let judge = |method: &str, target: &str, status: u16, reply: &str, completion: Completion| {
        let fields = [("x-amz-copy-source", "/a/b")];
        let fields = fields.into_iter().filter(|_| target.ends_with("copy"));
        let mut exchange = exchange(request(method, target, fields), response(status, []));
        exchange.response_body = body(reply);
        exchange.completion = completion;
        let record = record(settings(), &exchange);
        let own = &record["s3auditd"];
        format!("{} {}", own["outcome"].as_str().unwrap(), own["s3ErrorCode"].as_str().unwrap_or("-"))
    };
    let complete = Completion::Complete;
    let error = "<Error><Code>NoSuchKey</Code></Error>";
    assert_eq!(judge("GET", "/b/k", 404, error, complete), "failure NoSuchKey");
    assert_eq!(judge("HEAD", "/b/k", 404, error, complete), "failure -");
    assert_eq!(judge("GET", "/b/k", 304, "", complete), "success -");
    assert_eq!(judge("GET", "/b/k", 200, error, complete), "success -");
    assert_eq!(judge("GET", "/b/k", 200, "", Completion::ClientAborted), "unknown -");
    assert_eq!(judge("GET", "/b/k", 200, "", Completion::Partial), "success -");
    assert_eq!(judge("PUT", "/b/copy", 200, error, complete), "failure NoSuchKey");
    assert_eq!(judge("PUT", "/b/copy", 200, "  <CopyObjectResult><ETag>", complete), "success -");
    assert_eq!(judge("PUT", "/b/copy", 200, "\u{1f}\u{8b}", complete), "unknown -");
    assert_eq!(judge("POST", "/b/k?uploadId=u", 200, "   ", complete), "unknown -");
    assert_eq!(judge("POST", "/b?delete", 200, "<DeleteResult/>", complete), "success -");
    assert_eq!(judge("POST", "/b?delete", 200, "<DeleteResult>", complete), "unknown -");
}

#[test]
fn classes_that_are_not_s3() {
    let class = |method: &str, target: &str| {
        let exchange = exchange(request(method, target, []), response(200, []));
        let record = record(settings(), &exchange);
        format!("{} {}", record["s3auditd"]["class"].as_str().unwrap(), record["api"]["name"].as_str().unwrap())
    };
    assert_eq!(class("GET", "/minio/health/live"), "health Health");
    assert_eq!(class("GET", "/wekas3api/health/ready"), "health Health");
    assert_eq!(class("GET", "/minio/v2/metrics/cluster"), "metrics Metrics");
    assert_eq!(class("GET", "/minio/admin/v3/info"), "admin Admin");
    assert_eq!(class("POST", "/minio/storage/v40/readall"), "internode Internode");
    assert_eq!(class("GET", "/minio/"), "console Console");
    assert_eq!(class("GET", "/minio/health/secret.txt"), "s3 GetObject");
    assert_eq!(class("GET", "/minio/health/live?AWSAccessKeyId=a&Signature=b"), "s3 GetObject");
    assert_eq!(class("OPTIONS", "*"), "preflight PreflightRequest");
    assert_eq!(class("OPTIONS", "/b/k"), "preflight PreflightRequest");
    assert_eq!(class("POST", "/?Action=AssumeRoleWithWebIdentity&WebIdentityToken=x"), "sts AssumeRoleWithWebIdentity");
    assert_eq!(class("PATCH", "/b/k"), "s3 Unknown");
    assert_eq!(class("PUT", "/?AWSAccessKeyId=a"), "s3 Unknown");
    assert_eq!(class("PUT", "/"), "unknown Unknown");
    assert_eq!(class("CONNECT", "gw:443"), "unknown Unknown");
    assert_eq!(class("GET", "/miniox/k"), "s3 GetObject");
}
