//! One call's bytes: what of them is wanted, read from user memory, cut into pieces of at most 32 KiB.

use crate::{
    emit::{Origin, Output, count_lost_bytes, fill, output, output_unseen},
    maps::{Scratch, WINDOWS, buffer_of, count, count_of, scratch},
    watch::connection,
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use core::{
    ffi::{c_long, c_void},
    mem::MaybeUninit,
};
use s3auditd_common::{
    counters::KernelCounter,
    sample::{
        Direction, Kind, Layer, MAX_PIECE_BYTES, RUN_BUDGET_BYTES, SampleHeader, Unseen, WINDOW_STEP_BYTES, Window,
        WindowKind, window_key,
    },
    settings::ConnectionState,
};

const PIECE: u64 = MAX_PIECE_BYTES as u64;

/// The most steps of one call: three for each buffer segment (a writev may have 1,024, `UIO_MAXIOV`), one for each piece.
const MAX_STEPS: u32 = 3 * 1024 + 64;

/// The same where the kernel has no `bpf_loop` (before 5.17) and the verifier has to follow each step: one for each piece
/// of a run, and some segments. Bytes in further segments are unseen ([`Unseen::TooManySegments`]).
const MAX_BOUNDED_STEPS: u32 = 48;

/// Where a call's bytes lie in user memory. (No enum: a variant's missing fields would be spilled uninitialised, which the
/// verifier refuses.)
#[derive(Clone, Copy)]
pub struct Source {
    /// Not `Seen`: nowhere that can be read.
    unseen: Unseen,
    shape: u32,
    address: u64,
    /// `SEGMENTS`: how many; `BEHIND`: how many bytes of the first one.
    more: u64,
}

const BUFFER: u32 = 0;
const SEGMENTS: u32 = 1;
const BEHIND: u32 = 2;

impl Source {
    /// One buffer.
    pub const fn buffer(address: u64) -> Self {
        Self { unseen: Unseen::Seen, shape: BUFFER, address, more: 0 }
    }

    /// An array of `struct iovec`, itself in user memory.
    pub const fn segments(address: u64, count: u64) -> Self {
        Self { unseen: Unseen::Seen, shape: SEGMENTS, address, more: count }
    }

    /// In front of this place: the first `used` bytes of the segment that the `struct iovec` in kernel memory at `segment`
    /// describes, and the segments before it.
    pub const fn behind(segment: u64, used: u64) -> Self {
        Self { unseen: Unseen::Seen, shape: BEHIND, address: segment, more: used }
    }

    /// Nowhere that can be read.
    pub const fn nowhere(why: Unseen) -> Self {
        Self { unseen: why, shape: BUFFER, address: 0, more: 0 }
    }

    /// Where the first `len` of a call's `moved` bytes are, if they lie in one piece.
    #[inline(always)]
    pub fn front(self, len: u64, moved: u64) -> Option<u64> {
        if self.unseen as u8 != Unseen::Seen as u8 || moved < len {
            return None;
        }
        let address = match self.shape {
            BUFFER => self.address,
            SEGMENTS => iovec(self.address, false).filter(|first| first.len >= len)?.base,
            // The bytes end within this segment.
            _ if self.more >= moved => iovec(self.address, true)?.base.wrapping_add(self.more - moved),
            _ => return None,
        };
        Some(address)
    }

    /// Why the bytes cannot be read, or `Seen`.
    pub const fn unseen(self) -> Unseen {
        self.unseen
    }
}

/// A call that moved `len` bytes of one direction, the first at `seq`.
pub struct Call {
    pub direction: Direction,
    pub seq: u32,
    pub len: u32,
    pub other_seq: u32,
}

/// Emits what is wanted of a call. `source` is only asked when bytes are wanted at all. `BOUNDED`: without `bpf_loop`.
///
/// # Safety
/// `context` is the running program's own.
#[inline(always)]
pub unsafe fn take<const BOUNDED: bool>(
    context: *mut c_void,
    origin: &Origin,
    call: &Call,
    source: impl FnOnce() -> Source,
) {
    let end = call.seq.wrapping_add(call.len);
    turn(origin, call.direction);
    let Wanted { silent, skip, unlimited } = against_window(origin, call, end);
    if silent {
        return;
    }
    let kind = match call.direction {
        Direction::Received => Kind::Received,
        Direction::Sent => Kind::Sent,
    };
    let budget = if unlimited { u32::MAX } else { remaining_budget(origin, call.direction) };
    let wanted = core::cmp::min(call.len - skip, budget);
    let source = if wanted == 0 { Source::nowhere(Unseen::Withheld) } else { source() };

    let (program, buffer) = (origin.program as u32, buffer_of(origin.program));
    let Some(scratch) = scratch(buffer) else { return };
    // SAFETY: the buffer is this program's own.
    let header = unsafe { &raw mut (*scratch).header };
    // SAFETY: as above.
    unsafe { fill(header, origin, kind, call.other_seq) };
    if skip != 0 {
        // SAFETY: the caller upholds it.
        unsafe { output_unseen(context, program, header, call.seq, skip, Unseen::Skipped, origin.state) };
        if skip == call.len {
            return;
        }
    }
    if source.unseen as u8 != Unseen::Seen as u8 {
        let (seq, left) = (call.seq.wrapping_add(skip), call.len - skip);
        // SAFETY: the caller upholds it.
        unsafe { output_unseen(context, program, header, seq, left, source.unseen, origin.state) };
        return;
    }
    let len = u64::from(call.len);
    let (segment_count, in_segment, back) = match source.shape {
        BUFFER => (0, len, 0),
        SEGMENTS => (source.more, 0, 0),
        _ => (u64::MAX, source.more, len),
    };
    // SAFETY: the buffer is this program's own.
    let walk = unsafe { &mut (*scratch).walk };
    *walk = Walk {
        segments: source.address,
        segment_count,
        next_segment: 0,
        address: source.address,
        in_segment,
        back,
        in_kernel: u64::from(back != 0),
        skip: u64::from(skip),
        wanted: u64::from(wanted),
        filled: 0,
        emitted: 0,
        emitted_bytes: 0,
        lost_full: 0,
        lost_refused: 0,
        lost_bytes: 0,
        cookie: origin.cookie,
        from: call.seq.wrapping_add(skip),
        end,
        program,
        unlimited: u32::from(unlimited),
        seq: call.seq.wrapping_add(skip),
        faulted: 0,
    };
    if BOUNDED {
        // No function is called: before 6.2 the verifier takes every number in a program that has functions for one that
        // matters, and follows each combination of them (a million steps and more).
        let mut steps = 0;
        loop {
            // SAFETY: the buffer is this program's own.
            let next = unsafe { step_in(context, scratch) };
            steps += 1;
            // One way back, by a jump: before 6.3 the verifier takes no other instruction that leads back.
            if core::hint::black_box(next) != CONTINUE || steps == MAX_BOUNDED_STEPS {
                break;
            }
        }
    } else {
        let mut carry = Carry { context, buffer };
        // SAFETY: the callback has the signature that the helper calls, and `carry` outlives the loop.
        unsafe { bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut carry).cast(), 0) };
    }

    // SAFETY: the context is the running program's own, and so is the buffer.
    unsafe { account(context, scratch) };
}

/// Tells that there was a call, without a length: what the socket's numbers count is not what the caller moved.
///
/// # Safety
/// `context` is the running program's own.
#[inline(always)]
pub unsafe fn tell(context: *mut c_void, origin: &Origin, direction: Direction, seq: u32, other_seq: u32, why: Unseen) {
    let kind = match direction {
        Direction::Received => Kind::Received,
        Direction::Sent => Kind::Sent,
    };
    let program = origin.program as u32;
    let Some(scratch) = scratch(buffer_of(origin.program)) else { return };
    // SAFETY: the buffer is this program's own, and so is the context.
    unsafe {
        let header = &raw mut (*scratch).header;
        fill(header, origin, kind, other_seq);
        output_unseen(context, program, header, seq, 0, why, origin.state);
    }
}

/// What became of a walk. It knows nothing but what the walk knows: whatever else were needed after the loop would make the
/// verifier follow the loop once for each way to come to it.
///
/// # Safety
/// The context and the buffer are the running program's own.
#[inline(always)]
unsafe fn account(context: *mut c_void, scratch: *mut Scratch) {
    // SAFETY: the caller upholds it.
    let (walk, header) = unsafe { (&(*scratch).walk, &raw mut (*scratch).header) };
    let program = walk.program;
    count_of(program, KernelCounter::Emitted, walk.emitted);
    count_of(program, KernelCounter::EmittedBytes, walk.emitted_bytes);
    count_of(program, KernelCounter::LostRingFull, walk.lost_full);
    count_of(program, KernelCounter::LostRingRefused, walk.lost_refused);
    // SAFETY: the header is filled.
    let kind = unsafe { (*header).kind };
    count_lost_bytes(program, kind, walk.lost_bytes);
    // None: the table is full.
    let state = connection(walk.cookie);
    if let Some(state) = state {
        // SAFETY: a map value that lives until the socket is destroyed.
        unsafe {
            (*state.as_ptr()).lost = (*header).lost;
            // What was asked for does not use up the budget of what comes after.
            if walk.unlimited == 0 {
                let direction = if kind == Kind::Received as u8 { Direction::Received } else { Direction::Sent };
                let run = run_of(state.as_ptr(), direction);
                *run = (*run).saturating_add(walk.seq.wrapping_sub(walk.from));
            }
        }
    }
    let left = walk.end.wrapping_sub(walk.seq);
    if left != 0 {
        let why = if walk.faulted != 0 {
            count_of(program, KernelCounter::Faults, 1);
            Unseen::Fault
        } else if walk.wanted != 0 {
            Unseen::TooManySegments
        } else {
            Unseen::Withheld
        };
        // SAFETY: the caller upholds it.
        unsafe { output_unseen(context, program, header, walk.seq, left, why, state) };
    }
}

/// What the window of a direction leaves of a call. (No enum: a variant's missing fields would be spilled
/// uninitialised, which the verifier refuses.)
struct Wanted {
    /// Nothing is owed for it.
    silent: bool,
    /// So many bytes at its front are only told, not copied.
    skip: u32,
    /// The run budget does not apply.
    unlimited: bool,
}

#[inline(always)]
fn against_window(origin: &Origin, call: &Call, end: u32) -> Wanted {
    let everything = Wanted { silent: false, skip: 0, unlimited: false };
    let key = window_key(origin.cookie, call.direction);
    let Some(window) = WINDOWS.get_ptr_mut(key) else {
        return everything;
    };
    // SAFETY: a map value; the agent replaces values whole.
    let Window { mut until, kind, plaintext, mut more_steps } = unsafe { *window };
    if (plaintext != 0) != (origin.layer as u8 != Layer::Socket as u8) {
        // It counts other bytes: set before the connection's plaintext began to be read.
        let _gone_already = WINDOWS.remove(key);
        return everything;
    }
    // Signed distances: right as long as a step, and a call, is less than 2 GiB long, which it is.
    let mut end_past = end.wrapping_sub(until) as i32;
    if end_past >= 0 && more_steps != 0 {
        // A long window goes on, by as many steps as the call passed.
        let passed = core::cmp::min(end_past as u32 / WINDOW_STEP_BYTES + 1, u32::from(more_steps));
        until = until.wrapping_add(passed.wrapping_mul(WINDOW_STEP_BYTES));
        more_steps -= passed as u16;
        end_past = end.wrapping_sub(until) as i32;
        if end_past < 0 {
            // Should the agent replace the window at this moment, it lasts longer or shorter than meant: what is lost or
            // copied by that is known by its sequence numbers.
            // SAFETY: as above.
            unsafe { *window = Window { until, kind, plaintext, more_steps } };
            return Wanted { silent: false, skip: call.len, unlimited: false };
        }
    }
    let start_past = call.seq.wrapping_sub(until) as i32;
    if end_past >= 0 {
        // Reached: it must not stand until the sequence numbers come round.
        let _gone_already = WINDOWS.remove(key);
        // What follows is something new, a head perhaps.
        if let Some(state) = origin.state {
            // SAFETY: a map value that lives until the socket is destroyed.
            unsafe { *run_of(state.as_ptr(), call.direction) = 0 };
        }
    }
    if start_past >= 0 {
        return everything;
    }
    if kind != WindowKind::Skip as u8 {
        return Wanted { silent: false, skip: 0, unlimited: true };
    }
    if end_past < 0 {
        count(origin.program, KernelCounter::SkippedCalls, 1);
        count(origin.program, KernelCounter::SkippedBytes, u64::from(call.len));
        return Wanted { silent: true, skip: 0, unlimited: false };
    }
    Wanted { silent: false, skip: until.wrapping_sub(call.seq), unlimited: false }
}

/// The run of a direction. (A match, and no index: the verifier must see a constant.)
///
/// # Safety
/// `state` is a map value.
#[inline(always)]
unsafe fn run_of(state: *mut ConnectionState, direction: Direction) -> *mut u32 {
    // SAFETY: the caller upholds it.
    unsafe {
        match direction {
            Direction::Received => &raw mut (*state).run[0],
            Direction::Sent => &raw mut (*state).run[1],
        }
    }
}

/// One direction moves: the other one's run is over.
#[inline(always)]
fn turn(origin: &Origin, direction: Direction) {
    let other = match direction {
        Direction::Received => Direction::Sent,
        Direction::Sent => Direction::Received,
    };
    if let Some(state) = origin.state {
        // SAFETY: a map value that lives until the socket is destroyed; a race between two calls makes the budget
        // inexact, never a sample wrong.
        unsafe { *run_of(state.as_ptr(), other) = 0 };
    }
}

/// What the direction may still copy in this run.
#[inline(always)]
fn remaining_budget(origin: &Origin, direction: Direction) -> u32 {
    let Some(state) = origin.state else { return RUN_BUDGET_BYTES };
    // SAFETY: as in `turn`.
    RUN_BUDGET_BYTES.saturating_sub(unsafe { *run_of(state.as_ptr(), direction) })
}

/// State of the walk through a call's user memory.
#[repr(C)]
pub struct Walk {
    /// The array of iovecs.
    segments: u64,
    segment_count: u64,
    next_segment: u64,
    /// What is left of the current segment.
    address: u64,
    in_segment: u64,
    /// Bytes to go back before the first one is reached.
    back: u64,
    /// 1: the iovecs are in kernel memory.
    in_kernel: u64,
    /// Bytes still to be passed over.
    skip: u64,
    /// Bytes still to be copied.
    wanted: u64,
    /// Bytes in the buffer.
    filled: u64,
    /// What became of the pieces; counted after the loop.
    emitted: u64,
    emitted_bytes: u64,
    lost_full: u64,
    lost_refused: u64,
    lost_bytes: u64,
    /// Whose bytes, and where those that are wanted begin and end.
    cookie: u64,
    from: u32,
    end: u32,
    /// `Program`.
    program: u32,
    /// The run budget does not apply.
    unlimited: u32,
    /// Where the buffer's first byte stands.
    seq: u32,
    faulted: u32,
}

/// What the loop's callback needs besides the walk: pointers cannot be kept in maps.
struct Carry {
    context: *mut c_void,
    /// The running program's.
    buffer: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Iovec {
    base: u64,
    len: u64,
}

const IOVEC_BYTES: u64 = size_of::<Iovec>() as u64;

const CONTINUE: c_long = 0;
const STOP: c_long = 1;

/// One step of the loop, as the helper calls it.
#[inline(never)]
extern "C" fn step(_index: u32, carry: *mut c_void) -> c_long {
    // SAFETY: it is the `Carry` that `take` passed to the helper.
    let (context, buffer) = unsafe {
        let carry = &*carry.cast::<Carry>();
        (carry.context, carry.buffer)
    };
    let Some(scratch) = scratch(buffer) else { return STOP };
    // SAFETY: the buffer is the running program's own.
    unsafe { step_in(context, scratch) }
}

/// One step of the loop.
///
/// # Safety
/// The buffer is the running program's own.
#[inline(always)]
unsafe fn step_in(context: *mut c_void, scratch: *mut Scratch) -> c_long {
    // SAFETY: the caller upholds it.
    let next = unsafe { advance(scratch) };
    if next != STEP {
        // One place, not one for each case: the verifier follows every path through it.
        // SAFETY: as above.
        unsafe { flush(context, scratch) };
    }
    if next == EMIT_AND_STOP { STOP } else { CONTINUE }
}

/// What follows a step.
type Next = u32;
const STEP: Next = 0;
const EMIT: Next = 1;
const EMIT_AND_STOP: Next = 2;

/// Takes up the next segment, or passes over skipped bytes, or copies what fits of the current segment.
///
/// # Safety
/// The buffer is the running program's own.
#[inline(always)]
unsafe fn advance(scratch: *mut Scratch) -> Next {
    // SAFETY: the caller upholds it.
    let walk = unsafe { &mut (*scratch).walk };
    if walk.back != 0 {
        return go_back(walk);
    }
    if walk.in_segment == 0 {
        if walk.next_segment >= walk.segment_count {
            return EMIT_AND_STOP;
        }
        let Some(iovec) = iovec(walk.segments + walk.next_segment * IOVEC_BYTES, walk.in_kernel != 0) else {
            walk.faulted = 1;
            return EMIT_AND_STOP;
        };
        walk.next_segment += 1;
        walk.address = iovec.base;
        walk.in_segment = iovec.len;
        return STEP;
    }
    if walk.skip != 0 {
        let passed = core::cmp::min(walk.skip, walk.in_segment);
        walk.skip -= passed;
        walk.in_segment -= passed;
        walk.address += passed;
        return STEP;
    }
    let filled = walk.filled & (PIECE - 1);
    let fits = core::cmp::min(core::cmp::min(walk.in_segment, walk.wanted), PIECE - filled);
    // What the minimum above says, said in a form that the verifier keeps.
    let len = core::hint::black_box(fits);
    if len == 0 || len > PIECE {
        return EMIT_AND_STOP;
    }
    // SAFETY: `filled` is below one piece and `len` at most one, so the write stays inside two pieces; the helper
    // checks the user address.
    let result = unsafe {
        let to = (&raw mut (*scratch).payload).cast::<u8>().add(filled as usize);
        bpf_probe_read_user(to.cast(), len as u32, walk.address as *const c_void)
    };
    if result != 0 {
        walk.faulted = 1;
        return EMIT_AND_STOP;
    }
    walk.address += len;
    walk.in_segment -= len;
    walk.wanted -= len;
    walk.filled = filled + len;
    if walk.wanted == 0 {
        EMIT_AND_STOP
    } else if walk.filled >= PIECE {
        EMIT
    } else {
        STEP
    }
}

/// Takes up the segment before, until the first byte is in the current one.
#[inline(always)]
fn go_back(walk: &mut Walk) -> Next {
    if walk.in_segment == 0 {
        walk.segments = walk.segments.wrapping_sub(IOVEC_BYTES);
    }
    let Some(iovec) = iovec(walk.segments, true) else {
        walk.faulted = 1;
        return EMIT_AND_STOP;
    };
    let used = if walk.in_segment == 0 { iovec.len } else { walk.in_segment };
    if used >= walk.back {
        walk.address = iovec.base.wrapping_add(used - walk.back);
        walk.in_segment = walk.back;
        walk.next_segment = 1;
        walk.back = 0;
    } else {
        walk.back -= used;
        walk.in_segment = 0;
    }
    STEP
}

/// The `struct iovec` at that address, if it can be read.
#[inline(always)]
fn iovec(address: u64, in_kernel: bool) -> Option<Iovec> {
    let mut iovec = MaybeUninit::<Iovec>::uninit();
    let (to, from) = (iovec.as_mut_ptr().cast(), address as *const c_void);
    // SAFETY: the helper checks the address and writes at most the given size.
    let result = unsafe {
        if in_kernel {
            bpf_probe_read_kernel(to, IOVEC_BYTES as u32, from)
        } else {
            bpf_probe_read_user(to, IOVEC_BYTES as u32, from)
        }
    };
    // SAFETY: the helper filled it.
    if result == 0 { Some(unsafe { iovec.assume_init() }) } else { None }
}

/// Emits the buffer as a sample, if anything is in it.
///
/// # Safety
/// `context` is the running program's own, and so is the buffer, which holds a header and `filled` payload bytes.
#[inline(always)]
unsafe fn flush(context: *mut c_void, scratch: *mut Scratch) {
    // SAFETY: the caller upholds it.
    let (walk, header) = unsafe { (&mut (*scratch).walk, &mut (*scratch).header) };
    let filled = core::hint::black_box(walk.filled);
    if filled == 0 || filled > PIECE {
        return;
    }
    header.seq = walk.seq;
    header.len = filled as u32;
    header.copied = filled as u32;
    header.unseen = Unseen::Seen as u8;
    let bytes = size_of::<SampleHeader>() as u64 + filled;
    // SAFETY: header and payload are adjacent and initialised for that length.
    match unsafe { output(context, header, bytes) } {
        Output::Taken => {
            walk.emitted += 1;
            walk.emitted_bytes += bytes;
        }
        Output::Full => {
            walk.lost_full += 1;
            walk.lost_bytes += filled;
            header.lost = header.lost.wrapping_add(1);
        }
        Output::Refused => {
            walk.lost_refused += 1;
            walk.lost_bytes += filled;
            header.lost = header.lost.wrapping_add(1);
        }
    }
    walk.seq = walk.seq.wrapping_add(filled as u32);
    walk.filled = 0;
}
