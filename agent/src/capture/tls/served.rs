//! Which processes serve the watched ports, and from which files they run. Looks at every process only when it may have to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// What one file on disk is known by, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// The file that a process runs from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub pid: u32,
    pub comm: String,
    pub file: FileId,
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

fn file_of(pid: u32) -> Option<FileId> {
    let metadata = fs::metadata(executable(pid)).ok()?;
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
        let served: Vec<_> = holders.into_iter().filter_map(served).collect();
        self.processes = served.iter().map(|one| (one.pid, one.file)).collect();
        Some(served)
    }
}

fn served(pid: u32) -> Option<Served> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Served { pid, comm: comm.trim_end().to_owned(), file: file_of(pid)? })
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
    fn links_of_descriptors() {
        assert_eq!(socket("socket:[12345]"), Some(12_345));
        assert_eq!(socket("pipe:[12345]"), None);
    }
}
