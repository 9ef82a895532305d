//! A certificate authority of its own, for webhooks behind TLS.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// See the module.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Errors
    /// Those of the keys.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the subject of a certificate that it signs, OpenSSL takes that for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "the suite's authority");
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// What whoever shall trust it needs.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// Those of the keys.
    pub fn client(&self) -> anyhow::Result<Pair> {
        self.issue(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a server on 127.0.0.1.
    ///
    /// # Errors
    /// Those of the keys.
    pub fn server(&self) -> anyhow::Result<Pair> {
        self.issue(vec!["127.0.0.1".to_owned()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// What makes a listener on 127.0.0.1 speak TLS; with `client_certificates` only to clients that this authority knows.
    ///
    /// # Errors
    /// Those of the keys.
    pub fn acceptor(&self, client_certificates: bool) -> anyhow::Result<TlsAcceptor> {
        let pair = self.server()?;
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let config = if client_certificates {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let config = config.with_single_cert(chain, key).context("a certificate of its own")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn issue(&self, names: Vec<String>, purpose: ExtendedKeyUsagePurpose) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
