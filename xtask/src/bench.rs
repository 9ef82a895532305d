//! `cargo xtask bench`: figures with and without the daemon, by an optimised build.

use crate::process::{built, cargo, privileged, succeed, workspace};

/// Goes to the bench itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which part, and its flags (see `cargo xtask bench -- --help`); without any: unwatched
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PART")]
    part: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    succeed(cargo().args(["build", "--quiet", "--release", "--bins"]))?;
    let mut bench = privileged(&built("bench", true)?);
    bench.arg("--daemon").arg(built("s3auditd", true)?).arg("--out").arg(workspace().join("target/bench"));
    if args.part.is_empty() {
        bench.arg("unwatched");
    }
    succeed(bench.args(&args.part))
}
