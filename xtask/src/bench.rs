//! `cargo xtask bench`: figures with and without the daemon, by an optimised build.

use crate::apt::{codename, unpacked};
use crate::fetch;
use crate::process::{built, cargo, privileged, succeed, workspace};

/// Goes to the bench itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// All parts, fewer and shorter runs: under 10 minutes
    #[arg(long)]
    quick: bool,
    /// One part, and its flags (see `cargo xtask bench -- --help`); without any: all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PART")]
    part: Vec<String>,
}

/// The server that is no limit, the client that is cheap, and what people record heads with today.
const PACKAGES: [&str; 3] = ["nginx", "wrk", "tcpdump"];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let tools = fetch::run()?;
    let debian = fetch::cache()?.join(format!("bench-{}", codename()?));
    unpacked(&debian, &PACKAGES)?;
    succeed(cargo().args(["build", "--quiet", "--release", "--bin", "s3auditd", "--bin", "bench"]))?;
    let mut bench = privileged(&built("bench", true)?);
    bench.envs(tools.environment()).env("S3AUDITD_BENCH_TOOLS", debian);
    bench.arg("--daemon").arg(built("s3auditd", true)?).arg("--out").arg(workspace().join("target/bench"));
    if args.quick {
        bench.arg("--quick");
    }
    succeed(bench.args(&args.part))
}
