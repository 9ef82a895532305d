//! `cargo xtask setup`: what the build of the kernel programs needs beyond cargo.

use crate::process::{cargo, command, output, succeed};
use anyhow::Context as _;
use std::path::Path;

/// 0.11 and later need a system LLVM; this one links with the LLVM inside rustc, if built with that feature.
const BPF_LINKER: &str = "0.10.4";
/// LLVM 22 is the one inside Rust 1.95.
const BPF_LINKER_FEATURES: &str = "rust-llvm-22";

/// Brings what is missing and says so; silent, and fast, when there is nothing to do.
pub(crate) fn run() -> anyhow::Result<()> {
    rust_src()?;
    bpf_linker()
}

/// `-Z build-std=core` compiles `core` for the BPF target from source.
fn rust_src() -> anyhow::Result<()> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"])).context("rustc does not run")?;
    if Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
        return Ok(());
    }
    say("rust-src is missing: adding the component");
    succeed(command("rustup").args(["component", "add", "rust-src"])).context("adding rust-src")
}

fn bpf_linker() -> anyhow::Result<()> {
    let found = output(command("bpf-linker").arg("--version"));
    let version = found.as_deref().and_then(|line| line.split_whitespace().last());
    match version {
        Some(BPF_LINKER) => return Ok(()),
        Some(other) => say(&format!("bpf-linker is {other}: installing {BPF_LINKER} (about 2 minutes)")),
        None => say(&format!("bpf-linker is missing: installing {BPF_LINKER} (about 2 minutes)")),
    }
    succeed(cargo().args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]).args([
        "--no-default-features",
        "--features",
        BPF_LINKER_FEATURES,
    ]))?;
    let installed = output(command("bpf-linker").arg("--version")).unwrap_or_default();
    anyhow::ensure!(
        installed.ends_with(BPF_LINKER),
        "bpf-linker {BPF_LINKER} was installed, but PATH still leads to `{installed}`: put cargo's bin folder first",
    );
    Ok(())
}

fn say(what: &str) {
    eprintln!("setup: {what}");
}
