//! Sockets of the agent's own network namespace, asked of the kernel by `sock_diag` (`man 7 sock_diag`): who listens, and which
//! connections are open.
//!
//! `/proc/net/tcp` shows the same, but at its end the kernel goes through its whole table of connections, however few there
//! are: 1.5 ms on a node with the default table. The question is answered from the table of listeners alone
//! (`inet_diag_dump_icsk` in `net/ipv4/inet_diag.c`). Of connections `/proc` does not tell the cookie.

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};
use std::{collections::BTreeMap, os::fd::OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ports by socket (inode).
type Found = BTreeMap<u64, u16>;

/// `struct nlmsghdr` with the `struct inet_diag_req_v2` behind it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port_id: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    /// A bit for each TCP state.
    states: u32,
    /// Zero: any.
    id: SocketId,
}

/// `struct inet_diag_sockid`: ports (big-endian), addresses, interface, and the cookie in two words.
type SocketId = [u8; 48];
const COOKIE_AT: usize = 40;

/// An open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    family: u8,
    id: SocketId,
}

impl Connection {
    /// By which the kernel side knows it, too.
    pub(super) fn cookie(&self) -> u64 {
        let cookie = self.id.get(COOKIE_AT..).and_then(|cookie| cookie.first_chunk());
        // The lower word first, each in the machine's order (`sock_diag_save_cookie`).
        cookie.map_or(0, |[a, b, c, d, e, f, g, h]| {
            let (low, high) = (u32::from_ne_bytes([*a, *b, *c, *d]), u32::from_ne_bytes([*e, *f, *g, *h]));
            u64::from(high) << 32 | u64::from(low)
        })
    }
}

/// `struct nlmsghdr`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct MessageHeader {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port_id: u32,
}

/// `struct inet_diag_msg`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Socket {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    /// Expiry, queues, owner.
    rest: [u32; 4],
    inode: u32,
}

impl Socket {
    fn local_port(&self) -> u16 {
        let [high, low, ..] = self.id;
        u16::from_be_bytes([high, low])
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`: about one socket.
const ONE: u16 = 1;
/// And `NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: the table changed meanwhile, so something may be missing.
const INTERRUPTED: u16 = 0x10;
const IPPROTO_TCP: u8 = 6;
const LISTEN: u8 = 10;
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

/// Who asks.
#[derive(Default)]
pub(super) struct Diag {
    /// Kept open after answers that ended well.
    socket: Option<OwnedFd>,
    /// Room for a part of an answer: at most 32 KiB.
    answer: Vec<u8>,
}

impl Diag {
    /// Sockets (inodes) that listen, with their ports. None: the kernel does not answer (no `tcp_diag`, or it is not allowed),
    /// or not wholly.
    pub(super) fn listening(&mut self) -> Option<Found> {
        let mut found = Found::new();
        self.ask_all(&[LISTEN], |socket| {
            found.insert(socket.inode.into(), socket.local_port());
        })?;
        Some(found)
    }

    /// The connections that are open on these local ports. None: as above.
    pub(super) fn open(&mut self, ports: &[u16]) -> Option<Vec<Connection>> {
        let mut found = Vec::new();
        self.ask_all(&[ESTABLISHED, CLOSE_WAIT], |socket| {
            if ports.contains(&socket.local_port()) {
                found.push(Connection { family: socket.family, id: socket.id });
            }
        })?;
        Some(found)
    }

    /// Which of these still are open. None: the kernel does not answer.
    pub(super) fn still_open(&mut self, connections: Vec<Connection>) -> Option<Vec<Connection>> {
        let socket = self.socket()?;
        let mut open = Vec::new();
        for connection in connections {
            let Connection { family, id } = connection;
            let mut is_open = false;
            // An error is the answer that there is none.
            let _ended =
                ask(&socket, &mut self.answer, ONE, family, &[ESTABLISHED, CLOSE_WAIT], id, |_| is_open = true);
            if is_open {
                open.push(connection);
            }
        }
        Some(open)
    }

    fn ask_all(&mut self, states: &[u8], mut each: impl FnMut(&Socket)) -> Option<()> {
        let socket = self.socket()?;
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let family = u8::try_from(family.as_raw()).ok()?;
            ask(&socket, &mut self.answer, DUMP, family, states, [0; 48], &mut each)?;
        }
        self.socket = Some(socket);
        Some(())
    }

    fn socket(&mut self) -> Option<OwnedFd> {
        self.answer.resize(32 * 1024, 0);
        let flags = SocketFlags::CLOEXEC;
        let new = || socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG)).ok();
        self.socket.take().or_else(new)
    }
}

fn ask(
    socket: &OwnedFd,
    answer: &mut [u8],
    flags: u16,
    family: u8,
    states: &[u8],
    id: SocketId,
    mut each: impl FnMut(&Socket),
) -> Option<()> {
    let request = Request {
        len: u32::try_from(size_of::<Request>()).ok()?,
        kind: SOCK_DIAG_BY_FAMILY,
        flags,
        sequence: 1,
        port_id: 0,
        family,
        protocol: IPPROTO_TCP,
        extensions: 0,
        pad: 0,
        states: states.iter().fold(0, |states, state| states | 1 << state),
        id,
    };
    send(socket, request.as_bytes(), SendFlags::empty()).ok()?;
    // The kernel answers at once, in parts.
    loop {
        let read = match recv(socket, &mut *answer, RecvFlags::empty()) {
            Ok((_, read)) => read,
            Err(Errno::INTR) => continue,
            Err(_) => return None,
        };
        if let Some(whole) = take(answer.get(..read)?, states, &mut each) {
            return whole.then_some(());
        }
        // Of one socket there is one message, and none that says that it was the last.
        if flags == ONE {
            return Some(());
        }
    }
}

/// One part of an answer. Whether it ended well; None: it goes on.
fn take(mut part: &[u8], states: &[u8], each: &mut impl FnMut(&Socket)) -> Option<bool> {
    if part.is_empty() {
        return Some(false);
    }
    while let Ok((header, body)) = MessageHeader::read_from_prefix(part) {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if header.flags & INTERRUPTED != 0 || len < size_of::<MessageHeader>() || len > part.len() {
            return Some(false);
        }
        match header.kind {
            SOCK_DIAG_BY_FAMILY => match Socket::read_from_prefix(body) {
                // A kernel that knows no states in a question sends all.
                Ok((socket, _)) if states.contains(&socket.state) => each(&socket),
                Ok(_) => {}
                Err(_) => return Some(false),
            },
            NLMSG_DONE => return Some(true),
            _ => return Some(false),
        }
        // Aligned to 4.
        part = part.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn answers_are_read_to_their_end_and_nothing_else_is_believed() {
        let socket = |state, port: u16, inode: u32| {
            let mut body = vec![2, state, 0, 0];
            body.extend(port.to_be_bytes());
            body.resize(68, 0);
            body.extend(inode.to_ne_bytes());
            message(SOCK_DIAG_BY_FAMILY, 2, &body)
        };
        let (listener, open) = (socket(LISTEN, 9000, 77), socket(1, 9001, 78));
        let mut ports = Found::new();
        let mut take = |part: &[u8]| {
            take(part, &[LISTEN], &mut |socket: &Socket| {
                ports.insert(socket.inode.into(), socket.local_port());
            })
        };
        assert_eq!(take(&[listener, open].concat()), None);
        let cut = message(SOCK_DIAG_BY_FAMILY, 2, &[2, LISTEN, 0, 0, 0x23, 0x28]);
        assert_eq!(take(&cut), Some(false));
        assert_eq!(take(&message(NLMSG_DONE, 2, &[0; 4])), Some(true));
        assert_eq!(take(&message(2, 0, &[0xfe, 0xff, 0xff, 0xff])), Some(false), "an error");
        assert_eq!(take(&message(NLMSG_DONE, 2 | INTERRUPTED, &[0; 4])), Some(false));
        assert_eq!(take(b""), Some(false));
        assert_eq!(take(&[0; 16]), Some(false), "a message without a length");
        assert_eq!(take(&[0xff; 40]), Some(false));
        assert_eq!(ports, [(77, 9000)].into());
    }

    #[test]
    fn listeners_of_both_families_are_found_or_the_kernel_does_not_answer() {
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| std::net::TcpListener::bind(address).ok());
        let bound = listeners.iter().flatten().map(|listener| listener.local_addr().unwrap().port());
        let bound: Vec<u16> = bound.collect();
        assert!(!bound.is_empty());
        let mut diag = Diag::default();
        // With the socket that is new, and with the one that was kept.
        for found in [diag.listening(), diag.listening()].into_iter().flatten() {
            assert!(bound.iter().all(|port| found.values().any(|found| found == port)), "{bound:?} in {found:?}");
        }
    }

    #[test]
    fn a_connection_is_found_by_its_port_until_it_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut diag = Diag::default();
        let Some(found) = diag.open(&[port]) else { return };
        let [connection] = found[..] else { panic!("{found:?}") };
        let cookie = rustix::net::sockopt::socket_cookie(&server).unwrap();
        assert_eq!(connection.cookie(), cookie);
        assert_eq!(diag.still_open(found.clone()).as_ref(), Some(&found));
        drop((client, server));
        assert_eq!(diag.still_open(found), Some(Vec::new()));
    }
}
