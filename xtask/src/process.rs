//! Child processes, and where things are: what every command needs.

use anyhow::{Context as _, bail};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout that this xtask was built from.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// A command that starts in the checkout, so that the pinned toolchain applies.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end; anything but success is an error that shows the command line.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// What the command prints to stdout; `None` when it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether we may load kernel programs ourselves.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// `program`, through `sudo -E` unless we are root.
pub(crate) fn privileged(program: &Path) -> Command {
    if is_root() {
        return command(program);
    }
    let mut sudo = command("sudo");
    sudo.arg("-E").arg(program);
    sudo
}

/// Cargo's target folder.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe().context("where is xtask itself?")?;
    let target = ours.parent().and_then(Path::parent).context("xtask does not lie in a target folder")?;
    Ok(target.to_owned())
}

/// Where cargo put a binary of the workspace: beside this one, or in the release folder next to it.
pub(crate) fn built(name: &str, release: bool) -> anyhow::Result<PathBuf> {
    Ok(target()?.join(if release { "release" } else { "debug" }).join(name))
}
