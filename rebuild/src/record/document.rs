//! The JSON of a record, field by field; `docs/record.md` says what each means. What is not known is left out.

use super::event::Kind;
use super::headers::Texts;
use super::{Number, RecordSettings};
use crate::handshake::TlsSession;
use crate::s3::claims::Claim;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The version of our own part. It grows when a field changes its meaning or goes; new fields do not change it.
const SCHEMA: u32 = 1;

/// The version of WEKA's entry.
pub(super) const AUDIT_VERSION: &str = "1.weka";

/// The shape of WEKA's audit entry, in its order, with our own part as one more key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Document<'a> {
    pub(super) api: Api,
    #[serde(rename = "auditVersion")]
    pub(super) audit_version: &'static str,
    #[serde(rename = "deploymentid", skip_serializing_if = "str::is_empty")]
    pub(super) deployment_id: &'a str,
    #[serde(rename = "remotehost")]
    pub(super) remote_host: String,
    #[serde(rename = "requestClaims", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) request_claims: BTreeMap<&'static str, Claim>,
    #[serde(rename = "requestHeader", skip_serializing_if = "Option::is_none")]
    pub(super) request_header: Option<Texts<'a>>,
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<Cow<'a, str>>,
    #[serde(rename = "requestQuery", skip_serializing_if = "Texts::is_empty")]
    pub(super) request_query: Texts<'a>,
    #[serde(rename = "responseHeader", skip_serializing_if = "Option::is_none")]
    pub(super) response_header: Option<Texts<'a>>,
    pub(super) s3auditd: Own,
    pub(super) time: String,
    #[serde(rename = "userAgent", skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<Cow<'a, str>>,
    #[serde(rename = "wekaInfo", skip_serializing_if = "WekaInfo::is_empty")]
    pub(super) weka_info: &'a WekaInfo,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Api {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bucket: Option<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time_to_first_byte: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time_to_response: Option<String>,
}

/// Which cluster and node the gateway belongs to: configuration, not capture. Empty means unknown and is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WekaInfo {
    /// The cluster's GUID.
    #[serde(rename = "clusterGUID", skip_serializing_if = "String::is_empty")]
    pub cluster_guid: String,
    /// The cluster's name.
    #[serde(rename = "clusterName", skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The release that runs, `4.4.6.11` for example.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// The node's address.
    #[serde(rename = "serverIP", skip_serializing_if = "String::is_empty")]
    pub server_ip: String,
    /// The node's name.
    #[serde(rename = "serverName", skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    /// The version, `4.4.6` for example.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

impl WekaInfo {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What tells a record from all others: the beginning of our own part, whatever the record tells of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    schema: u32,
    kind: Kind,
    pub(super) event_id: String,
    pub(super) sequence: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    boot_id: String,
}

impl Identity {
    pub(super) fn new(settings: &RecordSettings, kind: Kind, number: Number) -> Self {
        Self {
            schema: SCHEMA,
            kind,
            event_id: number.event_id,
            sequence: number.sequence,
            instance_id: settings.instance_id.clone(),
            boot_id: settings.boot_id.clone(),
        }
    }
}

/// Our own part of an operation's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Own {
    #[serde(flatten)]
    pub(super) identity: Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<&'static str>,
    pub(super) class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ambiguous: Vec<&'static str>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) raw_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_version: Option<&'static str>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signed_headers: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) presign_expires_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) presign_expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issued_access_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<Session>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) copy_source: Option<CopySource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upload_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part_number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_size: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) delete_keys: Vec<DeleteKey>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) delete_keys_cut: bool,

    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) s3_error_code: Option<String>,
    pub(super) completion: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unseen: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) oddities: Vec<&'static str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) interim_replies: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) truncated: Vec<&'static str>,

    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) request_body_bytes: u64,
    pub(super) response_body_bytes: u64,

    pub(super) client_address: Endpoint,
    pub(super) peer: Endpoint,
    pub(super) server: Endpoint,
    pub(super) process: Process,
    pub(super) start_time: String,
    pub(super) connection: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) connection_preexisting: bool,
    pub(super) exchange: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    #[serde(rename = "amzId2", skip_serializing_if = "Option::is_none")]
    pub(super) amz_id_2: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<i64>,
    pub(super) accepted: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CopySource {
    pub(super) bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version_id: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteKey {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Endpoint {
    pub(super) ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<&'static str>,
}

/// What the handshake of the connection's TLS said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tls {
    handshake: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher_suite: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

impl Tls {
    pub(super) fn of(session: &TlsSession) -> Self {
        Self {
            handshake: if session.version.is_some() { "seen" } else { "unseen" },
            version: session.version_name(),
            cipher_suite: session.cipher_suite_name(),
            server_name: session.server_name.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) pid: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) comm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) netns: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
