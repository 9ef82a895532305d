//! s3rver: a gateway in Node, which ends TLS with the OpenSSL in its own binary. `cargo xtask fetch` installs it.

use super::{ACCESS_KEY, Gateway, Running, SECRET_KEY, free_port, local, wait_for_tls};
use crate::need::tool;
use crate::tls;
use crate::webhook::authority::Authority;
use anyhow::Context as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts one on a free port, behind TLS.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_tls() -> anyhow::Result<Gateway> {
    let package = tool("S3AUDITD_S3RVER").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let authority = Authority::new()?;
    let folder = tempfile::tempdir().context("a folder for s3rver")?;
    let (certificate, key) = tls::files(&authority, folder.path())?;
    let address = local(free_port()?);
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways/s3rver.js")).arg(package);
    command.arg(folder.path().join("data")).arg(address.port().to_string()).arg(certificate).arg(key);
    command.args([ACCESS_KEY, SECRET_KEY]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting s3rver")?;
    let authority = authority.pem();
    let ready = wait_for_tls("s3rver", &mut child, address, &authority);
    let gateway = Gateway {
        name: "s3rver",
        address,
        authority: Some(authority),
        running: Running::Process(child),
        behind: None,
        _folder: Some(folder),
    };
    ready.map(|()| gateway)
}
