//! Functions of an ELF file by name: from its symbols or, in a stripped Go binary, from the table that Go's runtime keeps
//! for itself (`.gopclntab`; source: Go, `src/debug/gosym/pclntab.go` and `src/internal/abi/symtab.go`).
//!
//! The file is anybody's: nothing is believed, and no number is used as a place without a check.

use super::{code::only, openssl};
use memchr::memmem;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ObjectSymbolTable as _,
    RelocationTarget,
    read::{ReadCache, ReadRef as _, elf::ElfFile64},
};
use std::{collections::HashMap, fs::File, ops::Range};

/// No function that is looked into is longer.
const MAX_FUNCTION_BYTES: u64 = 64 * 1024;

/// Where a function is, in memory before relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// By name; a table of Go's calls a wrapper for another calling convention by the name of what it wraps.
pub(super) type Functions = HashMap<&'static str, Vec<Function>>;

/// A file that is read only where it is looked at.
pub(super) struct Elf<'a> {
    elf: ElfFile64<'a, LittleEndian, &'a ReadCache<File>>,
    cache: &'a ReadCache<File>,
}

impl<'a> Elf<'a> {
    /// None: it is no 64-bit ELF file.
    pub(super) fn parse(cache: &'a ReadCache<File>) -> Option<Self> {
        Some(Self { elf: ElfFile64::parse(cache).ok()?, cache })
    }

    /// What the kernel calls a probe's offset.
    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        self.elf.segments().find_map(|segment| {
            let (offset, bytes) = segment.file_range();
            let within = address.checked_sub(segment.address())?;
            (within < bytes).then(|| offset.checked_add(within)).flatten()
        })
    }

    /// A function's instructions.
    pub(super) fn code(&self, function: &Function) -> Option<&'a [u8]> {
        let bytes = function.bytes.min(MAX_FUNCTION_BYTES);
        self.cache.read_bytes_at(self.file_offset(function.address)?, bytes).ok()
    }

    /// That many bytes at an address.
    pub(super) fn bytes(&self, address: u64, count: u64) -> Option<&'a [u8]> {
        self.cache.read_bytes_at(self.file_offset(address)?, count).ok()
    }

    /// Where the code is that the file's own functions are made of, stubs for others' apart.
    pub(super) fn text(&self) -> Option<Range<u64>> {
        let section = self.elf.section_by_name(".text")?;
        Some(section.address()..section.address().checked_add(section.size())?)
    }

    /// The first word, as of a version, right behind a place where the constant data has that name, if it is one that is looked for.
    pub(super) fn word_behind(&self, name: &[u8], is_it: impl Fn(&str) -> bool) -> Option<String> {
        const LONGEST: usize = 24;
        let (_, data) = self.section(&[".rodata"])?;
        memmem::find_iter(data, name).filter_map(|at| data.get(at + name.len()..)).find_map(|text| {
            let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-".contains(byte);
            let end = text.iter().take(LONGEST).position(|byte| !is_of_it(byte))?;
            let text = std::str::from_utf8(text.get(..end)?).ok()?;
            is_it(text).then(|| text.to_owned())
        })
    }

    /// Whether the constant data has that.
    pub(super) fn has_text(&self, text: &[u8]) -> bool {
        self.section(&[".rodata"]).is_some_and(|(_, data)| memmem::find(data, text).is_some())
    }

    /// Where the constant text begins that ends so; None: there is none, or a second.
    pub(super) fn only_text(&self, end: &[u8]) -> Option<u64> {
        let (address, data) = self.section(&[".rodata"])?;
        let end = [end, &[0]].concat();
        let place = only(memmem::find_iter(data, &end))?;
        let begin = data.get(..place)?.iter().rposition(|byte| *byte == 0).map_or(0, |zero| zero + 1);
        address.checked_add(begin as u64)
    }

    /// Where functions begin, in order (Linux Standard Base, "Exception Frames": `.eh_frame_hdr`, in the one form that linkers write).
    pub(super) fn beginnings(&self) -> Option<Vec<u64>> {
        const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
        const TABLE_AT: usize = 12;
        let (address, table) = self.section(&[".eh_frame_hdr"])?;
        let count = usize::try_from(u32_at(table, 8)?).ok()?;
        let entries = table.get(TABLE_AT..TABLE_AT.checked_add(count.checked_mul(8)?)?)?;
        let begin = |entry: &[u8]| Some(address.wrapping_add_signed(i64::from(u32_at(entry, 0)?.cast_signed())));
        let found = entries.chunks_exact(8).map(begin).collect::<Option<Vec<_>>>()?;
        (table.starts_with(&FORM) && found.is_sorted()).then_some(found)
    }

    /// What this file takes from others, by the place where the linker puts its address.
    pub(super) fn imports(&self) -> HashMap<u64, &'a str> {
        let symbols = self.elf.dynamic_symbol_table();
        let name = |target| {
            let RelocationTarget::Symbol(index) = target else { return None };
            symbols.as_ref()?.symbol_by_index(index).ok()?.name().ok()
        };
        let relocations = self.elf.dynamic_relocations().into_iter().flatten();
        relocations.filter_map(|(place, relocation)| Some((place, name(relocation.target())?))).collect()
    }

    /// From where a linker's stub at that address takes where it goes: `jmp [rip+N]`.
    pub(super) fn stub(&self, address: u64) -> Option<u64> {
        const BOUND: u8 = 0xf2;
        const BYTES: u64 = 6;
        let address = address + openssl::behind_mark(self, address);
        let address = if self.bytes(address, 1)? == [BOUND] { address + 1 } else { address };
        let [0xff, 0x25, distance @ ..] = self.bytes(address, BYTES)? else { return None };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        Some((address + BYTES).wrapping_add_signed(i64::from(distance)))
    }

    /// The first digits of the number that a linker gave the build.
    pub(super) fn build(&self) -> Option<String> {
        const BYTES: usize = 6;
        let number = self.elf.build_id().ok()??.get(..BYTES)?;
        Some(number.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn section(&self, names: &[&str]) -> Option<(u64, &'a [u8])> {
        let section = names.iter().find_map(|name| self.elf.section_by_name(name))?;
        Some((section.address(), section.data().ok()?))
    }
}

/// `go1.26.1`, which a binary tells even when it is stripped (since Go 1.18 in place).
pub(super) fn go_version(elf: &Elf<'_>) -> Option<String> {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    const FLAGS_AT: usize = 15;
    const IN_PLACE: u8 = 2;
    const TEXT_AT: usize = 32;
    let (_, data) = elf.section(&[".go.buildinfo"])?;
    if !data.starts_with(MAGIC) || data.get(FLAGS_AT)? & IN_PLACE == 0 {
        return None;
    }
    // Its length is a varint; a version is shorter than its first step.
    let len = *data.get(TEXT_AT)?;
    let text = data.get(TEXT_AT + 1..)?.get(..usize::from(len & 0x7f))?;
    let text = std::str::from_utf8(text).ok()?;
    (len < 0x80 && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')).then(|| text.to_owned())
}

/// The functions of these names that the file has.
///
/// # Errors
/// It has neither symbols of them nor a table that is understood.
pub(super) fn functions(elf: &Elf<'_>, names: &[&'static str]) -> Result<Functions, String> {
    let mut found = Functions::new();
    for symbol in elf.elf.symbols() {
        if let Some(name) = symbol.name().ok().and_then(|name| names.iter().find(|wanted| **wanted == name)) {
            let function = Function { address: symbol.address(), bytes: symbol.size() };
            found.entry(*name).or_default().push(function);
        }
    }
    if found.is_empty() {
        found = from_go_table(elf, names).ok_or("it is stripped, and its table of functions is not understood")?;
    }
    Ok(found)
}

/// Functions by the name under which others call them.
pub(super) type Exports = HashMap<&'static str, Function>;

/// The functions of these names that the file offers, or at least has.
pub(super) fn exports(elf: &Elf<'_>, names: &[&'static str]) -> Exports {
    let mut found = Exports::new();
    for symbol in elf.elf.dynamic_symbols().chain(elf.elf.symbols()).filter(|symbol| symbol.is_definition()) {
        if let Some(name) = symbol.name().ok().and_then(|name| names.iter().find(|wanted| **wanted == name)) {
            found.entry(name).or_insert(Function { address: symbol.address(), bytes: symbol.size() });
        }
    }
    found
}

/// Magic of Go 1.18 and 1.19, and of 1.20 and later.
const TABLE_MAGIC: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
const TEXT_START_AT: usize = 24;
const NAMES_AT: usize = 32;
const FUNCTIONS_AT: usize = 64;
/// Where a program begins: its place tells where the code does.
const ENTRY: &[u8] = b"_rt0_amd64_linux";

fn from_go_table(elf: &Elf<'_>, names: &[&'static str]) -> Option<Functions> {
    let (_, table) = elf.section(&[".gopclntab", ".data.rel.ro.gopclntab"])?;
    if !TABLE_MAGIC.contains(&u32_at(table, 0)?) {
        return None;
    }
    let count = place(table, 8)?;
    let (all_names, entries) = (table.get(place(table, NAMES_AT)?..)?, table.get(place(table, FUNCTIONS_AT)?..)?);
    let mut found = Vec::new();
    let mut entry = None;
    for index in 0..count.min(entries.len() / 8) {
        let begin = u32_at(entries, index * 8)?;
        let function = usize::try_from(u32_at(entries, index * 8 + 4)?).ok()?;
        let name = all_names.get(usize::try_from(u32_at(entries, function.checked_add(4)?)?).ok()?..)?;
        let is = |wanted: &[u8]| name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0));
        if is(ENTRY) {
            entry = Some(begin);
        }
        if let Some(wanted) = names.iter().find(|wanted| is(wanted.as_bytes())) {
            let end = u32_at(entries, index * 8 + 8)?;
            found.push((*wanted, begin, end.checked_sub(begin)?));
        }
    }
    // The header has it up to Go 1.25, in position-independent files only after relocation; the entry has it always.
    let text_start = match u64_at(table, TEXT_START_AT)? {
        0 => elf.elf.entry().checked_sub(u64::from(entry?))?,
        start => start,
    };
    let function = |begin: u32, bytes: u32| {
        Some(Function { address: text_start.checked_add(u64::from(begin))?, bytes: u64::from(bytes) })
    };
    let mut functions = Functions::new();
    for (name, begin, bytes) in found {
        functions.entry(name).or_default().push(function(begin, bytes)?);
    }
    Some(functions)
}

fn place(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
