//! Whom the agent trusts and who it is: certificates and keys from PEM files. Every error is one line that names the key
//! of the configuration and the file.

use crate::config::endpoint::Tls;
use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Why certificates or keys are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Read {
        /// The configuration's.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it holds is not what it should.
    #[error("{key}: {}: {problem}", path.display())]
    Content {
        /// The configuration's.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// More than any bundle: a wrong path must not fill the memory.
const MAX_PEM_BYTES: u64 = 8 << 20;

/// A PEM file and the key of the configuration that names it.
struct Source<'a> {
    key: &'static str,
    path: &'a Path,
}

impl Source<'_> {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.path)
            .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut bytes))
            .map_err(|source| TlsError::Read { key: self.key, path: self.path.to_owned(), source })?;
        Ok(bytes)
    }

    fn problem(&self, problem: impl Into<String>) -> TlsError {
        TlsError::Content { key: self.key, path: self.path.to_owned(), problem: problem.into() }
    }

    fn certificates(&self, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| self.problem(format!("not PEM: {error}")))?;
        if certificates.is_empty() { Err(self.problem("holds no certificate in PEM")) } else { Ok(certificates) }
    }
}

/// Sets up a client so. The crypto provider of the process must be installed.
pub(super) fn apply(mut client: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, TlsError> {
    if let Some(path) = &tls.ca_file {
        client = client.tls_certs_only(authorities(&Source { key: "ca-file", path })?);
    }
    if let Some((certificate, key)) = &tls.client {
        let certificate = Source { key: "client-cert-file", path: certificate };
        client = client.identity(identity(&certificate, &Source { key: "client-key-file", path: key })?);
    }
    Ok(client)
}

fn authorities(source: &Source) -> Result<Vec<Certificate>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    let mut authorities = Vec::new();
    for der in source.certificates(&source.read()?)? {
        authorities.push(Certificate::from_der(&der).map_err(|error| source.problem(error.to_string()))?);
        // What TLS will say of it later, with the file's name.
        roots
            .add(der)
            .map_err(|error| source.problem(format!("holds a certificate that is no authority's: {error}")))?;
    }
    Ok(authorities)
}

fn identity(certificate: &Source, key: &Source) -> Result<Identity, TlsError> {
    let mut bytes = certificate.read()?;
    let chain = certificate.certificates(&bytes)?;
    let key_bytes = key.read()?;
    let private = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => key.problem("holds no private key in PEM"),
        // The parser's words could quote the key.
        _ => key.problem("not PEM"),
    })?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = rustls::sign::CertifiedKey::from_der(chain, private, &provider);
    pair.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key.problem(format!("is not the key of client-cert-file {}", certificate.path.display()))
        }
        error => key.problem(format!("cannot be used: {error}")),
    })?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&key_bytes);
    Identity::from_pem(&bytes).map_err(|error| key.problem(error.to_string()))
}
