//! Plaintext of a gateway's TLS, as its library hands it out or is given it: the same samples, with numbers of plaintext.
//!
//! These programs run at probes in the gateway's own code. They can be preempted, also by themselves, so nothing of a CPU
//! is theirs but what they claim. The library's own locks keep two calls of one direction of one connection apart.

use crate::{
    emit::Origin,
    kernel::{Sock, Task},
    maps::{NO_PRIVATE_STACK, TLS_EXCLUDED, WINDOWS, claim, count_unclaimed, release, tied_in},
    payload::{Call, Source, take},
    watch::{NotOurs, layer_of, place, state_of, watched},
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_get_attach_cookie},
};
use core::{ffi::c_void, ptr::NonNull};
use s3auditd_common::{
    counters::{KernelCounter, Program},
    head::inside,
    sample::{Direction, Layer, Unseen, window_key},
    settings::ConnectionState,
};

/// More descriptors than any process has.
const MAX_DESCRIPTOR: u64 = 1 << 20;

/// What the agent told a probe when it attached it: the file's number, and a number for the program's own use.
#[derive(Clone, Copy)]
pub struct Told {
    pub file: u32,
    pub own: u32,
}

impl Told {
    #[inline(always)]
    pub fn to(context: &impl EbpfContext) -> Self {
        // SAFETY: the context is the running program's own.
        let word = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
        // No file has that number; what counts is that it is there, see the map.
        if word >> 32 == u64::from(u32::MAX) {
            // SAFETY: the context is the running program's own, and there is nothing to go on in.
            let _empty = unsafe { NO_PRIVATE_STACK.tail_call(context, 0) };
        }
        Self { file: (word >> 32) as u32, own: word as u32 }
    }
}

/// `struct pt_regs` of x86-64 (`arch/x86/include/uapi/asm/ptrace.h`). Ours and not the binding, which is that of the
/// processor that the agent is built for: these programs are built, but never attached, on others too.
#[repr(C)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    _eleventh_and_tenth: [u64; 2],
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    _number_to_flags: [u64; 4],
    pub rsp: u64,
}

const _: () = {
    assert!(core::mem::offset_of!(Registers, rbx) == 40 && core::mem::offset_of!(Registers, rax) == 80);
    assert!(core::mem::offset_of!(Registers, rcx) == 88 && core::mem::offset_of!(Registers, rdi) == 112);
    assert!(core::mem::offset_of!(Registers, rsp) == 152 && core::mem::offset_of!(Registers, rsi) == 104);
    assert!(core::mem::offset_of!(Registers, r8) == 72 && core::mem::offset_of!(Registers, r14) == 8);
};

/// The registers at the probe.
#[inline(always)]
pub fn registers(context: &impl EbpfContext) -> &Registers {
    // SAFETY: a probe's context is its registers.
    unsafe { &*context.as_ptr().cast() }
}

/// A value in the gateway's memory; zero where it cannot be read.
#[inline(always)]
pub fn user<T: Copy + Default>(address: u64) -> T {
    // SAFETY: the helper checks the address; every type here is valid for any bytes.
    unsafe { bpf_probe_read_user(address as *const T) }.unwrap_or_default()
}

/// Plaintext that moved.
pub struct Plaintext {
    pub direction: Direction,
    /// The library's object.
    pub object: u64,
    /// 0: it is nowhere in the process.
    pub address: u64,
    pub len: u32,
}

/// The TCP socket behind that descriptor of the calling process, if it can be one of ours.
#[inline(always)]
pub fn socket_at(descriptor: u64) -> Option<Sock> {
    let task = Task::current();
    if descriptor >= MAX_DESCRIPTOR || descriptor >= u64::from(task.descriptor_room()) {
        return None;
    }
    let address = task.sock_of(descriptor as u32);
    // SAFETY: what lies behind a socket's file is a `struct sock`.
    if address == 0 { None } else { Some(unsafe { Sock::untyped(address) }) }
}

/// Takes plaintext of the connection with that socket.
#[inline(always)]
pub fn moved(context: *mut c_void, told: Told, sock: Sock, plaintext: &Plaintext) {
    let Some((tcp, port)) = watched(sock) else { return };
    // SAFETY: the value is not looked at.
    if unsafe { TLS_EXCLUDED.get((bpf_get_current_pid_tgid() >> 32) as u32) }.is_some() {
        return;
    }
    // Its handshake has gone through the socket before; unless that was before our time, and then not a byte of it since.
    let Some(cookie) = sock.known_cookie() else { return count_unclaimed(KernelCounter::PlaintextUntied, 1) };
    let cookie = cookie.get();
    let Ok(Some(state)) = state_of_unclaimed(cookie) else { return };
    let Some((layer, seq, other_seq)) = numbers(told, cookie, state, plaintext) else {
        return count_unclaimed(KernelCounter::PlaintextUntied, 1);
    };
    let Some(program) = claim() else {
        count_unclaimed(KernelCounter::PlaintextNoBuffer, 1);
        let lost = match plaintext.direction {
            Direction::Received => KernelCounter::LostReceivedBytes,
            Direction::Sent => KernelCounter::LostSentBytes,
        };
        return count_unclaimed(lost, u64::from(plaintext.len));
    };
    let origin = Origin { tcp, cookie, port, state: Some(state), program, layer };
    let call = Call { direction: plaintext.direction, seq, len: plaintext.len, other_seq };
    // SAFETY: the context is the running program's own.
    unsafe {
        take::<false>(context, &origin, &call, || match plaintext.address {
            0 => Source::nowhere(Unseen::NoBuffer),
            address => Source::buffer(address),
        });
    }
    release(program);
}

/// [`state_of`], whose counts of rare cases go to a bank that another program may be adding to at this moment: they may
/// come out too low.
#[inline(always)]
fn state_of_unclaimed(cookie: u64) -> Result<Option<NonNull<ConnectionState>>, NotOurs> {
    state_of(Program::Plaintext0, cookie)
}

/// What these bytes' numbers count, the first one's, and where the other direction stands. None: the connection carries the
/// TLS of another object, so one of the two ties is wrong.
#[inline(always)]
fn numbers(
    told: Told,
    cookie: u64,
    state: NonNull<ConnectionState>,
    plaintext: &Plaintext,
) -> Option<(Layer, u32, u32)> {
    // SAFETY: a map value that lives until the socket is destroyed. Both directions may come here for the first time at
    // once; they write the same.
    let known = unsafe { &mut *state.as_ptr() };
    if known.tls_object == 0 {
        let layer = if known.opened_ns > tied_in(told.file) { Layer::Plaintext } else { Layer::PlaintextMidway };
        // Of a body that ends at a number of the socket's no more is known.
        for place in [&mut known.received, &mut known.sent] {
            place.run = 0;
            place.inside = inside::NOTHING;
            place.untold = 0;
        }
        known.tls_object = plaintext.object;
        known.layer = layer as u32;
        let _none = WINDOWS.remove(window_key(cookie, Direction::Received));
        let _none = WINDOWS.remove(window_key(cookie, Direction::Sent));
    }
    if known.tls_object != plaintext.object {
        return None;
    }
    let (received, sent) = (known.received.plaintext, known.sent.plaintext);
    let (seq, other_seq) = match plaintext.direction {
        Direction::Received => (received, sent),
        Direction::Sent => (sent, received),
    };
    // SAFETY: as above.
    unsafe { (*place(state, plaintext.direction)).plaintext = seq.wrapping_add(plaintext.len) };
    Some((layer_of(Some(state)), seq, other_seq))
}
