//! Offsets and enum values of the running kernel's structures, from its own type information.
//!
//! A reader of the BTF format (`Documentation/bpf/btf.rst`, `include/uapi/linux/btf.h`), as far as offsets need it.
//! Ours, because the published reader is LGPL and would be linked into the binary (docs/decisions/0002-btf-reader.md).

use std::{collections::HashMap, io, path::Path};

/// Where the kernel shows its types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The types of a kernel.
pub struct KernelTypes {
    types: Vec<Type>,
    by_name: HashMap<(Kind, String), usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Structure,
    Enumeration,
    Typedef,
    Function,
    Variable,
}

enum Type {
    Structure(Vec<Member>),
    Enumeration(Vec<(String, u32)>),
    /// Typedefs and qualifiers: the type they stand for.
    Alias(u32),
    /// A function: its prototype.
    Function(u32),
    /// A prototype: how many parameters it has.
    Prototype(usize),
    Other,
}

struct Member {
    name: String,
    type_id: u32,
    bit_offset: u32,
}

/// Why there are no offsets.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// No file, or not readable.
    #[error("the kernel shows no BTF at {path}: {source} (it needs CONFIG_DEBUG_INFO_BTF)")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes are no BTF, or of a kind that is not known.
    #[error("{path} is not the BTF that is known: {what}")]
    Malformed {
        /// Which file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl KernelTypes {
    /// Reads the types from a file such as [`KERNEL_BTF`].
    ///
    /// # Errors
    /// See [`BtfError`].
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let path_text = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| BtfError::Unreadable { path: path_text(), source })?;
        Self::parse(&bytes).map_err(|what| BtfError::Malformed { path: path_text(), what })
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = Cursor { bytes, at: 0 };
        if header.u16_at(0)? != 0xeb9f {
            return Err("wrong magic number");
        }
        let header_len = header.u32_at(4)?;
        let section = |offset_at, len_at| -> Result<&[u8], &'static str> {
            let start = header_len.checked_add(header.u32_at(offset_at)?).ok_or("section offset overflows")?;
            let end = start.checked_add(header.u32_at(len_at)?).ok_or("section length overflows")?;
            bytes.get(index(start)..index(end)).ok_or("a section lies outside the file")
        };
        let (type_section, strings) = (section(8, 12)?, section(16, 20)?);

        // Type id 0 is void.
        let mut parsed = Self { types: vec![Type::Other], by_name: HashMap::new() };
        let mut cursor = Cursor { bytes: type_section, at: 0 };
        while cursor.at < type_section.len() {
            let (name, info, size_or_type) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
            let (kind, count, kind_flag) = ((info >> 24) & 31, info & 0xffff, info >> 31 == 1);
            let id = parsed.types.len();
            let mut declare = |kind| {
                // The first of a name wins: later ones are of modules or duplicates.
                let name = string(strings, name);
                if !name.is_empty() {
                    parsed.by_name.entry((kind, name)).or_insert(id);
                }
            };
            let entry = match kind {
                // struct, union: name, type, bit offset (with a bitfield's size in its upper byte)
                4 | 5 => {
                    declare(Kind::Structure);
                    let mut members = Vec::new();
                    for _ in 0..count {
                        let (name, type_id, offset) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
                        let bit_offset = if kind_flag { offset & 0x00ff_ffff } else { offset };
                        members.push(Member { name: string(strings, name), type_id, bit_offset });
                    }
                    Type::Structure(members)
                }
                6 => {
                    declare(Kind::Enumeration);
                    let mut values = Vec::new();
                    for _ in 0..count {
                        let (name, value) = (cursor.u32()?, cursor.u32()?);
                        values.push((string(strings, name), value));
                    }
                    Type::Enumeration(values)
                }
                8 => {
                    declare(Kind::Typedef);
                    Type::Alias(size_or_type)
                }
                // with its linkage
                14 => {
                    declare(Kind::Variable);
                    cursor.skip(4);
                    Type::Other
                }
                12 => {
                    declare(Kind::Function);
                    Type::Function(size_or_type)
                }
                13 => {
                    // 8 bytes a parameter
                    cursor.skip(8 * index(count));
                    Type::Prototype(index(count))
                }
                // volatile, const, restrict, type tag
                9..=11 | 18 => Type::Alias(size_or_type),
                _ => {
                    cursor.skip(match kind {
                        // pointer, forward, float
                        2 | 7 | 16 => 0,
                        // integer, declaration tag
                        1 | 17 => 4,
                        3 => 12,
                        // data section, 64-bit enumeration: 12 bytes an entry
                        15 | 19 => 12 * index(count),
                        _ => return Err("a kind of type that is not known"),
                    });
                    Type::Other
                }
            };
            parsed.types.push(entry);
        }
        Ok(parsed)
    }

    /// Offset in bytes of a member such as `("sock", "__sk_common.skc_num")`; anonymous members are looked through.
    #[must_use]
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut current = self.types.get(*self.by_name.get(&(Kind::Structure, structure.to_owned()))?)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, type_id) = self.member(current, name, 0)?;
            bits += offset;
            current = self.resolve(type_id)?;
        }
        Some(bits / 8)
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let id = *self.by_name.get(&(Kind::Enumeration, enumeration.to_owned()))?;
        match self.types.get(id)? {
            Type::Enumeration(values) => values.iter().find(|(known, _)| known == name).map(|(_, value)| *value),
            _ => None,
        }
    }

    /// Whether the kernel has that typed tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.by_name.contains_key(&(Kind::Typedef, format!("btf_trace_{name}")))
    }

    /// The number by which the kernel's types know that function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        let id = *self.by_name.get(&(Kind::Function, name.to_owned()))?;
        u32::try_from(id).ok()
    }

    /// Whether the kernel's types tell of that variable; of most kernels they do so for each CPU's own ones.
    #[must_use]
    pub fn has_variable(&self, name: &str) -> bool {
        self.by_name.contains_key(&(Kind::Variable, name.to_owned()))
    }

    /// How many parameters that function has; None: there is no such function.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let id = *self.by_name.get(&(Kind::Function, function.to_owned()))?;
        let Type::Function(prototype) = self.types.get(id)? else { return None };
        match self.types.get(index(*prototype))? {
            Type::Prototype(parameters) => Some(*parameters),
            _ => None,
        }
    }

    /// Bit offset and type of a member; `depth` bounds the descent through anonymous members.
    fn member(&self, structure: &Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        let Type::Structure(members) = structure else { return None };
        if depth > 16 {
            return None;
        }
        members.iter().find_map(|member| {
            if member.name == name {
                return Some((member.bit_offset, member.type_id));
            }
            if !member.name.is_empty() {
                return None;
            }
            let (offset, type_id) = self.member(self.resolve(member.type_id)?, name, depth + 1)?;
            Some((member.bit_offset + offset, type_id))
        })
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<&Type> {
        for _ in 0..64 {
            match self.types.get(index(id))? {
                Type::Alias(of) => id = *of,
                other => return Some(other),
            }
        }
        None
    }
}

/// A 32-bit offset as an index; this crate is for 64-bit Linux.
const fn index(value: u32) -> usize {
    value as usize
}

fn string(strings: &[u8], at: u32) -> String {
    let tail = strings.get(index(at)..).unwrap_or_default();
    let end = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
    String::from_utf8_lossy(tail.get(..end).unwrap_or_default()).into_owned()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn u16_at(&self, at: usize) -> Result<u16, &'static str> {
        let bytes = self.bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u16::from_ne_bytes).ok_or("it ends too early")
    }

    fn u32_at(&self, at: usize) -> Result<u32, &'static str> {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or("it ends too early")
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        let value = self.u32_at(self.at)?;
        self.at += 4;
        Ok(value)
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; const struct { u8 pad[4]; inner_t inner; }; }`, `typedef struct { u64 x, y } inner_t`,
    /// `enum flags { FIRST, SECOND }`, `typedef ... btf_trace_thing`.
    fn sample() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut name = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let (structure, union, enumeration, typedef) = (4 << 24, 5 << 24, 6 << 24, 8 << 24);
        let types: Vec<u32> = [
            vec![name("int"), 1 << 24, 4, 0],                                             // 1: int
            vec![0, structure | 2, 16, name("x"), 1, 0, name("y"), 1, 64],                // 2: anonymous struct
            vec![name("inner_t"), typedef, 2],                                            // 3: typedef
            vec![0, union | 1, 24, name("inner"), 3, 32],                                 // 4: anonymous union
            vec![0, 10 << 24, 4],                                                         // 5: const
            vec![name("outer"), structure | 2, 32, name("a"), 1, 0, 0, 5, 64],            // 6: struct outer
            vec![name("flags"), enumeration | 2, 4, name("FIRST"), 7, name("SECOND"), 9], // 7: enum
            vec![name("btf_trace_thing"), typedef, 1],                                    // 8: typedef
            vec![0, 13 << 24 | 1, 0, 0, 1],                                               // 9: a prototype
            vec![name("last"), structure | 1, 4, name("z"), 1, 0],                        // 10: behind it
            vec![name("act"), 12 << 24 | 1, 9],                                           // 11: a function
        ]
        .concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for field in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(u32::try_from(field).unwrap().to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_anonymous_members_typedefs_and_qualifiers() {
        let types = KernelTypes::parse(&sample()).unwrap();
        assert_eq!(types.offset("outer", "a"), Some(0));
        assert_eq!(types.offset("outer", "inner.y"), Some(8 + 4 + 8));
        assert_eq!(types.offset("last", "z"), Some(0));
        assert_eq!(types.offset("outer", "nothing"), None);
        assert_eq!(types.offset("nothing", "a"), None);
        assert_eq!(types.enumerator("flags", "SECOND"), Some(9));
        assert!(types.has_tracepoint("thing"));
        assert!(!types.has_tracepoint("other"));
        assert_eq!(types.parameters("act"), Some(1));
        assert_eq!(types.parameters("outer"), None);
    }

    #[test]
    fn bytes_cut_anywhere_are_refused_and_never_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(KernelTypes::parse(&whole[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(KernelTypes::parse(&[0; 64]).err(), Some("wrong magic number"));
    }
}
