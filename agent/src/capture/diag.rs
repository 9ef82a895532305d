//! Who listens in the agent's own network namespace, asked of the kernel by `sock_diag` (`man 7 sock_diag`): only listeners.
//!
//! `/proc/net/tcp` shows the same, but at its end the kernel goes through its whole table of connections, however few there
//! are: 1.5 ms on a node with the default table. The question is answered from the table of listeners alone
//! (`inet_diag_dump_icsk` in `net/ipv4/inet_diag.c`).

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
    /// `struct inet_diag_sockid`: any.
    id: [u8; 48],
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
    /// `struct inet_diag_sockid`, of which only the beginning is read. Big-endian.
    local_port: [u8; 2],
    id: [u8; 46],
    /// Expiry, queues, owner.
    rest: [u32; 4],
    inode: u32,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: the table changed meanwhile, so something may be missing.
const INTERRUPTED: u16 = 0x10;
const IPPROTO_TCP: u8 = 6;
const LISTEN: u8 = 10;

/// Who asks.
#[derive(Default)]
pub(super) struct Diag {
    /// Kept open after an answer that ended well.
    socket: Option<OwnedFd>,
    /// Room for a part of an answer: at most 32 KiB.
    answer: Vec<u8>,
}

impl Diag {
    /// Sockets (inodes) that listen, with their ports. None: the kernel does not answer (no `tcp_diag`, or it is not allowed),
    /// or not wholly.
    pub(super) fn listening(&mut self) -> Option<Found> {
        let flags = SocketFlags::CLOEXEC;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG)).ok()?,
        };
        self.answer.resize(32 * 1024, 0);
        let mut found = Found::new();
        ask(&socket, AddressFamily::INET, &mut self.answer, &mut found)?;
        ask(&socket, AddressFamily::INET6, &mut self.answer, &mut found)?;
        self.socket = Some(socket);
        Some(found)
    }
}

fn ask(socket: &OwnedFd, family: AddressFamily, answer: &mut [u8], found: &mut Found) -> Option<()> {
    let request = Request {
        len: u32::try_from(size_of::<Request>()).ok()?,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: DUMP,
        sequence: 1,
        port_id: 0,
        family: u8::try_from(family.as_raw()).ok()?,
        protocol: IPPROTO_TCP,
        extensions: 0,
        pad: 0,
        states: 1 << LISTEN,
        id: [0; 48],
    };
    send(socket, request.as_bytes(), SendFlags::empty()).ok()?;
    // The kernel answers at once, in parts.
    loop {
        let read = match recv(socket, &mut *answer, RecvFlags::empty()) {
            Ok((_, read)) => read,
            Err(Errno::INTR) => continue,
            Err(_) => return None,
        };
        if let Some(whole) = take(answer.get(..read)?, found) {
            return whole.then_some(());
        }
    }
}

/// One part of an answer. Whether it ended well; None: it goes on.
fn take(mut part: &[u8], found: &mut Found) -> Option<bool> {
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
                Ok((socket, _)) if socket.state == LISTEN => {
                    found.insert(socket.inode.into(), u16::from_be_bytes(socket.local_port));
                }
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
        assert_eq!(take(&[listener.clone(), open].concat(), &mut ports), None);
        assert_eq!(ports, [(77, 9000)].into());
        let cut = message(SOCK_DIAG_BY_FAMILY, 2, &[2, LISTEN, 0, 0, 0x23, 0x28]);
        assert_eq!(take(&cut, &mut ports), Some(false));
        assert_eq!(take(&message(NLMSG_DONE, 2, &[0; 4]), &mut ports), Some(true));
        assert_eq!(take(&message(2, 0, &[0xfe, 0xff, 0xff, 0xff]), &mut ports), Some(false), "an error");
        assert_eq!(take(&message(NLMSG_DONE, 2 | INTERRUPTED, &[0; 4]), &mut ports), Some(false));
        assert_eq!(take(b"", &mut ports), Some(false));
        assert_eq!(take(&[0; 16], &mut ports), Some(false), "a message without a length");
        assert_eq!(take(&[0xff; 40], &mut ports), Some(false));
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
}
