//! MinIO: Go's net/http; the lineage of WEKA's gateway. `cargo xtask fetch` builds it.

use super::{ACCESS_KEY, Gateway, REGION, Running, SECRET_KEY, free_port, local, wait_ready_over};
use crate::need::tool;
use crate::webhook::authority::Authority;
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) const HEALTH: &str = "/minio/health/cluster";

/// Starts one on a free port.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start() -> anyhow::Result<Gateway> {
    start_with(local(free_port()?), None, None, &[])
}

/// The same behind TLS; `binary` instead of the one that was built.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_tls(binary: Option<&Path>) -> anyhow::Result<Gateway> {
    start_with(local(free_port()?), binary, Some(&Authority::new()?), &[])
}

/// The same at an address that has just become free.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_tls_at(address: SocketAddr) -> anyhow::Result<Gateway> {
    start_with(address, None, Some(&Authority::new()?), &[])
}

/// The same, which also tells its own audit to that webhook.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_audited(webhook: &str) -> anyhow::Result<Gateway> {
    start_with(
        local(free_port()?),
        None,
        None,
        &[("MINIO_AUDIT_WEBHOOK_ENABLE_oracle", "on"), ("MINIO_AUDIT_WEBHOOK_ENDPOINT_oracle", webhook)],
    )
}

/// Where the built one is.
///
/// # Errors
/// It is missing.
pub fn binary() -> anyhow::Result<PathBuf> {
    tool("S3AUDITD_MINIO").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))
}

fn start_with(
    address: SocketAddr,
    other: Option<&Path>,
    authority: Option<&Authority>,
    variables: &[(&str, &str)],
) -> anyhow::Result<Gateway> {
    let binary = other.map_or_else(binary, |other| Ok(other.to_owned()))?;
    let folder = tempfile::tempdir().context("a folder for MinIO")?;
    let (certificates, data) = (folder.path().join("certificates"), folder.path().join("data"));
    std::fs::create_dir(&certificates)?;
    if let Some(authority) = authority {
        let pair = authority.server()?;
        std::fs::write(certificates.join("public.crt"), pair.certificate)?;
        std::fs::write(certificates.join("private.key"), pair.key)?;
    }
    let mut child = Command::new(binary)
        .args(["server", "--quiet", "--address", &address.to_string()])
        .args(["--console-address", &local(free_port()?).to_string()])
        .arg("--certs-dir")
        .args([certificates, data])
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
        .env("MINIO_REGION", REGION)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting MinIO")?;
    let authority = authority.map(Authority::pem);
    let ready = wait_ready_over("MinIO", &mut child, address, authority.as_deref(), HEALTH);
    // In the struct first, so that an error below ends the process too.
    let gateway = Gateway {
        name: "MinIO",
        address,
        authority,
        running: Running::Process(child),
        behind: None,
        _folder: Some(folder),
    };
    ready.map(|()| gateway)
}
