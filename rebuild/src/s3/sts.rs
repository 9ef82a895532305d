//! Calls of the security token service: the action, and the id of the key that was issued. Never the rest.

use super::query::{Query, Target};
use super::xml;
use crate::exchange::BodyStart;
use crate::http::head::RequestHead;

/// The actions that MinIO and AWS know. Only these are ever written down: the form also holds passwords.
const ACTIONS: [&str; 13] = [
    "AssumeRole",
    "AssumeRoleWithCertificate",
    "AssumeRoleWithClientGrants",
    "AssumeRoleWithCustomToken",
    "AssumeRoleWithLDAPIdentity",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "AssumeRoot",
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetCallerIdentity",
    "GetFederationToken",
    "GetSessionToken",
];

/// Whether MinIO's STS router takes the request, which it asks before its S3 router: a POST of a form without a query,
/// or a POST whose query names an action.
#[must_use]
pub fn is_sts(request: &RequestHead, target: &Target<'_>, query: &Query) -> bool {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let form = || {
        let content_type = request.headers.first("content-type").unwrap_or_default();
        content_type.get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
    };
    request.method == b"POST" && ((target.query.is_empty() && form()) || action_in(query).is_some())
}

/// The action, from the query or from the form as far as it was kept.
#[must_use]
pub fn action(query: &Query, body: &BodyStart) -> Option<&'static str> {
    action_in(query).or_else(|| action_in(&Query::parse(&body.bytes)))
}

fn action_in(query: &Query) -> Option<&'static str> {
    let asked = query.first("Action")?;
    ACTIONS.into_iter().find(|action| action.as_bytes() == asked)
}

/// The id of the key that was issued: it links later calls to the one who asked here. Nothing else of the reply, which
/// holds the secret, is read.
#[must_use]
pub fn issued_access_key(body: &BodyStart) -> Option<String> {
    const MAX_BYTES: usize = 128;
    let mut found = None;
    xml::walk(&body.bytes, |path, text| {
        if let [.., "Credentials", "AccessKeyId"] = path {
            let word = text.bytes().all(|byte| byte.is_ascii_graphic());
            found = (word && text.len() <= MAX_BYTES).then(|| text.to_owned());
        }
    });
    found
}
