//! OpenSSL 3 (x86-64) inside of its functions, at places that are passed only when there is plaintext: none of these programs runs at a
//! return, nor for a call that brings nothing. Where they go is found by the agent (`agent/src/capture/tls/inside.rs`), which also makes
//! sure that registers and stack are what is read here.

use super::{
    openssl::{Object, Tie, deliver, give_up, is_client, object_of, tied},
    tls::{Registers, Told, registers, user},
};
use crate::maps::{places_in, untied_in};
use aya_ebpf::{EbpfContext as _, helpers::bpf_get_current_pid_tgid, macros::uprobe, programs::ProbeContext};
use core::{ffi::c_void, hint::black_box};
use s3auditd_common::{sample::Direction, settings::openssl};

/// `SSL3_RT_APPLICATION_DATA`
const APPLICATION_DATA: u8 = 23;
/// `SSL_MAX_PIPELINES`, and the most that a record has (`SSL3_RT_MAX_PLAIN_LENGTH`).
const MAX_PIPES: u64 = 32;
const MAX_RECORD_BYTES: u64 = 16_384;
const NOT_KNOWN: u64 = u64::MAX;

/// What [`argument`] finds.
const OBJECT: u32 = 0;
const KIND: u32 = 1;
const PEEK: u32 = 2;

/// `memcpy(to rdi, from rsi, n rdx)` in `ssl3_read_bytes`, to the buffer of the library's caller.
#[uprobe]
pub fn openssl_copied(context: ProbeContext) -> u32 {
    let told = Told::to(&context);
    let of_function = |which| argument(context.as_ptr(), told.own, which);
    if of_function(KIND) as u8 == APPLICATION_DATA && of_function(PEEK) as u32 == 0 {
        let registers = registers(&context);
        take(&context, told, Direction::Received, of_function(OBJECT), registers.rsi, registers.rdx);
    }
    0
}

/// `do_ssl3_write(s rdi, type esi, buf rdx, pipelens rcx, numpipes r8, create_empty_fragment r9d)`, which runs once for each record, or
/// for as many as there are pipes; what cannot be written at once is kept, and does not come by again.
#[uprobe]
pub fn openssl_sealed(context: ProbeContext) -> u32 {
    let (registers, told) = (registers(&context), Told::to(&context));
    if registers.rsi as u8 != APPLICATION_DATA || registers.r9 as u32 != 0 {
        return 0;
    }
    let len = of_pipes(registers.rcx, registers.r8);
    if len == NOT_KNOWN {
        give_up(bpf_get_current_pid_tgid(), registers.rdi);
    } else {
        take(&context, told, Direction::Sent, registers.rdi, registers.rdx, len);
    }
    0
}

/// The sum of so many lengths; [`NOT_KNOWN`] if one is none of a record, or there are too many. (A function of its own, and a loop that
/// is not left early: the verifier would go through all that follows once for each way out.)
#[inline(never)]
extern "C" fn of_pipes(lengths: u64, pipes: u64) -> u64 {
    let mut sum: u64 = user(lengths);
    let mut bits = sum;
    if pipes != 1 {
        for pipe in 1..MAX_PIPES {
            if black_box(pipe) < pipes {
                let one: u64 = user(lengths.wrapping_add(pipe * 8));
                sum = sum.wrapping_add(one);
                bits |= one;
            }
        }
    }
    if pipes == 0 || pipes > MAX_PIPES || bits >= 2 * MAX_RECORD_BYTES { NOT_KNOWN } else { sum }
}

/// `EVP_CIPHER_CTX_ctrl(context, ENCRYPT, n, what rcx)` in `ssl3_write_bytes`, which makes four or eight records at once:
/// `what` is where they go, where their plaintext is, and its length.
#[uprobe]
pub fn openssl_sealed_at_once(context: ProbeContext) -> u32 {
    let (registers, told) = (registers(&context), Told::to(&context));
    let of = |word: u64| user(registers.rcx.wrapping_add(word * 8));
    let object = argument(context.as_ptr(), told.own, OBJECT);
    take(&context, told, Direction::Sent, object, of(1), of(2));
    0
}

#[inline(always)]
fn take(context: &ProbeContext, told: Told, direction: Direction, address: u64, from: u64, len: u64) {
    let object = object_of(bpf_get_current_pid_tgid(), address);
    let Some(tie) = tie_of(object, told) else { return };
    deliver(context.as_ptr(), told, tie, address, direction, from, len);
}

/// As a call that is noted: whose object says that it is a client's is left alone.
#[inline(always)]
fn tie_of(object: Object, told: Told) -> Option<Tie> {
    let places = places_in(told.file);
    if is_client(object.address, places) {
        return None;
    }
    let tie = tied(object, places);
    if tie.is_none() {
        untied_in(told.file);
    }
    tie
}

/// An argument of the function that the probe is in. (A function of its own: the verifier wants a constant place in a context, and the
/// compiler would compute one.)
#[inline(never)]
extern "C" fn argument(context: *mut c_void, own: u32, which: u32) -> u64 {
    // SAFETY: the caller hands on its context, which is the registers.
    let registers = unsafe { &*context.cast::<Registers>() };
    match openssl::place(own, which) {
        openssl::At::Slot(bytes) => user(registers.rsp.wrapping_add(u64::from(bytes))),
        openssl::At::Register(number) => match number {
            0 => black_box(registers.rbx),
            1 => black_box(registers.rbp),
            2 => black_box(registers.r12),
            3 => black_box(registers.r13),
            4 => black_box(registers.r14),
            _ => black_box(registers.r15),
        },
    }
}
