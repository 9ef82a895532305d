//! One call's bytes: what of them is wanted (`wanted`), read from user memory, cut into pieces of at most 32 KiB (`walk`).

mod body;
mod walk;
mod wanted;

pub use walk::{Source, Walk};

use crate::{
    emit::{Origin, count_lost_bytes, fill, output_unseen},
    maps::{Scratch, buffer_of, count_of, forget, scratch},
    watch::{connection, place},
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use s3auditd_common::{
    counters::KernelCounter,
    sample::{Direction, Kind, Unseen},
};
use walk::{CONTINUE, Carry, Start, flush, step, step_in};
use wanted::{Wanted, remaining_budget, turn, wanted};

/// The most steps of one call: three for each buffer segment (a writev may have 1,024, `UIO_MAXIOV`), one for each piece.
const MAX_STEPS: u32 = 3 * 1024 + 64;

/// The same where the kernel has no `bpf_loop` (before 5.17) and the verifier has to follow each step: one for each piece
/// of a run, and some segments. Bytes in further segments are unseen ([`Unseen::TooManySegments`]).
const MAX_BOUNDED_STEPS: u32 = 48;

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
    turn(origin, call.direction);
    let Wanted { silent, skip, told, withheld, unlimited } = wanted::<BOUNDED>(origin, call);
    if silent {
        return;
    }
    let kind = kind_of(call.direction);
    let budget = if unlimited { u32::MAX } else { remaining_budget(origin, call.direction) };
    let copied = core::cmp::min(call.len - skip, budget);
    let held = !BOUNDED && !unlimited && wanted::may_begin(origin, call.direction);

    let (program, buffer) = (origin.program as u32, buffer_of(origin.program));
    let Some(scratch) = scratch(buffer) else { return };
    // What is known of the call is forgotten, each number by itself, and then read from the map (docs/decisions/0009).
    // SAFETY: the buffer is this program's own.
    let (told, by_us, walk, header) = unsafe {
        let (told, by_us) = (forget(scratch, told), forget(scratch, u32::from(withheld.by_us)));
        (*scratch).walk.begin(&Start {
            cookie: origin.cookie,
            program,
            seq: call.seq,
            len: call.len,
            skip: forget(scratch, skip),
            wanted: forget(scratch, copied),
            unlimited: forget(scratch, u32::from(unlimited)),
            held: forget(scratch, u32::from(held)),
        });
        (told, by_us, &raw mut (*scratch).walk, &raw mut (*scratch).header)
    };
    // SAFETY: as above.
    unsafe {
        let source = if (*walk).wanted == 0 { Source::nowhere(Unseen::Withheld) } else { source() };
        (*walk).start_at(source.forgotten(scratch), call.len);
    }
    // SAFETY: as above.
    unsafe { fill(header, origin, kind, call.other_seq) };
    if told != 0 {
        // SAFETY: the caller upholds it; the header is filled.
        unsafe {
            (*header).other_seq = if by_us == 0 { call.other_seq } else { withheld.other_seq };
            let from = (*walk).seq.wrapping_sub(told);
            let why = if by_us == 0 { Unseen::Skipped as u8 } else { Unseen::Withheld as u8 };
            output_unseen(context, program, header, from, told, why, origin.state);
            (*header).other_seq = call.other_seq;
            if (*walk).seq == (*walk).end {
                return;
            }
        }
    }
    // SAFETY: as above.
    if unsafe { (*walk).unseen } != Unseen::Seen as u32 {
        // Nothing to walk through.
    } else if BOUNDED {
        // No function is called: before 6.2 the verifier takes every number in a program that has functions for one that
        // matters, and follows each combination of them (a million steps and more).
        let mut steps = 0;
        loop {
            // SAFETY: the buffer is this program's own.
            let next = unsafe { step_in::<false>(context, scratch) };
            steps += 1;
            // One way back, by a jump: before 6.3 the verifier takes no other instruction that leads back.
            if core::hint::black_box(next) != CONTINUE || steps == MAX_BOUNDED_STEPS {
                break;
            }
        }
    } else {
        let mut carry = Carry { context, buffer };
        let carry = (&raw mut carry).cast();
        // SAFETY: the buffer is this program's own; the callback has the signature that the helper calls, and what is carried
        // outlives the loops.
        unsafe {
            // One buffer of one piece, the usual case, needs no loop.
            if step_in::<true>(context, scratch) == CONTINUE {
                bpf_loop(MAX_STEPS, step as *mut c_void, carry, 0);
            }
            if (*scratch).walk.held != 0 {
                if let Some(state) = origin.state {
                    body::look(scratch, carry, state);
                }
                (*scratch).walk.held = 0;
                if (*scratch).walk.wanted != 0 && (*scratch).walk.faulted == 0 {
                    bpf_loop(MAX_STEPS, step as *mut c_void, carry, 0);
                } else {
                    flush(context, scratch);
                }
            }
        }
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
    let kind = kind_of(direction);
    let program = origin.program as u32;
    let Some(scratch) = scratch(buffer_of(origin.program)) else { return };
    // SAFETY: the buffer is this program's own, and so is the context.
    unsafe {
        let header = &raw mut (*scratch).header;
        fill(header, origin, kind, other_seq);
        output_unseen(context, program, header, seq, 0, why as u8, origin.state);
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
    // SAFETY: the header is filled.
    let kind = unsafe { (*header).kind };
    if walk.lost_full | walk.lost_refused != 0 {
        count_of(program, KernelCounter::LostRingFull, walk.lost_full);
        count_of(program, KernelCounter::LostRingRefused, walk.lost_refused);
        count_lost_bytes(program, kind, walk.lost_bytes);
    }
    // None: the table is full. Keeping it through the loop would cost the verifiers before 6.2 too much.
    let state = connection(walk.cookie);
    if let Some(state) = state {
        // SAFETY: a map value that lives until the socket is destroyed.
        unsafe {
            (*state.as_ptr()).lost = (*header).lost;
            // What was asked for does not use up the budget of what comes after.
            if walk.unlimited == 0 {
                let place = place(state, direction_of(kind));
                (*place).run = (*place).run.saturating_add(walk.seq.wrapping_sub(walk.from));
            }
        }
    }
    let left = walk.end.wrapping_sub(walk.seq);
    if left != 0
        && walk.told_later != 0
        && let Some(state) = state
    {
        // SAFETY: as above; the header is filled.
        unsafe {
            let place = place(state, direction_of(kind));
            (*place).untold = left;
            (*place).untold_other = (*header).other_seq;
        }
        return;
    }
    if left != 0 {
        let why = if walk.unseen != Unseen::Seen as u32 {
            walk.unseen as u8
        } else if walk.faulted != 0 {
            count_of(program, KernelCounter::Faults, 1);
            Unseen::Fault as u8
        } else if walk.wanted != 0 {
            Unseen::TooManySegments as u8
        } else {
            Unseen::Withheld as u8
        };
        // SAFETY: the caller upholds it.
        unsafe { output_unseen(context, program, header, walk.seq, left, why, state) };
    }
}

#[inline(always)]
const fn kind_of(direction: Direction) -> Kind {
    match direction {
        Direction::Received => Kind::Received,
        Direction::Sent => Kind::Sent,
    }
}

/// Of a sample of bytes.
#[inline(always)]
const fn direction_of(kind: u8) -> Direction {
    if kind == Kind::Received as u8 { Direction::Received } else { Direction::Sent }
}
