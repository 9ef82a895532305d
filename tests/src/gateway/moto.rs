//! moto: Python's threading HTTP server; `Connection: close`, two `100 Continue`. `cargo xtask fetch` installs it.

use super::{Gateway, Running, free_port, local, wait_ready_over};
use crate::need::tool;
use crate::tls;
use crate::webhook::authority::Authority;
use anyhow::Context as _;
use std::process::{Command, Stdio};

/// Starts one on a free port. It checks no signature.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start() -> anyhow::Result<Gateway> {
    start_with(None)
}

/// The same behind TLS, which Python ends with OpenSSL.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_tls() -> anyhow::Result<Gateway> {
    start_with(Some(&Authority::new()?))
}

fn start_with(authority: Option<&Authority>) -> anyhow::Result<Gateway> {
    let binary = tool("S3AUDITD_MOTO").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let folder = tempfile::tempdir().context("a folder for moto")?;
    let address = local(free_port()?);
    let mut command = Command::new(binary);
    command.args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()]);
    if let Some(authority) = authority {
        let (certificate, key) = tls::files(authority, folder.path())?;
        command.arg("-c").arg(certificate).arg("-k").arg(key);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting moto")?;
    let authority = authority.map(Authority::pem);
    let ready = wait_ready_over("moto", &mut child, address, authority.as_deref(), "/moto-api/");
    let gateway = Gateway {
        name: "moto",
        address,
        authority,
        running: Running::Process(child),
        behind: None,
        _folder: Some(folder),
    };
    ready.map(|()| gateway)
}
