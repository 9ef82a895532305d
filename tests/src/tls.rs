//! A client's side of TLS, for gateways with a certificate of the suite's own authority.

use crate::webhook::authority::Authority;
use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the trials call a version, and how rustls does.
pub const VERSIONS: [(&str, &SupportedProtocolVersion); 2] =
    [("tls_1_2", &rustls::version::TLS12), ("tls_1_3", &rustls::version::TLS13)];

/// A certificate of that authority for a server on 127.0.0.1, and its key, as files in that folder.
///
/// # Errors
/// The authority's, or the folder's.
pub fn files(authority: &Authority, folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let pair = authority.server()?;
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, pair.certificate)?;
    std::fs::write(&key, pair.key)?;
    Ok((certificate, key))
}

/// A client of that version that trusts that authority (PEM).
///
/// # Errors
/// The authority makes no sense.
pub fn client(authority: &str, version: &'static SupportedProtocolVersion) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("the authority's certificate")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version])?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
