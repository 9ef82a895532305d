//! The first process of a guest that `cargo xtask test --vm` boots: it runs scenarios of the end-to-end suite on that
//! kernel with each backend, tells each result on the console, and powers off.
//!
//! The daemon, the suite and the list of what to run lie at the root of the initramfs. Lines that begin with [`MARK`] are
//! for `xtask/src/vm/guest.rs`; the last one of each backend is its verdict, and without it that run has failed.

use anyhow::Context as _;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SendFlags, SocketType, send, socket};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, finit_module, reboot};
use s3auditd_tests::backend;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::need;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How each line begins that is a result.
const MARK: &str = "guest:";
const INIT: &str = "/init";
const SUITE: &str = "/e2e";
const SCENARIOS: &str = "/scenarios";
/// For each release of a kernel a folder: its modules, and `order`, which names them in the order to load them in.
const MODULES: &str = "/modules";
/// A scenario that still runs then is ended; far beyond what any takes, because time under emulation says nothing.
const SCENARIO_PATIENCE: Duration = Duration::from_secs(900);
/// Of what a failed scenario said, at most this much, from its end.
const MOST_SAID: usize = 32 * 1024;

fn main() {
    if let Some(backend) = std::env::args().nth(1).filter(|_| std::process::id() != 1) {
        let verdict = run(&backend).unwrap_or_else(|error| format!("error {}", one_line(&format!("{error:#}"))));
        return println!("{MARK} verdict {verdict}");
    }
    println!("{MARK} user space");
    if let Err(error) = prepare().and_then(|()| run_all()) {
        println!("{MARK} broken {}", one_line(&format!("{error:#}")));
    }
    // What the serial line has not sent yet would go with the power; nothing tells when it has.
    std::thread::sleep(Duration::from_secs(1));
    // An init that ends is a kernel panic: then the console says so.
    let _ = reboot(RebootCommand::PowerOff);
}

/// What the daemon and the suite expect of a system.
fn prepare() -> anyhow::Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        // In sysfs the places are there; in the initramfs they may not be.
        let _ = std::fs::create_dir_all(place);
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} at {place}"))?;
    }
    loopback_up().context("bringing up the loopback interface")
}

/// `ip link set lo up` as a message to rtnetlink (rtnetlink(7), `RTM_NEWLINK`).
fn loopback_up() -> anyhow::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::new();
    // nlmsghdr: length, type, flags, sequence, port.
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // ifinfomsg: family, padding, type, index, flags, which flags change.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &message, SendFlags::empty())?;
    Ok(())
}

/// One that cannot be loaded is told; the scenario that needs it fails and says what it misses.
fn load_modules(folder: &Path) -> anyhow::Result<()> {
    let order = std::fs::read_to_string(folder.join("order")).context("the list of this kernel's modules")?;
    for name in order.lines() {
        match File::open(folder.join(name)).and_then(|module| Ok(finit_module(module, c"", 0)?)) {
            Ok(()) => println!("{MARK} module {name}"),
            Err(error) => println!("{MARK} module {name}: {error}"),
        }
    }
    Ok(())
}

/// This program again for each backend, which it finds in its environment like everything that it starts.
fn run_all() -> anyhow::Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("{MARK} kernel {}", kernel.trim());
    load_modules(&Path::new(MODULES).join(kernel.trim()))?;
    for (backend, _) in wanted()? {
        println!("{MARK} run {backend}");
        Command::new(INIT)
            .arg(&backend)
            .env(backend::VARIABLE, &backend)
            .status()
            .context("starting this program again")?;
    }
    Ok(())
}

/// Each backend that is tried in this guest, with the scenarios to run: of each line, the words behind the guest's own name.
fn wanted() -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(SCENARIOS)?;
    let guest = std::env::var(need::GUEST).unwrap_or_default();
    let run = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        words.next().filter(|name| *name == guest)?;
        Some((words.next()?, words.collect()))
    };
    Ok(text.lines().filter_map(run).collect())
}

/// The verdict's words: a refusal of the kernel, or how many passed.
fn run(backend: &str) -> anyhow::Result<String> {
    let started = Instant::now();
    match chosen_backend() {
        Ok(chosen) => println!("{MARK} hooks {chosen} {}", started.elapsed().as_secs()),
        Err(refusal) => return Ok(format!("refused {}", one_line(&format!("{refusal:#}")))),
    }
    let (mut passed, mut failed) = (0, 0);
    let wanted = wanted()?.into_iter().find(|(name, _)| name == backend).context("no such backend is in the list")?;
    for name in &wanted.1 {
        println!("{MARK} begins {name}");
        let started = Instant::now();
        let result = scenario(name).with_context(|| name.to_owned())?;
        let took = started.elapsed().as_secs();
        match result {
            Ok(said) => {
                passed += 1;
                // What a scenario has noted of the kernel.
                said.lines().filter(|line| line.contains("noted: ")).for_each(|line| println!("{line}"));
                println!("{MARK} passed {name} {took}");
            }
            Err(said) => {
                failed += 1;
                println!("{said}\n{MARK} failed {name} {took}");
            }
        }
    }
    Ok(format!("passed {passed} failed {failed}"))
}

/// The backend that the daemon runs with here.
fn chosen_backend() -> anyhow::Result<String> {
    let daemon = Daemon::start(&[9], None, &[])?;
    let status = daemon.status()?;
    let chosen = status.backend().context("the status page names no backend")?.to_owned();
    for (program, instructions) in status.verified_instructions() {
        println!("{MARK} verified {program} {instructions}");
    }
    daemon.stop()?;
    if let Some(wanted) = backend::forced() {
        anyhow::ensure!(wanted == chosen, "the backend {wanted} was asked for, and {chosen} runs");
    }
    Ok(chosen)
}

/// What it said; as an error, when it failed.
fn scenario(name: &str) -> anyhow::Result<Result<String, String>> {
    let path = Path::new("/tmp/said");
    let said = File::create(path)?;
    let mut suite = Command::new(SUITE);
    suite.args(["--exact", name]).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    let mut child = suite.process_group(0).spawn().context("starting the suite")?;
    let group = Pid::from_child(&child);
    let deadline = Instant::now() + SCENARIO_PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // The daemon and whatever else it has started, if it left them.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait()?;
    let mut said = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    match status {
        // Not a scenario that is ignored, nor a name that there is not.
        Some(status) if status.success() && said.contains("1 passed") => return Ok(Ok(said)),
        Some(status) => said.push_str(&format!("\n{name} ended with {status}")),
        None => said.push_str(&format!("\n{name} still ran after {SCENARIO_PATIENCE:?}")),
    }
    let from = said.char_indices().map(|(at, _)| at).find(|at| said.len() - at <= MOST_SAID).unwrap_or(0);
    Ok(Err(said.get(from..).unwrap_or_default().to_owned()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
