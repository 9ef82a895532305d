//! No other task on this CPU while a sample goes into the ring: the kernel lends its buffers for that to three levels of
//! nesting, and counts a task that it has preempted there as one (`bpf_raw_tp_nest_level`).

use core::{ffi::c_long, mem::transmute};
use s3auditd_common::settings::{PREEMPT_DISABLE, PREEMPT_ENABLE};

/// Runs with preemption off, on kernels that would otherwise preempt a program.
#[inline(always)]
pub fn off<R>(run: impl FnOnce() -> R) -> R {
    call::<PREEMPT_DISABLE>();
    let result = run();
    call::<PREEMPT_ENABLE>();
    result
}

/// A call that the loader makes into one of a kernel function, or into nothing (`agent/src/capture/kfunc.rs`).
#[inline(always)]
fn call<const PLACE: usize>() {
    // SAFETY: how every helper is called: its number is the address. The verifier never sees this one.
    let function: unsafe extern "C" fn() -> c_long = unsafe { transmute(PLACE) };
    // SAFETY: the kernel functions take nothing and have no precondition.
    let _nothing = unsafe { function() };
}
