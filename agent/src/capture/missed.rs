//! Runs of programs that the kernel skipped, as far as it counts them (`recursion_misses`).
#![expect(unsafe_code, reason = "aya does not show this field of the kernel's program information")]

use super::backend::first_of;
use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use aya_obj::generated::bpf_prog_info;
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

/// So old they may be while nothing else is counted.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// As they were read last: that takes a call for each program.
#[derive(Default)]
pub(super) struct MissedRuns {
    runs: BTreeMap<String, u64>,
    read: Option<Instant>,
}

impl MissedRuns {
    /// By first program of an event. At rest, which is when nothing was counted since, not always read anew.
    pub(super) fn get(&mut self, ebpf: &Ebpf, rests: bool) -> BTreeMap<String, u64> {
        if !rests || self.read.is_none_or(|read| read.elapsed() >= KEPT_FOR) {
            self.runs = runs(ebpf);
            self.read = Some(Instant::now());
        }
        self.runs.clone()
    }
}

/// An event of which nothing was seen was missed by every program that it has.
fn runs(ebpf: &Ebpf) -> BTreeMap<String, u64> {
    let missed = ebpf.programs().filter_map(|(name, program)| Some((first_of(name), of_program(program).ok()?)));
    missed.fold(BTreeMap::new(), |mut least, (event, runs)| {
        let of_event = least.entry(event.to_owned()).or_insert(runs);
        *of_event = runs.min(*of_event);
        least
    })
}

/// Times that the kernel did not run a program because it was running already on that CPU.
fn of_program(program: &Program) -> Result<u64, ProgramError> {
    #[repr(C)]
    struct Request {
        fd: u32,
        len: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    let fd = program.fd()?.as_fd().as_raw_fd();
    // SAFETY: plain integers, for which zero is a value.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let len = u32::try_from(size_of_val(&info)).unwrap_or(0);
    let request = Request { fd: fd.cast_unsigned(), len, info: &raw mut info as u64 };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const request, size_of::<Request>()) };
    if result == 0 { Ok(info.recursion_misses) } else { Err(ProgramError::IOError(io::Error::last_os_error())) }
}
