//! Where OpenSSL has plaintext in a file (x86-64, OpenSSL 1.1.1 and later): in a shared library, or in a program that
//! holds it and still says where its functions are.
//!
//! Best are `ssl_read_internal` and `ssl_write_internal`, through which all public functions go. They have no symbol in a
//! shared library: they are what both `SSL_read` and `SSL_read_ex` call. They are taken only if they begin with a `push`,
//! which the kernel carries out itself; the public ones often begin with what it must step over in the process, which
//! takes several times longer. Where a compiler has put the inner functions into the outer ones, the outer ones are probed.

use super::{
    library::{Library, Point},
    symbols::{self, Elf, Exports},
};
use crate::capture::attach::chain;
use aya::{Btf, Ebpf, maps::Array, programs::BtfTracePoint};
use object::read::ReadCache;
use s3auditd_common::settings::openssl::{DONE_IS_FIFTH, NO_BUFFER, RESULT_IS_LENGTH, own};
use std::{collections::BTreeSet, fs::File, path::Path};

const CALLED: &str = "openssl_called";
pub(super) const RECEIVED: &str = "openssl_received";
pub(super) const SENT: &str = "openssl_sent";
pub(super) const RETURNED: &str = "openssl_returned";
pub(super) const BEGINS: &str = "openssl_begins";
pub(super) const PROGRAMS: [&str; 5] = [CALLED, RECEIVED, SENT, RETURNED, BEGINS];
const THREAD_ENDED: &str = "openssl_thread_ended";

const FUNCTIONS: [&str; 11] = [
    "SSL_read",
    "SSL_read_ex",
    "SSL_write",
    "SSL_write_ex",
    "SSL_write_ex2",
    "SSL_peek",
    "SSL_sendfile",
    "SSL_do_handshake",
    "SSL_clear",
    "SSL_is_server",
    "SSL_get_client_random",
];

/// The library says so of itself, behind which comes its version.
const NAME: &[u8] = b"OpenSSL ";
const OLDEST: (u32, u32, u32) = (1, 1, 1);

/// Whether a mapped file is to be looked into, by its name.
pub(super) fn is_library(name: &str) -> bool {
    name.starts_with("libssl") && name.contains(".so")
}

/// Whether a mapped file is the other half of the library, which knows its version.
pub(super) fn is_companion(name: &str) -> bool {
    name.starts_with("libcrypto") && name.contains(".so")
}

/// Looks for it. None: the file has none of its functions.
///
/// # Errors
/// It has, and why they cannot be used.
pub(super) fn find(elf: &Elf<'_>, companion: Option<&Path>) -> Result<Option<Library>, String> {
    let functions = symbols::exports(elf, &FUNCTIONS);
    if !["SSL_read", "SSL_write", "SSL_do_handshake", "SSL_clear"].iter().all(|name| functions.contains_key(name)) {
        return Ok(None);
    }
    let version = version(elf).or_else(|| {
        let cache = ReadCache::new(File::open(companion?).ok()?);
        version(&Elf::parse(&cache)?)
    });
    let version = version.ok_or("a library with the functions of OpenSSL that does not say that it is OpenSSL")?;
    if numbers(&version).is_none_or(|version| version < OLDEST) {
        let (a, b, c) = OLDEST;
        return Err(format!("OpenSSL {version} is older than {a}.{b}.{c}"));
    }
    if let Some(release) = kernel_that_ends_processes() {
        return Err(format!("Linux {release} may end a process with a seccomp filter in which a return is probed"));
    }
    locate(elf, &functions, version).map(Some)
}

fn locate(elf: &Elf<'_>, functions: &Exports, version: String) -> Result<Library, String> {
    let place = |name: &str, address: u64| {
        let offset = elf.file_offset(address + behind_mark(elf, address)).filter(|offset| *offset != 0);
        offset.ok_or_else(|| format!("OpenSSL {version}: {name} is not in the file"))
    };
    let role_at = functions.get("SSL_is_server").and_then(|function| field_returned(elf.code(function)?));
    let role_at = role_at.unwrap_or_default();
    let (mut returns, mut entries) = (Vec::new(), Vec::new());
    let mut probe = |program, name: &str, address, flags| {
        let (offset, own) = (place(name, address)?, own(flags, role_at));
        returns.push(Point { program, offset, own });
        entries.push(Point { program: CALLED, offset, own });
        Ok::<_, String>(())
    };
    let inner = inner(elf, functions);
    let name = match inner {
        Some(Inner { read, write, fifth }) => {
            probe(RECEIVED, "ssl_read_internal", read, 0)?;
            probe(SENT, "ssl_write_internal", write, if fifth { DONE_IS_FIFTH } else { 0 })?;
            "openssl"
        }
        None => {
            for (name, program, flags) in [
                ("SSL_read", RECEIVED, RESULT_IS_LENGTH),
                ("SSL_read_ex", RECEIVED, 0),
                ("SSL_write", SENT, RESULT_IS_LENGTH),
                ("SSL_write_ex", SENT, 0),
            ] {
                if let Some(function) = functions.get(name) {
                    probe(program, name, function.address, flags)?;
                }
            }
            "openssl (public functions)"
        }
    };
    for (name, program, flags) in
        [("SSL_do_handshake", RETURNED, 0), ("SSL_sendfile", SENT, RESULT_IS_LENGTH | NO_BUFFER)]
    {
        if let Some(function) = functions.get(name) {
            probe(program, name, function.address, flags)?;
        }
    }
    let clear = functions.get("SSL_clear").map_or(0, |function| function.address);
    let mut points = vec![Point { program: BEGINS, offset: place("SSL_clear", clear)?, own: 0 }];
    points.append(&mut returns);
    points.append(&mut entries);
    Ok(Library { name, version, points })
}

/// The functions behind the public ones.
struct Inner {
    read: u64,
    write: u64,
    /// Since 3.3 there are flags in front of the last argument.
    fifth: bool,
}

/// None: they are not there, or not as expected.
fn inner(elf: &Elf<'_>, functions: &Exports) -> Option<Inner> {
    let text = elf.text()?;
    let calls = |name| {
        let function = functions.get(name)?;
        Some(calls(elf.code(function)?, function.address).filter(|to| text.contains(to)).collect::<BTreeSet<_>>())
    };
    let of_both = |one, other| {
        let (one, other) = (calls(one)?, calls(other)?);
        let mut of_both = one.intersection(&other);
        let only = *of_both.next()?;
        of_both.next().is_none().then_some(only)
    };
    let fifth = functions.contains_key("SSL_write_ex2");
    let read = of_both("SSL_read", "SSL_read_ex")?;
    let write = of_both("SSL_write", if fifth { "SSL_write_ex2" } else { "SSL_write_ex" })?;
    let is_peek = calls("SSL_peek")?.contains(&read);
    (read != write && !is_peek && [read, write].iter().all(|at| begins_with_push(elf, *at))).then_some(Inner {
        read,
        write,
        fifth,
    })
}

/// Where the calls in a function go; now and then a number in it that looks like one.
fn calls(code: &[u8], address: u64) -> impl Iterator<Item = u64> {
    const CALL: u8 = 0xe8;
    const CALL_BYTES: u64 = 5;
    code.windows(5).enumerate().filter_map(move |(at, window)| {
        let [CALL, distance @ ..] = window else { return None };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let behind = address.wrapping_add(at as u64 + CALL_BYTES);
        Some(behind.wrapping_add_signed(i64::from(distance)))
    })
}

/// `endbr64`, with which functions begin that may be called indirectly. A probe goes behind it.
pub(super) const MARK: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

pub(super) fn behind_mark(elf: &Elf<'_>, address: u64) -> u64 {
    if elf.bytes(address, MARK.len() as u64) == Some(&MARK) { MARK.len() as u64 } else { 0 }
}

fn begins_with_push(elf: &Elf<'_>, address: u64) -> bool {
    let code = elf.bytes(address + behind_mark(elf, address), 2);
    matches!(code, Some([0x50..=0x57, _] | [0x41, 0x50..=0x57]))
}

/// The place of the 32-bit field of its first argument that a function returns, `mov eax, [rdi+N]`, if that is how it begins.
fn field_returned(code: &[u8]) -> Option<u16> {
    match code.strip_prefix(&MARK).unwrap_or(code) {
        [0x8b, 0x47, at @ 0..=0x7f, ..] => Some(u16::from(*at)),
        [0x8b, 0x87, a, b, 0, 0, ..] => Some(u16::from_le_bytes([*a, *b])),
        _ => None,
    }
}

/// `3.0.19`, as the library says it.
fn version(elf: &Elf<'_>) -> Option<String> {
    let data = elf.constants()?;
    let mut places = data.windows(NAME.len() + 1).enumerate();
    let at = places.find_map(|(at, window)| {
        let (name, digit) = window.split_at(NAME.len());
        (name == NAME && digit.first()?.is_ascii_digit()).then_some(at + NAME.len())
    })?;
    let text = data.get(at..)?;
    let end = text.iter().take(24).position(|byte| !byte.is_ascii_graphic())?;
    Some(std::str::from_utf8(text.get(..end)?).ok()?.to_owned())
}

/// `1.1.1w` is (1, 1, 1).
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.splitn(3, '.').map(|part| {
        let end = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end)?.parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// This kernel, if it is one that [`ends_processes`].
pub(super) fn kernel_that_ends_processes() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ends_processes(&release).then(|| release.trim().to_owned())
}

/// From 6.11 on a probed return makes a system call that nobody knew, so filters refuse it and the process ends, until
/// filters were told to let it pass: in 6.14, in 6.13 and 6.12 by an update (source: Linux, "seccomp: passthrough uretprobe
/// systemcall without filtering"). Of those two the first updates are left alone.
fn ends_processes(release: &str) -> bool {
    const SURELY_REPAIRED: u32 = 20;
    match numbers(release) {
        Some((6, 11, _)) => true,
        Some((6, 12 | 13, update)) => update < SURELY_REPAIRED,
        _ => false,
    }
}

/// Lets the kernel side tie objects to connections by what moves inside calls, and forget calls of threads that have ended.
pub(super) fn switch_on(ebpf: &mut Ebpf) -> Result<(), String> {
    let btf = Btf::from_sys_fs().map_err(|error| chain(&error))?;
    let program = ebpf.program_mut(THREAD_ENDED).ok_or("the object has no program for ends of threads")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| chain(&error))?;
    program.load("sched_process_exit", &btf).map_err(|error| chain(&error))?;
    program.attach().map_err(|error| chain(&error))?;
    let map = ebpf.map_mut("TLS_NESTED").ok_or("the object has no map TLS_NESTED")?;
    let mut map = Array::<_, u32>::try_from(map).map_err(|error| chain(&error))?;
    map.set(0, 1, 0).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_both_functions() {
        // SSL_read_ex of Debian's 3.0.19: `sub rsp, 8; call ...`
        let code = [0x48, 0x83, 0xec, 0x08, 0xe8, 0xc7, 0xfd, 0xff, 0xff, 0x31, 0xd2];
        assert_eq!(calls(&code, 0x354c0).collect::<Vec<_>>(), [0x35290]);
        assert_eq!(calls(&code[..8], 0x354c0).count(), 0);
    }

    #[test]
    fn a_field_is_found_only_where_the_function_begins_so() {
        assert_eq!(field_returned(&[0x8b, 0x47, 0x38, 0x31, 0xff, 0xc3]), Some(0x38));
        assert_eq!(field_returned(&[0xf3, 0x0f, 0x1e, 0xfa, 0x8b, 0x47, 0x38, 0xc3]), Some(0x38));
        assert_eq!(field_returned(&[0x8b, 0x87, 0x60, 0x01, 0, 0, 0xc3]), Some(0x160));
        for other in [&[0x8b, 0x87, 0, 0, 1, 0][..], &[0x8b, 0x47, 0x80, 0xc3], &[0x48, 0x8b, 0x47, 0x38], &[]] {
            assert_eq!(field_returned(other), None, "{other:x?}");
        }
    }

    #[test]
    fn versions_and_kernels() {
        assert_eq!(
            ["3.0.19", "1.1.1w", "3.0.19+quic", "4"].map(numbers),
            [Some((3, 0, 19)), Some((1, 1, 1)), Some((3, 0, 19)), None]
        );
        let ending = ["6.11.0-29-generic\n", "6.12.3", "6.13.1", "6.10.9", "6.12.41+deb13-amd64", "6.14.0", "6.1.0-9"];
        assert_eq!(ending.map(ends_processes), [true, true, true, false, false, false, false]);
    }

    #[test]
    fn names_of_files() {
        assert!(is_library("libssl.so.3") && is_library("libssl-8a2b.so.1.1") && is_companion("libcrypto.so.3"));
        assert!(!is_library("libcrypto.so.3") && !is_library("libsslog.a") && !is_library("nginx"));
    }
}
