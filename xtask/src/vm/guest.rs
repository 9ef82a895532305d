//! One guest: boots, runs, powers off; what it told on its console.
//!
//! Only the verdict line counts. QEMU ends with 0 even when the kernel panicked, and a guest that hangs says nothing.

use super::kernel::{Kernel, Series};
use super::qemu::Qemu;
use super::{GO_SERVERS, SERVERS};
use anyhow::Context as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How `tests/src/bin/guest_init.rs` begins its lines.
const MARK: &str = "guest: ";
/// For a whole guest; far beyond what one takes.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Waiting in the tests, against that of a real machine.
const SLOWNESS: u32 = 10;

/// What is to be run.
pub(super) struct Guest<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    /// Where its console goes.
    pub(super) folder: &'a Path,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) told: Told,
    pub(super) console: PathBuf,
    pub(super) took: Duration,
    /// QEMU ended before user space, and was started again.
    pub(super) retried: bool,
}

/// The console, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    user_space: bool,
    /// What `uname -r` says.
    pub(super) kernel: Option<String>,
    /// Why nothing could be run.
    pub(super) broken: Option<String>,
    /// Each backend's run that was begun.
    pub(super) runs: Vec<Run>,
}

/// What came of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) backend: String,
    /// By which hooks the daemon captured.
    pub(super) hooks: Option<String>,
    /// Each program that the kernel loaded, and how many instructions its verifier went through.
    pub(super) verified: Vec<(String, String)>,
    /// Each scenario that ended, whether it passed, and in how many seconds.
    pub(super) scenarios: Vec<(String, bool, u64)>,
    pub(super) verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many passed, so many failed.
    Ran { passed: usize, failed: usize },
    /// The daemon does not run there, and says why.
    Refused(String),
    /// The guest could not do its work.
    Broken(String),
}

impl Guest<'_> {
    /// Never repeated once user space was reached; a QEMU that ends before is started a second time.
    pub(super) fn run(&self) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let console = self.folder.join(format!("{}.log", self.kernel.name()));
        let mut told = self.boot(&console)?;
        let retried = !told.user_space;
        if retried {
            fs::rename(&console, console.with_extension("first.log"))?;
            told = self.boot(&console)?;
        }
        Ok(Outcome { told, console, took: started.elapsed(), retried })
    }

    fn boot(&self, console: &Path) -> anyhow::Result<Told> {
        let Series { name, words, processor, .. } = self.kernel.series;
        // What the kernel does not know becomes the environment of the first process.
        let words = format!(
            "{} quiet loglevel=4 panic=-1 {words} S3AUDITD_GUEST={name} S3AUDITD_BIN=/s3auditd \
             S3AUDITD_GO_HTTPS=/{GO_SERVERS} S3AUDITD_SERVERS=/{SERVERS} S3AUDITD_NO_SKIP=1 \
             S3AUDITD_PATIENCE={SLOWNESS}",
            processor.words()
        );
        let mut command = self.qemu.boot(&self.kernel.image(), self.initramfs, &words)?;
        let log = File::create(console).with_context(|| format!("creating {}", console.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut machine = command.spawn().context("starting QEMU")?;
        let deadline = Instant::now() + PATIENCE;
        while machine.try_wait()?.is_none() {
            if Instant::now() > deadline {
                machine.kill()?;
                machine.wait()?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Told::read(&String::from_utf8_lossy(&fs::read(console)?)))
    }
}

impl Told {
    fn read(console: &str) -> Self {
        let mut told = Self::default();
        // The kernel may have begun the line.
        for words in console.lines().filter_map(|line| line.trim_end().split_once(MARK)).map(|(_, words)| words) {
            let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
            match (kind, told.runs.last_mut()) {
                ("user", _) => told.user_space = true,
                ("kernel", _) => told.kernel = Some(rest.to_owned()),
                ("broken", _) => told.broken = Some(rest.to_owned()),
                ("run", _) => told.runs.push(Run { backend: rest.to_owned(), ..Run::default() }),
                (_, Some(run)) => run.tell(kind, rest),
                (_, None) => {}
            }
        }
        told
    }
}

impl Run {
    fn tell(&mut self, kind: &str, rest: &str) {
        let (name, number) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = name.to_owned();
        match kind {
            "hooks" => self.hooks = Some(name),
            "verified" => self.verified.push((name, number.to_owned())),
            "passed" | "failed" => self.scenarios.push((name, kind == "passed", number.parse().unwrap_or(0))),
            "verdict" => self.verdict = Some(Verdict::read(rest)),
            _ => {}
        }
    }

    pub(super) fn seconds(&self) -> u64 {
        self.scenarios.iter().map(|(.., seconds)| seconds).sum()
    }
}

impl Verdict {
    fn read(words: &str) -> Self {
        match words.split(' ').collect::<Vec<_>>().as_slice() {
            ["passed", passed, "failed", failed] => match (passed.parse(), failed.parse()) {
                (Ok(passed), Ok(failed)) => Self::Ran { passed, failed },
                _ => Self::Broken(words.to_owned()),
            },
            ["refused", ..] => Self::Refused(words.trim_start_matches("refused ").to_owned()),
            _ => Self::Broken(words.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_read() {
        let console = "SeaBIOS\r\nguest: user space\r\nguest: kernel 6.1.0\r\nguest: run one\r\nguest: verified p 12\r\n\
                       guest: hooks one 5\r\nguest: passed a::b 3\r\nsome words\r\n[   1.0] guest: failed a::c 4\r\n\
                       guest: verdict passed 1 failed 1\r\nguest: run two\r\nguest: verdict refused no way\r\nguest: run three\r\n";
        let run = |backend: &str| Run { backend: backend.to_owned(), ..Run::default() };
        let one = Run {
            hooks: Some("one".to_owned()),
            verified: vec![("p".to_owned(), "12".to_owned())],
            scenarios: vec![("a::b".to_owned(), true, 3), ("a::c".to_owned(), false, 4)],
            verdict: Some(Verdict::Ran { passed: 1, failed: 1 }),
            ..run("one")
        };
        let two = Run { verdict: Some(Verdict::Refused("no way".to_owned())), ..run("two") };
        let expected = Told {
            user_space: true,
            kernel: Some("6.1.0".to_owned()),
            broken: None,
            runs: vec![one, two, run("three")],
        };
        assert_eq!(Told::read(console), expected);
        assert_eq!(Told::read("Kernel panic\r\n"), Told::default());
        assert_eq!(Verdict::read("passed many"), Verdict::Broken("passed many".to_owned()));
    }
}
