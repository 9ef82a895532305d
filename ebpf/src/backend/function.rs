//! Ends of the functions `tcp_recvmsg` and `tcp_sendmsg` (fexit, since 5.5), and of `tcp_sendpage`, through which pages
//! went before 6.5 (`net/ipv4/tcp.c`).
//!
//! They see every receive and send of a TCP socket, whoever makes it: system calls, io_uring, 32-bit processes. The buffer
//! is found in the message that the kernel itself used. What they cannot see: `splice` from a socket, which takes another
//! way (a hole in the sequence), and the bytes of pages.

use super::{Moved, moved};
use crate::{
    kernel::{Message, Sock, constant},
    payload::Source,
};
use aya_ebpf::{EbpfContext as _, macros::fexit, programs::FExitContext};
use core::ffi::c_void;
use s3auditd_common::{
    counters::Program,
    sample::{Direction, Unseen},
};

#[fexit]
pub fn function_received(context: FExitContext) -> i32 {
    received::<false>(&context)
}

#[fexit]
pub fn function_received_bounded(context: FExitContext) -> i32 {
    received::<true>(&context)
}

#[fexit]
pub fn function_sent(context: FExitContext) -> i32 {
    sent::<false>(&context)
}

#[fexit]
pub fn function_sent_bounded(context: FExitContext) -> i32 {
    sent::<true>(&context)
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags[, int *addr_len])`
#[inline(always)]
fn received<const BOUNDED: bool>(context: &FExitContext) -> i32 {
    let packed = match constant(|c| &c.receive_parameters) {
        4 => flags_and_result::<3, 4>(context.as_ptr()),
        5 => flags_and_result::<3, 5>(context.as_ptr()),
        6 => flags_and_result::<4, 6>(context.as_ptr()),
        _ => return 0,
    };
    let (flags, result) = (packed as u32, (packed >> 32) as i32);
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    let call = Moved { program: Program::Received, sock, direction: Direction::Received, flags, result };
    // SAFETY: the context is this program's own; the second argument is the message.
    unsafe { moved::<BOUNDED, true>(context.as_ptr(), &call, |_| source(context, result)) };
    0
}

/// Flags in the lower half, result (which stands behind the last argument) in the upper. Never inlined: the compiler would
/// make one load at a computed place of the three, and the verifier wants a constant one in a context.
#[inline(never)]
extern "C" fn flags_and_result<const FLAGS: usize, const RESULT: usize>(context: *mut c_void) -> u64 {
    let context = FExitContext::new(context);
    let (flags, result): (u32, u32) = (context.arg(FLAGS), context.arg(RESULT));
    u64::from(flags) | u64::from(result) << 32
}

/// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[inline(always)]
fn sent<const BOUNDED: bool>(context: &FExitContext) -> i32 {
    let result: i32 = context.arg(3);
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    let call = Moved { program: Program::Sent, sock, direction: Direction::Sent, flags: 0, result };
    // SAFETY: as above.
    unsafe { moved::<BOUNDED, true>(context.as_ptr(), &call, |_| source(context, result)) };
    0
}

/// # Safety
/// The second and third argument are a message and the length asked for.
#[inline(always)]
unsafe fn source(context: &FExitContext, moved: i32) -> Source {
    // SAFETY: the caller upholds it.
    unsafe { Message::at(context.arg(1)) }.source(context.arg(2), moved as u32)
}

/// `int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags)`
#[fexit]
pub fn function_sent_pages(context: FExitContext) -> i32 {
    let result: i32 = context.arg(5);
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    let call = Moved { program: Program::PagesSent, sock, direction: Direction::Sent, flags: 0, result };
    // SAFETY: the context is this program's own. (Nothing is walked, so bounded or not is the same.)
    unsafe { moved::<true, false>(context.as_ptr(), &call, |_| Source::nowhere(Unseen::NoBuffer)) };
    0
}
