//! The other eBPF agent that the bench measures beside ours: OpenTelemetry's for Go programs, from the Go module proxy.
//!
//! The module has the sources of its kernel programs and not the programs, so they are compiled here, in a copy of the
//! module and as its own Dockerfile does it: `go generate` with Debian's clang, which is unpacked and not installed.

use crate::apt::{codename, unpacked};
use crate::fetch::say;
use crate::process::{command, output, succeed, workspace};
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODULE: &str = "go.opentelemetry.io/auto";
const VERSION: &str = "v0.24.0";

/// Its binary, built when it is missing.
///
/// A copy of our part of its source, written last, marks a whole folder.
pub(crate) fn built(cache: &Path) -> anyhow::Result<PathBuf> {
    let source = workspace().join("tests/peers/otel/main.go");
    let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    let place = cache.join(format!("opentelemetry-auto-{VERSION}"));
    let (binary, mark) = (place.join("agent"), place.join("main.go"));
    if fs::read_to_string(&mark).is_ok_and(|marked| marked == text) {
        return Ok(binary);
    }
    say(&format!("building OpenTelemetry's agent for Go programs {VERSION} (some minutes)"));
    let clang = cache.join(format!("clang-{}", codename()?));
    unpacked(&clang, &["clang", "llvm"])?;
    let copy = cache.join(format!("opentelemetry-auto-{VERSION}.{}", std::process::id()));
    let made = copied(&copy).and_then(|()| {
        compile(&copy, &clang)?;
        // Beside its own program, so that its go.sum speaks for both.
        fs::create_dir(copy.join("agent"))?;
        fs::copy(&source, copy.join("agent/main.go"))?;
        let mut build = go(&copy);
        build.args(["build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&binary).arg("./agent");
        succeed(&mut build)
    });
    // A copy that stays is only untidy.
    let _ = fs::remove_dir_all(&copy);
    made?;
    fs::write(&mark, text).with_context(|| format!("writing {}", mark.display()))?;
    Ok(binary)
}

/// Go's modules are read-only where Go keeps them.
fn copied(copy: &Path) -> anyhow::Result<()> {
    let module = format!("{MODULE}@{VERSION}");
    let told = output(command("go").args(["mod", "download", "-json", &module])).context("Go brings no such module")?;
    let told: serde_json::Value = serde_json::from_str(&told).context("what `go mod download` says")?;
    let folder = told.get("Dir").and_then(serde_json::Value::as_str).context("`go mod download` names no folder")?;
    succeed(command("cp").args(["--recursive", "--no-preserve=mode", folder]).arg(copy))?;
    // Its part in a folder beside it is a module of its own, which is not in this one.
    succeed(go(copy).args(["mod", "edit", &format!("-dropreplace={MODULE}/sdk")]))
}

fn compile(copy: &Path, clang: &Path) -> anyhow::Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let headers = copy.join("internal/include");
    let mut generate = go(copy);
    generate
        .args(["generate", "./internal/pkg/instrumentation/..."])
        // What this machine has installed is not unpacked.
        .env("PATH", format!("{}:{path}", clang.join("usr/bin").display()))
        .env("LD_LIBRARY_PATH", clang.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)))
        .env("BPF2GO_CFLAGS", format!("-I{0}/libbpf -I{0}", headers.display()));
    succeed(&mut generate)
}

fn go(folder: &Path) -> Command {
    let mut go = command("go");
    go.current_dir(folder).env("CGO_ENABLED", "0");
    go
}
