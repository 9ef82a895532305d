//! What a record says of bodies in a coding, of session tokens, and of requests that only their reply explains.

use crate::exchanges::{body, exchange, record, request, response, settings};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use s3auditd_rebuild::exchange::BodyStart;
use s3auditd_rebuild::record::RecordSettings;
use s3auditd_rebuild::redact::Redaction;
use serde_json::{Value, json};
use std::io::Read as _;

fn gzip(text: &str) -> BodyStart {
    let mut bytes = Vec::new();
    flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::best()).read_to_end(&mut bytes).unwrap();
    BodyStart { bytes, whole: true }
}

const IN_GZIP: [(&str, &str); 1] = [("Content-Encoding", "gzip")];

#[test]
fn errors_in_gzip_are_read() {
    let error = "<Error><Code>NoSuchKey</Code><Message>SECRET</Message></Error>";
    let mut missing = exchange(request("GET", "/b/k", []), response(404, IN_GZIP));
    missing.response_body = gzip(error);
    let found = record(settings(), &missing);
    assert_eq!(
        (&found["s3auditd"]["outcome"], &found["s3auditd"]["s3ErrorCode"]),
        (&json!("failure"), &json!("NoSuchKey"))
    );
    assert!(!found.to_string().contains("SECRET"));

    for operation in [("PUT", "/b/k"), ("POST", "/b/k?uploadId=u")] {
        let copy = request(operation.0, operation.1, [("x-amz-copy-source", "/b/s")]);
        let mut copy = exchange(copy, response(200, IN_GZIP));
        copy.response_body = gzip(&format!("<?xml version=\"1.0\"?>\n  \n{error}"));
        let found = record(settings(), &copy);
        assert_eq!(found["s3auditd"]["outcome"], "failure", "{operation:?}");
        assert_eq!(found["s3auditd"]["s3ErrorCode"], "NoSuchKey");
        copy.response_body = gzip("   <CopyObjectResult/>");
        assert_eq!(record(settings(), &copy)["s3auditd"]["outcome"], "success");
        copy.response = Some(response(200, [("Content-Encoding", "br")]));
        assert_eq!(record(settings(), &copy)["s3auditd"]["outcome"], "unknown");
    }
}

#[test]
fn a_multi_delete_in_gzip_is_listed_and_a_bomb_is_cut() {
    let mut deletes = exchange(request("POST", "/b?delete", IN_GZIP), response(200, IN_GZIP));
    deletes.request_body = gzip("<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>");
    deletes.response_body = gzip("<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>");
    let found = record(settings(), &deletes);
    assert_eq!(found["s3auditd"]["deleteKeys"], json!([{"key": "a"}, {"key": "b", "error": "AccessDenied"}]));
    assert_eq!(found["s3auditd"].get("deleteKeysCut"), None);

    deletes.request_body = gzip(&format!("<Delete>{}<Object><Key>a</Key></Object></Delete>", " ".repeat(32 << 20)));
    let found = record(settings(), &deletes);
    assert_eq!(found["s3auditd"]["deleteKeysCut"], true);
}

const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=TEMP/20250321/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";

fn with_token(status: u16, authorization: &str, payload: &Value) -> (Value, String) {
    let token = format!("eyJhbGciOiJIUzUxMiJ9.{}.c2lnU0VDUkVU", BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()));
    let fields = [("Authorization", authorization), ("X-Amz-Security-Token", token.as_str())];
    (record(settings(), &exchange(request("GET", "/b/k", fields), response(status, []))), token)
}

#[test]
fn the_claims_of_a_session_token_are_in_the_record_and_the_token_is_not() {
    let payload = json!({"accessKey": "TEMP", "parent": "alice", "exp": 1_742_540_000, "sub": "uid=alice",
        "sessionPolicy": "c2VjcmV0", "groups": ["a", "b"], "nonce": "n"});
    let (found, token) = with_token(200, AUTHORIZATION, &payload);
    let claims =
        json!({"accessKey": "TEMP", "parent": "alice", "exp": 1_742_540_000, "sub": "uid=alice", "groups": ["a", "b"]});
    assert_eq!(found["requestClaims"], claims);
    let session = json!({"accessKey": "TEMP", "parent": "alice", "subject": "uid=alice", "expiresAt": 1_742_540_000, "accepted": true});
    assert_eq!(found["s3auditd"]["session"], session);
    for part in token.split('.') {
        assert!(!found.to_string().contains(part));
    }
}

#[test]
fn claims_are_accepted_only_with_the_request_of_their_key() {
    let accepted = |status, authorization, payload: &Value| {
        with_token(status, authorization, payload).0["s3auditd"]["session"]["accepted"].clone()
    };
    let payload = json!({"accessKey": "TEMP", "parent": "root"});
    assert_eq!(accepted(200, AUTHORIZATION, &payload), true);
    assert_eq!(accepted(403, AUTHORIZATION, &payload), false);
    // Nobody checks the token of an anonymous request, or one of somebody else's key.
    assert_eq!(accepted(200, "Basic eDp5", &payload), false);
    assert_eq!(accepted(200, AUTHORIZATION, &json!({"accessKey": "OTHER", "parent": "root"})), false);
    assert_eq!(accepted(200, AUTHORIZATION, &json!({"parent": "root"})), false);
    // Two tokens: nobody can tell which was taken.
    let fields = [("Authorization", AUTHORIZATION), ("X-Amz-Security-Token", "a.e30.c")];
    let two = exchange(request("GET", "/b/k?X-Amz-Security-Token=b.e30.c", fields), response(200, []));
    assert_eq!(record(settings(), &two)["s3auditd"].get("session"), None);
}

fn listed(target: &str, host: &str, domains: &[&str], reply: &str) -> Value {
    let mut listing = exchange(request("GET", target, [("Host", host)]), response(200, []));
    listing.response_body = body(reply);
    let domains = domains.iter().map(|&domain| domain.to_owned()).collect();
    record(RecordSettings { domains, ..settings() }, &listing)
}

#[test]
fn the_reply_tells_which_of_several_subresources_was_served() {
    for (reply, name) in [("<Tagging/>", "GetBucketTagging"), ("<AccessControlPolicy/>", "GetBucketAcl")] {
        let found = listed("/b?tagging&acl", "h", &[], reply);
        assert_eq!(found["s3auditd"]["operation"], name);
        assert_eq!(found["s3auditd"].get("ambiguous"), None);
        // The router's order is known, so its name stays.
        assert_eq!(found["api"]["name"], "GetBucketACL");
    }
    for reply in ["<Other/>", "<Error><Code>AccessDenied</Code></Error>", ""] {
        let found = listed("/b?tagging&acl", "h", &[], reply);
        assert_eq!(found["s3auditd"]["operation"], "GetBucketTagging");
        assert_eq!(found["s3auditd"]["ambiguous"], json!(["several-subresources"]));
    }
}

#[test]
fn the_reply_tells_directory_buckets_from_buckets() {
    let found = listed("/", "h", &[], "<ListAllMyDirectoryBucketsResult/>");
    assert_eq!(found["s3auditd"]["operation"], "ListDirectoryBuckets");
    assert_eq!(listed("/", "h", &[], "<ListAllMyBucketsResult/>")["s3auditd"]["operation"], "ListBuckets");
}

#[test]
fn the_reply_tells_a_virtual_host_that_nobody_configured() {
    let reply = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>data</Name><Prefix/>";
    for domains in [&[][..], &["s3.example"]] {
        let found = listed("/?list-type=2", "data.gw.local:9000", domains, reply);
        assert_eq!(
            (&found["api"]["bucket"], &found["s3auditd"]["operation"]),
            (&json!("data"), &json!("ListObjectsV2"))
        );
        assert_eq!((&found["api"]["name"], found["s3auditd"].get("ambiguous")), (&json!("ListObjectsV2"), None));
    }
    let path_style = listed("/data", "gw.local", &["s3.example"], reply);
    assert_eq!((&path_style["api"]["bucket"], path_style["s3auditd"].get("ambiguous")), (&json!("data"), None));
    let neither = listed("/other", "gw.local", &["s3.example"], reply);
    assert_eq!(
        (&neither["api"]["bucket"], &neither["s3auditd"]["ambiguous"]),
        (&json!("other"), &json!(["unknown-host"]))
    );
    assert_eq!(
        listed("/", "gw.local", &["s3.example"], "<ListAllMyBucketsResult/>")["s3auditd"].get("ambiguous"),
        None
    );
}

#[test]
fn an_allow_list_lets_only_the_named_values_through() {
    let fields = [
        ("Host", "h"),
        ("User-Agent", "SECRET-1"),
        ("Range", "bytes=0-9"),
        ("X-Amz-Meta-Patient", "SECRET-2"),
        ("Authorization", AUTHORIZATION),
        ("Referer", "SECRET-3"),
        ("x-amz-copy-source", "/SECRET-4/k"),
    ];
    let target = "/b/k?versionId=SECRET-5&uploadId=SECRET-6&list-type=2&prefix=SECRET-7&partNumber=77";
    let reply = [
        ("X-Amz-Request-Id", "17"),
        ("X-Amz-Id-2", "SECRET-8"),
        ("Content-Range", "bytes SECRET-9"),
        ("x-amz-version-id", "SECRET-10"),
    ];
    let exchange = exchange(request("PUT", target, fields), response(206, reply));
    let kept = ["range", "AUTHORIZATION", "x-amz-request-id", "list-type"].map(str::to_owned).to_vec();
    let redaction = Redaction { extra_names: Vec::new(), only_names: Some(kept) };
    let found = record(RecordSettings { redaction, ..settings() }, &exchange);
    assert!(!found.to_string().contains("SECRET"), "{found}");
    assert_eq!(found["requestHeader"]["Range"], "bytes=0-9");
    assert_eq!(
        found["requestQuery"],
        json!({"versionId": "*REDACTED*", "uploadId": "*REDACTED*", "list-type": "2", "prefix": "*REDACTED*", "partNumber": "*REDACTED*"})
    );
    assert_eq!((&found["requestID"], &found["userAgent"]), (&json!("17"), &json!("*REDACTED*")));
    assert_eq!((&found["api"]["bucket"], &found["api"]["object"]), (&json!("b"), &json!("k")));
    assert_eq!(found["s3auditd"]["accessKey"], "TEMP");
    assert_eq!((found["s3auditd"].get("partNumber"), found["s3auditd"].get("copySource")), (None, None));
}

/// The size that was written or read, and the ranges asked and served.
#[test]
fn sizes_and_ranges() {
    let size = |method: &str, target: &str, asked: &[(&str, &str)], status: u16, answered: &[(&str, &str)]| {
        let found = record(
            settings(),
            &exchange(request(method, target, asked.iter().copied()), response(status, answered.iter().copied())),
        );
        let own = &found["s3auditd"];
        (
            own["objectSize"].as_u64(),
            own["range"].as_str().map(str::to_owned),
            own["contentRange"].as_str().map(str::to_owned),
        )
    };
    let none = (None, None, None);
    let streaming = ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    assert_eq!(size("PUT", "/b/k", &[("Content-Length", "7")], 200, &[]).0, Some(7));
    assert_eq!(
        size("PUT", "/b/k", &[("Content-Length", "90"), streaming, ("x-amz-decoded-content-length", "7")], 200, &[]).0,
        Some(7)
    );
    assert_eq!(size("PUT", "/b/k", &[("Content-Length", "90"), streaming], 200, &[]), none);
    assert_eq!(size("PUT", "/b/k", &[("Content-Length", "7")], 403, &[]), none);
    assert_eq!(size("PUT", "/b/k?acl", &[("Content-Length", "7")], 200, &[]), none);
    assert_eq!(size("PUT", "/b/k?partNumber=1&uploadId=u", &[("Content-Length", "7")], 200, &[]).0, Some(7));
    assert_eq!(size("HEAD", "/b/k", &[], 200, &[("Content-Length", "9")]).0, Some(9));
    assert_eq!(size("GET", "/b/k", &[], 304, &[("Content-Length", "9")]), none);
    let served = ("Content-Range", "bytes 0-9/100");
    let whole = (Some(100), Some("bytes=0-9".to_owned()), Some("bytes 0-9/100".to_owned()));
    assert_eq!(size("GET", "/b/k", &[("Range", "bytes=0-9")], 206, &[served, ("Content-Length", "10")]), whole);
    assert_eq!(size("GET", "/b/k", &[("Range", "bytes=0-9")], 206, &[("Content-Length", "10")]).0, None);
    assert_eq!(size("GET", "/b/k", &[], 206, &[("Content-Range", "bytes 0-9/*")]).0, None);
}
