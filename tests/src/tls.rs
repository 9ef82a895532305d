//! A client's side of TLS, for gateways with a certificate of the suite's own authority.

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::sync::Arc;

/// What the trials call a version, and how rustls does.
pub const VERSIONS: [(&str, &SupportedProtocolVersion); 2] =
    [("tls_1_2", &rustls::version::TLS12), ("tls_1_3", &rustls::version::TLS13)];

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
