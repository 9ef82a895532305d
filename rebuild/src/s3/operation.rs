//! Which operation a request asked for: first what is not S3 at all, then the first row of the table that fits.

use super::address::{Address, HostCase};
use super::query::{Query, Target};
use super::sts;
use super::table::{Field, Naming, Param, Row, Scope, TABLE, WITHOUT_QUERY};
use crate::http::head::{Headers, RequestHead};
use std::fmt;
use std::str::FromStr;

/// Whose names `api.name` speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// WEKA's: those of MinIO in April 2021.
    #[default]
    Weka,
    /// Current MinIO's.
    Minio,
    /// Those of the AWS model.
    Aws,
}

/// A name that is no [`Dialect`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect {0:?}: expected weka, minio or aws")]
pub struct UnknownDialect(pub String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "weka" => Ok(Self::Weka),
            "minio" => Ok(Self::Minio),
            "aws" => Ok(Self::Aws),
            _ => Err(UnknownDialect(text.to_owned())),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Weka => "weka",
            Self::Minio => "minio",
            Self::Aws => "aws",
        })
    }
}

/// What kind of request it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An S3 operation, or a request meant for S3 that no router knows (no [`Operation::aws`] then).
    S3,
    /// A call of the security token service.
    Sts,
    /// A liveness or readiness probe.
    Health,
    /// A scrape of metrics.
    Metrics,
    /// The gateway's administration, its key management included.
    Admin,
    /// The gateway's own web pages.
    Console,
    /// The gateway's nodes among themselves.
    Internode,
    /// OPTIONS: what a browser asks before it asks.
    Preflight,
    /// None of these, or the request's head was not seen.
    Unknown,
}

/// A word that is no [`Class`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown class of requests {0:?}")]
pub struct UnknownClass(pub String);

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|class| class.name() == text);
        named.ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::S3,
        Self::Sts,
        Self::Health,
        Self::Metrics,
        Self::Admin,
        Self::Console,
        Self::Internode,
        Self::Preflight,
        Self::Unknown,
    ];

    /// The word for it in a record and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Sts => "sts",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
            Self::Console => "console",
            Self::Internode => "internode",
            Self::Preflight => "preflight",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a reading is one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ambiguity {
    /// The query names several sub-resources. AWS: the one named first is taken; MinIO: the first of its router.
    SeveralSubresources,
    /// The host fits a domain only when case is ignored, and MinIO's router does not ignore it.
    HostCase,
    /// Domains are configured and the host fits none: path style was taken.
    UnknownHost,
    /// The copy source is a query parameter, which AWS reads and MinIO does not.
    CopySourceInQuery,
    /// An STS form on a path that is not `/`: MinIO's router takes it for STS, others may not.
    StsOnPath,
    /// A path below a reserved prefix that is no known route, or a signed request where the gateway expects none: a
    /// page of MinIO, or a bucket of that name elsewhere.
    ReservedPrefix,
    /// Several ways of authentication at once; the header's was taken.
    SeveralCredentials,
}

impl Ambiguity {
    /// The word for it in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SeveralSubresources => "several-subresources",
            Self::HostCase => "host-case",
            Self::UnknownHost => "unknown-host",
            Self::CopySourceInQuery => "copy-source-in-query",
            Self::StsOnPath => "sts-on-path",
            Self::ReservedPrefix => "reserved-prefix",
            Self::SeveralCredentials => "several-credentials",
        }
    }
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// See [`Class`].
    pub class: Class,
    /// The AWS name; None where AWS has no such operation.
    pub aws: Option<&'static str>,
    /// What the dialect's own router does with it; None where it has no route. For `aws` that is the AWS name again.
    pub routed: Option<Naming>,
    /// Other AWS operations that it may be: those of the other sub-resources, where the query names several.
    pub others: Vec<&'static str>,
    /// Sorted, no repeats.
    pub ambiguities: Vec<Ambiguity>,
}

/// How requests are to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// See [`Dialect`].
    pub dialect: Dialect,
    /// Domains of virtual-host style, see [`Address::of`].
    pub domains: &'a [String],
    /// Path prefixes the gateway keeps for itself, with both slashes.
    pub reserved_prefixes: &'a [String],
}

impl Operation {
    /// Reads a request. `target`, `query` and `address` are of the same request and were made with the same domains.
    #[must_use]
    pub fn of(
        request: &RequestHead,
        target: &Target<'_>,
        query: &Query,
        address: &Address,
        reading: Reading<'_>,
    ) -> Self {
        let mut ambiguities = Vec::new();
        if address.unknown_host {
            ambiguities.push(Ambiguity::UnknownHost);
        }
        if request.method == b"OPTIONS" {
            return Self {
                class: Class::Preflight,
                aws: Some("PreflightRequest"),
                routed: None,
                others: Vec::new(),
                ambiguities,
            };
        }
        match reserved(target.path, reading.reserved_prefixes) {
            // Administration is signed as S3 requests are; nothing else there is.
            Reserved::For(class) if class == Class::Admin || !is_signed(&request.headers, query) => {
                return Self { class, aws: None, routed: None, others: Vec::new(), ambiguities };
            }
            Reserved::For(_) | Reserved::ForNothingKnown => ambiguities.push(Ambiguity::ReservedPrefix),
            Reserved::No => {}
        }
        if sts::is_sts(request, target, query) {
            if !matches!(target.path, b"/" | b"") {
                ambiguities.push(Ambiguity::StsOnPath);
            }
            return Self { class: Class::Sts, aws: None, routed: None, others: Vec::new(), ambiguities };
        }
        let asked = Asked { method: &request.method, path: target.path, query, headers: &request.headers };
        let (aws, others) = asked.aws_name(Pointing::of(address));
        if !others.is_empty() {
            ambiguities.push(Ambiguity::SeveralSubresources);
        }
        if query.first_ignoring_case("x-amz-copy-source").is_some()
            && request.headers.first("x-amz-copy-source").is_none()
            && matches!(aws, Some("CopyObject" | "UploadPartCopy"))
        {
            ambiguities.push(Ambiguity::CopySourceInQuery);
        }
        let routed = match reading.dialect {
            Dialect::Aws => aws.map(Naming::Api),
            Dialect::Weka | Dialect::Minio => {
                // Without domains the host says nothing, in whatever case.
                let exact = (!reading.domains.is_empty())
                    .then(|| Address::of(target, &request.headers, reading.domains, HostCase::Exact));
                let exact = exact.as_ref().unwrap_or(address);
                if exact.style != address.style {
                    ambiguities.push(Ambiguity::HostCase);
                }
                asked.first_row(Pointing::of(exact), reading.dialect)
            }
        };
        ambiguities.sort_unstable();
        // What is signed, or points at a bucket, was meant for S3, whether a router knows it or not.
        let meant = !address.bucket.is_empty() || is_signed(&request.headers, query);
        let class = if aws.is_some() || routed.is_some() || meant { Class::S3 } else { Class::Unknown };
        Self { class, aws, routed, others, ambiguities }
    }

    /// Whether it only reads, by what AWS documents for it.
    #[must_use]
    pub fn is_read_only(&self, method: &[u8]) -> bool {
        matches!(method, b"GET" | b"HEAD" | b"OPTIONS") || self.aws == Some("SelectObjectContent")
    }
}

/// What the gateway keeps a path for.
enum Reserved {
    For(Class),
    ForNothingKnown,
    No,
}

/// The paths that MinIO and WEKA keep for themselves. They are narrow on purpose: these classes can be switched off, and
/// elsewhere such a path may be an object in a bucket of that name. The old console's own ways to objects (`upload/`,
/// `download/`, `zip`, `webrpc`) are left out, so that they are recorded.
fn reserved(path: &[u8], prefixes: &[String]) -> Reserved {
    const EXACT: [(&str, Class); 11] = [
        ("", Class::Console),
        ("login", Class::Console),
        ("health/live", Class::Health),
        ("health/ready", Class::Health),
        ("health/cluster", Class::Health),
        ("health/cluster/read", Class::Health),
        ("prometheus/metrics", Class::Metrics),
        ("v2/metrics/cluster", Class::Metrics),
        ("v2/metrics/bucket", Class::Metrics),
        ("v2/metrics/node", Class::Metrics),
        ("v2/metrics/resource", Class::Metrics),
    ];
    const BELOW: [(&str, Class); 8] = [
        ("metrics/v3", Class::Metrics),
        ("admin/", Class::Admin),
        ("kms/", Class::Admin),
        ("storage/", Class::Internode),
        ("peer/", Class::Internode),
        ("lock/", Class::Internode),
        ("grid/", Class::Internode),
        ("bootstrap/", Class::Internode),
    ];
    let below = prefixes.iter().find_map(|prefix| {
        let rest = path.strip_prefix(prefix.as_bytes());
        rest.or_else(|| (prefix.strip_suffix('/')?.as_bytes() == path).then_some(&b""[..]))
    });
    let Some(rest) = below else { return Reserved::No };
    let exact = EXACT.iter().find(|(route, _)| rest == route.as_bytes());
    let known = exact.or_else(|| BELOW.iter().find(|(route, _)| rest.starts_with(route.as_bytes())));
    known.map_or(Reserved::ForNothingKnown, |(_, class)| Reserved::For(*class))
}

/// Whether a request is signed as S3 requests are. Probes, scrapes, pages and nodes never are: with such a proof, a
/// path below a reserved prefix is an object of a bucket of that name, and must not pass for a probe.
fn is_signed(headers: &Headers, query: &Query) -> bool {
    headers.all("authorization").any(|value| value.starts_with(b"AWS"))
        || ["X-Amz-Credential", "AWSAccessKeyId"].into_iter().any(|name| query.first_ignoring_case(name).is_some())
}

/// What an address points at, as routers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointing {
    Service,
    Bucket,
    Object,
}

impl Pointing {
    fn of(address: &Address) -> Self {
        match (address.bucket.is_empty(), address.key.is_empty()) {
            (true, _) => Self::Service,
            (false, true) => Self::Bucket,
            (false, false) => Self::Object,
        }
    }
}

struct Asked<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: &'a Query,
    headers: &'a Headers,
}

impl Asked<'_> {
    fn first_row(&self, pointing: Pointing, dialect: Dialect) -> Option<Naming> {
        let name = |row: &Row| match dialect {
            Dialect::Weka => row.weka,
            Dialect::Minio => row.minio,
            Dialect::Aws => row.aws,
        };
        self.rows().find(|row| name(row).is_some() && self.fits(row, pointing)).and_then(name)
    }

    /// The AWS name, and those of the other sub-resources that the query names. AWS publishes no order among these, so
    /// the one that stands first in the query is taken.
    fn aws_name(&self, pointing: Pointing) -> (Option<&'static str>, Vec<&'static str>) {
        let mut fitting = self.rows().filter(|row| row.aws.is_some() && self.fits(row, pointing));
        let Some(first) = fitting.next() else {
            return (None, Vec::new());
        };
        if !is_subresource(first) {
            return (api(first.aws), Vec::new());
        }
        let place = |row: &Row| row.query.first().and_then(|param| self.query.position(param.name()));
        let first_place = place(first);
        let mut chosen = (first_place, first);
        // The first row of each place.
        let mut places = vec![chosen];
        for row in fitting.filter(|row| is_subresource(row)) {
            let at = place(row);
            if places.iter().all(|(place, _)| *place != at) {
                places.push((at, row));
            }
            if at < chosen.0 {
                chosen = (at, row);
            }
        }
        let others = places.into_iter().filter(|(place, _)| *place != chosen.0);
        (api(chosen.1.aws), others.filter_map(|(_, row)| api(row.aws)).collect())
    }

    /// The rows that may fit. Most want a query, and most requests have none.
    fn rows(&self) -> impl Iterator<Item = &'static Row> + use<> {
        let (few, all) = if self.query.is_empty() { (WITHOUT_QUERY, &[][..]) } else { (&[][..], TABLE) };
        few.iter().filter_map(|&at| TABLE.get(at)).chain(all)
    }

    fn fits(&self, row: &Row, pointing: Pointing) -> bool {
        row.methods.iter().any(|method| method.as_bytes() == self.method)
            && self.in_scope(row.scope, pointing)
            && row.query.iter().all(|&param| self.has_param(param))
            && self.has_field(row.field)
    }

    fn in_scope(&self, scope: Scope, pointing: Pointing) -> bool {
        match scope {
            // `GET //` lists the buckets too (S3 Browser; MinIO has a route for it); `//key` is nothing.
            Scope::Service => pointing == Pointing::Service && matches!(self.path, b"" | b"/" | b"//"),
            Scope::Bucket => matches!(pointing, Pointing::Bucket | Pointing::Object),
            Scope::Object => pointing == Pointing::Object,
            Scope::Path(path) => self.path == path.as_bytes(),
        }
    }

    fn has_param(&self, param: Param) -> bool {
        let value = self.query.first(param.name());
        match param {
            Param::Has(_) => value.is_some(),
            Param::Is(_, wanted) => value == Some(wanted.as_bytes()),
            Param::Digits(_) => value.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)),
        }
    }

    fn has_field(&self, field: Field) -> bool {
        match field {
            Field::Any => true,
            Field::CopySource => {
                self.headers.first("x-amz-copy-source").is_some()
                    || self.query.first_ignoring_case("x-amz-copy-source").is_some()
            }
            Field::CopySourceWithSlash => self
                .headers
                .all("x-amz-copy-source")
                .any(|value| value.contains(&b'/') || memchr::memmem::find(value, b"%2F").is_some()),
            Field::Has(name) => self.headers.first(name).is_some(),
            Field::Contains(name, text) => {
                self.headers.all(name).any(|value| memchr::memmem::find(value, text.as_bytes()).is_some())
            }
            Field::Starts(name, text) => self.headers.all(name).any(|value| value.starts_with(text.as_bytes())),
            Field::MediaType(wanted) => self.headers.first("content-type").is_some_and(|value| {
                let media_type = value.split(|&byte| byte == b';').next().unwrap_or(value);
                media_type.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
            }),
        }
    }
}

/// Rows that a sub-resource in the query decides: all with a query, save the `uploadId` family, which comes first.
fn is_subresource(row: &Row) -> bool {
    !row.query.is_empty() && !row.query.iter().any(|param| param.name() == "uploadId")
}

fn api(naming: Option<Naming>) -> Option<&'static str> {
    match naming {
        Some(Naming::Api(name)) => Some(name),
        Some(Naming::Refused(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values_agree() {
        for class in Class::ALL {
            assert_eq!(class.name().parse(), Ok(class));
        }
        for dialect in [Dialect::Weka, Dialect::Minio, Dialect::Aws] {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert_eq!("S4".parse::<Class>(), Err(UnknownClass("S4".to_owned())));
    }
}
