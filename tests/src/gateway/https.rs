//! Small servers that end TLS themselves, each with one library (`tests/gateways`): Go's net/http, built by several
//! versions of Go, which `cargo xtask fetch` does; and GnuTLS, called from Python.

use super::{Gateway, Running, free_port, local, wait_for_tls};
use crate::need::tool;
use crate::tls;
use crate::webhook::authority::Authority;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Each of Go's that was built: `go1.23.12`, `go1.23.12-pie-stripped`.
#[must_use]
pub fn built() -> Vec<PathBuf> {
    let Ok(folder) = tool("S3AUDITD_GO_HTTPS") else { return Vec::new() };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Starts one of Go's on a free port.
///
/// # Errors
/// It does not come up.
pub fn start(binary: &Path) -> anyhow::Result<Gateway> {
    serve("a server of Go", Command::new(binary))
}

/// The same, with so many of its threads at once, however few the CPUs.
///
/// # Errors
/// It does not come up.
pub fn start_with_threads(binary: &Path, threads: usize) -> anyhow::Result<Gateway> {
    let mut server = Command::new(binary);
    server.env("GOMAXPROCS", threads.to_string());
    serve("a server of Go", server)
}

/// The server with GnuTLS.
#[must_use]
pub fn gnutls_server() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways/gnutls_server.py")
}

/// Starts it on a free port.
///
/// # Errors
/// It does not come up.
pub fn start_gnutls() -> anyhow::Result<Gateway> {
    let mut python = Command::new("python3");
    python.arg(gnutls_server());
    serve("a server with GnuTLS", python)
}

/// A certificate in a folder: what a server is told, and the authority (PEM).
///
/// # Errors
/// The folder's.
pub fn certificate() -> anyhow::Result<(tempfile::TempDir, [PathBuf; 2], String)> {
    let authority = Authority::new()?;
    let folder = tempfile::tempdir().context("a folder for a certificate")?;
    let (certificate, key) = tls::files(&authority, folder.path())?;
    Ok((folder, [certificate, key], authority.pem()))
}

/// Starts a server that takes its address, a certificate and its key as its last arguments.
pub(super) fn serve(name: &'static str, mut server: Command) -> anyhow::Result<Gateway> {
    let address = local(free_port()?);
    let (folder, files, authority) = certificate()?;
    let mut child = server
        .arg(address.to_string())
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {server:?}"))?;
    let ready = wait_for_tls(name, &mut child, address, &authority);
    // In the struct first, so that an error below ends the process too.
    let gateway = Gateway {
        name,
        address,
        authority: Some(authority),
        running: Running::Process(child),
        behind: None,
        _folder: Some(folder),
    };
    ready.map(|()| gateway)
}
