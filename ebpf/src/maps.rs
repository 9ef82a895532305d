//! Maps and read-only globals: everything shared with user space or between programs.

use crate::{
    backend::{
        go_returns::{GoCall, GoNote},
        openssl::{Hello, Notes, Object, Tie},
        probe::InFlight,
    },
    kernel::constant,
    payload::Walk,
};
use aya_ebpf::{
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerfEventByteArray, ProgramArray},
};
use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};
use s3auditd_common::{
    counters::{COUNTER_SLOTS, KernelCounter, PROGRAMS, Program, UNCLAIMED, copying_programs, counter_slot},
    sample::{MAX_PIECE_BYTES, SampleHeader, Window},
    settings::{ConnectionState, Constants, Offsets, PortBitmap, TlsFile},
};

/// Filled by the agent before the load; frozen, so the verifier sees constants.
// SAFETY: the loader finds the symbol by this name; nothing else defines it.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = {
    // SAFETY: plain integers, for which zero is a value.
    unsafe { core::mem::zeroed() }
};

/// See [`OFFSETS`].
// SAFETY: as above.
#[unsafe(no_mangle)]
pub static CONSTANTS: Constants = {
    // SAFETY: plain integers, for which zero is a value.
    unsafe { core::mem::zeroed() }
};

/// The ring.
#[map]
pub static EVENTS: PerfEventByteArray = PerfEventByteArray::new(0);

/// Watched local ports.
#[map]
pub static PORTS: Array<PortBitmap> = Array::with_max_entries(1, 0);

/// By cookie. A plain hash and not an LRU: an entry that vanishes under load would forget losses. The agent sets its size.
#[map]
pub static CONNECTIONS: HashMap<u64, ConnectionState> = HashMap::with_max_entries(65_536, 0);

/// By `window_key`; written by the agent, removed here. The agent sets its size.
#[map]
pub static WINDOWS: HashMap<u64, Window> = HashMap::with_max_entries(65_536, 0);

/// See `s3auditd_common::counters`.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

/// A sample under construction. Room for two pieces, so that the verifier can bound "offset within a piece plus at
/// most a piece" by masks alone.
#[repr(C)]
pub struct Scratch {
    /// Here and not on the stack: what is loaded from a map has no history for the verifier to follow, so the loop
    /// over segments is verified in one pass (from the stack it took more than a million instructions).
    pub walk: Walk,
    pub header: SampleHeader,
    pub payload: [u8; 2 * MAX_PIECE_BYTES],
}

/// A buffer for each program that copies, on each possible CPU (the agent sets the size). One a program, because programs
/// may interrupt or preempt each other on a CPU, where sharing mixes two connections' bytes; the same program never runs
/// inside itself (docs/decisions/0006-programs-alone.md).
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(copying_programs(1, false), 0);

/// The same for the programs that tell of connections: a header, and whether it is in use.
#[map]
static HEADERS: Array<Header> = Array::with_max_entries(PROGRAMS, 0);

/// See [`HEADERS`].
#[repr(C)]
pub struct Header {
    pub header: SampleHeader,
    pub busy: u64,
}

/// What a call in flight was asked for, from its entry to its return, by thread and direction. The agent sets its size.
///
/// A plain hash and not an LRU: the oldest note is that of the receive that has waited longest, a live one, and it would
/// vanish without a count. What finds no room is counted (`NotesRefused`). A note whose return was missed goes with the
/// thread's next call of that direction or with the thread, so there are never more than two for each living thread.
#[map]
pub static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(65_536, 0);

/// Numbers of sockets by address, where the kernel's cookie cannot be asked for. The agent sets its size.
#[map]
pub static NUMBERS: HashMap<u64, u64> = HashMap::with_max_entries(65_536, 0);

/// Files with a TLS library, by the number that the agent gave each; see `backend::tls`.
#[map]
pub static TLS_FILES: HashMap<u32, TlsFile> = HashMap::with_max_entries(1024, 0);

/// Calls of a TLS library in flight, by thread. The agent sets its size.
///
/// A plain hash, as [`IN_FLIGHT`]: there is never more than one entry for each living thread, and what finds no room is
/// counted (`NotesRefused`).
#[map]
pub static TLS_CALLS: HashMap<u64, Notes> = HashMap::with_max_entries(65_536, 0);

/// Calls of Go's `Read` in flight, where it is read at its returns.
///
/// An LRU, unlike [`TLS_CALLS`]: nothing tells when a goroutine has ended, so a note may be left for good, and the oldest
/// makes room. One that made room too early, a connection's that has been idle longest, is found missing at its return, and
/// the bytes are told as not seen.
#[map]
pub static GO_CALLS: LruHashMap<GoCall, GoNote> = LruHashMap::with_max_entries(8192, 0);

/// Which connection an object of a TLS library is for; gone with the connection. The agent sets its size.
#[map]
pub static TLS_OBJECTS: HashMap<Object, Tie> = HashMap::with_max_entries(65_536, 0);

/// Connections by the random number of the hello that they began with; gone with the connection. The agent sets its size.
#[map]
pub static TLS_HELLOS: HashMap<[u8; 16], Hello> = HashMap::with_max_entries(65_536, 0);

/// Always empty. A program that could go on in another one gets no private stack from the kernel, and a probe's program
/// must not have one: from Linux 6.13 on that is one for each CPU, which a program that is preempted by itself shares with
/// itself (`bpf_enable_priv_stack`, kernel/bpf/verifier.c), and then the kernel follows pointers of another thread.
#[map]
pub static NO_PRIVATE_STACK: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Processes whose TLS is left alone although they run a file with probes.
#[map]
pub static TLS_EXCLUDED: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);

/// Not 0 once a library is probed that is tied to connections by its use of sockets; see `backend::openssl::tie`.
#[map]
pub static TLS_NESTED: Array<u32> = Array::with_max_entries(1, 0);

/// This CPU.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// Which buffer is that program's on this CPU; programs do not migrate.
#[inline(always)]
pub fn buffer_of(program: Program) -> u32 {
    cpu() * constant(|c| &c.buffers) + program.buffer(constant(|c| &c.chances))
}

/// See [`buffer_of`].
#[inline(always)]
pub fn scratch(buffer: u32) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(buffer)
}

/// The same number, of which the verifier then knows nothing. Before 6.2 it follows a program that has functions once for
/// each combination of numbers that it knows; forgotten ones make the ways to a place one.
///
/// # Safety
/// The buffer is the running program's own, and nothing is in it yet.
#[inline(always)]
pub unsafe fn forget(scratch: *mut Scratch, number: u32) -> u32 {
    // SAFETY: the caller upholds it.
    unsafe {
        let seq = &raw mut (*scratch).header.seq;
        seq.write_volatile(number);
        seq.read_volatile()
    }
}

/// The header of that program on this CPU.
#[inline(always)]
pub fn header(program: Program) -> Option<*mut Header> {
    HEADERS.get_ptr_mut(cpu() * PROGRAMS + program as u32)
}

/// Claims a buffer for plaintext on this CPU, to be given back with [`release`]. None: all are in use.
#[inline(always)]
pub fn claim() -> Option<Program> {
    for program in [Program::Plaintext0, Program::Plaintext1, Program::Plaintext2, Program::Plaintext3] {
        if let Some(own) = header(program) {
            // SAFETY: a map value, aligned; only this function and `release` touch the word of these programs.
            let was_busy = unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*own).busy, 1) };
            if was_busy == 0 {
                return Some(program);
            }
        }
    }
    None
}

/// See [`claim`].
#[inline(always)]
pub fn release(program: Program) {
    if let Some(own) = header(program) {
        // SAFETY: as in `claim`. An exchange and no store: nothing may move behind it.
        let _was_busy = unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*own).busy, 0) };
    }
}

/// Adds to the counter that programs share which have claimed nothing.
#[inline(always)]
pub fn count_unclaimed(counter: KernelCounter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(UNCLAIMED, counter)) {
        // SAFETY: a map value, aligned, in a bank that is only added to atomically.
        let _before = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, amount) };
    }
}

/// Counts a connection whose plaintext is seen in that file; says since when the file is covered.
#[inline(always)]
pub fn tied_in(file: u32) -> u64 {
    let Some(file) = TLS_FILES.get_ptr_mut(file) else { return u64::MAX };
    // SAFETY: a map value, aligned; the kernel side only adds, the agent writes it whole before it is used.
    unsafe {
        let _before = atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*file).tied, 1);
        (*file).ready_ns
    }
}

/// Counts that an object in that file is tied to no connection.
#[inline(always)]
pub fn untied_in(file: u32) {
    if let Some(file) = TLS_FILES.get_ptr_mut(file) {
        // SAFETY: as in `tied_in`.
        let _before = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*file).untied, 1) };
    }
}

/// Places in the objects of that file's library. 0: none is known.
#[inline(always)]
pub fn places_in(file: u32) -> u32 {
    // SAFETY: a word that is written before the file is used.
    TLS_FILES.get_ptr(file).map_or(0, |file| unsafe { (*file).places })
}

/// Adds to that program's counter on this CPU.
#[inline(always)]
pub fn count(program: Program, counter: KernelCounter, amount: u64) {
    count_of(program as u32, counter, amount);
}

/// The same of a `Program` that was kept as a number.
#[inline(always)]
pub fn count_of(program: u32, counter: KernelCounter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(program, counter)) {
        // SAFETY: nobody but this program on this CPU writes the slot, and it cannot interrupt itself.
        unsafe { *slot += amount }
    }
}
