//! MinIO: Go's net/http; the lineage of WEKA's gateway. `cargo xtask fetch` builds it.

use super::{ACCESS_KEY, Gateway, REGION, Running, SECRET_KEY, free_port, local, wait_ready};
use crate::need::tool;
use anyhow::Context as _;
use std::process::{Command, Stdio};

/// Starts one on a free port.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start() -> anyhow::Result<Gateway> {
    start_with(&[])
}

/// The same, which also tells its own audit to that webhook.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_audited(webhook: &str) -> anyhow::Result<Gateway> {
    start_with(&[("MINIO_AUDIT_WEBHOOK_ENABLE_oracle", "on"), ("MINIO_AUDIT_WEBHOOK_ENDPOINT_oracle", webhook)])
}

fn start_with(variables: &[(&str, &str)]) -> anyhow::Result<Gateway> {
    let binary = tool("S3AUDITD_MINIO").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let folder = tempfile::tempdir().context("a folder for MinIO")?;
    let address = local(free_port()?);
    let mut child = Command::new(binary)
        .args(["server", "--quiet", "--address", &address.to_string()])
        .args(["--console-address", &local(free_port()?).to_string()])
        .arg(folder.path())
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
    let ready = wait_ready("MinIO", &mut child, address, "/minio/health/cluster");
    // In the struct first, so that an error below ends the process too.
    let gateway = Gateway { name: "MinIO", address, running: Running::Process(child), _folder: Some(folder) };
    ready.map(|()| gateway)
}
