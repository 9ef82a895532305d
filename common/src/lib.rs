//! Every byte that crosses the boundary between the kernel programs (`ebpf`) and user space (`agent`, `rebuild`).
//!
//! One definition, used on both sides: there is nothing to keep in step by hand. All structs are `repr(C)` with
//! explicit padding and prove their layout by derived `zerocopy` traits and const asserts; enums cross as integers
//! and come back through `TryFrom`.
#![no_std]

pub mod counters;
pub mod head;
pub mod sample;
pub mod settings;
