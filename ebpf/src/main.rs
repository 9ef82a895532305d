//! Kernel programs of s3auditd: decide whose socket, copy, count, leave. They never parse HTTP.
//!
//! One path, whatever the hook: a program of `backend/` says which socket moved how many bytes and where they lie in
//! user memory; `watch` decides whether that matters, `payload` cuts it into pieces, `emit` puts samples into the
//! ring and counts. `lifecycle` tells of connections opened and closed.
#![expect(unsafe_code, reason = "kernel programs are made of raw pointers and helpers; each block names its invariant")]
#![expect(
    internal_features,
    reason = "the BPF target has atomic exchange and addition, but `core::sync::atomic` does not offer them"
)]
#![feature(core_intrinsics)]
#![no_std]
#![no_main]

mod backend;
mod emit;
mod kernel;
mod lifecycle;
mod maps;
mod payload;
mod preemption;
mod watch;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program that could get here and not end.
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
// SAFETY: the name and section are what the loader looks for; nothing else defines them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
