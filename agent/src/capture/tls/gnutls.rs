//! Where GnuTLS has plaintext in a file (x86-64): its public functions, in the shared library or in a program that holds it
//! and still says where they are.

use super::{
    library::{Library, Point},
    openssl,
    symbols::{self, Elf, Exports},
};
use s3auditd_common::settings::openssl::{NO_BUFFER, RESULT_IS_LENGTH, own};

const CALLED: &str = "gnutls_called";
pub(super) const PROGRAMS: [&str; 1] = [CALLED];

const FUNCTIONS: [&str; 9] = [
    "gnutls_record_recv",
    "gnutls_record_recv_seq",
    "gnutls_record_recv_packet",
    "gnutls_record_send",
    "gnutls_record_send2",
    "gnutls_record_send_range",
    "gnutls_record_cork",
    "gnutls_handshake",
    "gnutls_deinit",
];

/// The library says so of itself, behind which comes its version.
const NAME: &[u8] = b"Enabled GnuTLS ";

/// A `gnutls_record_send` so short only passes on to `gnutls_record_send2` (since 3.6.3).
const PASSES_ON_BYTES: u64 = 32;

/// Whether a mapped file is to be looked into, by its name.
pub(super) fn is_library(name: &str) -> bool {
    name.starts_with("libgnutls.so")
}

/// Looks for it. None: the file has none of its functions.
///
/// # Errors
/// It has, and why they cannot be used.
pub(super) fn find(elf: &Elf<'_>) -> Result<Option<Library>, String> {
    let functions = symbols::exports(elf, &FUNCTIONS);
    let needed = ["gnutls_record_recv", "gnutls_record_send", "gnutls_handshake", "gnutls_deinit"];
    if !needed.iter().all(|name| functions.contains_key(name)) {
        return Ok(None);
    }
    let version = version(elf).ok_or("a library with the functions of GnuTLS that does not say that it is GnuTLS")?;
    if let Some(release) = openssl::kernel_that_ends_processes() {
        return Err(format!("Linux {release} may end a process with a seccomp filter in which a return is probed"));
    }
    locate(elf, &functions, version).map(Some)
}

fn locate(elf: &Elf<'_>, functions: &Exports, version: String) -> Result<Library, String> {
    // What is sent while a session is corked is only kept; when it is let go, it is sent by the same function.
    let corked_at = match functions.get("gnutls_record_cork") {
        None => 0,
        Some(function) => elf
            .code(function)
            .and_then(field_set)
            .ok_or_else(|| format!("GnuTLS {version}: gnutls_record_cork is not as expected"))?,
    };
    let passes_on = functions.contains_key("gnutls_record_send2")
        && functions.get("gnutls_record_send").is_some_and(|send| send.bytes <= PASSES_ON_BYTES);
    let place = |name: &str| {
        let address = functions.get(name)?.address;
        elf.file_offset(address + openssl::behind_mark(elf, address)).filter(|offset| *offset != 0)
    };
    let (mut returns, mut entries) = (Vec::new(), Vec::new());
    for (name, program, flags, corked_at) in [
        ("gnutls_record_recv", openssl::RECEIVED, RESULT_IS_LENGTH, 0),
        ("gnutls_record_recv_seq", openssl::RECEIVED, RESULT_IS_LENGTH, 0),
        ("gnutls_record_recv_packet", openssl::RECEIVED, RESULT_IS_LENGTH | NO_BUFFER, 0),
        ("gnutls_record_send", openssl::SENT, RESULT_IS_LENGTH, corked_at),
        ("gnutls_record_send2", openssl::SENT, RESULT_IS_LENGTH, corked_at),
        ("gnutls_record_send_range", openssl::SENT, RESULT_IS_LENGTH, 0),
        ("gnutls_handshake", openssl::RETURNED, 0, 0),
    ] {
        if !functions.contains_key(name) || passes_on && name == "gnutls_record_send" {
            continue;
        }
        let offset = place(name).ok_or_else(|| format!("GnuTLS {version}: {name} is not in the file"))?;
        returns.push(Point { program, offset, own: own(flags, 0, 0) });
        entries.push(Point { program: CALLED, offset, own: own(flags, corked_at.into(), 0) });
    }
    let ended = place("gnutls_deinit").ok_or_else(|| format!("GnuTLS {version}: gnutls_deinit is not in the file"))?;
    let mut points = vec![Point { program: openssl::BEGINS, offset: ended, own: 0 }];
    points.append(&mut returns);
    points.append(&mut entries);
    Ok(Library::of("gnutls", version, points))
}

/// The place of the 32-bit field of its first argument that a function sets to 1, `mov dword [rdi+N], 1`, if that is how it
/// begins.
fn field_set(code: &[u8]) -> Option<u16> {
    match code.strip_prefix(&openssl::MARK).unwrap_or(code) {
        [0xc7, 0x87, a, b, 0, 0, 1, 0, 0, 0, ..] => Some(u16::from_le_bytes([*a, *b])),
        _ => None,
    }
}

/// `3.7.9`, as the library says it.
fn version(elf: &Elf<'_>) -> Option<String> {
    elf.word_behind(NAME, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corked_field_is_found_only_where_the_function_begins_so() {
        // Debian's 3.7.9.
        let cork = [0xc7, 0x87, 0x48, 0x05, 0, 0, 1, 0, 0, 0, 0xc3];
        assert_eq!(field_set(&cork), Some(0x548));
        assert_eq!(field_set(&[openssl::MARK.as_slice(), &cork].concat()), Some(0x548));
        for other in [&[0xc7, 0x87, 0x48, 0x05, 0, 0, 2, 0, 0, 0][..], &[0xc3], &[]] {
            assert_eq!(field_set(other), None, "{other:x?}");
        }
    }

    #[test]
    fn names_of_files() {
        assert!(is_library("libgnutls.so.30.34.3") && !is_library("libgnutlsxx.so.30") && !is_library("nginx"));
    }
}
