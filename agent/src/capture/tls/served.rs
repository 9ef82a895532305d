//! Which processes serve the watched ports, and which files they run that may have a TLS library. Looks at every process only when it may have to.

use super::{gnutls, openssl};
use crate::capture::sockets;
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
    /// Through which the very file is opened, also when it was replaced or is in a container.
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

fn file_of(pid: u32) -> Option<FileId> {
    id_of(&executable(pid))
}

fn id_of(path: &Path) -> Option<FileId> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileId { device: metadata.dev(), inode: metadata.ino() })
}

impl Serving {
    /// Everybody who has a listener on one of these ports; None: nothing has changed since the last look.
    pub fn look(&mut self, ports: &[u16]) -> Option<Vec<Served>> {
        let sockets = sockets::listening_sockets(ports);
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
    let companion = mapped.iter().find(|(name, _)| openssl::is_companion(name)).map(|(_, path)| path.clone());
    let libraries = mapped.into_iter().filter(|(name, _)| openssl::is_library(name) || gnutls::is_library(name));
    let libraries = libraries.filter_map(|(_, path)| one(path, true, companion.clone()));
    one(executable(pid), false, None).into_iter().chain(libraries).collect()
}

/// Files of which a process runs code, by name, from its `maps`: each once, and with the path through which to open it.
fn mapped(pid: u32, maps: &str) -> Vec<(String, PathBuf)> {
    let mut files = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(_), Some(device), Some(inode), Some(name)) =
            (words.next(), words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some((_, name)) = name.rsplit_once('/').filter(|_| rights.contains('x')) else { continue };
        let path = PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
        files.entry((device, inode)).or_insert((name.to_owned(), path));
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
        let port = listener.local_addr().unwrap().port();
        let mut serving = Serving::default();
        let served = serving.look(&[port]).unwrap();
        let own = std::process::id();
        assert_eq!(served.iter().map(|one| one.pid).collect::<Vec<_>>(), [own]);
        assert_eq!(Some(served[0].file), file_of(own));
        assert_eq!(serving.look(&[port]), None);
        drop(listener);
        assert_eq!(serving.look(&[port]), Some(Vec::new()));
    }

    #[test]
    fn files_of_which_code_is_mapped() {
        let maps = "7f0000-7f1000 r--p 00000000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f1000-7f2000 r-xp 00001000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f2000-7f3000 r-xp 00002000 fe:00 12 /usr/lib/libssl.so.3\n\
                    7f3000-7f4000 r-xp 00000000 fe:00 13 /old/libcrypto.so.3 (deleted)\n\
                    7f4000-7f5000 r-xp 00000000 00:00 0 [vdso]\n7f5000-7f6000 r-xp 00000000 00:00 0\n";
        let found = |name: &str, range| (name.to_owned(), PathBuf::from(format!("/proc/7/map_files/{range}")));
        assert_eq!(mapped(7, maps), [found("libssl.so.3", "7f1000-7f2000"), found("libcrypto.so.3", "7f3000-7f4000")]);
    }

    #[test]
    fn links_of_descriptors() {
        assert_eq!(socket("socket:[12345]"), Some(12_345));
        assert_eq!(socket("pipe:[12345]"), None);
    }
}
