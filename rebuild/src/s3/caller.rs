//! Who asked: the access key and how it was proven. Never a signature, a token or a secret.
//!
//! Sources: AWS Signature Version 4 and 4A, Signature Version 2 (S3 REST authentication), POST policy (S3 API,
//! "Browser-based uploads").

use super::post_form::PostForm;
use super::query::Query;
use crate::http::head::Headers;
use std::borrow::Cow;

/// Identifiers longer than this are cut: a head is the client's to fill.
const MAX_BYTES: usize = 256;

/// Where the proof of identity stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthType {
    /// The `Authorization` header.
    Header,
    /// The query: a presigned URL.
    Query,
    /// The fields of a browser upload.
    Form,
    /// Nowhere.
    #[default]
    None,
}

impl AuthType {
    /// The word of AWS's own logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "AuthHeader",
            Self::Query => "QueryString",
            Self::Form => "HtmlForm",
            Self::None => "-",
        }
    }
}

/// What kind of proof it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureVersion {
    /// HMAC with a scope.
    SigV4,
    /// ECDSA, for several regions.
    SigV4A,
    /// The old HMAC.
    SigV2,
    /// A bearer token.
    Bearer,
    /// An `Authorization` header of another scheme.
    Other,
    /// None.
    #[default]
    Anonymous,
}

impl SignatureVersion {
    /// The word for it in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SigV4 => "SigV4",
            Self::SigV4A => "SigV4A",
            Self::SigV2 => "SigV2",
            Self::Bearer => "Bearer",
            Self::Other => "other",
            Self::Anonymous => "anonymous",
        }
    }
}

/// When a presigned URL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many seconds after its date (SigV4).
    Seconds(u64),
    /// At this second since 1970 (SigV2).
    At(u64),
}

/// Who asked, as claimed: whether the proof held is the gateway's to say (see the status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller<'a> {
    /// None: anonymous, or malformed beyond reading.
    pub access_key: Option<Cow<'a, str>>,
    /// See [`AuthType`].
    pub auth_type: AuthType,
    /// See [`SignatureVersion`].
    pub signature_version: SignatureVersion,
    /// The region of the scope; for SigV4A the region set.
    pub region: Option<Cow<'a, str>>,
    /// The names of the signed headers, `;` between them.
    pub signed_headers: Option<Cow<'a, str>>,
    /// See [`Expiry`].
    pub expiry: Option<Expiry>,
    /// Header and query (or form) both carry a proof. MinIO refuses that; the header's is given here.
    pub several: bool,
}

impl<'a> Caller<'a> {
    /// Reads the caller of a request; `form` is the browser upload's, when it is one.
    #[must_use]
    pub fn of(headers: &'a Headers, query: &Query, form: Option<&PostForm>) -> Self {
        let header = headers.first("authorization").map(|value| from_header(value, headers));
        let query = from_query(query).map(Caller::into_owned);
        let form = form.and_then(from_form).map(Caller::into_owned);
        let several = [header.is_some(), query.is_some(), form.is_some()].into_iter().filter(|&some| some).count() > 1;
        let caller = header.or(query).or(form).unwrap_or_default();
        Self { several, ..caller }
    }

    /// The token that stands beside the proof: a secret, to be read and dropped. None where there is none, or more than
    /// one that differ.
    #[must_use]
    pub fn session_token<'t>(&self, headers: &'t Headers, query: &'t Query) -> Option<&'t [u8]> {
        if self.signature_version == SignatureVersion::Bearer {
            let (_, token) = super::query::split_at_byte(headers.first("authorization")?, b' ')?;
            return Some(token);
        }
        let mut tokens = headers.all("x-amz-security-token").chain(query.first_ignoring_case("X-Amz-Security-Token"));
        let token = tokens.next()?;
        tokens.all(|other| other == token).then_some(token)
    }

    /// What was read of a query or a form does not live as long as a record.
    fn into_owned(self) -> Caller<'static> {
        let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Caller {
            access_key: owned(self.access_key),
            region: owned(self.region),
            signed_headers: owned(self.signed_headers),
            auth_type: self.auth_type,
            signature_version: self.signature_version,
            expiry: self.expiry,
            several: self.several,
        }
    }
}

fn from_header<'a>(value: &'a [u8], headers: &'a Headers) -> Caller<'a> {
    let header = Caller { auth_type: AuthType::Header, ..Caller::default() };
    let (scheme, rest) = super::query::split_at_byte(value, b' ').unwrap_or((value, b""));
    match scheme {
        b"AWS4-HMAC-SHA256" | b"AWS4-ECDSA-P256-SHA256" => {
            let scope = header_field(rest, b"Credential").and_then(|credential| Scope::parse(credential, scheme));
            let region_set = headers.first("x-amz-region-set");
            Caller { signed_headers: header_field(rest, b"SignedHeaders").map(text), ..header }
                .with_scope(scope, scheme, region_set)
        }
        b"AWS" => {
            let colon = rest.iter().rposition(|&byte| byte == b':');
            let key = colon.and_then(|at| rest.get(..at)).map(|key| text(key.trim_ascii()));
            Caller { access_key: key, signature_version: SignatureVersion::SigV2, ..header }
        }
        _ if scheme.eq_ignore_ascii_case(b"bearer") => Caller { signature_version: SignatureVersion::Bearer, ..header },
        _ => Caller { signature_version: SignatureVersion::Other, ..header },
    }
}

fn from_query(query: &Query) -> Option<Caller<'_>> {
    let caller = Caller { auth_type: AuthType::Query, ..Caller::default() };
    let value = |name| query.first_ignoring_case(name);
    let number = |name| std::str::from_utf8(value(name)?).ok()?.parse::<u64>().ok();
    if value("X-Amz-Credential").is_some() || value("X-Amz-Algorithm").is_some() {
        let scheme = value("X-Amz-Algorithm").unwrap_or(b"AWS4-HMAC-SHA256");
        let scope = value("X-Amz-Credential").and_then(|credential| Scope::parse(credential, scheme));
        let expiry = number("X-Amz-Expires").map(Expiry::Seconds);
        let signed_headers = value("X-Amz-SignedHeaders").map(text);
        let caller = Caller { signed_headers, expiry, ..caller };
        return Some(caller.with_scope(scope, scheme, value("X-Amz-Region-Set")));
    }
    let key = value("AWSAccessKeyId")?;
    let expiry = number("Expires").map(Expiry::At);
    Some(Caller { access_key: Some(text(key)), signature_version: SignatureVersion::SigV2, expiry, ..caller })
}

fn from_form(form: &PostForm) -> Option<Caller<'_>> {
    let caller = Caller { auth_type: AuthType::Form, ..Caller::default() };
    if let Some(credential) = &form.credential {
        let scheme = form.algorithm.as_deref().unwrap_or(b"AWS4-HMAC-SHA256");
        return Some(caller.with_scope(Scope::parse(credential, scheme), scheme, None));
    }
    let key = form.v2_access_key.as_deref()?;
    Some(Caller { access_key: Some(text(key)), signature_version: SignatureVersion::SigV2, ..caller })
}

impl<'a> Caller<'a> {
    fn with_scope(self, scope: Option<Scope<'a>>, scheme: &[u8], region_set: Option<&'a [u8]>) -> Self {
        let asymmetric = scheme == b"AWS4-ECDSA-P256-SHA256";
        let signature_version = if asymmetric { SignatureVersion::SigV4A } else { SignatureVersion::SigV4 };
        let (access_key, region) = scope.map_or((None, None), |scope| (Some(scope.access_key), scope.region));
        let region = if asymmetric { region_set.map(text) } else { region };
        Self { access_key, region, signature_version, ..self }
    }
}

/// A credential with its scope: `KEY/20250321/us-east-1/s3/aws4_request`. The key may hold `/`, so it is what comes
/// before the last four segments; a SigV4A scope has no region, so there it is the last three.
struct Scope<'a> {
    access_key: Cow<'a, str>,
    region: Option<Cow<'a, str>>,
}

impl<'a> Scope<'a> {
    fn parse(credential: &'a [u8], scheme: &[u8]) -> Option<Self> {
        let asymmetric = scheme == b"AWS4-ECDSA-P256-SHA256";
        let mut from_the_end = credential.rsplitn(if asymmetric { 4 } else { 5 }, |&byte| byte == b'/');
        let (_request, _service) = (from_the_end.next()?, from_the_end.next()?);
        let region = if asymmetric { None } else { Some(text(from_the_end.next()?)) };
        let _date = from_the_end.next()?;
        Some(Self { access_key: text(from_the_end.next()?), region })
    }
}

/// A field of a SigV4 header: `Credential=…, SignedHeaders=…, Signature=…`, in any order, spaces or not.
fn header_field<'a>(fields: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = Some(fields);
    while let Some(fields) = rest {
        let (field, after) = match super::query::split_at_byte(fields, b',') {
            Some((field, after)) => (field, Some(after)),
            None => (fields, None),
        };
        if let Some(value) = field.trim_ascii().strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
            return Some(value);
        }
        rest = after;
    }
    None
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    crate::redact::lossy(bytes.get(..MAX_BYTES).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: &str, query: &str) -> Caller<'static> {
        let mut headers = Headers::default();
        if !authorization.is_empty() {
            headers.push(b"authorization", authorization.as_bytes());
        }
        Caller::of(&headers, &Query::parse(query.as_bytes()), None).into_owned()
    }

    #[test]
    fn a_key_may_hold_slashes() {
        let found = caller(
            "AWS4-HMAC-SHA256 SignedHeaders=host;x-amz-date,Credential=a/b/20250321/us-east-1/s3/aws4_request,Signature=00",
            "",
        );
        assert_eq!(found.access_key.as_deref(), Some("a/b"));
        assert_eq!(found.region.as_deref(), Some("us-east-1"));
        assert_eq!(found.signed_headers.as_deref(), Some("host;x-amz-date"));
        assert_eq!((found.auth_type, found.signature_version), (AuthType::Header, SignatureVersion::SigV4));
    }

    #[test]
    fn presigned_urls_of_both_versions() {
        let v4 = caller("", "X-Amz-Credential=AK%2F20250321%2Feu%2Fs3%2Faws4_request&X-Amz-Expires=60");
        assert_eq!((v4.access_key.as_deref(), v4.expiry), (Some("AK"), Some(Expiry::Seconds(60))));
        let v2 = caller("", "AWSAccessKeyId=AK&Expires=1742540000&Signature=x");
        assert_eq!((v2.access_key.as_deref(), v2.expiry), (Some("AK"), Some(Expiry::At(1_742_540_000))));
        assert_eq!((v2.auth_type, v2.signature_version), (AuthType::Query, SignatureVersion::SigV2));
    }

    #[test]
    fn a_malformed_proof_names_nobody() {
        assert_eq!(caller("AWS4-HMAC-SHA256 Credential=wJalrXUtnFEMI", "").access_key, None);
        assert_eq!(caller("AWS AKIA", "").access_key, None);
        assert_eq!(caller("Basic dXNlcjpwdw==", "").signature_version, SignatureVersion::Other);
        assert_eq!(caller("", ""), Caller::default());
    }

    #[test]
    fn two_proofs_at_once_are_flagged() {
        let found = caller("AWS AK:sig", "AWSAccessKeyId=OTHER");
        assert_eq!((found.access_key.as_deref(), found.several), (Some("AK"), true));
    }

    #[test]
    fn sigv4a_has_no_region_in_its_scope() {
        let found = caller("AWS4-ECDSA-P256-SHA256 Credential=AK/20250321/s3/aws4_request, Signature=0", "");
        assert_eq!((found.access_key.as_deref(), found.region), (Some("AK"), None));
        assert_eq!(found.signature_version, SignatureVersion::SigV4A);
    }
}
