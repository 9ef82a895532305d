//! Go's `(*tls.Conn).Read` where what it copies cannot be probed: at its entry, behind the check for stack, and at every
//! return (x86-64). Dearer than `go_tls.rs`, and only taken in its place.
//!
//! A goroutine changes threads in mid-call, and its stack moves. So a call is noted by process, goroutine and its depth in
//! the stack, and a buffer that lies on the stack by its distance from the stack's beginning.

use super::{
    go_tls::take,
    tls::{Registers, Told, registers, user},
};
use crate::maps::GO_CALLS;
use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::uprobe, programs::ProbeContext};
use s3auditd_common::sample::Direction;

/// A call of a goroutine.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GoCall {
    process: u64,
    goroutine: u64,
    /// How far the frame is from the beginning of the stack.
    depth: u64,
}

/// What it was given.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GoNote {
    object: u64,
    /// The buffer; on the goroutine's own stack, its distance from the beginning.
    buffer: u64,
    on_stack: u64,
}

/// A goroutine's stack (`g.stack`, the first two words); it grows down from `high`.
struct Stack {
    low: u64,
    high: u64,
}

impl Stack {
    #[inline(always)]
    fn of(goroutine: u64) -> Self {
        Self { low: user(goroutine), high: user(goroutine.wrapping_add(8)) }
    }

    #[inline(always)]
    fn call(&self, registers: &Registers) -> GoCall {
        GoCall {
            process: bpf_get_current_pid_tgid() >> 32,
            goroutine: registers.r14,
            depth: self.high.wrapping_sub(registers.rsp),
        }
    }
}

/// `Read(c rax, b rbx rcx rdi)`
#[uprobe]
pub fn go_tls_read_called(context: ProbeContext) -> u32 {
    let registers = registers(&context);
    let (stack, address) = (Stack::of(registers.r14), registers.rbx);
    let on_stack = stack.low <= address && address < stack.high;
    let buffer = if on_stack { stack.high.wrapping_sub(address) } else { address };
    let note = GoNote { object: registers.rax, buffer, on_stack: u64::from(on_stack) };
    // What finds no room is seen at its return: there its length and its connection are known all the same.
    let _no_room = GO_CALLS.insert(stack.call(registers), note, 0);
    0
}

/// `ret`, with the number of bytes in `rax`. The stack pointer is what it was at the entry; above the return address is the
/// slot into which the `*Conn` was spilled.
#[uprobe]
pub fn go_tls_read_returned(context: ProbeContext) -> u32 {
    let registers = registers(&context);
    let stack = Stack::of(registers.r14);
    let call = stack.call(registers);
    // SAFETY: the value is copied; a goroutine is in one call at a time.
    let note = unsafe { GO_CALLS.get(call) }.copied();
    if note.is_some() {
        let _evicted_already = GO_CALLS.remove(call);
    }
    let len = registers.rax;
    if (len as i64) <= 0 {
        return 0;
    }
    let object = user(registers.rsp.wrapping_add(8));
    let address = match note {
        Some(note) if note.object != object => 0,
        Some(note) if note.on_stack != 0 => stack.high.wrapping_sub(note.buffer),
        Some(note) => note.buffer,
        // It began before the probe was there, or there was no room: a length without bytes.
        None => 0,
    };
    take(&context, Told::to(&context), Direction::Received, object, address, len);
    0
}
