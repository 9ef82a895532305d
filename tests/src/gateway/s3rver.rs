//! s3rver: a gateway in Node, which ends TLS with the OpenSSL in its own binary. `cargo xtask fetch` installs it.

use super::{ACCESS_KEY, Gateway, SECRET_KEY, https::serve};
use crate::need::tool;
use std::path::Path;
use std::process::Command;

/// Starts one on a free port, behind TLS.
///
/// # Errors
/// It is missing, or does not come up.
pub fn start_tls() -> anyhow::Result<Gateway> {
    let package = tool("S3AUDITD_S3RVER").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let mut node = Command::new("node");
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways/s3rver.js")).arg(package);
    node.args([ACCESS_KEY, SECRET_KEY]);
    serve("s3rver", node)
}
