//! Maps and read-only globals: everything shared with user space or between programs.

use crate::{backend::probe::InFlight, kernel::constant, payload::Walk};
use aya_ebpf::{
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerfEventByteArray},
};
use s3auditd_common::{
    counters::{COUNTER_SLOTS, KernelCounter, PROGRAMS, Program, copying_programs, counter_slot},
    sample::{MAX_PIECE_BYTES, SampleHeader, Window},
    settings::{ConnectionState, Constants, Offsets, PortBitmap},
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
static SCRATCH: Array<Scratch> = Array::with_max_entries(copying_programs(1), 0);

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

/// This CPU.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// The buffer of that program on this CPU; programs do not migrate.
#[inline(always)]
pub fn scratch(program: u32) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(cpu() * copying_programs(constant(|c| &c.chances)) + program)
}

/// The header of that program on this CPU.
#[inline(always)]
pub fn header(program: Program) -> Option<*mut Header> {
    HEADERS.get_ptr_mut(cpu() * PROGRAMS + program as u32)
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
