//! Runs that the kernel skipped, as far as it counts them.
//!
//! Of every program: `recursion_misses`. Of a program at a kprobe besides: what its probe missed, because another probe was
//! running on that CPU, or because more tasks are in the function than there are instances to wait for their return
//! (`maxactive`: 10, or twice the possible CPUs). The kernel tells that since 6.7, in the information on a probe's link.
#![expect(unsafe_code, reason = "aya does not show these fields of the kernel's information")]

use super::btf::KernelTypes;
use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use aya_obj::generated::{bpf_link_info, bpf_link_type, bpf_perf_event_type, bpf_prog_info};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};

/// Whether this kernel tells what a probe missed.
pub(super) fn probes_are_counted(types: &KernelTypes) -> bool {
    types.offset("bpf_link_info", "perf_event.kprobe.missed").is_some()
}

/// Finds the counts of what is attached.
pub(super) struct Missed {
    /// Program and descriptor of each probe's link, which the programs keep open.
    probes: Vec<(String, RawFd)>,
}

impl Missed {
    /// Looks through this process's descriptors: aya keeps those of links to itself.
    pub fn of(ebpf: &Ebpf) -> Self {
        let names: BTreeMap<u32, &str> = ebpf
            .programs()
            .filter(|(_, program)| matches!(program, Program::KProbe(_)))
            .filter_map(|(name, program)| Some((program.info().ok()?.id(), name)))
            .collect();
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().filter(|_| !names.is_empty()).flatten().flatten();
        let descriptors = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
        let probes = descriptors.filter_map(|fd| {
            let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let value = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
            value("link_id:")?;
            Some(((*names.get(&value("prog_id:")?)?).to_owned(), fd))
        });
        Self { probes: probes.collect() }
    }

    /// By program.
    pub fn runs(&self, ebpf: &Ebpf) -> BTreeMap<String, u64> {
        let programs = ebpf.programs();
        let mut runs: BTreeMap<_, _> =
            programs.filter_map(|(name, program)| Some((name.to_owned(), of_program(program).ok()?))).collect();
        for (name, fd) in &self.probes {
            *runs.entry(name.clone()).or_default() += of_probe(*fd).unwrap_or_default();
        }
        runs
    }
}

/// `recursion_misses`: times that the kernel did not run a program because it was running already on that CPU.
fn of_program(program: &Program) -> Result<u64, ProgramError> {
    let fd = program.fd()?.as_fd().as_raw_fd();
    // SAFETY: a structure of the kernel's, made of plain integers.
    let info = unsafe { information::<bpf_prog_info>(fd) };
    Ok(info.map_err(ProgramError::IOError)?.recursion_misses)
}

/// `missed` of a kprobe's or a kretprobe's link; zero where the kernel does not tell.
fn of_probe(link: RawFd) -> io::Result<u64> {
    const PROBES: [u32; 2] =
        [bpf_perf_event_type::BPF_PERF_EVENT_KPROBE as u32, bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE as u32];
    // SAFETY: a structure of the kernel's, made of plain integers.
    let info = unsafe { information::<bpf_link_info>(link) }?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return Ok(0);
    }
    // SAFETY: the link's type says which one of the union it is, and this one's type says the same below.
    let event = unsafe { info.__bindgen_anon_1.perf_event };
    // SAFETY: as above.
    Ok(if PROBES.contains(&event.type_) { unsafe { event.__bindgen_anon_1.kprobe.missed } } else { 0 })
}

/// What the kernel tells of a BPF object. What it does not know is zero.
///
/// # Safety
/// `T` is the structure for that kind of object, and zero is a value of it.
unsafe fn information<T>(fd: RawFd) -> io::Result<T> {
    #[repr(C)]
    struct Request {
        fd: u32,
        len: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    // SAFETY: the caller upholds it.
    let mut info: T = unsafe { std::mem::zeroed() };
    let len = u32::try_from(size_of_val(&info)).unwrap_or(0);
    let request = Request { fd: fd.cast_unsigned(), len, info: &raw mut info as u64 };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const request, size_of::<Request>()) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
