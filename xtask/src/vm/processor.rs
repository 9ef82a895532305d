//! The processors that guests have: what each needs to be built for, and to boot.

use crate::process::{cargo, command, output, target};
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processor {
    /// That of the machine itself: its own binaries run in the guest.
    Amd64,
    /// Built for with Debian's cross compiler.
    Arm64,
}

const ARM64: &str = "aarch64-unknown-linux-gnu";
/// Debian's prefix of the cross tools, and the folder under /usr with their libraries.
const ARM64_TOOLS: &str = "aarch64-linux-gnu";

impl Processor {
    /// As Debian calls it.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The end of a kernel package's name.
    pub(super) fn flavour(self) -> String {
        format!("-cloud-{}", self.debian())
    }

    /// For names that would be those of the machine's own processor otherwise.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Amd64 => "",
            Self::Arm64 => "-arm64",
        }
    }

    /// The emulator, and the package that has it.
    pub(super) fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// The emulator's arguments for a machine of its kind.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "-cpu max",
            // Without pointer authentication, which costs an emulator half its speed.
            Self::Arm64 => "-machine virt -cpu max,pauth=off",
        }
    }

    /// The words of the kernel's command line that are its own: console and clock.
    pub(super) fn words(self) -> &'static str {
        match self {
            // The emulator's clock, not the processor's: how fast that one goes a guest cannot find out on a busy
            // machine, and a clock that is eight times too fast (seen on 7.2) ends every patience too soon.
            Self::Amd64 => "console=ttyS0 tsc=nowatchdog clocksource=hpet",
            Self::Arm64 => "console=ttyAMA0",
        }
    }

    /// Says what is missing to build for it.
    pub(super) fn check(self) -> anyhow::Result<()> {
        if self == Self::Amd64 {
            return Ok(());
        }
        let installed = output(command("rustup").args(["target", "list", "--installed"])).unwrap_or_default();
        ensure!(installed.lines().any(|line| line == ARM64), "arm64 needs `rustup target add {ARM64}`");
        let compiler = output(command(format!("{ARM64_TOOLS}-gcc")).arg("--version"));
        compiler.context("arm64 needs Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")?;
        Ok(())
    }

    /// Cargo, to build for it; `--target` has to stand among the arguments of a command.
    pub(super) fn cargo(self, arguments: &[&str]) -> Command {
        let mut cargo = cargo();
        cargo.args(arguments);
        if self == Self::Arm64 {
            let compiler = format!("{ARM64_TOOLS}-gcc");
            cargo.args(["--target", ARM64]).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", &compiler);
            cargo.env("CC_aarch64_unknown_linux_gnu", &compiler);
        }
        cargo
    }

    /// Where cargo put a binary.
    pub(super) fn built(self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = if self == Self::Arm64 { target()?.join(ARM64) } else { target()? };
        Ok(folder.join("debug").join(name))
    }

    pub(super) fn strip(self) -> Command {
        match self {
            Self::Amd64 => command("strip"),
            Self::Arm64 => command(format!("{ARM64_TOOLS}-strip")),
        }
    }

    /// What a program is linked with, the loader included: where it lies here, and where it belongs in the guest. None for
    /// a static one.
    pub(super) fn libraries(self, program: &Path) -> Vec<(PathBuf, PathBuf)> {
        match self {
            Self::Amd64 => {
                let said = output(command("ldd").arg(program)).unwrap_or_default();
                let path = |line: &str| {
                    let place = line.split_once("=>").map_or(line, |(_, place)| place);
                    place.split_whitespace().next().filter(|place| place.starts_with('/')).map(PathBuf::from)
                };
                said.lines().filter_map(path).map(|place| (place.clone(), place)).collect()
            }
            // Nothing here can load it to find out; all of Rust's programs need these.
            Self::Arm64 => ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"]
                .map(|name| (Path::new("/usr").join(ARM64_TOOLS).join("lib").join(name), Path::new("/lib").join(name)))
                .to_vec(),
        }
    }
}
