//! Every S3 operation as data: what a request must have, and what each dialect calls it.
//!
//! One list serves three routers, because the two MinIO generations keep a common order and AWS has none that is
//! published. A router reads only the rows in which it has a name, from the top; the first that fits wins. The matcher
//! is `operation.rs`; nothing there knows an operation by name, save the few that share a wire form.
//!
//! Sources: the AWS model of botocore 1.44.5 (116 operations); MinIO's `cmd/api-router.go`, at
//! RELEASE.2021-04-22T15-44-28Z for `weka` (the generation WEKA's audit records follow) and at the last public
//! revision for `minio`.
//!
//! Over 300 lines, because a table cut in two is no longer one order.

/// What a request must point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// No bucket.
    Service,
    /// A bucket, with or without a key: MinIO's bucket routes look at no path behind it (`POST /b/k?delete`).
    Bucket,
    /// A bucket and a key.
    Object,
    /// Exactly this path, whatever it would mean as a bucket.
    Path(&'static str),
}

/// What a request must have in its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// The name is there, with any value.
    Has(&'static str),
    /// The first value of the name is this one.
    Is(&'static str, &'static str),
    /// The first value of the name is one or more decimal digits.
    Digits(&'static str),
}

impl Param {
    /// The parameter's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Has(name) | Self::Is(name, _) | Self::Digits(name) => name,
        }
    }
}

/// What a request must have in its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Nothing in particular.
    Any,
    /// `x-amz-copy-source`, with any value; also as a query parameter, where SigV2 presigning moves it.
    CopySource,
    /// A header value of `x-amz-copy-source` with `/` or `%2F` in it: MinIO's `.*?(\/|%2F).*?`.
    CopySourceWithSlash,
    /// The header is there.
    Has(&'static str),
    /// A value of the header has this text in it (MinIO's header expressions are not anchored).
    Contains(&'static str, &'static str),
    /// A value of the header starts with this text.
    Starts(&'static str, &'static str),
    /// The header is a media type, parameters aside.
    MediaType(&'static str),
}

/// What one router does with a request that fits a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It serves it under this name.
    Api(&'static str),
    /// It refuses it without an audit entry of its own; the text says by which route.
    Refused(&'static str),
}

/// One way to ask for one operation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Methods that fit.
    pub methods: &'static [&'static str],
    /// See [`Scope`].
    pub scope: Scope,
    /// All of these must hold.
    pub query: &'static [Param],
    /// See [`Field`].
    pub field: Field,
    /// The AWS name.
    pub aws: Option<Naming>,
    /// MinIO of April 2021, the lineage of WEKA's gateway.
    pub weka: Option<Naming>,
    /// Current MinIO.
    pub minio: Option<Naming>,
}

/// AWS operations that are the same on the wire as another one, which is the name given: (this name, the name given).
pub const TWINS: [(&str, &str); 4] = [
    ("GetBucketLifecycle", "GetBucketLifecycleConfiguration"),
    ("GetBucketNotification", "GetBucketNotificationConfiguration"),
    ("PutBucketLifecycle", "PutBucketLifecycleConfiguration"),
    ("PutBucketNotification", "PutBucketNotificationConfiguration"),
];

const GET: &[&str] = &["GET"];
const HEAD: &[&str] = &["HEAD"];
const PUT: &[&str] = &["PUT"];
const POST: &[&str] = &["POST"];
const DELETE: &[&str] = &["DELETE"];
const PUT_DELETE: &[&str] = &["PUT", "DELETE"];
const GET_PUT_DELETE: &[&str] = &["GET", "PUT", "DELETE"];
const PUT_DELETE_HEAD: &[&str] = &["PUT", "DELETE", "HEAD"];

use Field::{Any, Contains, CopySource, CopySourceWithSlash, MediaType, Starts};
use Param::{Digits, Has, Is};
use Scope::{Bucket, Object, Path, Service};

/// A row of the table. The three names are AWS, WEKA, MinIO: `-` says that the router has no such route, `!why` that
/// it refuses the request.
const fn row(
    methods: &'static [&'static str],
    scope: Scope,
    query: &'static [Param],
    field: Field,
    names: [&'static str; 3],
) -> Row {
    let [aws, weka, minio] = names;
    Row { methods, scope, query, field, aws: naming(aws), weka: naming(weka), minio: naming(minio) }
}

const fn naming(text: &'static str) -> Option<Naming> {
    match text.as_bytes() {
        [b'-'] => None,
        [b'!', ..] => Some(Naming::Refused(text.split_at(1).1)),
        _ => Some(Naming::Api(text)),
    }
}

/// The table, in match order.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // What MinIO of 2021 refuses before anything else.
    row(GET_PUT_DELETE, Bucket, &[Has("inventory")], Any, ["-", "!inventory", "-"]),
    row(PUT_DELETE, Bucket, &[Has("cors")], Any, ["-", "!cors", "-"]),
    row(GET_PUT_DELETE, Bucket, &[Has("metrics")], Any, ["-", "!metrics", "-"]),
    row(PUT, Bucket, &[Has("website")], Any, ["-", "!website", "-"]),
    row(PUT_DELETE, Bucket, &[Has("logging")], Any, ["-", "!logging", "-"]),
    row(PUT_DELETE, Bucket, &[Has("accelerate")], Any, ["-", "!accelerate", "-"]),
    row(PUT_DELETE, Bucket, &[Has("requestPayment")], Any, ["-", "!requestPayment", "-"]),
    row(GET_PUT_DELETE, Object, &[Has("torrent")], Any, ["-", "!torrent", "!torrent"]),
    row(DELETE, Object, &[Has("acl")], Any, ["-", "!acl", "!acl"]),
    row(PUT_DELETE_HEAD, Bucket, &[Has("acl")], Any, ["-", "!acl", "-"]),
    row(GET_PUT_DELETE, Bucket, &[Has("publicAccessBlock")], Any, ["-", "!publicAccessBlock", "-"]),
    row(GET_PUT_DELETE, Bucket, &[Has("ownershipControls")], Any, ["-", "!ownershipControls", "-"]),
    row(GET_PUT_DELETE, Bucket, &[Has("intelligent-tiering")], Any, ["-", "!intelligent-tiering", "-"]),
    row(GET_PUT_DELETE, Bucket, &[Has("analytics")], Any, ["-", "!analytics", "-"]),

    // AWS operations that point at no bucket of their own.
    row(POST, Path("/WriteGetObjectResponse"), &[], Field::Has("x-amz-request-token"), ["WriteGetObjectResponse", "-", "-"]),
    row(GET, Service, &[], Starts("host", "s3express-control"), ["ListDirectoryBuckets", "-", "-"]),

    // Objects: HEAD asks for the object whatever the query says.
    row(HEAD, Object, &[], Any, ["HeadObject", "HeadObject", "HeadObject"]),
    row(GET, Object, &[Has("attributes")], Any, ["GetObjectAttributes", "-", "GetObjectAttributes"]),

    // Objects: multipart uploads. MinIO of 2021 wants a number for a part.
    row(PUT, Object, &[Has("partNumber"), Has("uploadId")], CopySource, ["UploadPartCopy", "-", "-"]),
    row(PUT, Object, &[Has("partNumber"), Has("uploadId")], CopySourceWithSlash, ["-", "-", "CopyObjectPart"]),
    row(PUT, Object, &[Digits("partNumber"), Has("uploadId")], CopySourceWithSlash, ["-", "CopyObjectPart", "-"]),
    row(PUT, Object, &[Has("partNumber"), Has("uploadId")], Any, ["UploadPart", "-", "PutObjectPart"]),
    row(PUT, Object, &[Digits("partNumber"), Has("uploadId")], Any, ["-", "PutObjectPart", "-"]),
    row(GET, Object, &[Has("uploadId")], Any, ["ListParts", "ListObjectParts", "ListObjectParts"]),
    row(POST, Object, &[Has("uploadId")], Any, ["CompleteMultipartUpload", "CompleteMultipartUpload", "CompleteMultipartUpload"]),
    row(POST, Object, &[Has("uploads")], Any, ["CreateMultipartUpload", "NewMultipartUpload", "NewMultipartUpload"]),
    row(DELETE, Object, &[Has("uploadId")], Any, ["AbortMultipartUpload", "AbortMultipartUpload", "AbortMultipartUpload"]),

    // Objects: a copy, for AWS, comes before the sub-resources; for MinIO it comes after two of them.
    row(PUT, Object, &[], CopySource, ["CopyObject", "-", "-"]),

    // Objects: sub-resources.
    row(GET, Object, &[Has("acl")], Any, ["GetObjectAcl", "GetObjectACL", "GetObjectACL"]),
    row(PUT, Object, &[Has("acl")], Any, ["PutObjectAcl", "-", "PutObjectACL"]),
    row(GET, Object, &[Has("tagging")], Any, ["GetObjectTagging", "GetObjectTagging", "GetObjectTagging"]),
    row(PUT, Object, &[Has("tagging")], Any, ["PutObjectTagging", "PutObjectTagging", "PutObjectTagging"]),
    row(DELETE, Object, &[Has("tagging")], Any, ["DeleteObjectTagging", "DeleteObjectTagging", "DeleteObjectTagging"]),
    row(POST, Object, &[Has("select"), Is("select-type", "2")], Any, ["SelectObjectContent", "SelectObject", "SelectObject"]),
    row(GET, Object, &[Has("retention")], Any, ["GetObjectRetention", "GetObjectRetention", "GetObjectRetention"]),
    row(GET, Object, &[Has("legal-hold")], Any, ["GetObjectLegalHold", "GetObjectLegalHold", "GetObjectLegalHold"]),
    row(GET, Object, &[Has("torrent")], Any, ["GetObjectTorrent", "-", "-"]),
    row(GET, Object, &[Has("annotation"), Has("annotationName")], Any, ["GetObjectAnnotation", "-", "-"]),
    row(GET, Object, &[Has("annotation")], Any, ["ListObjectAnnotations", "-", "-"]),
    row(PUT, Object, &[Has("annotation")], Any, ["PutObjectAnnotation", "-", "-"]),
    row(DELETE, Object, &[Has("annotation")], Any, ["DeleteObjectAnnotation", "-", "-"]),
    row(PUT, Object, &[Has("renameObject")], Any, ["RenameObject", "-", "-"]),
    row(PUT, Object, &[Has("encryption")], Any, ["UpdateObjectEncryption", "-", "-"]),
    row(GET, Object, &[Has("lambdaArn")], Any, ["-", "-", "GetObjectLambda"]),
    row(GET, Object, &[], Any, ["GetObject", "GetObject", "GetObject"]),
    row(PUT, Object, &[], CopySourceWithSlash, ["-", "CopyObject", "CopyObject"]),
    row(PUT, Object, &[Has("retention")], Any, ["PutObjectRetention", "PutObjectRetention", "PutObjectRetention"]),
    row(PUT, Object, &[Has("legal-hold")], Any, ["PutObjectLegalHold", "PutObjectLegalHold", "PutObjectLegalHold"]),
    row(PUT, Object, &[], Contains("x-amz-meta-snowball-auto-extract", "true"), ["-", "PutObjectExtract", "PutObjectExtract"]),
    row(PUT, Object, &[], Field::Has("x-amz-write-offset-bytes"), ["-", "-", "!errorResponseHandler"]),
    row(PUT, Object, &[], Any, ["PutObject", "PutObject", "PutObject"]),
    row(DELETE, Object, &[], Any, ["DeleteObject", "DeleteObject", "DeleteObject"]),
    row(POST, Object, &[Has("restore")], Any, ["RestoreObject", "PostRestoreObject", "PostRestoreObject"]),

    // Buckets: sub-resources, in MinIO's order.
    row(GET, Bucket, &[Has("location")], Any, ["GetBucketLocation", "GetBucketLocation", "GetBucketLocation"]),
    row(GET, Bucket, &[Has("policy")], Any, ["GetBucketPolicy", "GetBucketPolicy", "GetBucketPolicy"]),
    row(GET, Bucket, &[Has("lifecycle")], Any, ["GetBucketLifecycleConfiguration", "GetBucketLifecycle", "GetBucketLifecycle"]),
    row(GET, Bucket, &[Has("encryption")], Any, ["GetBucketEncryption", "GetBucketEncryption", "GetBucketEncryption"]),
    row(GET, Bucket, &[Has("object-lock")], Any, ["GetObjectLockConfiguration", "GetBucketObjectLockConfig", "GetBucketObjectLockConfig"]),
    row(GET, Bucket, &[Has("replication")], Any, ["GetBucketReplication", "GetBucketReplicationConfig", "GetBucketReplicationConfig"]),
    row(GET, Bucket, &[Has("versioning")], Any, ["GetBucketVersioning", "GetBucketVersioning", "GetBucketVersioning"]),
    row(GET, Bucket, &[Has("notification")], Any, ["GetBucketNotificationConfiguration", "GetBucketNotification", "GetBucketNotification"]),
    row(GET, Bucket, &[Has("events")], Any, ["-", "ListenNotification", "ListenNotification"]),
    row(GET, Bucket, &[Has("replication-reset-status")], Any, ["-", "-", "ResetBucketReplicationStatus"]),
    row(GET, Bucket, &[Has("acl")], Any, ["GetBucketAcl", "GetBucketACL", "GetBucketACL"]),
    row(PUT, Bucket, &[Has("acl")], Any, ["PutBucketAcl", "-", "PutBucketACL"]),
    row(GET, Bucket, &[Has("cors")], Any, ["GetBucketCors", "GetBucketCors", "GetBucketCors"]),
    row(PUT, Bucket, &[Has("cors")], Any, ["PutBucketCors", "-", "PutBucketCors"]),
    row(DELETE, Bucket, &[Has("cors")], Any, ["DeleteBucketCors", "-", "DeleteBucketCors"]),
    row(GET, Bucket, &[Has("website")], Any, ["GetBucketWebsite", "GetBucketWebsite", "GetBucketWebsite"]),
    row(GET, Bucket, &[Has("accelerate")], Any, ["GetBucketAccelerateConfiguration", "GetBucketAccelerate", "GetBucketAccelerate"]),
    row(GET, Bucket, &[Has("requestPayment")], Any, ["GetBucketRequestPayment", "GetBucketRequestPayment", "GetBucketRequestPayment"]),
    row(GET, Bucket, &[Has("logging")], Any, ["GetBucketLogging", "GetBucketLogging", "GetBucketLogging"]),
    row(GET, Bucket, &[Has("tagging")], Any, ["GetBucketTagging", "GetBucketTagging", "GetBucketTagging"]),
    // MinIO serves this one without an audit entry.
    row(DELETE, Bucket, &[Has("website")], Any, ["DeleteBucketWebsite", "DeleteBucketWebsite", "DeleteBucketWebsite"]),
    row(DELETE, Bucket, &[Has("tagging")], Any, ["DeleteBucketTagging", "DeleteBucketTagging", "DeleteBucketTagging"]),
    row(GET, Bucket, &[Has("uploads")], Any, ["ListMultipartUploads", "ListMultipartUploads", "ListMultipartUploads"]),
    row(GET, Bucket, &[Is("list-type", "2"), Is("metadata", "true")], Any, ["-", "ListObjectsV2M", "ListObjectsV2M"]),
    row(GET, Bucket, &[Is("list-type", "2")], Any, ["ListObjectsV2", "ListObjectsV2", "ListObjectsV2"]),
    row(GET, Bucket, &[Has("versions")], Any, ["ListObjectVersions", "ListObjectVersions", "ListObjectVersions"]),
    row(GET, Bucket, &[Has("policyStatus")], Any, ["GetBucketPolicyStatus", "GetBucketPolicyStatus", "GetBucketPolicyStatus"]),
    row(PUT, Bucket, &[Has("lifecycle")], Any, ["PutBucketLifecycleConfiguration", "PutBucketLifecycle", "PutBucketLifecycle"]),
    row(PUT, Bucket, &[Has("replication")], Any, ["PutBucketReplication", "PutBucketReplicationConfig", "PutBucketReplicationConfig"]),
    row(PUT, Bucket, &[Has("encryption")], Any, ["PutBucketEncryption", "PutBucketEncryption", "PutBucketEncryption"]),
    row(PUT, Bucket, &[Has("policy")], Any, ["PutBucketPolicy", "PutBucketPolicy", "PutBucketPolicy"]),
    row(PUT, Bucket, &[Has("object-lock")], Any, ["PutObjectLockConfiguration", "PutBucketObjectLockConfig", "PutBucketObjectLockConfig"]),
    row(PUT, Bucket, &[Has("tagging")], Any, ["PutBucketTagging", "PutBucketTagging", "PutBucketTagging"]),
    row(PUT, Bucket, &[Has("versioning")], Any, ["PutBucketVersioning", "PutBucketVersioning", "PutBucketVersioning"]),
    row(PUT, Bucket, &[Has("notification")], Any, ["PutBucketNotificationConfiguration", "PutBucketNotification", "PutBucketNotification"]),
    row(PUT, Bucket, &[Has("replication-reset")], Any, ["-", "-", "ResetBucketReplicationStart"]),

    // Buckets: what only AWS has. `id` tells Get from List; where there is no List, a missing `id` changes nothing.
    row(GET, Bucket, &[Has("analytics"), Has("id")], Any, ["GetBucketAnalyticsConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("analytics")], Any, ["ListBucketAnalyticsConfigurations", "-", "-"]),
    row(PUT, Bucket, &[Has("analytics")], Any, ["PutBucketAnalyticsConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("analytics")], Any, ["DeleteBucketAnalyticsConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("intelligent-tiering"), Has("id")], Any, ["GetBucketIntelligentTieringConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("intelligent-tiering")], Any, ["ListBucketIntelligentTieringConfigurations", "-", "-"]),
    row(PUT, Bucket, &[Has("intelligent-tiering")], Any, ["PutBucketIntelligentTieringConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("intelligent-tiering")], Any, ["DeleteBucketIntelligentTieringConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("inventory"), Has("id")], Any, ["GetBucketInventoryConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("inventory")], Any, ["ListBucketInventoryConfigurations", "-", "-"]),
    row(PUT, Bucket, &[Has("inventory")], Any, ["PutBucketInventoryConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("inventory")], Any, ["DeleteBucketInventoryConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("metrics"), Has("id")], Any, ["GetBucketMetricsConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("metrics")], Any, ["ListBucketMetricsConfigurations", "-", "-"]),
    row(PUT, Bucket, &[Has("metrics")], Any, ["PutBucketMetricsConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("metrics")], Any, ["DeleteBucketMetricsConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("abac")], Any, ["GetBucketAbac", "-", "-"]),
    row(PUT, Bucket, &[Has("abac")], Any, ["PutBucketAbac", "-", "-"]),
    row(GET, Bucket, &[Has("ownershipControls")], Any, ["GetBucketOwnershipControls", "-", "-"]),
    row(PUT, Bucket, &[Has("ownershipControls")], Any, ["PutBucketOwnershipControls", "-", "-"]),
    row(DELETE, Bucket, &[Has("ownershipControls")], Any, ["DeleteBucketOwnershipControls", "-", "-"]),
    row(GET, Bucket, &[Has("publicAccessBlock")], Any, ["GetPublicAccessBlock", "-", "-"]),
    row(PUT, Bucket, &[Has("publicAccessBlock")], Any, ["PutPublicAccessBlock", "-", "-"]),
    row(DELETE, Bucket, &[Has("publicAccessBlock")], Any, ["DeletePublicAccessBlock", "-", "-"]),
    row(GET, Bucket, &[Has("metadataConfiguration")], Any, ["GetBucketMetadataConfiguration", "-", "-"]),
    row(POST, Bucket, &[Has("metadataConfiguration")], Any, ["CreateBucketMetadataConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("metadataConfiguration")], Any, ["DeleteBucketMetadataConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("metadataTable")], Any, ["GetBucketMetadataTableConfiguration", "-", "-"]),
    row(POST, Bucket, &[Has("metadataTable")], Any, ["CreateBucketMetadataTableConfiguration", "-", "-"]),
    row(DELETE, Bucket, &[Has("metadataTable")], Any, ["DeleteBucketMetadataTableConfiguration", "-", "-"]),
    row(PUT, Bucket, &[Has("metadataAnnotationTable")], Any, ["UpdateBucketMetadataAnnotationTableConfiguration", "-", "-"]),
    row(PUT, Bucket, &[Has("metadataInventoryTable")], Any, ["UpdateBucketMetadataInventoryTableConfiguration", "-", "-"]),
    row(PUT, Bucket, &[Has("metadataJournalTable")], Any, ["UpdateBucketMetadataJournalTableConfiguration", "-", "-"]),
    row(GET, Bucket, &[Has("session")], Any, ["CreateSession", "-", "-"]),
    row(PUT, Bucket, &[Has("accelerate")], Any, ["PutBucketAccelerateConfiguration", "-", "-"]),
    row(PUT, Bucket, &[Has("logging")], Any, ["PutBucketLogging", "-", "-"]),
    row(PUT, Bucket, &[Has("requestPayment")], Any, ["PutBucketRequestPayment", "-", "-"]),
    row(PUT, Bucket, &[Has("website")], Any, ["PutBucketWebsite", "-", "-"]),

    // Buckets: the method alone, and what MinIO looks at behind it. That it takes `DELETE /b?publicAccessBlock` for
    // DeleteBucket is so in its router.
    row(PUT, Bucket, &[], Any, ["CreateBucket", "PutBucket", "PutBucket"]),
    row(HEAD, Bucket, &[], Any, ["HeadBucket", "HeadBucket", "HeadBucket"]),
    row(POST, Bucket, &[], Contains("content-type", "multipart/form-dat"), ["-", "PostPolicyBucket", "-"]),
    row(POST, Bucket, &[], MediaType("multipart/form-data"), ["PostObject", "-", "PostPolicyBucket"]),
    row(POST, Bucket, &[Has("delete")], Any, ["DeleteObjects", "DeleteMultipleObjects", "DeleteMultipleObjects"]),
    row(DELETE, Bucket, &[Has("policy")], Any, ["DeleteBucketPolicy", "DeleteBucketPolicy", "DeleteBucketPolicy"]),
    row(DELETE, Bucket, &[Has("replication")], Any, ["DeleteBucketReplication", "DeleteBucketReplicationConfig", "DeleteBucketReplicationConfig"]),
    row(DELETE, Bucket, &[Has("lifecycle")], Any, ["DeleteBucketLifecycle", "DeleteBucketLifecycle", "DeleteBucketLifecycle"]),
    row(DELETE, Bucket, &[Has("encryption")], Any, ["DeleteBucketEncryption", "DeleteBucketEncryption", "DeleteBucketEncryption"]),
    row(DELETE, Bucket, &[], Any, ["DeleteBucket", "DeleteBucket", "DeleteBucket"]),
    row(GET, Bucket, &[Is("replication-metrics", "2")], Any, ["-", "-", "GetBucketReplicationMetricsV2"]),
    row(GET, Bucket, &[Has("replication-metrics")], Any, ["-", "GetBucketReplicationMetrics", "GetBucketReplicationMetrics"]),
    row(GET, Bucket, &[Has("replication-check")], Any, ["-", "-", "ValidateBucketReplicationCreds"]),
    // Current MinIO refuses these too, but its routes for PUT, DELETE and HEAD above take the request first.
    row(GET, Bucket, &[Has("inventory")], Any, ["-", "-", "!inventory"]),
    row(GET, Bucket, &[Has("metrics")], Any, ["-", "-", "!metrics"]),
    row(GET, Bucket, &[Has("publicAccessBlock")], Any, ["-", "-", "!publicAccessBlock"]),
    row(GET, Bucket, &[Has("ownershipControls")], Any, ["-", "-", "!ownershipControls"]),
    row(GET, Bucket, &[Has("intelligent-tiering")], Any, ["-", "-", "!intelligent-tiering"]),
    row(GET, Bucket, &[Has("analytics")], Any, ["-", "-", "!analytics"]),
    row(GET, Bucket, &[], Any, ["ListObjects", "ListObjectsV1", "ListObjectsV1"]),

    // The service.
    row(GET, Service, &[Has("events")], Any, ["-", "ListenNotification", "ListenNotification"]),
    row(GET, Service, &[], Any, ["ListBuckets", "ListBuckets", "ListBuckets"]),
];

/// Where in the table the rows are that want no query.
pub const WITHOUT_QUERY: &[usize] = &without_query();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would say so")]
const fn without_query() -> [usize; count_without_query()] {
    let mut places = [0; count_without_query()];
    let (mut at, mut found) = (0, 0);
    while at < TABLE.len() {
        if TABLE[at].query.is_empty() {
            places[found] = at;
            found += 1;
        }
        at += 1;
    }
    places
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would say so")]
const fn count_without_query() -> usize {
    let (mut at, mut count) = (0, 0);
    while at < TABLE.len() {
        if TABLE[at].query.is_empty() {
            count += 1;
        }
        at += 1;
    }
    count
}
