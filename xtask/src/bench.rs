//! `cargo xtask bench`: figures with and without the daemon, by an optimised build.

use crate::apt::{codename, unpacked};
use crate::fetch;
use crate::peer;
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

impl Args {
    /// Whether another agent is measured beside ours: it takes minutes to build.
    fn peer(&self) -> bool {
        let quick = self.quick || self.part.iter().any(|word| word == "--quick");
        !quick && self.part.first().is_none_or(|part| part.starts_with('-') || part == "overhead")
    }
}

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
    if args.peer() {
        match peer::built(&fetch::cache()?) {
            Ok(peer) => drop(bench.env("S3AUDITD_BENCH_PEER", peer)),
            Err(why) => fetch::say(&format!("no OpenTelemetry agent: {why:#}")),
        }
    }
    succeed(bench.args(&args.part))
}
