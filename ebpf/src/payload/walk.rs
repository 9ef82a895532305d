//! The walk through a call's buffers: read from user memory, cut into pieces, each put into the ring.

use crate::{
    emit::{Output, output},
    maps::{Scratch, forget, scratch},
};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use core::{
    ffi::{c_long, c_void},
    mem::MaybeUninit,
};
use s3auditd_common::{
    head::{LOOK_BYTES, Look},
    sample::{MAX_PIECE_BYTES, SampleHeader, Unseen},
};

pub const PIECE: u64 = MAX_PIECE_BYTES as u64;

/// Where a call's bytes lie in user memory. (No enum: a variant's missing fields would be spilled uninitialised, which the
/// verifier refuses.)
#[derive(Clone, Copy)]
pub struct Source {
    /// An `Unseen`; not `Seen`: nowhere that can be read.
    unseen: u8,
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
        Self { unseen: Unseen::Seen as u8, shape: BUFFER, address, more: 0 }
    }

    /// An array of `struct iovec`, itself in user memory.
    pub const fn segments(address: u64, count: u64) -> Self {
        Self { unseen: Unseen::Seen as u8, shape: SEGMENTS, address, more: count }
    }

    /// In front of this place: the first `used` bytes of the segment that the `struct iovec` in kernel memory at `segment`
    /// describes, and the segments before it.
    pub const fn behind(segment: u64, used: u64) -> Self {
        Self { unseen: Unseen::Seen as u8, shape: BEHIND, address: segment, more: used }
    }

    /// Nowhere that can be read.
    pub const fn nowhere(why: Unseen) -> Self {
        Self { unseen: why as u8, shape: BUFFER, address: 0, more: 0 }
    }

    /// See [`forget`].
    ///
    /// # Safety
    /// As of [`forget`].
    #[inline(always)]
    pub unsafe fn forgotten(self, scratch: *mut Scratch) -> Self {
        // SAFETY: the caller upholds it.
        let (shape, unseen) = unsafe { (forget(scratch, self.shape), forget(scratch, u32::from(self.unseen)) as u8) };
        Self { shape, unseen, ..self }
    }

    /// Why the bytes cannot be read, or `Seen`: an `Unseen`.
    pub const fn unseen(self) -> u8 {
        self.unseen
    }
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
    pub wanted: u64,
    /// Bytes in the buffer.
    pub filled: u64,
    /// What became of the pieces; counted after the loop.
    pub emitted: u64,
    pub emitted_bytes: u64,
    pub lost_full: u64,
    pub lost_refused: u64,
    pub lost_bytes: u64,
    /// Whose bytes, and where those that are wanted begin and end.
    pub cookie: u64,
    pub from: u32,
    pub end: u32,
    /// `Program`.
    pub program: u32,
    /// The run budget does not apply.
    pub unlimited: u32,
    /// Where the buffer's first byte stands.
    pub seq: u32,
    pub faulted: u32,
    /// Why nothing of it can be read, or `Seen`: an `Unseen`.
    pub unseen: u32,
    /// 1: no further than [`LOOK_BYTES`], and nothing into the ring yet.
    pub held: u32,
    /// 1: what is left is told later.
    pub told_later: u32,
    /// At what the buffer begins with.
    pub look: Look,
}

/// What a call's walk begins with.
pub struct Start {
    pub cookie: u64,
    pub program: u32,
    pub seq: u32,
    pub len: u32,
    pub skip: u32,
    pub wanted: u32,
    pub unlimited: u32,
    pub held: u32,
}

impl Walk {
    /// [`Walk::start_at`] does the rest; a look begins when something is looked at.
    #[inline(always)]
    pub fn begin(&mut self, start: &Start) {
        self.skip = u64::from(start.skip);
        self.wanted = u64::from(start.wanted);
        self.cookie = start.cookie;
        self.from = start.seq.wrapping_add(start.skip);
        self.end = start.seq.wrapping_add(start.len);
        self.program = start.program;
        self.unlimited = start.unlimited;
        self.seq = start.seq.wrapping_add(start.skip);
        self.held = start.held;
        zero(&mut self.next_segment);
        zero(&mut self.filled);
        zero(&mut self.emitted);
        zero(&mut self.emitted_bytes);
        zero(&mut self.lost_full);
        zero(&mut self.lost_refused);
        zero(&mut self.lost_bytes);
        zero(&mut self.faulted);
        zero(&mut self.told_later);
    }

    /// Where the call's `len` bytes lie.
    #[inline(always)]
    pub fn start_at(&mut self, source: Source, len: u32) {
        let len = u64::from(len);
        (self.segment_count, self.in_segment, self.back) = match source.shape {
            BUFFER => (0, len, 0),
            SEGMENTS => (source.more, 0, 0),
            _ => (u64::MAX, source.more, len),
        };
        (self.segments, self.address) = (source.address, source.address);
        self.in_kernel = u64::from(self.back != 0);
        self.unseen = u32::from(source.unseen);
    }
}

/// In a store of its own: zeros side by side become a call of `memset`, and that one goes byte by byte.
#[inline(always)]
fn zero<T: Default>(place: &mut T) {
    // SAFETY: a place that is there, and is this program's own.
    unsafe { (&raw mut *place).write_volatile(T::default()) };
}

/// What the callbacks of loops need besides the walk: pointers cannot be kept in maps.
pub struct Carry {
    pub context: *mut c_void,
    /// The running program's.
    pub buffer: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Iovec {
    base: u64,
    len: u64,
}

const IOVEC_BYTES: u64 = size_of::<Iovec>() as u64;

pub const CONTINUE: c_long = 0;
pub const STOP: c_long = 1;

/// One step of the loop, as the helper calls it.
#[inline(never)]
pub extern "C" fn step(_index: u32, carry: *mut c_void) -> c_long {
    // SAFETY: it is the `Carry` that `take` passed to the helper.
    let (context, buffer) = unsafe {
        let carry = &*carry.cast::<Carry>();
        (carry.context, carry.buffer)
    };
    let Some(scratch) = scratch(buffer) else { return STOP };
    // SAFETY: the buffer is the running program's own.
    unsafe { step_in::<true>(context, scratch) }
}

/// One step of the loop. `HOLDS`: the walk may be one that is held.
///
/// # Safety
/// The buffer is the running program's own.
#[inline(always)]
pub unsafe fn step_in<const HOLDS: bool>(context: *mut c_void, scratch: *mut Scratch) -> c_long {
    // SAFETY: the caller upholds it.
    let (held, next) = unsafe { (HOLDS && (*scratch).walk.held != 0, advance::<HOLDS>(scratch)) };
    if next != STEP && !held {
        // One place, not one for each case: the verifier follows every path through it.
        // SAFETY: as above.
        unsafe { flush(context, scratch) };
    }
    if next == EMIT_AND_STOP || (next == EMIT && held) { STOP } else { CONTINUE }
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
unsafe fn advance<const HOLDS: bool>(scratch: *mut Scratch) -> Next {
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
    let room = if HOLDS && walk.held != 0 { u64::from(LOOK_BYTES).saturating_sub(filled) } else { PIECE - filled };
    let len = core::cmp::min(core::cmp::min(walk.in_segment, walk.wanted), room);
    if len == 0 {
        return EMIT_AND_STOP;
    }
    // What the minimum above says, said by arithmetic: before 6.2 the verifier forgets what a comparison said of a number
    // that has been on the stack since.
    let bytes = ((core::hint::black_box(len) - 1) & (PIECE - 1)) + 1;
    // SAFETY: `filled` is below one piece and `bytes` at most one, so the write stays inside two pieces; the helper
    // checks the user address.
    let result = unsafe {
        let to = (&raw mut (*scratch).payload).cast::<u8>().add(filled as usize);
        bpf_probe_read_user(to.cast(), bytes as u32, walk.address as *const c_void)
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
    } else if len == room {
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
pub unsafe fn flush(context: *mut c_void, scratch: *mut Scratch) {
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
