//! Where Go's `crypto/tls` has plaintext in a binary (x86-64, Go 1.18 and later), stripped or not.
//!
//! A place is only taken if the code around it is what the kernel programs rely on: a stack check as Go's compiler writes
//! it, the first argument spilled to its own slot above the frame, one call of `runtime.memmove` and no second. Without that
//! one call what is received is read at the function's returns instead, which is dearer. Anything else is not understood, and
//! said so. Bytes are compared instead of disassembled: a call's 32-bit distance that fits
//! its target by chance is less likely than a bit error.

use super::{
    code::{calls, only},
    library::{Library, Point},
    symbols::{self, Elf, Functions},
};

const RECEIVED: &str = "go_tls_received";
const SENT: &str = "go_tls_sent";
const READ_CALLED: &str = "go_tls_read_called";
const READ_RETURNED: &str = "go_tls_read_returned";
pub(super) const PROGRAMS: [&str; 4] = [RECEIVED, SENT, READ_CALLED, READ_RETURNED];

const READ: &str = "crypto/tls.(*Conn).Read";
const WRITE_RECORD: &str = "crypto/tls.(*Conn).writeRecordLocked";
const MEMMOVE: &str = "runtime.memmove";
pub(super) const NAMES: [&str; 3] = [READ, WRITE_RECORD, MEMMOVE];

/// The first version whose tables of functions are read here.
const OLDEST: u32 = 18;

/// `Read` has seven or eight.
const MAX_RETURNS: usize = 32;

/// Where the probes go, as offsets in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTls {
    /// As the binary says, `go1.26.1`.
    pub version: String,
    pub received: Received,
    /// Behind the stack check of `writeRecordLocked`.
    pub sent: u64,
}

/// Where received plaintext is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The call of `memmove`, and where the `*Conn` is then, from the stack pointer.
    Copied { call: u64, conn_slot: u32 },
    /// Behind the stack check of `Read`, and each of its `ret`.
    Returned { entry: u64, returns: Vec<u64> },
}

impl From<GoTls> for Library {
    fn from(GoTls { version, received, sent }: GoTls) -> Self {
        let point = |program, offset, own| Point { program, offset, own };
        let (name, mut points) = match received {
            Received::Copied { call, conn_slot } => ("go crypto/tls", vec![point(RECEIVED, call, conn_slot)]),
            Received::Returned { entry, returns } => {
                let returns = returns.into_iter().map(|offset| point(READ_RETURNED, offset, 0));
                ("go crypto/tls (by returns)", returns.chain([point(READ_CALLED, entry, 0)]).collect())
            }
        };
        points.push(point(SENT, sent, 0));
        Self::of(name, version, points)
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
    let (Some(read), Some(write)) = (functions.get(READ), functions.get(WRITE_RECORD)) else { return Ok(None) };
    let ([read], [write]) = (read.as_slice(), write.as_slice()) else {
        return Err(format!("{version}: a function has several beginnings"));
    };
    let code = |at: &symbols::Function| elf.code(at).ok_or_else(|| format!("{version}: its code is not in the file"));
    let (read_code, write_code) = (code(read)?, code(write)?);
    let not_as_expected = |what: &str| format!("{version}: {what} is not as expected");

    let offset = |address: u64| elf.file_offset(address).ok_or_else(|| not_as_expected("the file's layout"));
    let at = |place: usize| offset(read.address + place as u64);
    let frame = frame(read_code).ok_or_else(|| not_as_expected("Read's frame"))?;
    let body = behind_stack_check(write_code).ok_or_else(|| not_as_expected("writeRecordLocked's beginning"))?;
    let targets: Vec<_> = functions.get(MEMMOVE).into_iter().flatten().map(|function| function.address).collect();
    let received = if let Some(call) = only_call(read_code, read.address, &targets) {
        Received::Copied { call: at(call)?, conn_slot: frame.receiver() }
    } else {
        let returns = returns(read_code, &frame).into_iter().map(at).collect::<Result<Vec<_>, _>>()?;
        if returns.is_empty() || returns.len() > MAX_RETURNS {
            return Err(not_as_expected("neither Read's copying nor its returning"));
        }
        Received::Returned { entry: at(frame.body)?, returns }
    };
    Ok(Some(GoTls { received, sent: offset(write.address + body as u64)?, version }))
}

/// `go1.26.1` is 26.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    let end = digits.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Where the one `call` of one of these functions is; None if there is none, or a second.
fn only_call(code: &[u8], address: u64, targets: &[u64]) -> Option<usize> {
    only(calls(code, address).filter(|(_, to)| targets.contains(to))).map(|(at, _)| at)
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

/// The frame of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    /// Behind the stack check.
    body: usize,
    /// What is taken from the stack pointer for it.
    bytes: u32,
    /// `push rbp; mov rbp, rsp; sub rsp, N`, before Go 1.21 `sub rsp, N` with the saved `rbp` inside the frame.
    pushes: bool,
}

impl Frame {
    /// Where the receiver is kept while the function runs, from the stack pointer: the slot above frame and return address.
    fn receiver(&self) -> u32 {
        self.bytes + if self.pushes { 16 } else { 8 }
    }
}

/// None: it does not begin as expected, or does not put its receiver by `mov [rsp+SLOT], rax` where it belongs.
fn frame(code: &[u8]) -> Option<Frame> {
    const BEGINNING: usize = 96;
    const MOST_BYTES: u32 = 1 << 20;
    let at = behind_stack_check(code)?;
    let body = code.get(at..)?;
    let (pushes, rest) = match body {
        [0x55, 0x48, 0x89, 0xe5, rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let bytes = match rest {
        [0x48, 0x83, 0xec, bytes, ..] if *bytes < 0x80 => u32::from(*bytes),
        [0x48, 0x81, 0xec, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return None,
    };
    let frame = Frame { body: at, bytes, pushes };
    let spill = with_distance(&[0x48, 0x89, 0x44, 0x24], &[0x48, 0x89, 0x84, 0x24], frame.receiver());
    let beginning = body.get(..BEGINNING.min(body.len()))?;
    let spilled = beginning.windows(spill.len()).any(|window| window == spill);
    (bytes < MOST_BYTES && spilled).then_some(frame)
}

/// An instruction with a distance, in the form that fits it.
fn with_distance(short: &[u8], long: &[u8], distance: u32) -> Vec<u8> {
    match i8::try_from(distance) {
        Ok(byte) => [short, &[byte.cast_unsigned()]].concat(),
        Err(_) => [long, &distance.to_le_bytes()].concat(),
    }
}

/// Where each `ret` is. The compiler writes the same words before every one, with the size of the frame in it: `add rsp, N;
/// pop rbp; ret`, or before Go 1.21 `mov rbp, [rsp+N-8]; add rsp, N; ret`. So long a match is no accident.
fn returns(code: &[u8], frame: &Frame) -> Vec<usize> {
    let mut words = Vec::new();
    if !frame.pushes {
        let saved = frame.bytes.saturating_sub(8);
        words = with_distance(&[0x48, 0x8b, 0x6c, 0x24], &[0x48, 0x8b, 0xac, 0x24], saved);
    }
    words.extend(with_distance(&[0x48, 0x83, 0xc4], &[0x48, 0x81, 0xc4], frame.bytes));
    words.extend(if frame.pushes { &[0x5d, 0xc3][..] } else { &[0xc3] });
    let places = code.windows(words.len()).enumerate().filter(|(_, window)| *window == words);
    places.map(|(at, _)| at + words.len() - 1).collect()
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

    fn receiver(code: &[u8]) -> Option<u32> {
        frame(code).map(|frame| frame.receiver())
    }

    #[test]
    fn the_receivers_slot_must_be_above_the_frame() {
        assert_eq!(receiver(&READ_1_26), Some(0x68));
        let mut other = READ_1_26;
        other[29] = 0x60;
        assert_eq!(receiver(&other), None);
        let older = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x83, 0xec, 0x68, 0x48, 0x89, 0x44, 0x24, 0x70];
        assert_eq!(receiver(&older), Some(0x70));
        let large =
            [0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x81, 0xec, 0, 1, 0, 0, 0x48, 0x89, 0x84, 0x24, 8, 1, 0, 0];
        assert_eq!(receiver(&large), Some(0x108));
    }

    #[test]
    fn returns_are_those_of_this_frame() {
        let newer = Frame { body: 10, bytes: 0x58, pushes: true };
        // One of another frame, one without its `pop`, and a byte that is a `ret` nowhere.
        let code = [
            &[0x48, 0x83, 0xc4, 0x58, 0x5d, 0xc3][..],
            &[0x48, 0x83, 0xc4, 0x60, 0x5d, 0xc3],
            &[0x48, 0x83, 0xc4, 0x58, 0xc3, 0xb8, 0xc3, 0, 0, 0],
            &[0x48, 0x83, 0xc4, 0x58, 0x5d, 0xc3],
        ];
        assert_eq!(returns(&code.concat(), &newer), [5, 27]);
        let older = Frame { body: 10, bytes: 0x68, pushes: false };
        let code = [0x90, 0x48, 0x8b, 0x6c, 0x24, 0x60, 0x48, 0x83, 0xc4, 0x68, 0xc3, 0x48, 0x83, 0xc4, 0x68, 0xc3];
        assert_eq!(returns(&code, &older), [10]);
        let large = Frame { body: 10, bytes: 0x108, pushes: true };
        assert_eq!(returns(&[0x48, 0x81, 0xc4, 8, 1, 0, 0, 0x5d, 0xc3], &large), [8]);
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
