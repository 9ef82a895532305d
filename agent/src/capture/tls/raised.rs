//! Functions of a stripped program (x86-64), told by the errors that they raise: each such call is given its source file, its line and
//! a number for the reason.
//!
//! Where functions begin is told by the table that exceptions need (`.eh_frame_hdr`), which stripping leaves.

use super::symbols::{Elf, Function};
use memchr::memmem;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt as _,
};

/// An error that a function may raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    pub reason: u32,
    pub line: u32,
}

/// A function that may raise errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raising {
    pub function: Function,
    pub raised: Vec<Raised>,
}

/// `lea R, [rip+...]` loads an address.
type Load = [u8; 3];
/// The fourth argument, in `rcx`: the name of the source file.
const SOURCE: Load = [0x48, 0x8d, 0x0d];
/// The third argument, in `rdx`: since OpenSSL 3.0 an error is told the function's name (`ERR_set_debug`).
const FUNCTION: Load = [0x48, 0x8d, 0x15];
const LOAD_BYTES: usize = 7;
/// How much code is read at once: there may be a hundred MiB of it.
const PIECE: usize = 1 << 20;
/// The instructions on one side of a load that give the other arguments are not longer together.
const BESIDE: u64 = 32;

/// The functions that raise errors of the library with that number in the source file whose name is at that address. None: the file's
/// layout is not as expected.
pub(super) fn raising(elf: &Elf<'_>, file: &File, name: u64, library: u32) -> Option<Vec<Raising>> {
    let beginnings = elf.beginnings()?;
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for at in loads(elf, file, name, SOURCE)? {
        let before = elf.bytes(at.checked_sub(BESIDE)?, BESIDE)?;
        let behind = elf.bytes(at + LOAD_BYTES as u64, BESIDE)?;
        if let Some(raised) = raised(before, behind, library) {
            let next = beginnings.partition_point(|begin| *begin <= at);
            let (begin, end) = (*beginnings.get(next.checked_sub(1)?)?, *beginnings.get(next)?);
            found.entry((begin, end)).or_default().push(raised);
        }
    }
    let raising =
        |((begin, end), raised)| Raising { function: Function { address: begin, bytes: end - begin }, raised };
    Some(found.into_iter().map(raising).collect())
}

/// The functions that raise errors under that name, by where they begin: one, or what a compiler has made several of.
pub(super) fn named(elf: &Elf<'_>, file: &File, beginnings: &BTreeSet<u64>, name: &str) -> Option<BTreeSet<u64>> {
    let at = elf.only_text(name.as_bytes())?;
    if elf.bytes(at, name.len() as u64)? != name.as_bytes() {
        return None;
    }
    let begin = |at| beginnings.range(..=at).next_back().copied();
    loads(elf, file, at, FUNCTION)?.into_iter().map(begin).collect()
}

/// Where that address is loaded.
fn loads(elf: &Elf<'_>, file: &File, wanted: u64, load: Load) -> Option<Vec<u64>> {
    let text = elf.text()?;
    let finder = memmem::Finder::new(&load);
    let mut buffer = vec![0; PIECE];
    let (mut begin, mut found) = (text.start, Vec::new());
    while begin < text.end {
        let bytes = usize::try_from(text.end - begin).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..bytes)?;
        file.read_exact_at(piece, elf.file_offset(begin)?).ok()?;
        let addresses = finder.find_iter(piece).filter_map(|at| {
            let distance = piece.get(at + load.len()..at + LOAD_BYTES)?.try_into().ok()?;
            let (address, distance) = (begin + at as u64, i64::from(i32::from_le_bytes(distance)));
            let target = address.wrapping_add(LOAD_BYTES as u64).wrapping_add_signed(distance);
            (target == wanted).then_some(address)
        });
        found.extend(addresses);
        // One that is cut off at the end is whole in the next piece.
        begin += (PIECE + 1 - LOAD_BYTES) as u64;
    }
    Some(found)
}

/// `ERR_put_error(library, 0, reason, file, line)`, where the file is loaded between these bytes. None: it is something else.
fn raised(before: &[u8], behind: &[u8], library: u32) -> Option<Raised> {
    const CALL: u8 = 0xe8;
    /// To the call behind another error of the function.
    const JUMPS: [u8; 2] = [0xe9, 0xeb];
    let mut registers = (0..before.len())
        .find_map(|from| {
            let mut registers = Registers::default();
            let rest = registers.set_by(before.get(from..)?);
            rest.is_empty().then_some(registers)
        })
        .unwrap_or_default();
    let next = registers.set_by(behind).first()?;
    if *next != CALL && !JUMPS.contains(next) || registers.edi != Some(library) {
        return None;
    }
    Some(Raised { reason: registers.edx?, line: registers.r8d? })
}

/// What the registers of the first, third and fifth argument were set to.
#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    edi: Option<u32>,
    edx: Option<u32>,
    r8d: Option<u32>,
}

impl Registers {
    /// Follows `mov R, N` and `xor R, R` of 32 bits; hands back what comes then.
    fn set_by<'a>(&mut self, mut code: &'a [u8]) -> &'a [u8] {
        loop {
            code = match code {
                [0x31, 0xc0..=0xff, rest @ ..] | [0x45, 0x31, 0xc0..=0xff, rest @ ..] => rest,
                [0x41, 0xb8, a, b, c, d, rest @ ..] => {
                    self.r8d = Some(u32::from_le_bytes([*a, *b, *c, *d]));
                    rest
                }
                [0x41, 0xb9..=0xbf, _, _, _, _, rest @ ..] => rest,
                [register @ 0xb8..=0xbf, a, b, c, d, rest @ ..] => {
                    let number = u32::from_le_bytes([*a, *b, *c, *d]);
                    match register {
                        0xba => self.edx = Some(number),
                        0xbf => self.edi = Some(number),
                        _ => {}
                    }
                    rest
                }
                rest => return rest,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: u32 = 16;

    #[test]
    fn functions_and_texts_of_this_program() {
        const TEXT: &std::ffi::CStr = c"of this program no other text ends so";
        let cache = object::read::ReadCache::new(File::open("/proc/self/exe").unwrap());
        let elf = Elf::parse(&cache).unwrap();
        let main = crate::capture::tls::symbols::exports(&elf, &["main"])["main"];
        let beginnings = elf.beginnings().unwrap();
        assert!(beginnings.binary_search(&main.address).is_ok());
        let at = elf.only_text(&TEXT.to_bytes()[20..]).unwrap();
        assert_eq!(elf.bytes(at, TEXT.count_bytes() as u64), Some(TEXT.to_bytes()));
        assert!(elf.has_text(TEXT.to_bytes()));
    }

    #[test]
    fn arguments_on_both_sides_of_the_file() {
        // SSL_new of Envoy 1.40.0, by clang: all behind the load.
        let behind =
            [0x31, 0xdb, 0xbf, 0x10, 0, 0, 0, 0x31, 0xf6, 0xba, 0xb9, 0, 0, 0, 0x41, 0xb8, 0xf2, 0x01, 0, 0, 0xe8];
        let expected = Some(Raised { reason: 185, line: 498 });
        assert_eq!(raised(&[0xc3, 0xcc], &behind, LIBRARY), expected);
        // SSL_peek by gcc: the line stands in front.
        let before = [0x5d, 0x41, 0x5c, 0xc3, 0x41, 0xb8, 0xa7, 0x03, 0, 0];
        let behind = [0xba, 0x42, 0, 0, 0, 0x31, 0xf6, 0xbf, 0x10, 0, 0, 0, 0xe8];
        assert_eq!(raised(&before, &behind, LIBRARY), Some(Raised { reason: 66, line: 935 }));
        // A jump to another error's call.
        let behind = [&behind[..12], &[0xeb]].concat();
        assert_eq!(raised(&before, &behind, LIBRARY), Some(Raised { reason: 66, line: 935 }));
    }

    #[test]
    fn what_is_no_error_of_that_library_is_none() {
        let before = [0x41, 0xb8, 0xa7, 0x03, 0, 0];
        let behind = [0xba, 0x42, 0, 0, 0, 0x31, 0xf6, 0xbf, 0x10, 0, 0, 0, 0xe8];
        assert_eq!(raised(&before, &behind, LIBRARY + 1), None);
        assert_eq!(raised(&before, &behind[..12], LIBRARY), None);
        assert_eq!(raised(&before, &[&behind[..12], &[0xc3]].concat(), LIBRARY), None);
        // No line; no reason.
        assert_eq!(raised(&before[..5], &behind, LIBRARY), None);
        assert_eq!(raised(&before, &behind[5..], LIBRARY), None);
    }
}
