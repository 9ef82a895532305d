//! What a reply says about the operation it answers: the outermost element of its XML body belongs to one operation or
//! a few, and some name the bucket.

use super::xml;
use crate::exchange::BodyStart;

/// Outermost elements of replies, and the operations that answer with them. Source: the AWS model's output shapes
/// (`locationName` of the payload, else the name of the shape), S3 API 2006-03-01.
const ROOTS: &[(&str, &[&str])] = &[
    ("AccelerateConfiguration", &["GetBucketAccelerateConfiguration"]),
    ("AccessControlPolicy", &["GetBucketAcl", "GetObjectAcl"]),
    ("AnalyticsConfiguration", &["GetBucketAnalyticsConfiguration"]),
    ("BucketLoggingStatus", &["GetBucketLogging"]),
    ("CORSConfiguration", &["GetBucketCors"]),
    ("CompleteMultipartUploadResult", &["CompleteMultipartUpload"]),
    ("CopyObjectResult", &["CopyObject"]),
    ("CopyPartResult", &["UploadPartCopy"]),
    ("CreateSessionResult", &["CreateSession"]),
    ("DeleteResult", &["DeleteObjects"]),
    ("GetObjectAttributesResponse", &["GetObjectAttributes"]),
    ("InitiateMultipartUploadResult", &["CreateMultipartUpload"]),
    ("IntelligentTieringConfiguration", &["GetBucketIntelligentTieringConfiguration"]),
    ("InventoryConfiguration", &["GetBucketInventoryConfiguration"]),
    ("LegalHold", &["GetObjectLegalHold"]),
    ("LifecycleConfiguration", &["GetBucketLifecycleConfiguration"]),
    ("ListAllMyBucketsResult", &["ListBuckets"]),
    ("ListAllMyDirectoryBucketsResult", &["ListDirectoryBuckets"]),
    ("ListBucketAnalyticsConfigurationResult", &["ListBucketAnalyticsConfigurations"]),
    ("ListBucketIntelligentTieringConfigurationsOutput", &["ListBucketIntelligentTieringConfigurations"]),
    ("ListBucketResult", &["ListObjects", "ListObjectsV2"]),
    ("ListInventoryConfigurationsResult", &["ListBucketInventoryConfigurations"]),
    ("ListMetricsConfigurationsResult", &["ListBucketMetricsConfigurations"]),
    ("ListMultipartUploadsResult", &["ListMultipartUploads"]),
    ("ListPartsResult", &["ListParts"]),
    ("ListVersionsResult", &["ListObjectVersions"]),
    ("LocationConstraint", &["GetBucketLocation"]),
    ("MetricsConfiguration", &["GetBucketMetricsConfiguration"]),
    ("NotificationConfiguration", &["GetBucketNotificationConfiguration"]),
    ("ObjectLockConfiguration", &["GetObjectLockConfiguration"]),
    ("OwnershipControls", &["GetBucketOwnershipControls"]),
    ("PolicyStatus", &["GetBucketPolicyStatus"]),
    ("PublicAccessBlockConfiguration", &["GetPublicAccessBlock"]),
    ("ReplicationConfiguration", &["GetBucketReplication"]),
    ("RequestPaymentConfiguration", &["GetBucketRequestPayment"]),
    ("Retention", &["GetObjectRetention"]),
    ("ServerSideEncryptionConfiguration", &["GetBucketEncryption"]),
    ("Tagging", &["GetBucketTagging", "GetObjectTagging"]),
    ("VersioningConfiguration", &["GetBucketVersioning"]),
    ("WebsiteConfiguration", &["GetBucketWebsite"]),
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    root: Option<String>,
    /// The bucket, where the reply names the one that was asked.
    pub bucket: Option<String>,
}

impl Told {
    /// Reads the content of a reply's body.
    #[must_use]
    pub fn by(reply: &BodyStart) -> Self {
        let mut bucket = None;
        let extent = xml::walk(&reply.bytes, |path, text| match path {
            ["ListBucketResult" | "ListVersionsResult", "Name"]
            | [
                "ListMultipartUploadsResult"
                | "ListPartsResult"
                | "InitiateMultipartUploadResult"
                | "CompleteMultipartUploadResult",
                "Bucket",
            ] if !text.is_empty() => bucket = Some(text.to_owned()),
            _ => {}
        });
        Self { root: extent.root, bucket }
    }

    /// Whether the reply is one to this operation.
    #[must_use]
    pub fn answers(&self, operation: &str) -> bool {
        self.operations().contains(&operation)
    }

    /// The operations that it may be a reply to; empty: it does not tell.
    #[must_use]
    pub fn operations(&self) -> &'static [&'static str] {
        let root = self.root.as_deref();
        ROOTS.iter().find(|(name, _)| Some(*name) == root).map_or(&[], |(_, operations)| operations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::table::TABLE;

    #[test]
    fn every_operation_of_the_list_is_one() {
        let known = |name: &str| {
            TABLE.iter().any(|row| row.aws == Some(crate::s3::table::Naming::Api(leak(name))))
                || name == "ListDirectoryBuckets"
        };
        for (root, operations) in ROOTS {
            for operation in *operations {
                assert!(known(operation), "{root}: {operation}");
            }
        }
    }

    fn leak(name: &str) -> &'static str {
        Box::leak(name.to_owned().into_boxed_str())
    }
}
