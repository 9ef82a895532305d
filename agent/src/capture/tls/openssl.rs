//! Where OpenSSL has plaintext in a file (x86-64, OpenSSL 1.1.1 and later): in a shared library, or in a program that
//! holds it and still says where its functions are.
//!
//! Best are `ssl_read_internal` and `ssl_write_internal`, through which all public functions go. They have no symbol in a
//! shared library: they are what both `SSL_read` and `SSL_read_ex` call. They are taken only if they begin with a `push`,
//! which the kernel carries out itself; the public ones often begin with what it must step over in the process, which
//! takes several times longer. Where a compiler has put the inner functions into the outer ones, the outer ones are probed.
//!
//! Better still are places inside of what those call, where there is nothing but plaintext (`inside.rs`). Where these are known, the inner
//! functions are probed only for connections from before, which are tied to their objects by their next read.

use super::{
    code,
    inside::{self, Inside, Site},
    library::{Library, Point},
    others,
    served::{self, Served},
    symbols::{self, Elf, Exports},
};
use crate::capture::attach::chain;
use aya::{Btf, Ebpf, maps::Array, programs::BtfTracePoint};
use object::read::ReadCache;
use s3auditd_common::settings::openssl::{DONE_IS_FIFTH, NO_BUFFER, PLACES, RESULT_IS_LENGTH, own};
use std::{collections::BTreeSet, fs::File};

pub(super) const CALLED: &str = "openssl_called";
pub(super) const RECEIVED: &str = "openssl_received";
pub(super) const SENT: &str = "openssl_sent";
pub(super) const RETURNED: &str = "openssl_returned";
pub(super) const BEGINS: &str = "openssl_begins";
const COPIED: &str = "openssl_copied";
const SEALED: &str = "openssl_sealed";
const SEALED_AT_ONCE: &str = "openssl_sealed_at_once";
pub(super) const PROGRAMS: [&str; 8] = [CALLED, RECEIVED, SENT, RETURNED, BEGINS, COPIED, SEALED, SEALED_AT_ONCE];
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
pub(super) fn find(elf: &Elf<'_>, file: &File, process: &Served) -> Result<Option<Library>, String> {
    let functions = symbols::exports(elf, &FUNCTIONS);
    if !["SSL_read", "SSL_write", "SSL_do_handshake", "SSL_clear"].iter().all(|name| functions.contains_key(name)) {
        return Ok(None);
    }
    if others::is_boringssl(elf) {
        return Err(others::BORINGSSL_ELSEWHERE.to_owned());
    }
    let version = version(elf).or_else(|| {
        let cache = ReadCache::new(File::open(process.companion.as_deref()?).ok()?);
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
    // Before 3.0 errors do not tell their functions.
    let is_looked_into = numbers(&version) >= Some((3, 0, 0)) && !served::has_shadow_stack(process.pid);
    let inside = if is_looked_into { inside::find(elf, file) } else { Inside::default() };
    locate(elf, inside, &functions, version).map(Some)
}

fn locate(elf: &Elf<'_>, inside: Inside, functions: &Exports, version: String) -> Result<Library, String> {
    let place = |name: &str, address: u64| {
        let offset = elf.file_offset(address + behind_mark(elf, address)).filter(|offset| *offset != 0);
        offset.ok_or_else(|| format!("OpenSSL {version}: {name} is not in the file"))
    };
    let field = |name, find: fn(&[u8]) -> Option<u32>| {
        let at = functions.get(name).and_then(|function| find(elf.code(function)?));
        at.filter(|at| *at < PLACES).unwrap_or_default()
    };
    let role_at = field("SSL_is_server", field_returned);
    // Before 3.0 it is not in the object, but behind a pointer.
    let is_in_object = numbers(&version) >= Some((3, 0, 0));
    let random_at = if is_in_object { field("SSL_get_client_random", field_copied) } else { 0 };
    let places = own(0, role_at, random_at);
    let both = |program, name: &str, address, flags| {
        let (offset, own) = (place(name, address)?, flags | places);
        Ok::<_, String>([Point { program, offset, own }, Point { program: CALLED, offset, own }])
    };
    let (mut pairs, mut points, mut ties) = (Vec::new(), Vec::new(), Vec::new());
    let name = match inner(elf, functions) {
        Some(Inner { read, write, fifth }) => {
            let Inside { copied, sealed } = inside;
            let reads = "ssl_read_internal";
            match &copied {
                Some(copied) => {
                    let copies = copied.iter().map(|site| point(elf, COPIED, *site));
                    points.extend(copies.collect::<Option<Vec<_>>>().ok_or("OpenSSL: the copying is not in the file")?);
                    ties.extend(both(RETURNED, reads, read, 0)?);
                }
                None => pairs.push(both(RECEIVED, reads, read, 0)?),
            }
            let name = match (&copied, &sealed) {
                (Some(_), Some(_)) => "openssl",
                (Some(_), None) => "openssl (writes by entry and return)",
                (None, _) => "openssl (entry and return)",
            };
            match sealed.filter(|_| copied.is_some()) {
                Some(sites) => {
                    let programs = [SEALED, SEALED_AT_ONCE];
                    let sites = programs.into_iter().zip(sites).map(|(program, site)| point(elf, program, site));
                    points.extend(sites.collect::<Option<Vec<_>>>().ok_or("OpenSSL: a record is not in the file")?);
                }
                None => {
                    let flags = if fifth { DONE_IS_FIFTH } else { 0 };
                    pairs.push(both(SENT, "ssl_write_internal", write, flags)?);
                }
            }
            name
        }
        None => {
            for (name, program, flags) in [
                ("SSL_read", RECEIVED, RESULT_IS_LENGTH),
                ("SSL_read_ex", RECEIVED, 0),
                ("SSL_write", SENT, RESULT_IS_LENGTH),
                ("SSL_write_ex", SENT, 0),
            ] {
                if let Some(function) = functions.get(name) {
                    pairs.push(both(program, name, function.address, flags)?);
                }
            }
            "openssl (public functions)"
        }
    };
    for (name, program, flags) in
        [("SSL_do_handshake", RETURNED, 0), ("SSL_sendfile", SENT, RESULT_IS_LENGTH | NO_BUFFER)]
    {
        if let Some(function) = functions.get(name) {
            pairs.push(both(program, name, function.address, flags)?);
        }
    }
    let clear = functions.get("SSL_clear").map_or(0, |function| function.address);
    points.push(Point { program: BEGINS, offset: place("SSL_clear", clear)?, own: 0 });
    points.extend(pairs.iter().map(|[at_return, _]| *at_return));
    points.extend(pairs.iter().map(|[_, at_entry]| *at_entry));
    Ok(Library { ties, places, ..Library::of(name, version, points) })
}

/// A probe inside of a function: the kernel must carry its instruction out itself, be it a call or a `push`.
fn point(elf: &Elf<'_>, program: &'static str, Site { address, own }: Site) -> Option<Point> {
    const CALL: [u8; 1] = [0xe8];
    let address = address + behind_mark(elf, address);
    let is_carried_out = begins_with_push(elf, address) || elf.bytes(address, 1)? == CALL;
    let offset = elf.file_offset(address).filter(|offset| is_carried_out && *offset != 0)?;
    Some(Point { program, offset, own })
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
        code::only(one.intersection(&other).copied())
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

/// Where the calls in a function go.
fn calls(code: &[u8], address: u64) -> impl Iterator<Item = u64> {
    code::calls(code, address).map(|(_, to)| to)
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

/// The place of the 32-bit field of an object that a function returns: the only one that it loads, `mov eax, [R+N]`. (From 3.2
/// on it loads it in two places, and before that the word at the object's beginning, which is no field with a place.)
fn field_returned(code: &[u8]) -> Option<u32> {
    let found = code.windows(6).filter_map(|window| match window {
        [0x8b, 0x40 | 0x43 | 0x45..=0x47, at @ 0..=0x7f, ..] => Some(u32::from(*at)),
        [0x8b, 0x80 | 0x83 | 0x85..=0x87, a, b, 0, 0] => Some(u32::from_le_bytes([*a, *b, 0, 0])),
        _ => None,
    });
    only(found)
}

/// The one value that is there, however often.
fn only(found: impl Iterator<Item = u32>) -> Option<u32> {
    code::only(found.collect::<BTreeSet<_>>().into_iter())
}

/// The place of the field of its first argument from which a function copies: the one whose address it takes,
/// `lea R, [rdi+N]`, and from which it loads, `mov R, [rdi+N]`.
fn field_copied(code: &[u8]) -> Option<u32> {
    const LEA: u8 = 0x8d;
    const MOV: u8 = 0x8b;
    let fields = |wanted: u8| {
        let found = code.windows(7).filter_map(move |window| match window {
            [0x48 | 0x4c, operation, registers, a, b, 0, 0] if *operation == wanted && registers & 0xc7 == 0x87 => {
                Some(u32::from_le_bytes([*a, *b, 0, 0]))
            }
            _ => None,
        });
        found.collect::<BTreeSet<_>>()
    };
    only(fields(LEA).intersection(&fields(MOV)).copied())
}

/// `3.0.19`, as the library says it; a program may mention others.
fn version(elf: &Elf<'_>) -> Option<String> {
    elf.word_behind(NAME, |text| numbers(text).is_some())
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

/// Lets the kernel side forget calls of threads that have ended.
pub(super) fn follow_threads(ebpf: &mut Ebpf) -> Result<(), String> {
    let btf = Btf::from_sys_fs().map_err(|error| chain(&error))?;
    let program = ebpf.program_mut(THREAD_ENDED).ok_or("the object has no program for ends of threads")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| chain(&error))?;
    program.load("sched_process_exit", &btf).map_err(|error| chain(&error))?;
    program.attach().map_err(|error| chain(&error))?;
    Ok(())
}

/// Whether this library is tied to connections by what moves inside its calls.
pub(super) fn is_tied_by_use(library: &Library) -> bool {
    library.points.iter().any(|point| PROGRAMS.contains(&point.program))
}

/// Lets the kernel side look, at bytes of watched connections, which call of the library they move in.
pub(super) fn switch_on(ebpf: &mut Ebpf) -> Result<(), String> {
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
        // SSL_is_server of Debian's 3.0.19, and of its 3.5.7 in part.
        let (older, newer) = (
            [0x8b, 0x47, 0x38, 0x31, 0xff, 0xc3],
            [
                0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x74, 0x47, 0x8b, 0x07, 0x85, 0xc0, 0x74, 0x21, 0x8b, 0x40,
                0x78, 0x48, 0x83, 0xc4, 0x08, 0x31, 0xff, 0xc3, 0x8b, 0x47, 0x78, 0x31, 0xff, 0xc3,
            ],
        );
        assert_eq!(field_returned(&older), Some(0x38));
        assert_eq!(field_returned(&newer), Some(0x78));
        assert_eq!(field_returned(&[0x8b, 0x87, 0x60, 0x01, 0, 0, 0xc3]), Some(0x160));
        assert_eq!(field_returned(&[&older[..], &[0x8b, 0x40, 0x3c, 0, 0, 0]].concat()), None);
        assert_eq!(field_returned(&[0x8b, 0x47, 0x80, 0xc3, 0x90, 0x90]), None);
        assert_eq!(field_returned(&older[..4]), None);
    }

    #[test]
    fn a_field_that_is_copied_is_addressed_and_loaded() {
        // SSL_get_client_random of Debian's 3.0.19, in part.
        let addressed = [0x48, 0x8d, 0xb7, 0x60, 0x01, 0, 0, 0x48, 0x0f, 0x46, 0xc2];
        let loaded = [0x48, 0x8b, 0x97, 0x60, 0x01, 0, 0, 0x4c, 0x8d, 0x41, 0x08];
        assert_eq!(field_copied(&[addressed, loaded].concat()), Some(0x160));
        assert_eq!(field_copied(&addressed), None);
        let other = [0x48, 0x8b, 0x97, 0x70, 0x01, 0, 0];
        assert_eq!(field_copied(&[&addressed[..], &other].concat()), None);
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
