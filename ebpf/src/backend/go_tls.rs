//! Go's `crypto/tls` (x86-64, Go 1.17 and later): two probes, none at returns. Where they go is found by the agent
//! (`agent/src/capture/tls/go.rs`), which also makes sure that the registers are what is read here.
//!
//! Received: the call of `runtime.memmove` inside `(*Conn).Read` copies what was decrypted to the caller's buffer; it runs
//! only when there is something. Sent: `(*Conn).writeRecordLocked`, which is called with the write lock held.

use super::tls::{Plaintext, Told, moved, registers, socket_at, user};
use crate::{kernel::Sock, maps::count_unclaimed};
use aya_ebpf::{EbpfContext as _, macros::uprobe, programs::ProbeContext};
use s3auditd_common::{counters::KernelCounter, sample::Direction};

/// `recordTypeApplicationData`
const APPLICATION_DATA: u8 = 23;

/// How many wrappers around the network's own connection are looked through.
const MAX_WRAPPERS: usize = 3;

/// `memmove(to rax, from rbx, n rcx)`; the `*Conn` is where `Read` has spilled its first argument.
#[uprobe]
pub fn go_tls_received(context: ProbeContext) -> u32 {
    let (registers, told) = (registers(&context), Told::to(&context));
    let (address, len) = (registers.rbx, registers.rcx);
    let object = user(registers.rsp.wrapping_add(u64::from(told.own)));
    take(&context, told, Direction::Received, object, address, len);
    0
}

/// `writeRecordLocked(c rax, typ bl, data rcx rdi rsi)`
#[uprobe]
pub fn go_tls_sent(context: ProbeContext) -> u32 {
    let registers = registers(&context);
    if registers.rbx as u8 == APPLICATION_DATA {
        take(&context, Told::to(&context), Direction::Sent, registers.rax, registers.rcx, registers.rdi);
    }
    0
}

#[inline(always)]
pub fn take(context: &ProbeContext, told: Told, direction: Direction, object: u64, address: u64, len: u64) {
    if len == 0 {
        return;
    }
    match socket_of(object) {
        Some(sock) if len < 1 << 31 => {
            moved(context.as_ptr(), told, sock, &Plaintext { direction, object, address, len: len as u32 });
        }
        _ => count_unclaimed(KernelCounter::PlaintextUntied, 1),
    }
}

/// The socket under a `*tls.Conn`. Its first field is the connection below, a `net.Conn`: two words, the second of which
/// points to a `net.TCPConn`, whose only field points to a `netFD`, which has the descriptor behind a lock of 16 bytes. Or
/// it points to a wrapper that embeds the next `net.Conn` as its first field, as MinIO's does.
#[inline(always)]
fn socket_of(object: u64) -> Option<Sock> {
    let mut connection = object;
    for _ in 0..=MAX_WRAPPERS {
        connection = user(connection.wrapping_add(8));
        if connection == 0 {
            return None;
        }
        let descriptor = user(user::<u64>(connection).wrapping_add(16));
        // What is no `netFD` has no small number there that also is a socket's. Should one have, then all connections of
        // the process are tied to that one socket, and all but one refused for it.
        if let Some(sock) = socket_at(descriptor) {
            return Some(sock);
        }
    }
    None
}
