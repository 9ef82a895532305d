//! moto: Python's threading HTTP server; `Connection: close`, two `100 Continue`. `cargo xtask fetch` installs it.

use super::{Gateway, Running, free_port, local, wait_ready};
use crate::need::tool;
use anyhow::Context as _;
use std::process::{Command, Stdio};

/// Starts one on a free port. It checks no signature.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start() -> anyhow::Result<Gateway> {
    let binary = tool("S3AUDITD_MOTO").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let address = local(free_port()?);
    let mut child = Command::new(binary)
        .args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting moto")?;
    let ready = wait_ready("moto", &mut child, address, "/moto-api/");
    let gateway = Gateway { name: "moto", address, authority: None, running: Running::Process(child), _folder: None };
    ready.map(|()| gateway)
}
