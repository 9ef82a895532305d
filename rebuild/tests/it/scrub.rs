//! What a recording keeps of conversations with secrets in every place, however they are cut, and whatever is missing.

use crate::support::{LATER_NS, Owned, samples};
use s3auditd_rebuild::pipeline::{Limits, Moved, Pipeline};
use s3auditd_rebuild::redact::Redaction;
use s3auditd_rebuild::replay::scrub::Scrubber;

const SECRETS: &str = "> GET /b/k?X-Amz-Signature=SECRET&x=1 HTTP/1.1\\r\\nHost: h\\r\\nAuthorization: AWS4-HMAC-SHA256 Credential=AK/1/r/s3/aws4_request,SignedHeaders=host,Signature=SECRET\\r\\nX-Amz-Security-Token: SECRET\\r\\n\\r\\n
< HTTP/1.1 403 No\\r\\nSet-Cookie: SECRET\\r\\nContent-Type: application/xml\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n34;x=SECRET\\r\\n<Error a='SECRET'><Code>C</Code><M>SECRET</M></Error\\r\\n1\\r\\n>\\r\\n0\\r\\nT: SECRET\\r\\n\\r\\n
> POST / HTTP/1.1\\r\\nHost: h\\r\\nContent-Type: application/x-www-form-urlencoded\\r\\nContent-Length: 46\\r\\n\\r\\nAction=AssumeRole&Password=SECRET&Token=SECRET
< HTTP/1.1 200 OK\\r\\nContent-Type: text/xml\\r\\nContent-Length: 65\\r\\n\\r\\n<R><AccessKeyId>AK</AccessKeyId><SecretAccessKey>SECRET</R></R>\\r\\n
> PUT /b/k HTTP/1.1\\r\\nHost: h\\r\\nExpect: 100-continue\\r\\nContent-Length: 30\\r\\n\\r\\n
< HTTP/1.1 100 Continue\\r\\n\\r\\n
> GET /SECRET HTTP/1.1\\r\\nA: b\\r\\n\\r\\n
< HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n
";

/// Everything that would be written down.
fn recorded(samples: &[Owned]) -> Vec<u8> {
    let mut pipeline = Pipeline::new(Limits::default());
    pipeline.follow_moves();
    for sample in samples {
        sample.give(&mut pipeline);
    }
    pipeline.advance(LATER_NS);
    pipeline.finish(LATER_NS);
    let mut scrubber = Scrubber::new(Redaction::default());
    while let Some(moved) = pipeline.next_moved() {
        scrubber.take(moved);
    }
    scrubber.take(Moved::Forgotten { cookie: 1 });
    std::iter::from_fn(|| scrubber.next_sample()).flat_map(|sample| sample.payload).collect()
}

fn assert_clean(bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains("SECRET"), "{what}: {text}");
}

#[test]
fn no_secret_is_kept_however_it_is_cut() {
    let samples = samples(SECRETS);
    let whole = recorded(&samples);
    assert_clean(&whole, "as written");
    let text = String::from_utf8_lossy(&whole).into_owned();
    for kept in ["Credential=AK/1/r", "<Code>C</Code>", "Action=AssumeRole", "<AccessKeyId>AK<", "100 Continue"] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    for (index, sample) in samples.iter().enumerate() {
        for at in 1..sample.payload.len() {
            let mut cut = samples.clone();
            cut.splice(index..=index, sample.cut(at));
            let bytes = recorded(&cut);
            assert_eq!(String::from_utf8_lossy(&bytes), text, "sample {index} cut at {at}");
        }
    }
}

/// A hole anywhere, of any length: less may be kept, never a secret.
#[test]
fn no_secret_is_kept_whatever_is_missing() {
    let samples = samples(SECRETS);
    for (index, sample) in samples.iter().enumerate() {
        let mut rest = samples.clone();
        rest.remove(index);
        assert_clean(&recorded(&rest), "a sample missing");
        for at in 1..sample.payload.len() {
            let [first, second] = sample.cut(at);
            for (piece, side) in [(first, "the end"), (second, "the beginning")] {
                let mut rest = samples.clone();
                rest[index] = piece;
                assert_clean(&recorded(&rest), &format!("{side} of sample {index} missing at {at}"));
            }
        }
    }
}
