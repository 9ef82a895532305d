//! Sockets in every network namespace that a process lives in: who listens, what is open. As `/proc` shows them, but for the
//! listeners of the agent's own namespace, which the kernel can be asked for.
//!
//! A namespace is read through one of its processes (`/proc/PID/net`). So the agent has to see the processes of the node
//! (its own PID namespace has to be the host's), and a namespace that no process is in is not seen.

use super::diag::Diag;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader},
};

const TABLES: [&str; 2] = ["tcp", "tcp6"];
/// TCP states as the tables write them.
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// Most namespaces that are looked into; what further ones listen on is not known. A node with that many is no storage node.
pub const MAX_NAMESPACES: usize = 1024;

/// Sockets (inodes) that listen.
pub type Listening = BTreeMap<u64, Listener>;

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Local port.
    pub port: u16,
    /// Network namespace (inode).
    pub namespace: u64,
}

/// The agent's own namespace, which it never leaves.
pub struct Here {
    namespace: Option<u64>,
    diag: Diag,
}

impl Here {
    /// Finds out which it is.
    #[must_use]
    pub fn find() -> Self {
        Self { namespace: namespace_of("self"), diag: Diag::default() }
    }

    /// What listens in it.
    pub fn listening(&mut self) -> Listening {
        let mut listening = Listening::new();
        if let Some(namespace) = self.namespace {
            match self.diag.listening() {
                Some(sockets) => {
                    let here = |(socket, port)| (socket, Listener { port, namespace });
                    listening.extend(sockets.into_iter().map(here));
                }
                None => drop(listeners("self", namespace, &mut listening)),
            }
        }
        listening
    }
}

/// The same in all namespaces but the agent's own. Looks at every process once.
#[must_use]
pub fn listening_elsewhere() -> Listening {
    let mut listening = Listening::new();
    let here = namespace_of("self");
    for_each_namespace(|process, namespace| {
        here == Some(namespace) || listeners(process, namespace, &mut listening).is_some()
    });
    listening
}

/// How many connections are open on these local ports, in all namespaces.
#[must_use]
pub fn open_connections(watched: &[u16]) -> u64 {
    let mut open = 0;
    for_each_namespace(|process, _| {
        let read = for_each_socket(process, |entry| {
            open += u64::from(entry.is_open_on(watched));
            true
        });
        read.is_some()
    });
    open
}

/// Whether a connection on these local ports is open in the namespace of one of these processes, the agent's own namespace apart.
#[must_use]
pub fn is_open_elsewhere(processes: impl IntoIterator<Item = u32>, watched: &[u16]) -> bool {
    let mut done: BTreeSet<_> = namespace_of("self").into_iter().collect();
    processes.into_iter().map(|process| process.to_string()).any(|process| {
        let mut is_open = false;
        if namespace_of(&process).is_some_and(|namespace| done.insert(namespace)) {
            for_each_socket(&process, |entry| {
                is_open |= entry.is_open_on(watched);
                !is_open
            });
        }
        is_open
    })
}

/// Adds what listens in the namespace of this process; None: it is gone. The tables show listeners first, and reading stops
/// behind them; the kernel has gone through all connections of the node by then.
fn listeners(process: &str, namespace: u64, listening: &mut Listening) -> Option<()> {
    for_each_socket(process, |Entry { port, state, inode }| {
        if state == LISTEN {
            listening.insert(inode, Listener { port, namespace });
        }
        state == LISTEN
    })
}

/// Calls `each` with a process of every namespace, until it answers true for that namespace (the process may have gone).
/// The agent's own namespace comes first.
fn for_each_namespace(mut each: impl FnMut(&str, u64) -> bool) {
    let mut done = BTreeSet::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let processes = processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    for process in std::iter::once("self".to_owned()).chain(processes) {
        let Some(namespace) = namespace_of(&process) else { continue };
        if !done.contains(&namespace) && each(&process, namespace) {
            done.insert(namespace);
            if done.len() == MAX_NAMESPACES {
                return;
            }
        }
    }
}

/// The network namespace of a process, as its inode; None: it is gone, or not ours to look at.
fn namespace_of(process: &str) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{process}/ns/net")).ok()?;
    inode(link.to_str()?)
}

/// `net:[4026531840]`
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Calls `each` with the sockets of a process's namespace until it answers false. A table that is
/// not there (no IPv6) is empty; None: no table could be read.
fn for_each_socket(process: &str, mut each: impl FnMut(Entry<'_>) -> bool) -> Option<()> {
    let mut read = None;
    for table in TABLES {
        let Ok(file) = File::open(format!("/proc/{process}/net/{table}")) else { continue };
        read = Some(());
        for line in BufReader::new(file).lines().skip(1).map_while(Result::ok) {
            if let Some(entry) = entry(&line)
                && !each(entry)
            {
                break;
            }
        }
    }
    read
}

/// What is read of a line.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    port: u16,
    state: &'a str,
    inode: u64,
}

impl Entry<'_> {
    fn is_open_on(&self, ports: &[u16]) -> bool {
        matches!(self.state, ESTABLISHED | CLOSE_WAIT) && ports.contains(&self.port)
    }
}

/// A line: `sl local_address rem_address st queues timer retransmits uid timeout inode ...`, addresses as hex
/// `ADDRESS:PORT`.
fn entry(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Entry { port: u16::from_str_radix(port, 16).ok()?, state, inode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn lines_of_the_table_and_names_of_namespaces_are_read() {
        let line = "   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1";
        assert_eq!(entry(line), Some(Entry { port: 9000, state: "0A", inode: 1234 }));
        assert_eq!(entry("nonsense"), None);
        assert_eq!(entry("0: 00:zz 00:00 01"), None);
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(inode("mnt:[4026531840]"), None);
    }

    #[test]
    fn a_listener_and_its_connections_are_found_in_the_own_namespace() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (namespace, socket) = (namespace_of("self").unwrap(), rustix::fs::fstat(&listener).unwrap().st_ino);
        let listens = Listener { port: address.port(), namespace };
        assert_eq!(Here::find().listening().get(&socket), Some(&listens));
        let mut shown = Listening::new();
        assert_eq!(listeners("self", namespace, &mut shown), Some(()));
        assert_eq!(shown.get(&socket), Some(&listens), "the tables and the kernel's answer agree");
        assert!(!listening_elsewhere().values().any(|listener| listener.namespace == namespace));
        assert_eq!(open_connections(&[address.port()]), 0);
        let _client = TcpStream::connect(address).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(open_connections(&[address.port()]), 1);
    }
}
