//! OpenSSL (x86-64): the functions through which all plaintext goes, at their entry and at their return. Where they are is
//! found by the agent (`agent/src/capture/tls/openssl.rs`).
//!
//! The entry notes by thread what the call was given, because a return knows only the result; the note counts only for the
//! return from that very stack frame. What ties an object of the library to a socket is the library's own use of it: bytes
//! that move on the socket while the thread is inside a call for the object. Every connection has that, in its handshake at
//! the latest, unless the gateway moves the bytes itself. Then the random number tells that the client has put into its hello:
//! it is in the connection's first bytes, and in the object that got them (docs/decisions/0072-openssl-by-use.md).

use super::tls::{Plaintext, Registers, Told, moved, registers, user};
use crate::{
    kernel::{Sock, uses_io_uring},
    maps::{TLS_CALLS, TLS_HELLOS, TLS_NESTED, TLS_OBJECTS, count_unclaimed, scratch},
    watch::connection,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{btf_tracepoint, uprobe, uretprobe},
    programs::{BtfTracePointContext, ProbeContext, RetProbeContext},
};
use core::{
    ffi::c_void,
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xchg},
    ptr::NonNull,
};
use s3auditd_common::{
    counters::KernelCounter,
    sample::Direction,
    settings::{ConnectionState, openssl},
};

/// What a call was given.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Note {
    object: u64,
    address: u64,
    /// Where the call says how much it moved.
    done: u64,
    /// The stack pointer at the function's first instruction; 0: no call.
    sp: u64,
}

const NO_CALL: Note = Note { object: 0, address: 0, done: 0, sp: 0 };

/// The calls that a thread is in: TLS may run inside TLS.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Notes {
    outer: Note,
    inner: Note,
}

/// An object of the library in a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Object {
    tgid: u64,
    pub address: u64,
}

/// The connection that an object is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tie {
    cookie: u64,
    sock: u64,
}

/// A connection that began with a hello.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hello {
    cookie: u64,
    sock: u64,
    /// Process that received it.
    tgid: u64,
    /// 1: an object is tied by it, or another connection began with the same number. It tells no more.
    spent: u64,
}

/// A call begins that may move bytes on the object's socket.
#[uprobe]
pub fn openssl_called(context: ProbeContext) -> u32 {
    let (registers, told) = (registers(&context), Told::to(&context));
    if is_client(registers.rdi, told.own) {
        return 0;
    }
    // Both are loaded: the verifier does not take a computed place in a context.
    let (fourth, fifth) = (black_box(registers.rcx), black_box(registers.r8));
    let done = if told.own & openssl::DONE_IS_FIFTH == 0 { fourth } else { fifth };
    entered(registers, done);
    0
}

/// Notes a call with the object in its first argument and the buffer in its second.
#[inline(always)]
pub fn entered(registers: &Registers, done: u64) {
    let note = Note { object: registers.rdi, address: registers.rsi, done, sp: registers.rsp };
    let thread = bpf_get_current_pid_tgid();
    if let Some(notes) = TLS_CALLS.get_ptr_mut(thread) {
        // SAFETY: a map value of this thread's own.
        let notes = unsafe { &mut *notes };
        // What was noted nearer to the stack's end than this call has been left without its return.
        if notes.outer.sp > note.sp {
            notes.inner = note;
        } else {
            *notes = Notes { outer: note, inner: NO_CALL };
        }
    } else if TLS_CALLS.insert(thread, Notes { outer: note, inner: NO_CALL }, 0).is_err() {
        count_unclaimed(KernelCounter::NotesRefused, 1);
        give_up(thread, note.object);
    }
}

/// `ssl_read_internal(object, address, length, done)`, or `SSL_read(object, address, length)`
#[uretprobe]
pub fn openssl_received(context: RetProbeContext) -> u32 {
    returned(&context, Direction::Received);
    0
}

/// `ssl_write_internal(object, address, length, [flags,] done)`, `SSL_write(object, address, length)`, or
/// `SSL_sendfile(object, ...)`, of whose bytes nothing is in the gateway's memory.
#[uretprobe]
pub fn openssl_sent(context: RetProbeContext) -> u32 {
    returned(&context, Direction::Sent);
    0
}

/// A function that moves no plaintext, `SSL_do_handshake`.
#[uretprobe]
pub fn openssl_returned(context: RetProbeContext) -> u32 {
    if let Some(note) = left(registers(&context).rsp) {
        let _none = tied(object_of(bpf_get_current_pid_tgid(), note.object), Told::to(&context).own);
    }
    0
}

/// `SSL_clear(object)`, which runs when an object is made, and when it begins a connection: whatever it was tied to is over.
#[uprobe]
pub fn openssl_begins(context: ProbeContext) -> u32 {
    let object = object_of(bpf_get_current_pid_tgid(), registers(&context).rdi);
    // SAFETY: the value is copied; another thread that has the same object is the gateway's fault.
    if let Some(Tie { cookie, .. }) = unsafe { TLS_OBJECTS.get(object) }.copied() {
        let _gone_already = TLS_OBJECTS.remove(object);
        if let Some(state) = connection(cookie) {
            // SAFETY: a map value; only a word, which says to tie it anew.
            unsafe { (*state.as_ptr()).tls_tied = 0 };
        }
    }
    0
}

/// The thread is gone, and makes no further call (`sched_process_exit`).
#[btf_tracepoint]
pub fn openssl_thread_ended(_: BtfTracePointContext) -> i32 {
    let _none = TLS_CALLS.remove(bpf_get_current_pid_tgid());
    0
}

/// Bytes were received on a connection: it belongs to the object whose call the thread is in, if it is in one. Not so with
/// bytes sent: a library may call back, and the gateway may then write to whomever. (A function of its own, as is [`hello`]:
/// the callers' stacks have no room for it.)
///
/// `state` is a map value.
#[inline(never)]
pub extern "C" fn tie(state: *mut ConnectionState, cookie: u64, sock: u64) {
    // SAFETY: a map value that lives until the socket is destroyed.
    if unsafe { (*state).tls_tied } != 0 || !is_nested_read() {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: a map value of this thread's own.
    let Some(notes) = (unsafe { TLS_CALLS.get(thread) }) else { return };
    let address = if notes.inner.sp != 0 { notes.inner.object } else { notes.outer.object };
    // io_uring may complete another connection's call in the middle of this one.
    if address == 0 || uses_io_uring() {
        return;
    }
    let object = object_of(thread, address);
    if TLS_OBJECTS.insert(object, Tie { cookie, sock }, BPF_NOEXIST).is_ok() {
        // SAFETY: as above.
        unsafe {
            (*state).tls_tied = address;
            (*state).tls_process = object.tgid;
        }
    }
}

/// The bytes from `seq` on that a program has just taken, and left in its buffer, are the connection's first: a client's
/// hello, perhaps. `state` is a map value.
#[inline(never)]
pub extern "C" fn hello(state: *mut ConnectionState, cookie: u64, sock: u64, buffer: u32, seq: u32) {
    // SAFETY: a map value that lives until the socket is destroyed.
    if unsafe { (*state).tls_looked | (*state).tls_tied } != 0 || !is_nested_read() {
        return;
    }
    // SAFETY: as above.
    unsafe { (*state).tls_looked = 1 };
    let Some(scratch) = scratch(buffer) else { return };
    // SAFETY: the buffer is the running program's own.
    let (header, payload) = unsafe { (&(*scratch).header, &raw const (*scratch).payload) };
    // Nothing was taken, or only in part: what lies there is another call's.
    if header.cookie != cookie || header.seq != seq || header.copied < HELLO_BYTES {
        return;
    }
    // SAFETY: within the payload.
    let begin = unsafe { payload.cast::<[u8; 8]>().read() };
    let [kind, major, _, _, _, message, ..] = begin;
    if kind != HANDSHAKE || major != 3 || message != CLIENT_HELLO {
        return;
    }
    // SAFETY: as above. The walk is over, and its place is larger: there is no room on the stack.
    let (random, hello) = unsafe {
        let hello = (&raw mut (*scratch).walk).cast::<Hello>();
        hello.write(Hello { cookie, sock, tgid: bpf_get_current_pid_tgid() >> 32, spent: 0 });
        (&*payload.byte_add(RANDOM_AT).cast::<[u8; 16]>(), &*hello)
    };
    if is_zero(*random) {
        return;
    }
    if TLS_HELLOS.insert(random, hello, BPF_NOEXIST).is_ok() {
        // SAFETY: as above.
        unsafe { (*state).tls_random = *random };
    } else if let Some(other) = TLS_HELLOS.get_ptr_mut(random) {
        // A client has sent it twice.
        // SAFETY: a map value; only a word.
        unsafe { (*other).spent = 1 };
    }
}

/// `SSL3_RT_HANDSHAKE`
const HANDSHAKE: u8 = 22;
/// `SSL3_MT_CLIENT_HELLO`
const CLIENT_HELLO: u8 = 1;
/// Behind the headers of record and message, and the version.
const RANDOM_AT: usize = 11;
/// Up to the end of the random number.
const HELLO_BYTES: u32 = RANDOM_AT as u32 + 32;
const BPF_NOEXIST: u64 = 1;

/// The connection that the object is for, if that is certain.
#[inline(always)]
pub fn tied(object: Object, own: u32) -> Option<Tie> {
    // SAFETY: the value is copied; another thread that has the same object is the gateway's fault.
    if let Some(tie) = unsafe { TLS_OBJECTS.get(object) } {
        return Some(*tie);
    }
    let at = openssl::random_at(own);
    if at == 0 {
        return None;
    }
    let random = user::<[u8; 16]>(object.address.wrapping_add(u64::from(at)));
    let hello = TLS_HELLOS.get_ptr_mut(random)?;
    // SAFETY: a map value, of which only the last word changes.
    let Hello { cookie, sock, tgid, .. } = unsafe { *hello };
    let state = connection(cookie)?;
    // SAFETY: as above, aligned.
    let spent = || unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*hello).spent, 1) };
    if tgid != object.tgid || spent() != 0 {
        return None;
    }
    let tie = Tie { cookie, sock };
    TLS_OBJECTS.insert(object, tie, 0).ok()?;
    // SAFETY: a map value that lives until the socket is destroyed.
    unsafe {
        (*state.as_ptr()).tls_tied = object.address;
        (*state.as_ptr()).tls_process = object.tgid;
    }
    Some(tie)
}

/// No number: none was read.
#[inline(always)]
const fn is_zero(random: [u8; 16]) -> bool {
    u128::from_ne_bytes(random) == 0
}

/// The connection is over: its object may serve another one.
#[inline(always)]
pub fn untie(state: NonNull<ConnectionState>, cookie: u64) {
    // SAFETY: a map value that the caller is about to remove.
    let ConnectionState { tls_tied: address, tls_process: tgid, tls_random: random, .. } = unsafe { *state.as_ptr() };
    if !is_zero(random) {
        let _gone_already = TLS_HELLOS.remove(random);
    }
    if address == 0 {
        return;
    }
    let object = Object { tgid, address };
    // SAFETY: the value is only compared.
    if unsafe { TLS_OBJECTS.get(object) }.is_some_and(|tie| tie.cookie == cookie) {
        let _gone_already = TLS_OBJECTS.remove(object);
    }
}

/// Whether any file is probed whose library is tied by its use of sockets.
#[inline(always)]
fn is_nested_read() -> bool {
    // SAFETY: a word that the agent writes.
    TLS_NESTED.get_ptr(0).is_some_and(|on| unsafe { *on } != 0)
}

#[inline(always)]
pub const fn object_of(thread: u64, address: u64) -> Object {
    Object { tgid: thread >> 32, address }
}

/// Whether the object says that this end is the client: a connection that the gateway, or anybody else, has opened.
#[inline(always)]
pub fn is_client(object: u64, own: u32) -> bool {
    let at = openssl::role_at(own);
    // SAFETY: the helper checks the address.
    at != 0 && unsafe { bpf_probe_read_user((object.wrapping_add(u64::from(at))) as *const u32) } == Ok(0)
}

/// What this thread's call was given, which returns to the frame with that stack pointer. None: nothing was noted of it.
#[inline(always)]
fn left(sp: u64) -> Option<Note> {
    let thread = bpf_get_current_pid_tgid();
    let notes = TLS_CALLS.get_ptr_mut(thread)?;
    // The return address has been taken off.
    let entered = sp.wrapping_sub(8);
    // SAFETY: a map value of this thread's own.
    let Notes { outer, inner } = unsafe { *notes };
    if outer.sp == entered {
        // The entry stays, for the thread's next call.
        // SAFETY: as above.
        unsafe { *notes = Notes { outer: NO_CALL, inner: NO_CALL } };
        Some(outer)
    } else if inner.sp == entered {
        // SAFETY: as above.
        unsafe { (*notes).inner = NO_CALL };
        Some(inner)
    } else {
        None
    }
}

#[inline(always)]
fn returned(context: &RetProbeContext, direction: Direction) {
    let registers = registers(context);
    let Some(note) = left(registers.rsp) else { return };
    let told = Told::to(context);
    let result = registers.rax;
    let len = if told.own & openssl::RESULT_IS_LENGTH != 0 {
        // SSL_sendfile's has 64 bits, SSL_read's 32.
        let length = if told.own & openssl::NO_BUFFER != 0 { result as i64 } else { i64::from(result as i32) };
        if length < 0 { 0 } else { length as u64 }
    } else if result as u32 == 1 {
        user(note.done)
    } else {
        0
    };
    // None: it serves no watched connection, or nothing tells which.
    let Some(tie) = tied(object_of(bpf_get_current_pid_tgid(), note.object), told.own) else { return };
    let address = if told.own & openssl::NO_BUFFER == 0 { note.address } else { 0 };
    deliver(context.as_ptr(), told, tie, note.object, direction, address, len);
}

/// Takes plaintext of a tied object. `address` 0: it is nowhere in the process.
#[inline(always)]
pub fn deliver(
    context: *mut c_void,
    told: Told,
    Tie { cookie, sock }: Tie,
    object: u64,
    direction: Direction,
    address: u64,
    len: u64,
) {
    if len == 0 {
        return;
    }
    // SAFETY: it was a socket; whether it still is that one, its cookie tells.
    let sock = unsafe { Sock::untyped(sock) };
    if connection(cookie).is_none() || sock.known_cookie().is_none_or(|known| known.get() != cookie) {
        // Closed already: nobody gets these bytes.
        return;
    }
    if len >= 1 << 31 {
        // More than the numbers can tell.
        return give_up(bpf_get_current_pid_tgid(), object);
    }
    moved(context, told, sock, &Plaintext { direction, object, address, len: len as u32 });
}

/// Plaintext of that object goes unseen, and nobody knows how much: no more is said of its connection's, and its numbers say
/// that something is missing.
#[inline(always)]
pub fn give_up(thread: u64, address: u64) {
    // SAFETY: the value is copied.
    let Some(Tie { cookie, .. }) = unsafe { TLS_OBJECTS.get(object_of(thread, address)) }.copied() else { return };
    if let Some(state) = connection(cookie) {
        // SAFETY: a map value; no object has this address.
        unsafe {
            let state = &mut *state.as_ptr();
            state.tls_object = u64::MAX;
            for place in [&mut state.received, &mut state.sent] {
                place.plaintext = place.plaintext.wrapping_add(1);
            }
        }
        count_unclaimed(KernelCounter::PlaintextUntied, 1);
    }
}
