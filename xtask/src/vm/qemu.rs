//! QEMU: the machine's own if it is good enough, else Debian's backport unpacked in the cache. Nothing is installed.

use super::processor::Processor;
use crate::apt::{Apt, Installed, codename};
use crate::fetch::cache;
use crate::process::{command, output};
use anyhow::{Context as _, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// 7.2 crashed in a quarter of the boots that were counted, 10.0 in none of 67.
const LEAST: u32 = 9;

/// A QEMU that works here.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    processor: Processor,
    /// Where it is unpacked; none is the machine's own.
    root: Option<PathBuf>,
    pub(super) version: String,
}

impl Qemu {
    /// Brings it if need be.
    pub(super) fn fetch(processor: Processor) -> anyhow::Result<Self> {
        if let Some(own) = Self::found(processor, None) {
            return Ok(own);
        }
        let place = cache()?.join(format!("qemu{}", processor.suffix()));
        if let Some(kept) = Self::found(processor, Some(place.clone())) {
            return Ok(kept);
        }
        let (program, package) = processor.emulator();
        eprintln!("vm: fetching {program}");
        let release = codename()?;
        let suites = ["", "-updates", "-security", "-backports"].map(|part| format!("{release}{part}"));
        // QEMU and its firmware from the backports, all else from the release.
        let backports = "Package: src:qemu src:seabios\nPin: release n=*-backports\nPin-Priority: 990\n";
        let apt = Apt::open(
            &suites.each_ref().map(String::as_str),
            Processor::Amd64.debian(),
            backports,
            Installed::ThisMachine,
        )?;
        let aside = place.with_extension(std::process::id().to_string());
        apt.unpack_with_dependencies(package, &aside)?;
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&aside, &place)?;
        Self::found(processor, Some(place))
            .with_context(|| format!("the QEMU of {release}-backports does not run or is too old"))
    }

    fn found(processor: Processor, root: Option<PathBuf>) -> Option<Self> {
        let qemu = Self { processor, root, version: String::new() };
        // QEMU emulator version 10.0.2 (Debian ...)
        let said = output(qemu.command().arg("--version"))?;
        let version = said.split_whitespace().nth(3)?.to_owned();
        let major: u32 = version.split('.').next()?.parse().ok()?;
        (major >= LEAST).then_some(Self { version, ..qemu })
    }

    fn command(&self) -> Command {
        let (program, _) = self.processor.emulator();
        let Some(root) = &self.root else { return command(program) };
        let mut command = command(root.join("usr/bin").join(program));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|place| root.join(place));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(firmware));
        }
        command
    }

    /// A machine with two emulated CPUs, a serial console on stdout and nothing else.
    pub(super) fn boot(&self, image: &Path, initramfs: &Path, words: &str) -> anyhow::Result<Command> {
        // COMMAND_LINE_SIZE of x86 and of arm64.
        ensure!(words.len() < 2048, "the kernel takes no command line of {} bytes", words.len());
        let mut command = self.command();
        // KVM is no choice: where it is offered inside a virtual machine, guests die with it.
        command.args("-accel tcg,thread=multi -smp 2 -m 1G".split(' ')).args(self.processor.machine().split(' '));
        command.args("-nodefaults -no-user-config -display none -nic none -no-reboot -serial stdio".split(' '));
        command.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", words]);
        Ok(command)
    }
}
