//! Where Go's `crypto/tls` has plaintext in a binary (x86-64, Go 1.18 and later), stripped or not.
//!
//! A place is only taken if the code around it is what the kernel programs rely on: a stack check as Go's compiler writes
//! it, the first argument spilled to its own slot above the frame, one call of `runtime.memmove` and no second. Anything
//! else is not understood, and said so. Bytes are compared instead of disassembled: a call's 32-bit distance that fits
//! its target by chance is less likely than a bit error.

use super::{
    library::{Library, Point},
    symbols::{self, Elf, Functions},
};

const RECEIVED: &str = "go_tls_received";
const SENT: &str = "go_tls_sent";
pub(super) const PROGRAMS: [&str; 2] = [RECEIVED, SENT];

const READ: &str = "crypto/tls.(*Conn).Read";
const WRITE_RECORD: &str = "crypto/tls.(*Conn).writeRecordLocked";
const MEMMOVE: &str = "runtime.memmove";
pub(super) const NAMES: [&str; 3] = [READ, WRITE_RECORD, MEMMOVE];

/// The first version whose tables of functions are read here.
const OLDEST: u32 = 18;

/// Where the probes go, as offsets in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTls {
    /// As the binary says, `go1.26.1`.
    pub version: String,
    /// The call of `memmove`.
    pub received: u64,
    /// Where the `*Conn` is then, from the stack pointer.
    pub conn_slot: u32,
    /// Behind the stack check of `writeRecordLocked`.
    pub sent: u64,
}

impl From<GoTls> for Library {
    fn from(GoTls { version, received, conn_slot, sent }: GoTls) -> Self {
        let points = vec![
            Point { program: RECEIVED, offset: received, own: conn_slot },
            Point { program: SENT, offset: sent, own: 0 },
        ];
        Self { name: "go crypto/tls", version, points }
    }
}

/// Looks for them. None: it is no Go binary, or has no `crypto/tls`.
///
/// # Errors
/// It has, and why that is not understood.
pub(super) fn find(elf: &Elf<'_>) -> Result<Option<GoTls>, String> {
    let Some(version) = symbols::go_version(elf) else { return Ok(None) };
    if minor(&version).is_none_or(|minor| minor < OLDEST) {
        return Err(format!("{version} is older than go1.{OLDEST}, or not a release"));
    }
    let functions = symbols::functions(elf, &NAMES)?;
    locate(elf, version, &functions)
}

fn locate(elf: &Elf<'_>, version: String, functions: &Functions) -> Result<Option<GoTls>, String> {
    let (Some(read), Some(write), Some(memmove)) =
        (functions.get(READ), functions.get(WRITE_RECORD), functions.get(MEMMOVE))
    else {
        return Ok(None);
    };
    let ([read], [write]) = (read.as_slice(), write.as_slice()) else {
        return Err(format!("{version}: a function has several beginnings"));
    };
    let code = |at: &symbols::Function| elf.code(at).ok_or_else(|| format!("{version}: its code is not in the file"));
    let (read_code, write_code) = (code(read)?, code(write)?);
    let not_as_expected = |what: &str| format!("{version}: {what} is not as expected");

    let targets: Vec<_> = memmove.iter().map(|function| function.address).collect();
    let call = only_call(read_code, read.address, &targets).ok_or_else(|| not_as_expected("Read's copying"))?;
    let conn_slot = spilled_argument(read_code).ok_or_else(|| not_as_expected("Read's frame"))?;
    let body = behind_stack_check(write_code).ok_or_else(|| not_as_expected("writeRecordLocked's beginning"))?;
    let offset = |address: u64| elf.file_offset(address).ok_or_else(|| not_as_expected("the file's layout"));
    Ok(Some(GoTls {
        received: offset(read.address + call as u64)?,
        conn_slot,
        sent: offset(write.address + body as u64)?,
        version,
    }))
}

/// `go1.26.1` is 26.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    let end = digits.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Where the one `call` of one of these functions is; None if there is none, or a second.
fn only_call(code: &[u8], address: u64, targets: &[u64]) -> Option<usize> {
    const CALL: u8 = 0xe8;
    const CALL_BYTES: u64 = 5;
    let mut calls = code.windows(5).enumerate().filter_map(|(at, window)| {
        let [CALL, distance @ ..] = window else { return None };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let behind = address.wrapping_add(at as u64 + CALL_BYTES);
        targets.contains(&behind.wrapping_add_signed(i64::from(distance))).then_some(at)
    });
    let call = calls.next()?;
    calls.next().is_none().then_some(call)
}

/// The first instruction behind the check for stack, which may run again when the stack has grown: `cmp rsp, [r14+16]`,
/// or for larger frames `lea r12, [rsp-N]; cmp r12, [r14+16]`, then `jbe`.
fn behind_stack_check(code: &[u8]) -> Option<usize> {
    let checked = match code {
        [0x49, 0x3b, 0x66, 0x10, ..] => 4,
        [0x4c, 0x8d, 0x64, 0x24, _, 0x4d, 0x3b, 0x66, 0x10, ..] => 9,
        [0x4c, 0x8d, 0xa4, 0x24, _, _, _, _, 0x4d, 0x3b, 0x66, 0x10, ..] => 12,
        _ => return None,
    };
    match code.get(checked..)? {
        [0x76, _, ..] => Some(checked + 2),
        [0x0f, 0x86, ..] => Some(checked + 6),
        _ => None,
    }
}

/// Where a method's receiver is kept while the function runs, from the stack pointer: the slot above frame and return
/// address, into which `mov [rsp+SLOT], rax` must put it at the beginning.
fn spilled_argument(code: &[u8]) -> Option<u32> {
    const BEGINNING: usize = 96;
    let body = code.get(behind_stack_check(code)?..)?;
    // `push rbp; mov rbp, rsp; sub rsp, N`, before Go 1.21 `sub rsp, N` with the saved `rbp` inside the frame.
    let (frame, above) = match body {
        [0x55, 0x48, 0x89, 0xe5, rest @ ..] => (rest, 16),
        rest => (rest, 8),
    };
    let frame = match frame {
        [0x48, 0x83, 0xec, bytes, ..] if *bytes < 0x80 => u32::from(*bytes),
        [0x48, 0x81, 0xec, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return None,
    };
    let slot = frame.checked_add(above)?;
    let mut spill = vec![0x48, 0x89];
    match i8::try_from(slot) {
        Ok(short) => spill.extend([0x44, 0x24, short.cast_unsigned()]),
        Err(_) => spill.extend([0x84, 0x24].into_iter().chain(slot.to_le_bytes())),
    }
    let beginning = body.get(..BEGINNING.min(body.len()))?;
    beginning.windows(spill.len()).any(|window| window == spill).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Read` of MinIO built with Go 1.26.
    const READ_1_26: [u8; 30] = [
        0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0x7a, 0x03, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x58,
        0x66, 0x44, 0x0f, 0xd6, 0x7c, 0x24, 0x50, 0x48, 0x89, 0x44, 0x24, 0x68,
    ];

    #[test]
    fn stack_checks_are_passed_and_nothing_else() {
        assert_eq!(behind_stack_check(&READ_1_26), Some(10));
        let write =
            [0x4c, 0x8d, 0xa4, 0x24, 0x50, 0xff, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0, 0, 0, 0, 0x55];
        assert_eq!(behind_stack_check(&write), Some(18));
        assert_eq!(behind_stack_check(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55]), Some(6));
        for other in [&write[8..], &[0x55, 0x48], &[]] {
            assert_eq!(behind_stack_check(other), None);
        }
    }

    #[test]
    fn the_receivers_slot_must_be_above_the_frame() {
        assert_eq!(spilled_argument(&READ_1_26), Some(0x68));
        let mut other = READ_1_26;
        other[29] = 0x60;
        assert_eq!(spilled_argument(&other), None);
        let older = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x83, 0xec, 0x68, 0x48, 0x89, 0x44, 0x24, 0x70];
        assert_eq!(spilled_argument(&older), Some(0x70));
        let large =
            [0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x81, 0xec, 0, 1, 0, 0, 0x48, 0x89, 0x84, 0x24, 8, 1, 0, 0];
        assert_eq!(spilled_argument(&large), Some(0x108));
    }

    #[test]
    fn one_call_is_found_and_two_are_too_many() {
        let mut code = vec![0x90; 20];
        code[7..12].copy_from_slice(&[0xe8, 0xf4, 0xff, 0xff, 0xff]);
        assert_eq!(only_call(&code, 0x1000, &[0x2000, 0x1000]), Some(7));
        assert_eq!(only_call(&code, 0x1000, &[0x1001]), None);
        code[12..17].copy_from_slice(&[0xe8, 0xef, 0xff, 0xff, 0xff]);
        assert_eq!(only_call(&code, 0x1000, &[0x1000]), None);
    }

    #[test]
    fn versions() {
        assert_eq!(
            ["go1.26.1", "go1.19", "go1.22rc1", "devel go1.27"].map(minor),
            [Some(26), Some(19), Some(22), None]
        );
    }
}
