//! Debian's programs that the bench uses; `cargo xtask bench` unpacks them into the cache.

use s3auditd_tests::need::tool;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder that looks like the root of a Debian machine.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    pub(crate) fn find() -> anyhow::Result<Self> {
        Ok(Self { root: tool("S3AUDITD_BENCH_TOOLS").map_err(|missing| anyhow::anyhow!("{}", missing.reason()))? })
    }

    pub(crate) fn wrk(&self) -> Command {
        self.command("usr/bin/wrk")
    }

    pub(crate) fn nginx(&self) -> Command {
        self.command("usr/sbin/nginx")
    }

    pub(crate) fn tcpdump(&self) -> Command {
        self.command("usr/bin/tcpdump")
    }

    fn command(&self, program: &str) -> Command {
        let unpacked = self.root.join(program);
        let mut command = Command::new(if unpacked.exists() { unpacked } else { Path::new("/").join(program) });
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", self.root.join(libraries));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// What the programs say of themselves.
pub(crate) fn versions(tools: &Tools, daemon: &Path) -> Vec<(Command, &'static str)> {
    let minio = std::env::var_os("S3AUDITD_MINIO").map(Command::new);
    let mut all = vec![(Command::new(daemon), "version"), (tools.nginx(), "-v"), (tools.wrk(), "-v")];
    all.push((tools.tcpdump(), "--version"));
    all.extend(minio.map(|minio| (minio, "--version")));
    all
}
