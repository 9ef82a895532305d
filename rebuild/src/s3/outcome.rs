//! How an operation ended: the status, the S3 error code, and the errors that a status of 200 hides.

use super::xml;
use crate::exchange::{BodyStart, Completion, Exchange, UnseenPart};

/// Whether the operation did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway said so, and nothing that was seen says otherwise.
    Success,
    /// The gateway said that it did not, at least in part.
    Failure,
    /// What was seen does not tell.
    Unknown,
}

impl Outcome {
    /// The word for it in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

/// Operations that AWS documents to answer 200 first and put an `<Error>` into the body later.
const ERROR_MAY_HIDE: [&str; 3] = ["CopyObject", "UploadPartCopy", "CompleteMultipartUpload"];

/// Judges an exchange. `operation` is the AWS name; `deleted_in_full` is what a multi-delete's reply says, if it was
/// one: whether every key went, None when that was not seen; `reply` is the content of the reply's body.
#[must_use]
pub fn judge(
    exchange: &Exchange,
    operation: Option<&str>,
    deleted_in_full: Option<Option<bool>>,
    reply: &BodyStart,
) -> (Outcome, Option<String>) {
    let Some(response) = &exchange.response else {
        return (Outcome::Unknown, None);
    };
    if response.status >= 400 {
        let method = exchange.request.as_ref().map(|request| request.method.as_slice());
        let error = (method != Some(b"HEAD")).then(|| error_code(reply)).flatten();
        return (Outcome::Failure, error);
    }
    if response.status == 200 && operation.is_some_and(|name| ERROR_MAY_HIDE.contains(&name)) {
        let mut code_seen = None;
        let extent = xml::walk(&reply.bytes, |path, text| {
            if let ["Error", "Code"] = path {
                code_seen = code(text);
            }
        });
        return match extent.root.as_deref() {
            Some("Error") => (Outcome::Failure, code_seen),
            // The root is written once the work is done: what comes after it is the result.
            Some(_) => (Outcome::Success, None),
            None => (Outcome::Unknown, None),
        };
    }
    if let Some(in_full) = deleted_in_full {
        return match in_full {
            Some(true) => (Outcome::Success, None),
            Some(false) => (Outcome::Failure, None),
            None => (Outcome::Unknown, None),
        };
    }
    if exchange.request.is_none() && response.status == 200 {
        // It may have been one of those.
        return (Outcome::Unknown, None);
    }
    match exchange.completion {
        Completion::Complete => (Outcome::Success, None),
        // Unseen bodies do not change what the status said.
        Completion::Partial if !exchange.unseen.contains(&UnseenPart::ResponseHead) => (Outcome::Success, None),
        Completion::Partial
        | Completion::ClientAborted
        | Completion::GatewayAborted
        | Completion::NoReply
        | Completion::AgentStopped => (Outcome::Unknown, None),
    }
}

/// The `<Code>` of an error body, and nothing else of it: its free text may repeat what was signed.
fn error_code(body: &BodyStart) -> Option<String> {
    let mut found = None;
    xml::walk(&body.bytes, |path, text| match path {
        // S3's own, and STS's, which wraps it.
        ["Error", "Code"] | ["ErrorResponse", "Error", "Code"] if found.is_none() => found = code(text),
        _ => {}
    });
    found
}

/// A text as an error code: S3's are words of ASCII letters, digits, dots, dashes and underscores. Anything else is no
/// code and is not repeated.
pub(super) fn code(text: &str) -> Option<String> {
    const MAX_BYTES: usize = 64;
    let text = text.trim_ascii();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > MAX_BYTES || !text.as_bytes().iter().all(plain) {
        return None;
    }
    Some(text.to_owned())
}
