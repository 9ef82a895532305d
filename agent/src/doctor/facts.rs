//! What is found on the node. Nothing is changed that would last: probes are taken out at once, no file is made.

use crate::capture::{self, AttachError, Capture, CaptureSettings, cgroups::CgroupNames, sockets};
use crate::config::keys::Config;
use crate::daemon::{RunError, capture_settings};
use crate::deliver::webhook::Webhook;
use crate::exit::Exit;
use crate::status;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::{fs::MetadataExt as _, net::UnixStream};
use std::path::{Path, PathBuf};

/// Everything that the judgement is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release of the running kernel.
    pub kernel: String,
    /// What this binary was built for, and so what runs.
    pub architecture: &'static str,
    /// Length of the kernel's BTF, or why it cannot be read.
    pub btf: Result<u64, String>,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// `RLIMIT_MEMLOCK` in bytes; none: unlimited.
    pub locked_memory: Option<u64>,
    /// Lockdown mode; none: the kernel does not say.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.perf_event_paranoid`
    pub perf_event_paranoid: Option<i64>,
    /// Every backend, best first, with the kernel's own refusal. Empty: not tried, `capture` says why.
    pub backends: Vec<(String, Result<(), String>)>,
    /// All of capture, as `run` starts it.
    pub capture: Result<Captured, Failed>,
    /// Whether the kernel tells when all programs that ran have ended.
    pub grace_periods: bool,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<PathBuf>,
    /// Whether we see the node's processes, and its cgroups, as the node does.
    pub initial_pid_namespace: bool,
    /// See there.
    pub initial_cgroup_namespace: bool,
    /// `kernel.io_uring_disabled`; none: a kernel that has no such switch.
    pub io_uring_disabled: Option<i64>,
    /// Processes that have an io_uring open.
    pub io_uring_users: BTreeSet<String>,
    /// Whether the kernel has TLS in sockets, now.
    pub ktls: bool,
    /// CPUs that run.
    pub cpus_online: usize,
    /// CPUs that there may ever be.
    pub cpus_possible: usize,
    /// Memory that can be had.
    pub available_bytes: Option<u64>,
    /// Ring of each CPU as configured.
    pub ring_bytes: u64,
    /// The spool's place; none: there is no spool on disk.
    pub spool: Option<Place>,
    /// How much the spool leaves free.
    pub spool_min_free: u64,
    /// The metrics address, if it is on.
    pub metrics: Option<(SocketAddr, Free)>,
    /// The control socket, if it is on.
    pub control: Option<(PathBuf, Free)>,
    /// Watched ports with the network namespaces in which something listens.
    pub ports: Vec<(u16, BTreeSet<u64>)>,
    /// Webhooks by name with what was proven of them, or what is wrong; none: they were not to be asked.
    pub webhooks: Option<Vec<(String, Result<String, String>)>>,
}

/// Capture as it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The backend that runs.
    pub backend: String,
    /// Why this one.
    pub reason: String,
    /// Rings that were opened.
    pub rings: usize,
}

/// Why there is no capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// As `run` would end.
    pub exit: Exit,
    /// As `run` would say it.
    pub message: String,
}

/// A directory that is there, or would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// Why nothing can be written there.
    pub problem: Option<String>,
    /// Type of the file system.
    pub file_system: String,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// Whether an address can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Free {
    /// Yes.
    Yes,
    /// A running s3auditd has it.
    Ours,
    /// No; why.
    No(String),
}

impl Facts {
    /// Looks at the node. `ask_webhooks`: connects to them, too. Takes a second or two.
    pub async fn gather(config: &Config, ask_webhooks: bool) -> Self {
        let settings = CaptureSettings { ports: Vec::new(), ..capture_settings(config) };
        let (backends, capture) = tried(settings);
        let listening = [sockets::Here::find().listening(), sockets::listening_elsewhere()];
        let namespaces = |port| {
            let on_it = listening.iter().flat_map(BTreeMap::values).filter(|listener| listener.port == port);
            on_it.map(|listener| listener.namespace).collect()
        };
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            architecture: std::env::consts::ARCH,
            btf: std::fs::metadata(capture::KERNEL_BTF)
                .and_then(|about| std::fs::File::open(capture::KERNEL_BTF).map(|_| about.len()))
                .map_err(|error| error.to_string()),
            capabilities: capture::effective_capabilities(),
            locked_memory: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            lockdown: word("/sys/kernel/security/lockdown").as_deref().and_then(chosen).map(str::to_owned),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            backends,
            capture,
            grace_periods: capture::has_grace_periods(),
            cgroup2: CgroupNames::new().mount().map(Path::to_owned),
            initial_pid_namespace: is_namespace("pid", INITIAL_PID),
            initial_cgroup_namespace: is_namespace("cgroup", INITIAL_CGROUP),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            io_uring_users: io_uring_users(),
            ktls: Path::new("/sys/module/tls").exists(),
            cpus_online: aya::util::online_cpus().map_or(0, |cpus| cpus.len()),
            cpus_possible: aya::util::nr_cpus().unwrap_or(0),
            available_bytes: available_bytes(&word("/proc/meminfo").unwrap_or_default()),
            ring_bytes: config.ring_bytes,
            spool: config.spool_dir.as_deref().filter(|_| !config.endpoints.is_empty()).map(place),
            spool_min_free: config.spool_min_free,
            metrics: match config.metrics_listen {
                Some(address) => Some((address, metrics_free(address).await)),
                None => None,
            },
            control: config.control_socket.clone().map(|path| (path.clone(), control_free(&path))),
            ports: config.listen.iter().map(|port| (*port, namespaces(*port))).collect(),
            webhooks: if ask_webhooks { Some(webhooks(config).await) } else { None },
        }
    }
}

/// Inodes of the namespaces that the node booted with (`include/linux/proc_ns.h`).
const INITIAL_PID: u64 = 0xEFFF_FFFC;
const INITIAL_CGROUP: u64 = 0xEFFF_FFFB;

type Backends = Vec<(String, Result<(), String>)>;

fn tried(settings: CaptureSettings) -> (Backends, Result<Captured, Failed>) {
    let failed = |error: AttachError| {
        let error = RunError::from(error);
        Failed { exit: error.exit(), message: error.to_string() }
    };
    if let Err(error) = capture::privileges() {
        return (Vec::new(), Err(failed(error)));
    }
    let backends = capture::try_backends(&settings).unwrap_or_default();
    let backends = backends.into_iter().map(|(name, tried)| (name.to_owned(), tried)).collect();
    let captured = Capture::start(settings).map(|mut capture| {
        let status = capture.status();
        Captured { backend: status.backend, reason: status.backend_reason, rings: capture.rings() }
    });
    (backends, captured.map_err(failed))
}

fn word(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<i64> {
    word(path)?.parse().ok()
}

/// The chosen one of `none [integrity] confidentiality`.
fn chosen(words: &str) -> Option<&str> {
    words.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen)
}

fn is_namespace(kind: &str, inode: u64) -> bool {
    std::fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|about| about.ino() == inode)
}

/// Kilobytes behind `MemAvailable:`.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Names of processes that hold an io_uring; only those that we may look into.
fn io_uring_users() -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let holds_one = |process: &Path| {
        let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        links.any(|link| link.as_os_str() == "anon_inode:[io_uring]")
    };
    let users = processes.map(|process| process.path()).filter(|process| holds_one(process));
    users
        .filter_map(|process| std::fs::read_to_string(process.join("comm")).ok())
        .map(|comm| comm.trim().into())
        .collect()
}

/// Looks at what the daemon would use, or make.
fn place(dir: &Path) -> Place {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let own = rustix::process::geteuid().as_raw();
    let problem = match std::fs::metadata(there) {
        Err(error) => Some(error.to_string()),
        Ok(about) if !about.is_dir() => Some(format!("{} is no directory", there.display())),
        Ok(about) if there == dir && (about.mode() & 0o077 != 0 || about.uid() != own) => {
            Some("it is open to others, or somebody else's".to_owned())
        }
        Ok(_) => rustix::fs::access(there, access).err().map(|error| error.to_string()),
    };
    let mounts = word("/proc/self/mountinfo").unwrap_or_default();
    let real = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    Place {
        dir: dir.to_owned(),
        problem,
        file_system: file_system(&mounts, &real).unwrap_or("unknown").to_owned(),
        free_bytes: rustix::fs::statvfs(there).map_or(0, |about| about.f_bavail.saturating_mul(about.f_frsize)),
    }
}

/// Type of the file system that a path is on: of the deepest mount, and of those the last.
fn file_system<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, about) = line.split_once(" - ")?;
        Some((Path::new(mount.split(' ').nth(4)?), about.split(' ').next()?))
    });
    let above = mounts.filter(|(mount, _)| path.starts_with(mount));
    above.max_by_key(|(mount, _)| mount.components().count()).map(|(_, kind)| kind)
}

async fn metrics_free(address: SocketAddr) -> Free {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Free::Yes,
        Err(_) if status::fetch(address).await.is_ok() => Free::Ours,
        Err(error) => Free::No(error.to_string()),
    }
}

fn control_free(path: &Path) -> Free {
    // A socket that nobody is behind is taken over.
    if UnixStream::connect(path).is_ok() {
        return Free::Ours;
    }
    match path.parent() {
        Some(folder) if !folder.is_dir() => Free::No(format!("there is no directory {}", folder.display())),
        _ => Free::Yes,
    }
}

async fn webhooks(config: &Config) -> Vec<(String, Result<String, String>)> {
    let mut asked = Vec::new();
    for endpoint in &config.endpoints {
        let proven = match Webhook::open(endpoint.clone()) {
            Ok(webhook) => webhook.verify().await,
            Err(error) => Err(error.to_string()),
        };
        asked.push((endpoint.name.clone(), proven));
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(chosen("none [integrity] confidentiality"), Some("integrity"));
        assert_eq!(chosen("nonsense"), None);
        assert_eq!(available_bytes("MemTotal: 2 kB\nMemAvailable:    1000 kB\n"), Some(1_024_000));
        let mounts =
            "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /var rw - xfs /dev/b rw\n3 2 0:3 / /var/lib rw - tmpfs t rw\n";
        assert_eq!(file_system(mounts, Path::new("/var/lib/s3auditd")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/var/library")), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/etc")), Some("ext4"));
    }

    #[test]
    fn a_place_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("not/there");
        let found = place(&missing);
        assert_eq!((found.problem, found.dir), (None, missing.clone()));
        assert!(!missing.exists() && found.free_bytes > 0);
        assert!(place(Path::new("/proc/version")).problem.is_some());
    }
}
