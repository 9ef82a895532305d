//! Kernel programs into the kernel: resolve, load, attach, by the best backend that the kernel takes.

use super::btf::{BtfError, KERNEL_BTF, KernelTypes};
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    programs::{BtfTracePoint, ProgramError},
};
use s3auditd_common::{
    counters::PROGRAMS,
    settings::{Constants, Offsets, PortBitmap},
};
use std::{collections::BTreeMap, io, path::Path};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/s3auditd-ebpf"));

/// Every way to hook sockets, best first. They are tried by loading, not by kernel version.
const BACKENDS: &[Backend] = &[Backend {
    name: "socket-tracepoints",
    tracepoints: &[
        ("socket_received", "sock_recv_length"),
        ("socket_sent", "sock_send_length"),
        ("socket_state_changed", "inet_sock_set_state"),
        ("socket_destroyed", "tcp_destroy_sock"),
    ],
}];

/// One way to hook sockets: programs of the object and the typed tracepoints they go to.
struct Backend {
    name: &'static str,
    tracepoints: &'static [(&'static str, &'static str)],
}

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
    #[error("no backend works on this kernel: {reasons}")]
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
}

/// What the programs are told.
pub(super) struct Plan<'a> {
    pub ports: &'a [u16],
    pub max_connections: u32,
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

/// Loads and attaches the first backend that works.
pub(super) fn attach(plan: &Plan<'_>) -> Result<Attached, AttachError> {
    let (types, offsets, constants) = resolve()?;
    let mut reasons = BTreeMap::new();
    for backend in BACKENDS {
        match try_backend(backend, plan, &types, &offsets, &constants) {
            Ok(ebpf) => {
                let reason = if reasons.is_empty() {
                    "the best there is, and this kernel takes it".to_owned()
                } else {
                    list(&reasons)
                };
                return Ok(Attached { ebpf, backend: backend.name, reason });
            }
            Err(Refusal::Backend(reason)) => {
                reasons.insert(backend.name, reason);
            }
            Err(Refusal::Everything(error)) => return Err(error),
        }
    }
    Err(AttachError::NoBackend { reasons: list(&reasons) })
}

/// Loads and attaches each backend by itself, and takes it out at once: what the kernel has against it.
pub(super) fn try_each(plan: &Plan<'_>) -> Result<Vec<super::Tried>, AttachError> {
    let (types, offsets, constants) = resolve()?;
    let tried = BACKENDS.iter().map(|backend| {
        let tried = try_backend(backend, plan, &types, &offsets, &constants);
        let tried = tried.map(drop).map_err(|refusal| match refusal {
            Refusal::Backend(reason) => reason,
            Refusal::Everything(error) => error.to_string(),
        });
        (backend.name, tried)
    });
    Ok(tried.collect())
}

/// What the programs have to know of this kernel.
fn resolve() -> Result<(KernelTypes, Offsets, Constants), AttachError> {
    let types = KernelTypes::read(Path::new(KERNEL_BTF))?;
    let offsets = Offsets::resolve(|structure, path| types.offset(structure, path))
        .map_err(|(structure, path)| AttachError::Structure { structure, path })?;
    let constants = Constants {
        agent_tgid: std::process::id(),
        sock_done_bit: types
            .enumerator("sock_flags", "SOCK_DONE")
            .ok_or(AttachError::Structure { structure: "sock_flags", path: "SOCK_DONE" })?,
    };
    Ok((types, offsets, constants))
}

fn list(reasons: &BTreeMap<&str, String>) -> String {
    reasons.iter().map(|(backend, reason)| format!("{backend}: {reason}")).collect::<Vec<_>>().join("; ")
}

enum Refusal {
    /// Another backend may work.
    Backend(String),
    /// None will.
    Everything(AttachError),
}

fn try_backend(
    backend: &Backend,
    plan: &Plan<'_>,
    types: &KernelTypes,
    offsets: &Offsets,
    constants: &Constants,
) -> Result<Ebpf, Refusal> {
    if let Some((_, tracepoint)) = backend.tracepoints.iter().find(|(_, name)| !types.has_tracepoint(name)) {
        return Err(Refusal::Backend(format!("this kernel has no typed tracepoint {tracepoint}")));
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(Refusal::Backend("it reads x86-64 registers".to_owned()));
    }
    let load_failed = |error: &dyn std::error::Error| Refusal::Everything(AttachError::Load(chain(error)));
    let btf = Btf::from_sys_fs().map_err(|error| load_failed(&error))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", &AsPod(*offsets), true)
        .override_global("CONSTANTS", &AsPod(*constants), true)
        .map_max_entries("CONNECTIONS", plan.max_connections)
        .map_max_entries("WINDOWS", plan.max_connections.saturating_mul(2))
        .map_max_entries("SCRATCH", plan.possible_cpus * PROGRAMS)
        .load(OBJECT)
        .map_err(|error| load_failed(&error))?;
    // Before the first program runs.
    set_ports(&mut ebpf, plan.ports).map_err(|error| load_failed(&error))?;
    for (program, tracepoint) in backend.tracepoints {
        attach_one(&mut ebpf, &btf, program, tracepoint)
            .map_err(|error| Refusal::Backend(format!("{tracepoint}: {}", chain(&error))))?;
    }
    Ok(ebpf)
}

pub(super) fn set_ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), aya::maps::MapError> {
    let map = ebpf.map_mut("PORTS").ok_or_else(|| super::ring::missing("PORTS"))?;
    aya::maps::Array::try_from(map)?.set(0, AsPod(PortBitmap::of(ports)), 0)
}

fn attach_one(ebpf: &mut Ebpf, btf: &Btf, program: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

/// An error with its causes on one line. A verifier's log is cut to its end, where the reason stands.
fn chain(error: &dyn std::error::Error) -> String {
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
