//! Samples into the ring, each counted: what the ring took, and what it did not, by cause and by connection.

use crate::{
    kernel::TcpSock,
    maps::{EVENTS, count_of},
    preemption,
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_ns, bpf_perf_event_output},
};
use core::{
    ffi::c_void,
    ptr::{NonNull, addr_of},
};
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Kind, Layer, Role, SampleHeader, Unseen},
    settings::ConnectionState,
};

const BPF_F_CURRENT_CPU: u64 = 0xffff_ffff;
/// `-ENOSPC`.
const NO_SPACE: i64 = -28;

/// What every sample of one call has in common.
#[derive(Clone, Copy)]
pub struct Origin {
    pub tcp: TcpSock,
    pub cookie: u64,
    pub port: u16,
    /// None: the table is full.
    pub state: Option<NonNull<ConnectionState>>,
    /// Who counts.
    pub program: Program,
    /// What the sequence numbers count.
    pub layer: Layer,
}

/// Fills the header of this program's own buffer but for its piece: `seq`, `len`, `copied`, `unseen`. In place, field
/// by field: a header on the stack would not leave room for the rest.
///
/// # Safety
/// `header` is in the running program's own scratch buffer.
#[inline(always)]
pub unsafe fn fill(header: *mut SampleHeader, origin: &Origin, kind: Kind, other_seq: u32) {
    // Lifecycle programs run in whatever task or interrupt it happens to be.
    let in_task = origin.program.copies();
    // SAFETY: the caller upholds it; the state is a map value that lives until the socket is destroyed.
    unsafe {
        (*header).time_ns = bpf_ktime_get_ns();
        (*header).cookie = origin.cookie;
        (*header).cgroup_id = if in_task { bpf_get_current_cgroup_id() } else { 0 };
        (*header).other_seq = other_seq;
        (*header).tgid = if in_task { (bpf_get_current_pid_tgid() >> 32) as u32 } else { 0 };
        (*header).netns = origin.tcp.netns();
        (*header).local_port = origin.port;
        (*header).kind = kind as u8;
        (*header).layer = origin.layer as u8;
        // One by one, see `walk::zero`.
        let reserved = (&raw mut (*header).reserved).cast::<u8>();
        reserved.write_volatile(0);
        reserved.add(1).write_volatile(0);
        reserved.add(2).write_volatile(0);
        if let Some(state) = origin.state {
            (*header).lost = (*state.as_ptr()).lost;
            (*header).role = (*state.as_ptr()).role as u8;
        } else {
            (*header).lost = 0;
            (*header).role = Role::Unknown as u8;
        }
        let comm = &raw mut (*header).comm;
        if in_task {
            // It writes all of it; on failure the name is empty.
            let _unnamed = bpf_get_current_comm(comm.cast(), 16);
        } else {
            *comm = [0; 16];
        }
        origin.tcp.write_endpoints(&mut *header);
    }
}

/// What the ring did with a sample.
pub enum Output {
    Taken,
    /// No room.
    Full,
    /// No reader on this CPU.
    Refused,
}

/// Puts `bytes` bytes at `sample` (header and payload) into this CPU's ring.
///
/// # Safety
/// `context` is the running program's own, and `bytes` bytes at `sample` are initialised.
#[inline(always)]
pub unsafe fn output(context: *mut c_void, sample: *mut SampleHeader, bytes: u64) -> Output {
    // The helper itself and not aya's wrapper, whose result is thrown away: what the ring refuses must be counted.
    // SAFETY: the caller upholds it; the map is a perf event array.
    let result = preemption::off(|| unsafe {
        bpf_perf_event_output(context, addr_of!(EVENTS) as *mut c_void, BPF_F_CURRENT_CPU, sample.cast(), bytes)
    });
    match result {
        0 => Output::Taken,
        NO_SPACE => Output::Full,
        _ => Output::Refused,
    }
}

/// A sample without payload: `len` bytes from `seq` on moved, but do not come along; `why` is an `Unseen`.
///
/// # Safety
/// As [`output`]; the header is filled and in the running program's own scratch buffer.
#[inline(always)]
pub unsafe fn output_unseen(
    context: *mut c_void,
    program: u32,
    header: *mut SampleHeader,
    seq: u32,
    len: u32,
    why: u8,
    state: Option<NonNull<ConnectionState>>,
) {
    // SAFETY: the caller upholds it.
    unsafe {
        (*header).seq = seq;
        (*header).len = len;
        (*header).copied = 0;
        (*header).unseen = why;
    }
    if why == Unseen::Skipped as u8 {
        count_of(program, KernelCounter::SkippedCalls, 1);
        count_of(program, KernelCounter::SkippedBytes, u64::from(len));
    } else if why != Unseen::Seen as u8 {
        count_of(program, KernelCounter::UnseenBytes, u64::from(len));
    }
    let bytes = size_of::<SampleHeader>() as u64;
    // SAFETY: the header is whole; the caller upholds the rest.
    let cause = match unsafe { output(context, header, bytes) } {
        Output::Taken => {
            count_of(program, KernelCounter::Emitted, 1);
            count_of(program, KernelCounter::EmittedBytes, bytes);
            return;
        }
        Output::Full => KernelCounter::LostRingFull,
        Output::Refused => KernelCounter::LostRingRefused,
    };
    count_of(program, cause, 1);
    if why != Unseen::Skipped as u8 {
        // SAFETY: the header is filled.
        count_lost_bytes(program, unsafe { (*header).kind }, u64::from(len));
    }
    if let Some(state) = state {
        // Two calls on one connection may race here and count one loss for two: the total is exact in the CPU's
        // counter, this one only says that there was one.
        // SAFETY: a map value that lives until the socket is destroyed.
        unsafe { (*state.as_ptr()).lost = (*state.as_ptr()).lost.wrapping_add(1) }
    }
}

/// Bytes of the stream of which the ring took no sample of that `Kind`, to that `Program`.
#[inline(always)]
pub fn count_lost_bytes(program: u32, kind: u8, bytes: u64) {
    if kind == Kind::Received as u8 {
        count_of(program, KernelCounter::LostReceivedBytes, bytes);
    } else if kind == Kind::Sent as u8 {
        count_of(program, KernelCounter::LostSentBytes, bytes);
    }
    // The samples of all others are of no bytes.
}
