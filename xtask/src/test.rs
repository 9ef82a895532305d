//! `cargo xtask test`: everything that tells whether the project is sound, cheapest first.

use crate::process::{built, cargo, is_root, succeed};
use crate::{fetch, vm};
use std::time::Instant;

/// Which parts to run, and which tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Leave out the format check and the lints
    #[arg(long)]
    no_lint: bool,
    /// Leave out the unit tests
    #[arg(long)]
    no_unit: bool,
    /// Leave out the end-to-end tests, which need root and fetch gateways and clients; and the matrix, which runs some of
    /// them in guests
    #[arg(long)]
    no_e2e: bool,
    /// Leave out the matrix of kernels and backends, which runs last and fetches QEMU and kernels; with a filter it is
    /// left out anyway, unless `--vm` asks for it alone
    #[arg(long, conflicts_with = "vm")]
    no_vm: bool,
    #[command(flatten)]
    vm: vm::Args,
}

/// The first failure ends the run.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.vm.vm {
        return vm::run(&args.vm, args.filter.as_deref());
    }
    let started = Instant::now();
    let matrix = !args.no_e2e && !args.no_vm && args.filter.is_none();
    if matrix {
        // It comes last: a machine that cannot have it says so at once.
        step("fetch QEMU and kernels (--no-vm leaves out what needs them)");
        vm::fetch()?;
    }
    if !args.no_lint {
        step("format");
        succeed(cargo().args(["fmt", "--all", "--check"]))?;
        step("lints");
        // The end-to-end suite by name: `test = false` hides it from `--all-targets`.
        for targets in [["--all-targets"].as_slice(), &["--test", "e2e"]] {
            succeed(cargo().args(["clippy", "--quiet"]).args(targets).args(["--", "-D", "warnings"]))?;
        }
        // A workspace of its own: nothing else tells that the fuzz targets still fit.
        succeed(cargo().args(["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"]))?;
    }
    if !args.no_unit {
        step("unit tests");
        // Without the end-to-end suite: its manifest says `test = false`.
        succeed(cargo().args(["test", "--quiet"]).args(&args.filter))?;
    }
    if !args.no_e2e {
        end_to_end(args)?;
    }
    if matrix {
        step("kernels and backends in guests");
        vm::run(&args.vm, None)?;
    }
    step(&format!("all passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

fn end_to_end(args: &Args) -> anyhow::Result<()> {
    let tools = fetch::run()?;
    step("end to end: build");
    succeed(cargo().args(["build", "--quiet", "--bins"]))?;
    step("end to end");
    let mut suite = cargo();
    // Never with `--package`: other features of shared dependencies, and so another build of them all.
    suite.args(["test", "--quiet", "--test", "e2e", "--"]).args(&args.filter);
    suite.env("S3AUDITD_BIN", built("s3auditd", false)?).envs(tools.environment());
    if !is_root() {
        suite.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
    }
    succeed(&mut suite)
}

fn step(name: &str) {
    eprintln!("test: {name}");
}
