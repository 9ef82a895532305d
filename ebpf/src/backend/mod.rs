//! One file a kind of hook. Each finds the socket, the direction, the length and the user buffer of a call in its own
//! way and ends in [`moved`].

mod function;
mod gnutls;
pub mod go_returns;
mod go_tls;
pub mod openssl;
pub mod openssl_inside;
pub mod probe;
mod registers;
mod socket;
mod system_call;
mod tls;

use crate::{
    emit::Origin,
    kernel::{Sock, TcpSock, constant},
    maps::{buffer_of, count},
    payload::{Call, Source, take, tell},
    watch::{layer_of, place, state_of, watched},
};
use core::ffi::c_void;
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Direction, Layer, Unseen},
};

/// Receive flags under which the stream is not consumed: `MSG_OOB`, `MSG_PEEK`, `MSG_ERRQUEUE`.
const NOT_CONSUMING: u32 = 0x1 | 0x2 | 0x2000;
/// Consumed, but thrown away and not copied.
const MSG_TRUNC: u32 = 0x20;

/// A call that moved bytes, if `result` says so.
struct Moved {
    program: Program,
    sock: Sock,
    direction: Direction,
    /// Flags of a receive.
    flags: u32,
    result: i32,
}

/// Whatever is wanted of a call goes into the ring; `source` is only asked when bytes are wanted. `BOUNDED`: as in [`take`].
///
/// # Safety
/// `context` is the running program's own.
#[inline(always)]
unsafe fn moved<const BOUNDED: bool>(context: *mut c_void, moved: &Moved, source: impl FnOnce(TcpSock) -> Source) {
    let Moved { program, sock, direction, flags, result } = *moved;
    if flags & NOT_CONSUMING != 0 {
        return;
    }
    let Some((tcp, port)) = watched(sock) else { return };
    if result <= 0 {
        return;
    }
    let Some(cookie) = sock.cookie() else { return count(program, KernelCounter::TableFull, 1) };
    let cookie = cookie.get();
    let Ok(state) = state_of(program, cookie) else { return };
    let (end, other_seq) = match direction {
        Direction::Received => (tcp.received_to(), tcp.sent_to()),
        Direction::Sent => (tcp.sent_to(), tcp.received_to()),
    };
    if let Some(state) = state
        && constant(|c| &c.chances) > 1
    {
        // SAFETY: a map value that lives until the socket is destroyed. Two threads that move bytes of one direction race
        // here as they do for their places.
        unsafe {
            let done = &raw mut (*place(state, direction)).done;
            // One program after the other runs for the same call, in the same task.
            if program.is_further_chance() && *done == end {
                return;
            }
            *done = end;
        }
    }
    // Behind the mark: a call that several programs see is counted once.
    // The bounded programs are for kernels that TLS is not read on.
    if !BOUNDED && let (Direction::Received, Some(state)) = (direction, state) {
        openssl::tie(state.as_ptr(), cookie, sock.address());
    }
    if layer_of(state) as u8 != Layer::Socket as u8 {
        // Its plaintext is read where the gateway has it.
        return count(program, KernelCounter::CiphertextBytes, result as u64);
    }
    let origin = Origin { tcp, cookie, port, state, program, layer: Layer::Socket };
    if tcp.has_upper_layer() {
        // Its lengths and the socket's sequence numbers count different bytes: say that it is there, no more.
        // SAFETY: the caller upholds it.
        return unsafe { tell(context, &origin, direction, end, other_seq, Unseen::UpperLayer) };
    }
    let len = result as u32;
    let call = Call { direction, seq: end.wrapping_sub(len), len, other_seq };
    // SAFETY: the caller upholds it.
    unsafe {
        take::<BOUNDED>(context, &origin, &call, || {
            if flags & MSG_TRUNC != 0 { Source::nowhere(Unseen::NoBuffer) } else { source(tcp) }
        });
    }
    if !BOUNDED && let (Direction::Received, Some(state)) = (direction, state) {
        openssl::hello(state.as_ptr(), cookie, sock.address(), buffer_of(program), call.seq);
    }
}
