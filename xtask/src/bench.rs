//! `cargo xtask bench`: figures with and without the daemon, by an optimised build.

use crate::apt::{Apt, Installed, codename};
use crate::fetch;
use crate::process::{built, cargo, privileged, succeed, workspace};
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};

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
    let debian = debian(&fetch::cache()?)?;
    succeed(cargo().args(["build", "--quiet", "--release", "--bin", "s3auditd", "--bin", "bench"]))?;
    let mut bench = privileged(&built("bench", true)?);
    bench.envs(tools.environment()).env("S3AUDITD_BENCH_TOOLS", debian);
    bench.arg("--daemon").arg(built("s3auditd", true)?).arg("--out").arg(workspace().join("target/bench"));
    if args.quick {
        bench.arg("--quick");
    }
    succeed(bench.args(&args.part))
}

/// A folder with the packages of this machine's release, unpacked and not installed. Put together aside and moved into
/// place, so that an interrupted one does not look whole.
fn debian(cache: &Path) -> anyhow::Result<PathBuf> {
    let place = cache.join(format!("bench-{}", codename()?));
    if place.exists() {
        return Ok(place);
    }
    eprintln!("bench: unpacking {}", PACKAGES.join(", "));
    let (main, security) = (codename()?, format!("{}-security", codename()?));
    let apt = Apt::open(&[&main, &security], "amd64", "", Installed::ThisMachine)?;
    let aside = cache.join(format!("bench.{}", std::process::id()));
    fs::create_dir_all(&aside)?;
    for package in PACKAGES {
        // What is installed already is not fetched; the bench finds it in its place.
        apt.unpack_with_dependencies(package, &aside)?;
    }
    fs::rename(&aside, &place).with_context(|| format!("moving the packages to {}", place.display()))?;
    Ok(place)
}
