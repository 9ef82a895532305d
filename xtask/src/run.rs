//! `cargo xtask run`: the daemon on this machine, or the demo.

use crate::process::{built, cargo, line, privileged, succeed};
use anyhow::Context as _;
use std::os::unix::process::CommandExt as _;

/// What `run` understands itself; the rest goes to `s3auditd run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start a small S3 gateway, a webhook and a client too, and check that every call has its record
    #[arg(long)]
    demo: bool,
    /// How long the demo goes on; it always makes one whole round
    #[arg(long = "for", value_name = "TIME", default_value = "20s", requires = "demo")]
    duration: String,
    /// Build with optimisation
    #[arg(long)]
    release: bool,
    /// Flags of `s3auditd run` (see `cargo xtask run -- --help`)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// Replaces this process, so that signals and the exit code are the daemon's own.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let daemon = built("s3auditd", args.release)?;
    let mut build = cargo();
    build.args(["build", "--quiet", "--bins"]);
    if !args.demo {
        build.args(["--package", "s3auditd"]);
    }
    if args.release {
        build.arg("--release");
    }
    succeed(&mut build)?;

    let mut command = if args.demo {
        let mut demo = privileged(&built("demo", args.release)?);
        demo.arg("--daemon").arg(&daemon).arg("--for").arg(&args.duration);
        demo
    } else {
        let mut run = privileged(&daemon);
        run.arg("run");
        run
    };
    // `cargo run` starts us in the caller's folder, and that is where relative paths in FLAGS point.
    command.args(&args.flags).current_dir(std::env::current_dir().context("where are we?")?);
    let shown = line(&command);
    Err(command.exec()).with_context(|| format!("cannot start {shown}"))
}
