//! Single facts of a record: words for enums, the copy source in parts, the size of the object.

use crate::exchange::{Completion, Exchange, Oddity, UnseenPart};
use crate::redact::Redaction;
use percent_encoding::percent_decode;
use std::borrow::Cow;

pub(super) fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Complete => "complete",
        Completion::ClientAborted => "client-aborted",
        Completion::GatewayAborted => "gateway-aborted",
        Completion::NoReply => "no-reply",
        Completion::AgentStopped => "agent-stopped",
        Completion::Partial => "partial",
    }
}

pub(super) fn unseen(part: UnseenPart) -> &'static str {
    match part {
        UnseenPart::RequestHead => "request-head",
        UnseenPart::RequestBody => "request-body",
        UnseenPart::ResponseHead => "response-head",
        UnseenPart::ResponseBody => "response-body",
    }
}

pub(super) fn oddity(oddity: Oddity) -> &'static str {
    match oddity {
        Oddity::BothLengths => "both-lengths",
        Oddity::ReplyBothLengths => "reply-both-lengths",
        Oddity::BadLength => "bad-length",
        Oddity::BareLf => "bare-lf",
        Oddity::ObsFold => "obs-fold",
        Oddity::LenientHead => "lenient-head",
        Oddity::InferredFraming => "inferred-framing",
        Oddity::EarlyReply => "early-reply",
        Oddity::Upgraded => "upgraded",
    }
}

/// What `x-amz-copy-source` points at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) bucket: String,
    pub(super) key: Option<String>,
    pub(super) version_id: Option<String>,
}

/// Reads `[/]bucket/key[?versionId=id]`, percent-encoded or not, the slash between bucket and key too (S3 API,
/// CopyObject). An access point's ARN stays whole in front of `/object/`. Redacted before it is taken apart: a URI's
/// user information is none any more once the slashes in front of it are gone.
pub(super) fn copy_source(value: &[u8], redaction: &Redaction) -> Option<Source> {
    const VERSION: &[u8] = b"?versionId=";
    let (path, version) = match memchr::memmem::rfind(value, VERSION) {
        Some(at) => (value.get(..at)?, value.get(at + VERSION.len()..)),
        None => (value, None),
    };
    let decode = |bytes: &[u8]| percent_decode(bytes).collect::<Vec<u8>>();
    let decoded = redaction.path(&decode(path));
    let path = decoded.strip_prefix('/').unwrap_or(&decoded);
    let cut = if path.starts_with("arn:") { path.split_once("/object/") } else { path.split_once('/') };
    let (bucket, key) = cut.map_or((path, None), |(bucket, key)| (bucket, Some(key)));
    if bucket.is_empty() {
        return None;
    }
    let version_id = version.filter(|id| !id.is_empty()).map(|id| redaction.text(&decode(id)));
    Some(Source { bucket: bucket.to_owned(), key: key.map(str::to_owned), version_id })
}

/// A text that is not needed any more, as it may be written down.
pub(super) fn clean(text: String, redacted: impl Fn(&[u8]) -> Cow<'_, str>) -> String {
    if let Cow::Owned(cut) = redacted(text.as_bytes()) {
        return cut;
    }
    text
}

/// An object's key as it may be written down. Behind a bucket such as `https:` it may be the rest of a URI.
pub(super) fn key(bucket: &str, key: String, redaction: &Redaction) -> String {
    if bucket.ends_with(':') {
        let before = format!("{bucket}/");
        let whole = redaction.path(format!("{before}{key}").as_bytes());
        if let Some(key) = whole.strip_prefix(&before) {
            return key.to_owned();
        }
    }
    clean(key, |text| redaction.clean_path(text))
}

/// The size of the object that an operation wrote or read, from what both heads say. Only of an operation that the
/// gateway granted; a part's size for the operations on parts.
pub(super) fn object_size(exchange: &Exchange, operation: &str) -> Option<u64> {
    let (request, response) = (exchange.request.as_ref()?, exchange.response.as_ref()?);
    if !matches!(response.status, 200..=299) {
        return None;
    }
    match operation {
        "PutObject" | "UploadPart" => {
            let header = |name| request.headers.first(name);
            let coded = header("x-amz-content-sha256").is_some_and(|hash| hash.starts_with(b"STREAMING-"));
            match header("x-amz-decoded-content-length") {
                Some(length) => number(length),
                None if coded => None,
                None => header("content-length").and_then(number),
            }
        }
        "CompleteMultipartUpload" => request.headers.first("x-amz-mp-object-size").and_then(number),
        "GetObject" | "HeadObject" => {
            if let Some(range) = response.headers.first("content-range") {
                let total = range.rsplit(|&byte| byte == b'/').next()?;
                return number(total);
            }
            let length = (response.status == 200).then(|| response.headers.first("content-length")).flatten();
            length.and_then(number)
        }
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_behind_a_scheme_lose_user_information() {
        let redaction = Redaction::default();
        assert_eq!(key("https:", "/user:pw@host/k".to_owned(), &redaction), "/*REDACTED*@host/k");
        assert_eq!(key("b", "/user:name@host/k".to_owned(), &redaction), "/user:name@host/k");
    }

    #[test]
    fn copy_sources() {
        let read = |value: &str| {
            let source = copy_source(value.as_bytes(), &Redaction::default())?;
            Some((source.bucket, source.key.unwrap_or_default(), source.version_id.unwrap_or_default()))
        };
        let parts = |bucket: &str, key: &str, id: &str| Some((bucket.to_owned(), key.to_owned(), id.to_owned()));
        assert_eq!(read("/b/a/k"), parts("b", "a/k", ""));
        assert_eq!(read("b%2Fk%3Fx?versionId=v1"), parts("b", "k?x", "v1"));
        assert_eq!(read("nosep"), parts("nosep", "", ""));
        assert_eq!(
            read("arn:aws:s3:eu:1:accesspoint/ap/object/a/k"),
            parts("arn:aws:s3:eu:1:accesspoint/ap", "a/k", "")
        );
        assert_eq!(read("/"), None);
        assert_eq!(read("b?Signature=abc"), parts("b?Signature=*REDACTED*", "", ""));
        for uri in ["https://user:pw@host/b/k", "https%3A%2F%2Fuser:pw@host/b/k"] {
            assert_eq!(read(uri), parts("https:", "/*REDACTED*@host/b/k", ""));
        }
    }
}
