//! Kernel programs into the kernel: resolve, load, attach, by the best backend that the kernel takes.

use super::{
    backend::{BACKENDS, Backend},
    btf::{BtfError, KERNEL_BTF, KernelTypes},
    kfunc,
};
use crate::config::BackendChoice;
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use s3auditd_common::{
    counters::{PROGRAMS, copying_programs},
    settings::{ABSENT, Constants, Offsets, PortBitmap},
};
use std::{io, path::Path};

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/s3auditd-ebpf"));

/// Why nothing is captured.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Not root, or without the capabilities.
    #[error("missing privilege: {missing} (run as root, or with CAP_BPF and CAP_PERFMON)")]
    Privilege {
        /// Which capability is missing.
        missing: &'static str,
    },
    /// See [`BtfError`].
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel's structures are not as the programs need them.
    #[error("this kernel's BTF has no {structure}.{path}, which the programs read")]
    Structure {
        /// Structure.
        structure: &'static str,
        /// Member.
        path: &'static str,
    },
    /// No backend works here.
    #[error("no backend that was tried works on this kernel: {reasons}")]
    NoBackend {
        /// Each backend with its reason.
        reasons: String,
    },
    /// The object could not be loaded.
    #[error("the kernel refuses the programs or maps: {0}")]
    Load(String),
    /// A ring could not be opened.
    #[error("the ring of CPU {cpu} with {ring_bytes} bytes could not be opened: {source}")]
    Ring {
        /// Which CPU.
        cpu: u32,
        /// How large.
        ring_bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// Something of the running system could not be read.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What runs in the kernel.
pub(super) struct Attached {
    pub ebpf: Ebpf,
    pub backend: &'static str,
    pub reason: String,
    /// Whether connections are known by numbers of our own, and not by the kernel's cookies.
    pub own_numbers: bool,
}

/// What the programs are told.
pub(super) struct Plan<'a> {
    pub backend: BackendChoice,
    pub ports: &'a [u16],
    pub max_connections: u32,
    pub tls: bool,
    pub possible_cpus: u32,
}

/// Whether this process may do what capture needs: asked first of all, because without it nothing else matters.
pub fn privileges() -> Result<(), AttachError> {
    check_privileges(effective_capabilities())
}

/// The effective set, a bit for each capability; none if it cannot be read.
#[must_use]
pub fn effective_capabilities() -> u64 {
    parse_effective(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Loads and attaches the first backend that works, or the one that is asked for.
pub(super) fn attach(plan: &Plan<'_>) -> Result<Attached, AttachError> {
    raise_memory_limit();
    let (types, offsets) = resolve()?;
    let forced = plan.backend != BackendChoice::Auto;
    let mut reasons = Vec::new();
    for backend in BACKENDS.iter().filter(|backend| !forced || backend.choice == plan.backend) {
        let name = backend.choice.name();
        match try_backend(backend, plan, &types, &offsets) {
            Ok(ebpf) => {
                let reason = match (forced, reasons.is_empty()) {
                    (true, _) => "the configuration asks for it".to_owned(),
                    (false, true) => "the best there is, and this kernel takes it".to_owned(),
                    (false, false) => format!("the best that works here; {}", reasons.join("; ")),
                };
                let own_numbers = backend.needs_own_numbers(&types);
                return Ok(Attached { ebpf, backend: name, reason, own_numbers });
            }
            Err(Refusal::Backend(reason)) => reasons.push(format!("{name}: {reason}")),
            Err(Refusal::Everything(error)) => return Err(error),
        }
    }
    Err(AttachError::NoBackend { reasons: reasons.join("; ") })
}

/// Loads and attaches each backend by itself, and takes it out at once: what the kernel has against it.
pub(super) fn try_each(plan: &Plan<'_>) -> Result<Vec<super::Tried>, AttachError> {
    raise_memory_limit();
    let (types, offsets) = resolve()?;
    let tried = BACKENDS.iter().map(|backend| {
        let tried = try_backend(backend, plan, &types, &offsets);
        let tried = tried.map(drop).map_err(|refusal| match refusal {
            Refusal::Backend(reason) => reason,
            Refusal::Everything(error) => error.to_string(),
        });
        (backend.choice.name(), tried)
    });
    Ok(tried.collect())
}

/// What the programs have to know of this kernel.
fn resolve() -> Result<(KernelTypes, Offsets), AttachError> {
    let types = KernelTypes::read(Path::new(KERNEL_BTF))?;
    let offsets = Offsets::resolve(|structure, path| types.offset(structure, path))
        .map_err(|(structure, path)| AttachError::Structure { structure, path })?;
    Ok((types, offsets))
}

enum Refusal {
    /// Another backend may work.
    Backend(String),
    /// None will.
    Everything(AttachError),
}

fn try_backend(backend: &Backend, plan: &Plan<'_>, types: &KernelTypes, offsets: &Offsets) -> Result<Ebpf, Refusal> {
    if let Some(reason) = backend.ruled_out(types) {
        return Err(Refusal::Backend(reason));
    }
    let constants = constants(types, backend.needs_own_numbers(types), plan.tls).map_err(Refusal::Everything)?;
    let load_failed = |error: &dyn std::error::Error| Refusal::Everything(AttachError::Load(chain(error)));
    let btf = Btf::from_sys_fs().map_err(|error| load_failed(&error))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", &AsPod(*offsets), true)
        .override_global("CONSTANTS", &AsPod(constants), true)
        .map_max_entries("CONNECTIONS", plan.max_connections)
        // Besides connections, those that the gateway opens from a watched port.
        .map_max_entries("NUMBERS", if constants.own_numbers == 0 { 1 } else { plan.max_connections.saturating_mul(2) })
        // A thread for each direction of a connection may be in a call.
        .map_max_entries("IN_FLIGHT", if backend.notes_calls() { plan.max_connections.saturating_mul(2) } else { 1 })
        .map_max_entries("TLS_CALLS", if plan.tls { plan.max_connections } else { 1 })
        .map_max_entries("TLS_HELLOS", if plan.tls { plan.max_connections } else { 1 })
        .map_max_entries("TLS_OBJECTS", if plan.tls { plan.max_connections } else { 1 })
        .map_max_entries("WINDOWS", plan.max_connections.saturating_mul(2))
        .map_max_entries("SCRATCH", plan.possible_cpus * constants.buffers)
        .map_max_entries("HEADERS", plan.possible_cpus * PROGRAMS)
        .load(&kfunc::resolved(OBJECT, types, constants.chances > 1))
        .map_err(|error| load_failed(&error))?;
    // Before the first program runs.
    set_ports(&mut ebpf, plan.ports).map_err(|error| load_failed(&error))?;
    backend.attach(&mut ebpf, &btf, types).map_err(Refusal::Backend)?;
    Ok(ebpf)
}

fn constants(types: &KernelTypes, own_numbers: bool, tls: bool) -> Result<Constants, AttachError> {
    let value = |structure, path| types.enumerator(structure, path).ok_or(AttachError::Structure { structure, path });
    // Before 5.14 the type is a bit, and the lowest bit is the direction.
    let is_bit = types.offset("msghdr", "msg_iter.iter_type").is_none();
    let chances = super::backend::chances(types);
    Ok(Constants {
        agent_tgid: std::process::id(),
        sock_done_bit: value("sock_flags", "SOCK_DONE")?,
        own_numbers: u32::from(own_numbers),
        chances,
        buffers: copying_programs(chances, tls),
        receive_parameters: types.parameters("tcp_recvmsg").and_then(|n| u32::try_from(n).ok()).unwrap_or(ABSENT),
        iter_mask: if is_bit { 0xfe } else { 0xff },
        iter_iovec: value("iter_type", "ITER_IOVEC")?,
        iter_ubuf: types.enumerator("iter_type", "ITER_UBUF").unwrap_or(ABSENT),
    })
}

/// Before 5.11 maps and programs count against this limit. Where it may not be raised, the load says what is wrong.
#[expect(unsafe_code, reason = "setrlimit has no safe interface among our dependencies")]
fn raise_memory_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct lives through the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

pub(super) fn set_ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), aya::maps::MapError> {
    let map = ebpf.map_mut("PORTS").ok_or_else(|| super::ring::missing("PORTS"))?;
    aya::maps::Array::try_from(map)?.set(0, AsPod(PortBitmap::of(ports)), 0)
}

/// An error with its causes on one line. A verifier's log is cut to its end, where the reason stands.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    const LONGEST: usize = 400;
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().rev().nth(LONGEST) {
        Some((start, _)) => format!("... {}", line.get(start..).unwrap_or_default()),
        None => line,
    }
}

/// Out of `/proc/self/status`.
fn parse_effective(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// `CAP_SYS_ADMIN`, or `CAP_BPF` with `CAP_PERFMON`.
fn check_privileges(effective: u64) -> Result<(), AttachError> {
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    if effective & SYS_ADMIN != 0 {
        return Ok(());
    }
    for (capability, name) in [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")] {
        if effective & capability == 0 {
            return Err(AttachError::Privilege { missing: name });
        }
    }
    Ok(())
}

/// aya wants its own marker on what it copies into maps and globals.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct AsPod<T>(pub T);

#[expect(unsafe_code, reason = "aya's marker for plain data is an unsafe trait")]
// SAFETY: `IntoBytes` proves that there is no padding, `FromBytes` that every byte pattern is a value, and `Copy`
// with `'static` that there is nothing behind it.
unsafe impl<T: zerocopy::IntoBytes + zerocopy::FromBytes + Copy + 'static> Pod for AsPod<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_read_from_the_effective_set() {
        let check = |status: &str| check_privileges(parse_effective(status));
        assert!(check("CapEff:\t000001ffffffffff\n").is_ok());
        assert!(check("CapPrm:\t0\nCapEff:\t000000c000000000\n").is_ok());
        let error = check("CapEff:\t0000008000000000\n").unwrap_err();
        assert!(error.to_string().contains("CAP_PERFMON"), "{error}");
        assert!(check("").unwrap_err().to_string().contains("CAP_BPF"));
    }
}
