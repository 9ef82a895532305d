//! The user buffer of a system call, from its number and its arguments (x86-64).

use crate::payload::Source;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use core::{ffi::c_void, mem::MaybeUninit};
use s3auditd_common::sample::{Direction, Unseen};

/// Where the call has its buffer, if it is one that moves bytes in that direction.
#[inline(always)]
pub fn buffer(direction: Direction, nr: u64, arguments: &[u64; 4]) -> Source {
    let [_, second, third, _] = *arguments;
    match (direction, nr) {
        // read, recvfrom; write, sendto
        (Direction::Received, 0 | 45) | (Direction::Sent, 1 | 44) => Source::buffer(second),
        // readv, preadv2; writev, pwritev2
        (Direction::Received, 19 | 327) | (Direction::Sent, 20 | 328) => Source::segments(second, third),
        // recvmsg; sendmsg
        (Direction::Received, 47) | (Direction::Sent, 46) => message_segments(second),
        // sendfile, splice, sendmmsg, recvmmsg, aio and whatever comes
        _ => Source::nowhere(Unseen::NoBuffer),
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct msghdr` in user memory.
#[inline(always)]
pub fn message_segments(message: u64) -> Source {
    const IOV_OFFSET: u64 = 16;
    let mut fields = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the helper checks the user address and writes at most the given size.
    let result =
        unsafe { bpf_probe_read_user(fields.as_mut_ptr().cast(), 16, (message + IOV_OFFSET) as *const c_void) };
    if result != 0 {
        return Source::nowhere(Unseen::Fault);
    }
    // SAFETY: the helper filled it.
    let [address, count] = unsafe { fields.assume_init() };
    Source::segments(address, count)
}
