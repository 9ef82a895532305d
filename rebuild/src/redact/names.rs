//! Names whose values are cut, and how most others are told apart from them at little cost.

/// Names whose values are cut, in lower case. One list for headers and parameters, because presigning moves headers
/// into the query.
pub(super) const NAMES: &[&str] = &[
    "access_token",
    "authentication-info",
    "code",
    "cookie",
    "id_token",
    "ldappassword",
    "password",
    "policy",
    "proxy-authenticate",
    "proxy-authentication-info",
    "refresh_token",
    "samlassertion",
    "secret",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
    "set-cookie",
    "set-cookie2",
    "signature",
    "temp_url_sig",
    "token",
    "tokencode",
    "webidentityaccesstoken",
    "webidentitytoken",
    "www-authenticate",
    "x-amz-bucket-object-lock-token",
    "x-amz-client-token",
    "x-amz-mfa",
    "x-amz-request-route",
    "x-amz-request-token",
    "x-amz-s3session-token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-api-key",
    "x-forwarded-client-cert",
    "x-ssl-client-cert",
];

/// Ends of names whose values are cut, in lower case: the customer keys of SSE-C under every prefix (also
/// `x-amz-copy-source-…` and `x-amz-fwd-header-…`), and whatever a proxy made of Authorization and of tokens.
pub(super) const ENDINGS: &[&str] =
    &["-customer-key", "authorization", "-auth-token", "-storage-token", "-vault-token", "-csrf-token"];

/// The first letters of [`NAMES`], by their lengths: most other names are told apart by that.
static LISTED: [u32; LONGEST_NAME + 1] = listed();

const LONGEST_NAME: usize = 32;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would say so")]
const fn listed() -> [u32; LONGEST_NAME + 1] {
    let mut listed = [0; LONGEST_NAME + 1];
    let mut at = 0;
    while at < NAMES.len() {
        let name = NAMES[at].as_bytes();
        listed[name.len()] |= letter(name[0]);
        at += 1;
    }
    listed
}

/// A bit for each letter, upper and lower case the same; bytes that are no letters share theirs.
const fn letter(byte: u8) -> u32 {
    1 << (byte & 0x1f)
}

pub(super) fn may_be_listed(name: &[u8]) -> bool {
    let letters = LISTED.get(name.len()).copied().unwrap_or_default();
    name.first().is_some_and(|first| letters & letter(*first) != 0)
}

/// The last letters of [`ENDINGS`].
pub(super) fn may_end(name: &[u8]) -> bool {
    matches!(name.last(), Some(b'n' | b'N' | b'y' | b'Y'))
}
