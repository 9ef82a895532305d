//! Typed tracepoints `sock_recv_length` and `sock_send_length` (`net/socket.c`, since 6.3), x86-64.
//!
//! They run when a receive or send has done its work, know the socket and the length, and need no entry program: the
//! user buffer is found in the registers that the task saved when it entered the kernel. One program a call, no map
//! between entry and exit, no descriptor walk. What they cannot see: bytes moved by something else than the task's
//! own system call, and `splice` from a socket, for which they do not fire (user space sees a hole in the sequence).

use crate::{
    emit::Origin,
    kernel::{Sock, Task},
    maps::count,
    payload::{Call, Source, take},
    watch::{state_of, watched},
};
use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_probe_read_user, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use core::{ffi::c_void, mem::MaybeUninit};
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Direction, Unseen},
};

/// Receive flags under which the stream is not consumed: `MSG_OOB`, `MSG_PEEK`, `MSG_ERRQUEUE`.
const NOT_CONSUMING: i32 = 0x1 | 0x2 | 0x2000;
/// Consumed, but thrown away and not copied.
const MSG_TRUNC: i32 = 0x20;

#[btf_tracepoint]
pub fn socket_received(context: BtfTracePointContext) -> i32 {
    let flags: i32 = context.arg(2);
    if flags & NOT_CONSUMING == 0 {
        // SAFETY: the context is this program's own.
        unsafe { moved(&context, Direction::Received, flags) };
    }
    0
}

#[btf_tracepoint]
pub fn socket_sent(context: BtfTracePointContext) -> i32 {
    // SAFETY: the context is this program's own.
    unsafe { moved(&context, Direction::Sent, 0) };
    0
}

/// # Safety
/// `context` is the running program's own, of a tracepoint `(struct sock *sk, int ret, int flags)`.
#[inline(always)]
unsafe fn moved(context: &BtfTracePointContext, direction: Direction, flags: i32) {
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::new(context.arg::<*const c_void>(0)) };
    let Some((tcp, port)) = watched(sock) else { return };
    let result: i32 = context.arg(1);
    if result <= 0 {
        return;
    }
    let program = match direction {
        Direction::Received => Program::Received,
        Direction::Sent => Program::Sent,
    };
    let cookie = sock.cookie();
    let Ok(state) = state_of(program, cookie) else { return };
    let origin = Origin { tcp, cookie, port, state, program };
    // An upper layer's lengths and the socket's sequence numbers count different bytes: say that it is there, no more.
    let upper_layer = tcp.has_upper_layer();
    let len = if upper_layer { 0 } else { result as u32 };
    let (end, other_seq) = match direction {
        Direction::Received => (tcp.received_to(), tcp.sent_to()),
        Direction::Sent => (tcp.sent_to(), tcp.received_to()),
    };
    let call = Call { direction, seq: end.wrapping_sub(len), len, other_seq };
    // SAFETY: the context is this program's own.
    unsafe {
        take(context.as_ptr(), &origin, &call, || {
            if upper_layer {
                Source::Nowhere(Unseen::UpperLayer)
            } else if flags & MSG_TRUNC != 0 {
                Source::Nowhere(Unseen::NoBuffer)
            } else {
                buffer_of_current_call(program, sock, direction)
            }
        });
    }
}

/// Where the task's current system call has its buffer, if that call is the one that moved the bytes.
#[inline(always)]
fn buffer_of_current_call(program: Program, sock: Sock, direction: Direction) -> Source {
    let task = Task::current();
    if task.is_foreign() {
        return Source::Nowhere(Unseen::ForeignCaller);
    }
    let [descriptor, second, third] = task.arguments();
    let nr = task.system_call();
    // The direction must agree: io_uring's deferred work runs inside whatever system call the task happens to make.
    let source = match (direction, nr) {
        // read, recvfrom; write, sendto
        (Direction::Received, 0 | 45) | (Direction::Sent, 1 | 44) => Source::Buffer { address: second },
        // readv, preadv2; writev, pwritev2
        (Direction::Received, 19 | 327) | (Direction::Sent, 20 | 328) => {
            Source::Segments { address: second, count: third }
        }
        // recvmsg; sendmsg
        (Direction::Received, 47) | (Direction::Sent, 46) => message_segments(second),
        // sendfile, splice, sendmmsg, recvmmsg, aio and whatever comes
        _ => Source::Nowhere(if task.uses_io_uring() { Unseen::Deferred } else { Unseen::NoBuffer }),
    };
    if matches!(source, Source::Nowhere(_)) || !task.uses_io_uring() {
        return source;
    }
    // Number and direction fit, but the task has an io_uring: without this check its log file's bytes were taken for
    // the socket's (measured: 131 of 300 samples). Only the descriptor tells.
    if task.descriptor_is(descriptor as u32, sock) {
        source
    } else {
        count(program, KernelCounter::GuardRejects, 1);
        Source::Nowhere(Unseen::Deferred)
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct msghdr` in user memory.
#[inline(always)]
fn message_segments(message: u64) -> Source {
    const IOV_OFFSET: u64 = 16;
    let mut fields = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the helper checks the user address and writes at most the given size.
    let result =
        unsafe { bpf_probe_read_user(fields.as_mut_ptr().cast(), 16, (message + IOV_OFFSET) as *const c_void) };
    if result != 0 {
        return Source::Nowhere(Unseen::Fault);
    }
    // SAFETY: the helper filled it.
    let [address, count] = unsafe { fields.assume_init() };
    Source::Segments { address, count }
}
