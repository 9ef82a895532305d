//! What is wanted of a call: by the window that user space set, by the body or chunk that was announced, by the run budget.

use super::Call;
use crate::{
    emit::Origin,
    maps::{WINDOWS, count},
    watch::place,
};
use s3auditd_common::{
    counters::KernelCounter,
    head::inside,
    sample::{Direction, Layer, RUN_BUDGET_BYTES, WINDOW_STEP_BYTES, Window, WindowKind, window_key},
    settings::Place,
};

/// So many bytes of a body are withheld before a sample tells of them, or fewer if it ends. A sample for each call would be a
/// hundredth of all bytes.
const MAX_UNTOLD_BYTES: u32 = 1 << 20;

/// What is left of a call. (No enum: a variant's missing fields would be spilled uninitialised, which the verifier refuses.)
pub struct Wanted {
    /// Nothing is owed for it.
    pub silent: bool,
    /// So many bytes at its front are not copied.
    pub skip: u32,
    /// So many bytes are told that end there; they may have begun with an earlier call.
    pub told: u32,
    pub withheld: Withheld,
    /// The run budget does not apply.
    pub unlimited: bool,
}

/// Who did not want what is told.
#[derive(Clone, Copy)]
pub struct Withheld {
    /// False: user space.
    pub by_us: bool,
    /// Where the other direction stood when they moved, if it was us.
    pub other_seq: u32,
}

impl Wanted {
    const BY_WINDOW: Withheld = Withheld { by_us: false, other_seq: 0 };
    const EVERYTHING: Self = Self { silent: false, skip: 0, told: 0, withheld: Self::BY_WINDOW, unlimited: false };
    const NOTHING: Self = Self { silent: true, ..Self::EVERYTHING };
}

/// See the module. `BOUNDED`: heads are not looked at, so bodies are not known.
#[inline(always)]
pub fn wanted<const BOUNDED: bool>(origin: &Origin, call: &Call) -> Wanted {
    let end = call.seq.wrapping_add(call.len);
    if !BOUNDED && follows_chunks(origin, call.direction) {
        // User space sees the same lines, later: what it says of each chunk is said already.
        return of_body::<BOUNDED>(origin, call, end);
    }
    let key = window_key(origin.cookie, call.direction);
    let Some(window) = WINDOWS.get_ptr_mut(key) else {
        return of_body::<BOUNDED>(origin, call, end);
    };
    // SAFETY: a map value; the agent replaces values whole.
    let Window { mut until, kind, plaintext, mut more_steps } = unsafe { *window };
    if (plaintext != 0) != (origin.layer as u8 != Layer::Socket as u8) {
        // It counts other bytes: set before the connection's plaintext began to be read.
        let _gone_already = WINDOWS.remove(key);
        return of_body::<BOUNDED>(origin, call, end);
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
            if !BOUNDED {
                forget_body(origin, call.direction);
            }
            return Wanted { skip: call.len, told: call.len, ..Wanted::EVERYTHING };
        }
    }
    let start_past = call.seq.wrapping_sub(until) as i32;
    if end_past >= 0 {
        // Reached: it must not stand until the sequence numbers come round.
        let _gone_already = WINDOWS.remove(key);
        // What follows is something new, a head perhaps.
        if let Some(state) = origin.state {
            // SAFETY: a map value that lives until the socket is destroyed.
            unsafe { (*place(state, call.direction)).run = 0 };
        }
    }
    if start_past >= 0 {
        return of_body::<BOUNDED>(origin, call, end);
    }
    // User space has read the head, and knows better.
    if !BOUNDED {
        forget_body(origin, call.direction);
    }
    if kind != WindowKind::Skip as u8 {
        return Wanted { unlimited: true, ..Wanted::EVERYTHING };
    }
    if end_past < 0 {
        count(origin.program, KernelCounter::SkippedCalls, 1);
        count(origin.program, KernelCounter::SkippedBytes, u64::from(call.len));
        return Wanted::NOTHING;
    }
    let skip = until.wrapping_sub(call.seq);
    Wanted { skip, told: skip, ..Wanted::EVERYTHING }
}

/// What the body leaves that the call is in, if it is in one.
#[inline(always)]
fn of_body<const BOUNDED: bool>(origin: &Origin, call: &Call, end: u32) -> Wanted {
    let Some(state) = origin.state.filter(|_| !BOUNDED) else { return Wanted::EVERYTHING };
    // SAFETY: a map value that lives until the socket is destroyed. Two threads that move bytes of one direction race here:
    // what is told wrong by that is known by its sequence numbers.
    let Place { run, inside, body_end, untold, untold_other, .. } = unsafe { *place(state, call.direction) };
    if inside == inside::NOTHING {
        return Wanted::EVERYTHING;
    }
    // SAFETY: as above.
    let place = unsafe { &mut *place(state, call.direction) };
    let start_past = call.seq.wrapping_sub(body_end) as i32;
    let end_past = end.wrapping_sub(body_end) as i32;
    let resumes = inside::resumes(inside);
    if resumes && start_past == 0 {
        return Wanted::EVERYTHING;
    }
    if start_past >= 0 || resumes {
        // The call that reached its end, or the one that went on with it, was not seen.
        place.inside = inside::NOTHING;
        place.untold = 0;
        return Wanted::EVERYTHING;
    }
    // Behind a turn it is looked at what comes; before that a debt is told.
    let skip = if run == 0 {
        0
    } else if end_past < 0 {
        call.len
    } else {
        body_end.wrapping_sub(call.seq)
    };
    let other_seq = if untold == 0 { call.other_seq } else { untold_other };
    let told = untold.wrapping_add(skip);
    if run != 0 && end_past < 0 && told < MAX_UNTOLD_BYTES {
        place.untold = told;
        place.untold_other = other_seq;
        return Wanted::NOTHING;
    }
    place.untold = 0;
    if run != 0 && end_past >= 0 {
        place.inside = inside::behind(inside);
        place.run = 0;
    }
    Wanted { skip, told, withheld: Withheld { by_us: true, other_seq }, ..Wanted::EVERYTHING }
}

/// User space looks after the body from here on.
#[inline(always)]
fn forget_body(origin: &Origin, direction: Direction) {
    let Some(state) = origin.state else { return };
    // SAFETY: a map value that lives until the socket is destroyed.
    let place = unsafe { &mut *place(state, direction) };
    if place.inside != inside::NOTHING {
        // What was not told lies in the window too.
        count(origin.program, KernelCounter::SkippedBytes, u64::from(place.untold));
        place.inside = inside::NOTHING;
        place.untold = 0;
    }
}

/// See [`inside::follows_chunks`].
#[inline(always)]
fn follows_chunks(origin: &Origin, direction: Direction) -> bool {
    let Some(state) = origin.state else { return false };
    // SAFETY: as in `turn`.
    inside::follows_chunks(unsafe { (*place(state, direction)).inside })
}

/// One direction moves: the other one's run is over.
#[inline(always)]
pub fn turn(origin: &Origin, direction: Direction) {
    let other = match direction {
        Direction::Received => Direction::Sent,
        Direction::Sent => Direction::Received,
    };
    if let Some(state) = origin.state {
        // SAFETY: a map value that lives until the socket is destroyed; a race between two calls makes the budget
        // inexact, never a sample wrong.
        unsafe { (*place(state, other)).run = 0 };
    }
}

/// Whether nothing of the direction was copied since the other one moved, or a window ended, but one byte perhaps: a message
/// may begin; or a head goes on, or the line in front of a chunk. (Go's `net/http` waits with a buffer of one byte while a
/// handler runs; what comes then is a pipelined request.)
#[inline(always)]
pub fn may_begin(origin: &Origin, direction: Direction) -> bool {
    let Some(state) = origin.state else { return false };
    // SAFETY: as in `turn`.
    let Place { run, inside, .. } = unsafe { *place(state, direction) };
    run <= 1 || inside::resumes(inside)
}

/// What the direction may still copy in this run.
#[inline(always)]
pub fn remaining_budget(origin: &Origin, direction: Direction) -> u32 {
    let Some(state) = origin.state else { return RUN_BUDGET_BYTES };
    // SAFETY: as in `turn`.
    RUN_BUDGET_BYTES.saturating_sub(unsafe { (*place(state, direction)).run })
}
