//! MinIO's own client, which asks for much that no SDK asks for. `cargo xtask fetch` builds it.

use crate::gateway::{ACCESS_KEY, Gateway, SECRET_KEY};
use crate::need::tool;
use anyhow::Context as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// One round against that gateway: commands, some of which it must refuse.
///
/// # Errors
/// It is missing, or a command fails that should not.
pub fn round(gateway: &Gateway) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for mc")?;
    let mc = |line: &str| run(gateway, folder.path(), line);
    std::fs::write(folder.path().join("small.txt"), b"hello from mc\n")?;
    std::fs::write(folder.path().join("parts.bin"), vec![b'm'; 20 << 20])?;
    std::fs::write(folder.path().join("table.csv"), b"a,b\n1,2\n")?;
    for line in MUST {
        anyhow::ensure!(mc(line)?, "`mc {line}` failed");
    }
    for line in MAY {
        mc(line)?;
    }
    Ok(())
}

/// `w` is the gateway; words are parted by blanks; file names are relative to a folder of its own.
const MUST: &[&str] = &[
    "mb w/mc-round",
    "mb --with-lock w/mc-locked",
    "ls w",
    "cp small.txt w/mc-round/small.txt",
    "cp --attr Colour=blue;Cache-Control=max-age=9 small.txt w/mc-round/attributes.txt",
    "cp table.csv w/mc-round/table.csv",
    "cp parts.bin w/mc-round/parts.bin",
    "cp w/mc-round/parts.bin back.bin",
    "cp w/mc-round/small.txt w/mc-round/copy.txt",
    "mv w/mc-round/copy.txt w/mc-round/moved.txt",
    "cat w/mc-round/small.txt",
    "stat w/mc-round/small.txt",
    "stat w/mc-round",
    "ls --recursive --versions w/mc-round",
];

/// What a single MinIO without a key service refuses is refused, and audited all the same.
const MAY: &[&str] = &[
    "head w/mc-round/small.txt",
    "du w/mc-round",
    "tree w/mc-round",
    "find w/mc-round --name *.txt",
    "diff w/mc-round w/mc-locked",
    "mirror w/mc-round mirrored",
    "tag set w/mc-round/small.txt a=b",
    "tag list w/mc-round/small.txt",
    "tag remove w/mc-round/small.txt",
    "tag set w/mc-round a=b",
    "version enable w/mc-round",
    "version info w/mc-round",
    "anonymous set download w/mc-round",
    "anonymous get w/mc-round",
    "ilm rule add --expire-days 9 w/mc-round",
    "ilm rule ls w/mc-round",
    "retention set --default GOVERNANCE 1d w/mc-locked",
    "retention info --default w/mc-locked",
    "share download w/mc-round/small.txt",
    "share upload w/mc-round/shared.txt",
    "sql --query select\tcount(*)\tfrom\tS3Object w/mc-round/table.csv",
    "encrypt info w/mc-round",
    "encrypt set sse-s3 w/mc-round",
    "event ls w/mc-round",
    "event add w/mc-round arn:minio:sqs::none:webhook",
    "replicate ls w/mc-round",
    "replicate status w/mc-round",
    "cors get w/mc-round",
    "legalhold set w/mc-locked/none",
    "stat w/mc-round/none",
    "undo w/mc-round/small.txt",
    "ping --count 1 w",
    "ready w",
    "admin info w",
    "admin user add w someone some-password-here",
    "admin user ls w",
    "admin policy ls w",
    "admin user svcacct ls w someone",
    "admin config get w api",
    "admin prometheus metrics w",
    "rm --recursive --force --versions w/mc-round",
    "rb --force w/mc-round",
];

/// Whether it ended well.
fn run(gateway: &Gateway, folder: &Path, line: &str) -> anyhow::Result<bool> {
    let program = tool("S3AUDITD_MC").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let status = Command::new(program)
        .args(["--quiet", "--no-color", "--config-dir"])
        .arg(folder.join("configuration"))
        .args(line.split(' '))
        .current_dir(folder)
        .env("MC_HOST_w", format!("http://{ACCESS_KEY}:{SECRET_KEY}@{}", gateway.address))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("starting `mc {line}`"))?;
    Ok(status.success())
}
