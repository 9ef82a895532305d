//! A call's beginning, looked at where a message may begin, or goes on with a head or the line of a chunk: does a body, or a chunk,
//! follow of which nobody needs a byte?
//!
//! It only bounds what is copied by itself, as the run budget does, and only until the other direction moves
//! (docs/decisions/0066-a-budget-from-the-head.md, 0081-chunks-are-followed-in-the-kernel.md). It never says where the next message begins.

use super::{
    direction_of,
    walk::{CONTINUE, Carry, PIECE, STOP, Walk},
};
use crate::{
    maps::{Scratch, scratch},
    watch::place,
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::{
    ffi::{c_long, c_void},
    ptr::NonNull,
};
use s3auditd_common::{
    head::{LOOK_BYTES, Look, MAX_LOOK_STEPS, begins, inside, may_be_left_out},
    sample::Direction,
    settings::{ConnectionState, Place},
};

/// A reply's first call is looked at if it moves at least so much: what is smaller is whole, or nearly.
const MIN_REPLY_BYTES: u32 = 8 * 1024;
/// Or exactly this: a full buffer of Go's `net/http`, behind which more comes.
const FULL_BUFFER_BYTES: u32 = 4096;

/// Bytes that are needed to know what begins.
const BEGINNING_BYTES: u64 = 16;

/// Looks at what a held walk has read. Where a long body follows, or goes on, the walk is done with that.
///
/// # Safety
/// The buffer is the running program's own; `carry` is a [`Carry`] that says so.
#[inline(always)]
pub unsafe fn look(scratch: *mut Scratch, carry: *mut c_void, state: NonNull<ConnectionState>) {
    // SAFETY: the caller upholds it.
    let (walk, kind) = unsafe { (&mut (*scratch).walk, (*scratch).header.kind) };
    let direction = direction_of(kind);
    // SAFETY: a map value that lives until the socket is destroyed.
    let (place, request) = unsafe { (&mut *place(state, direction), &mut (*state.as_ptr()).request) };
    let (first, second) = (eight(scratch, 0), eight(scratch, 8));
    let known = walk.filled >= BEGINNING_BYTES;
    let resumes = inside::resumes(place.inside) && !(known && begins(direction, first));
    let at_chunk = resumes && place.inside == inside::SIZE;
    if resumes {
        walk.look = Look::resumed(place.inside, place.kept);
    } else if message_begins(walk, place, request, direction, first, second) {
        walk.look = Look::START;
    } else {
        return goes_on(walk, place);
    }
    place.inside = inside::NOTHING;
    // SAFETY: the callback has the signature that the helper calls, and the caller upholds the rest.
    unsafe { bpf_loop(MAX_LOOK_STEPS, step as *mut c_void, carry, 0) };
    let found = walk.look.found(direction);
    let end = walk.from.wrapping_add(found.at).wrapping_add(found.bytes);
    // What goes on, or ends, behind what was looked at and within the call, nobody has read.
    let is_in_call = found.inside >= inside::CHUNK && walk.end.wrapping_sub(end) as i32 > 0;
    if walk.faulted != 0 || is_in_call {
        return;
    }
    place.inside = found.inside;
    place.body_end = end;
    place.kept = walk.look.kept();
    if inside::resumes(found.inside) {
        return;
    }
    if at_chunk && found.inside == inside::CHUNK {
        // Of a chunk no byte is needed.
        walk.filled = u64::from(found.at);
    }
    goes_on(walk, place);
}

/// Whether a message with a long body may begin with what the walk has read.
#[inline(always)]
fn message_begins(
    walk: &Walk,
    place: &mut Place,
    request: &mut u32,
    direction: Direction,
    mut first: u64,
    second: u64,
) -> bool {
    let known = walk.filled >= BEGINNING_BYTES;
    if let Direction::Received = direction {
        if place.run == 1 {
            // Its first byte came alone.
            first = first << 8 | u64::from(*request as u8);
        }
        *request = match walk.filled {
            1 => u32::from(first as u8),
            _ if known => first as u32,
            _ => 0,
        };
    }
    if !known || (place.inside != inside::NOTHING && !begins(direction, first)) {
        return false;
    }
    place.inside = inside::NOTHING;
    let len = walk.end.wrapping_sub(walk.from);
    let long = matches!(direction, Direction::Received) || len >= MIN_REPLY_BYTES || len == FULL_BUFFER_BYTES;
    long && may_be_left_out(direction, *request, first, second)
}

/// The walk is done, if the direction is in something that goes on to the call's end.
#[inline(always)]
fn goes_on(walk: &mut Walk, place: &mut Place) {
    if place.inside == inside::NOTHING {
        return;
    }
    let past = walk.end.wrapping_sub(place.body_end) as i32;
    if past >= 0 {
        // It ends with this call.
        place.inside = if past == 0 { inside::behind(place.inside) } else { inside::NOTHING };
        if place.inside == inside::SIZE {
            place.run = 0;
        }
    }
    if past <= 0 && walk.faulted == 0 {
        walk.wanted = 0;
        walk.told_later = u32::from(past < 0);
    }
}

/// One step of a look, as the helper calls it.
#[inline(never)]
extern "C" fn step(_index: u32, carry: *mut c_void) -> c_long {
    // SAFETY: it is the `Carry` that `take` passed on.
    let buffer = unsafe { (*carry.cast::<Carry>()).buffer };
    let Some(scratch) = scratch(buffer) else { return STOP };
    // SAFETY: the buffer is the running program's own.
    let walk = unsafe { &mut (*scratch).walk };
    let end = core::cmp::min(walk.filled, u64::from(LOOK_BYTES)) as u32;
    if walk.look.step(end, |at| eight(scratch, at)) { CONTINUE } else { STOP }
}

/// Eight bytes of the payload, at a multiple of eight.
#[inline(always)]
fn eight(scratch: *mut Scratch, at: u32) -> u64 {
    let at = core::hint::black_box(u64::from(at) & (PIECE - 8));
    // SAFETY: inside the payload, which is aligned to eight (see `Scratch`).
    unsafe { (&raw const (*scratch).payload).cast::<u8>().add(at as usize).cast::<u64>().read_volatile() }
}
