//! `cargo xtask fuzz`: libFuzzer on every parser of outside bytes. Targets and seeds are in `fuzz/`.
//!
//! Sanitizers need unstable flags; `RUSTC_BOOTSTRAP` lets the pinned toolchain have them, so that no other one is
//! needed. What is found goes to `fuzz/artifacts`, what was learnt to `fuzz/corpus`; neither is in the repository.

use crate::process::{cargo, command, output, succeed, workspace};
use crate::{fetch, seeds};
use anyhow::{Context as _, ensure};
use std::fs;
use std::path::PathBuf;

const CARGO_FUZZ: &str = "0.13.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    target: Option<String>,
    /// How long all targets together run: a number with s, m or h
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = seconds)]
    time: u64,
}

fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - usize::from(text.ends_with(['s', 'm', 'h'])));
    let factor = match unit {
        "m" => 60,
        "h" => 3600,
        _ => 1,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(seconds @ 1..) => Ok(seconds),
        _ => Err("a time such as 90s, 10m or 2h".to_owned()),
    }
}

/// The first finding ends the run.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let fuzzer = cargo_fuzz()?;
    let home = workspace().join("fuzz");
    let mut targets: Vec<String> = fs::read_dir(home.join("targets"))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .filter(|target| args.target.as_ref().is_none_or(|only| only == target))
        .collect();
    targets.sort_unstable();
    ensure!(!targets.is_empty(), "fuzz/targets has no {}", args.target.as_deref().unwrap_or("target"));
    seeds::write(&home)?;
    let each = (args.time / targets.len() as u64).max(1);
    for target in &targets {
        eprintln!("fuzz: {target} for {each} s");
        let corpus = home.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let mut run = command(&fuzzer);
        run.env("RUSTC_BOOTSTRAP", "1").args(["run", "--fuzz-dir"]).arg(&home).arg(target).arg(&corpus);
        run.arg(home.join("seeds").join(target));
        run.arg("--").arg(format!("-max_total_time={each}"));
        run.args(["-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        succeed(&mut run)?;
    }
    Ok(())
}

/// The pinned cargo-fuzz, built once.
fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    let place = fetch::cache()?.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = place.join("bin/cargo-fuzz");
    if output(command(&program).arg("--version")).is_some() {
        return Ok(program);
    }
    eprintln!("fuzz: installing cargo-fuzz {CARGO_FUZZ}");
    let install = ["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--root"];
    succeed(cargo().args(install).arg(&place)).context("cargo-fuzz")?;
    Ok(program)
}
