//! Which processes serve the watched ports, and which files they run that may have a TLS library. Looks at every process only when it may have to.

use super::{gnutls, openssl};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What one file on disk is known by, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// A file that a process runs: its program, or a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub pid: u32,
    pub comm: String,
    pub file: FileId,
    /// Through which it is opened, also when it is in a container.
    pub path: PathBuf,
    /// A library that the program has loaded.
    pub is_library: bool,
    /// The other half of a library, if it has one.
    pub companion: Option<PathBuf>,
}

/// How often every process is looked at although nothing seems to have changed: a listener may have been handed on.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Serving {
    /// Inodes of the listening sockets.
    sockets: BTreeSet<u64>,
    processes: BTreeMap<u32, FileId>,
    looked: Option<Instant>,
}

/// Through this path the kernel and we reach the file of a process, also when it was replaced or is in a container.
pub fn executable(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Whether the process keeps its return addresses on a second stack as well, which the kernel forgets when it carries out a call in its
/// place (Linux, `emulate_push_stack` in `arch/x86/kernel/uprobes.c`).
pub fn has_shadow_stack(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_shadowed(&status))
}

fn is_shadowed(status: &str) -> bool {
    let features = status.lines().find_map(|line| line.strip_prefix("x86_Thread_features:"));
    features.is_some_and(|features| features.split_whitespace().any(|feature| feature == "shstk"))
}

fn file_of(pid: u32) -> Option<FileId> {
    id_of(&executable(pid))
}

fn id_of(path: &Path) -> Option<FileId> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileId { device: metadata.dev(), inode: metadata.ino() })
}

impl Serving {
    /// Everybody who has one of these listening sockets (inodes); None: nothing has changed since the last look.
    pub fn look(&mut self, sockets: BTreeSet<u64>) -> Option<Vec<Served>> {
        let same = sockets == self.sockets
            && self.looked.is_some_and(|looked| looked.elapsed() < AT_LEAST_EVERY)
            && self.processes.iter().all(|(pid, file)| file_of(*pid) == Some(*file));
        if same {
            return None;
        }
        self.looked = Some(Instant::now());
        let holders = if sockets.is_empty() { Vec::new() } else { holders_of(&sockets) };
        self.sockets = sockets;
        let served: Vec<_> = holders.into_iter().flat_map(served).collect();
        self.processes = served.iter().filter(|one| !one.is_library).map(|one| (one.pid, one.file)).collect();
        Some(served)
    }
}

/// Its program and its libraries.
fn served(pid: u32) -> Vec<Served> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let one = |path: PathBuf, is_library, companion| {
        let comm = comm.trim_end().to_owned();
        Some(Served { pid, comm, file: id_of(&path)?, path, is_library, companion })
    };
    let mapped = mapped(pid, &fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default());
    let path = |file: &Mapped| file.paths.iter().find(|path| fs::metadata(path).is_ok()).cloned();
    let companion = mapped.iter().find(|file| openssl::is_companion(&file.name)).and_then(path);
    let libraries = mapped.iter().filter(|file| openssl::is_library(&file.name) || gnutls::is_library(&file.name));
    let libraries = libraries.filter_map(|file| one(path(file)?, true, companion.clone()));
    one(executable(pid), false, None).into_iter().chain(libraries).collect()
}

/// A file of which a process runs code.
#[derive(Debug, PartialEq, Eq)]
struct Mapped {
    name: String,
    /// Ways to open it, best first: the very file, which takes `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN`; and what has its
    /// path now.
    paths: [PathBuf; 2],
}

/// Each once, from its `maps`.
fn mapped(pid: u32, maps: &str) -> Vec<Mapped> {
    let mut files = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(_), Some(device), Some(inode)) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // It may have spaces in it; behind a removed one stands " (deleted)", so that it leads nowhere.
        let Some((_, path)) = line.split_once('/').filter(|_| rights.contains('x')) else { continue };
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let paths = [format!("/proc/{pid}/map_files/{range}"), format!("/proc/{pid}/root/{path}")].map(PathBuf::from);
        files.entry((device, inode)).or_insert(Mapped { name, paths });
    }
    files.into_values().collect()
}

/// The processes that have one of these sockets open.
fn holders_of(sockets: &BTreeSet<u64>) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_str().and_then(socket).is_some_and(|inode| sockets.contains(&inode)))
    })
    .collect()
}

/// `socket:[12345]`
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_ours_is_ours_and_only_changes_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = BTreeSet::from([rustix::fs::fstat(&listener).unwrap().st_ino]);
        let mut serving = Serving::default();
        let served = serving.look(sockets.clone()).unwrap();
        let own = std::process::id();
        assert_eq!(served.iter().map(|one| one.pid).collect::<Vec<_>>(), [own]);
        assert_eq!(Some(served[0].file), file_of(own));
        assert_eq!(serving.look(sockets), None);
        assert_eq!(serving.look(BTreeSet::new()), Some(Vec::new()));
    }

    #[test]
    fn files_of_which_code_is_mapped() {
        let maps = "7f0000-7f1000 r--p 00000000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f1000-7f2000 r-xp 00001000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f2000-7f3000 r-xp 00002000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f3000-7f4000 r-xp 00000000 fe:00 13 /old place/libcrypto.so.3 (deleted)\n\
                    7f4000-7f5000 r-xp 00000000 00:00 0 [vdso]\n7f5000-7f6000 r-xp 00000000 00:00 0\n";
        let found = |name: &str, range, path| Mapped {
            name: name.to_owned(),
            paths: [format!("/proc/7/map_files/{range}"), format!("/proc/7/root/{path}")].map(PathBuf::from),
        };
        let library = found("libssl.so.3", "7f1000-7f2000", "usr/lib/libssl.so.3");
        let removed = "old place/libcrypto.so.3 (deleted)";
        let removed = found("libcrypto.so.3 (deleted)", "7f3000-7f4000", removed);
        assert_eq!(mapped(7, maps), [library, removed]);
    }

    #[test]
    fn a_second_stack_is_a_feature_of_the_thread() {
        let status = |features: &str| {
            format!("Name:\tnginx\nx86_Thread_features:\t{features}\nx86_Thread_features_locked:\tshstk\n")
        };
        assert!(is_shadowed(&status("shstk wrss")) && !is_shadowed(&status("")) && !is_shadowed("Name:\tnginx\n"));
    }

    #[test]
    fn links_of_descriptors() {
        assert_eq!(socket("socket:[12345]"), Some(12_345));
        assert_eq!(socket("pipe:[12345]"), None);
    }
}
