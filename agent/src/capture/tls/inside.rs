//! Where OpenSSL (3.0 and later, x86-64) has plaintext inside of its functions: places that are passed only when there is some, so that a
//! call that brings nothing costs nothing (docs/decisions/0080-openssl-where-a-read-succeeds.md).
//!
//! Received: the copying to the caller's buffer in `ssl3_read_bytes`. Sent (3.0 and 3.1): `do_ssl3_write`, which makes a record, and the
//! call in `ssl3_write_bytes` by which some processors make several at once.

use super::{
    code::only,
    flow::{Call, Code, Flow, Place, Returns, Value},
    raised,
    symbols::Elf,
};
use s3auditd_common::settings::openssl::{At, SLOTS, inside};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
};

/// `SSL3_RT_APPLICATION_DATA`
const APPLICATION_DATA: u64 = 23;
const CONTROL: &str = "EVP_CIPHER_CTX_ctrl";
/// `EVP_CTRL_TLS1_1_MULTIBLOCK_ENCRYPT`
const ENCRYPT_AT_ONCE: u64 = 0x1a;

/// Arguments of the functions that are followed, from 0.
const OBJECT: u8 = 0;
const KIND: u8 = 1;
const READ_TO: u8 = 3;
const WRITTEN_FROM: u8 = 2;
const PEEK: u8 = 5;

/// An instruction, and what its probe is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub address: u64,
    pub own: u32,
}

/// Each is none if the code is not as expected.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    /// Mostly one; a compiler may have made two of one.
    pub copied: Option<Vec<Site>>,
    /// All that make records; never one without the other.
    pub sealed: Option<Vec<Site>>,
}

/// Looks into the functions.
pub(super) fn find(elf: &Elf<'_>, file: &File) -> Inside {
    let Some(reader) = Reader::of(elf) else { return Inside::default() };
    let function = |name| {
        let begin = only(raised::named(elf, file, &reader.beginnings, name)?.into_iter())?;
        Some((begin, reader.flow(begin)?))
    };
    let copied = function("ssl3_read_bytes").and_then(|(_, flow)| copied(&flow, |to| reader.copies(to)));
    let sealed = || {
        let (begin, flow) = function("do_ssl3_write")?;
        let record = sealed(&flow, begin)?;
        let (_, flow) = function("ssl3_write_bytes")?;
        // A compiler may also have put one into the other; then the errors of the inner one are raised in both.
        flow.calls.iter().find(|call| call.to == begin)?;
        // The library uses it elsewhere too; that it is not known would look as if it were never called.
        let is_known = reader.imports.values().any(|name| *name == CONTROL);
        let at_once = at_once(&flow, |to| reader.is_called(to, CONTROL)).filter(|_| is_known)?;
        Some([vec![record], at_once].concat())
    };
    Inside { copied, sealed: sealed() }
}

/// `memcpy(buf, from, n)` in `ssl3_read_bytes(s, type, recvd_type, buf, len, peek, readbytes)`: what has the caller's buffer for its
/// destination. It is followed by nothing that fails. In the source there is one; gcc at `-O3` makes one for peeking and one for reading.
fn copied(flow: &Flow, copies: impl Fn(u64) -> bool) -> Option<Vec<Site>> {
    const MOST: usize = 2;
    let is_to_caller =
        |call: &&Call| copies(call.to) && matches!(call.given(0), Value::Argument(READ_TO, 64) | Value::From(READ_TO));
    let site = |call: &Call| {
        let at = |argument, bits| place(flow.place(call, argument, bits)?);
        Some(Site { address: call.at, own: inside(at(OBJECT, 64)?, at(KIND, 8)?, at(PEEK, 32)?) })
    };
    let sites = flow.calls.iter().filter(is_to_caller).map(site).collect::<Option<Vec<_>>>()?;
    (1..=MOST).contains(&sites.len()).then_some(sites)
}

/// `do_ssl3_write(s, type, buf, pipelens, numpipes, create_empty_fragment, written)` at its first instruction. That its arguments are
/// these, the call shows that it makes of itself for an empty fragment of application data: with the same object and buffer, one
/// length, which is on the stack, and 1.
fn sealed(flow: &Flow, begin: u64) -> Option<Site> {
    let own = only(flow.calls.iter().filter(|call| call.to == begin))?;
    let is_kind = matches!(own.given(1), Value::Argument(KIND, _) | Value::Number(APPLICATION_DATA));
    let given = [own.given(0), own.given(2), own.given(4), own.given(5)];
    let expected = [Value::Argument(OBJECT, 64), Value::Argument(WRITTEN_FROM, 64), Value::Number(1), Value::Number(1)];
    let is_as_expected = is_kind && given == expected && matches!(own.given(3), Value::Stack(_));
    is_as_expected.then_some(Site { address: begin, own: 0 })
}

/// `EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_TLS1_1_MULTIBLOCK_ENCRYPT, size, &{out, from, length, ...})` in `ssl3_write_bytes(s, type, ...)`,
/// which comes here with application data alone. Empty: the library is built without. None: it is not as expected.
fn at_once(flow: &Flow, is_control: impl Fn(u64) -> bool) -> Option<Vec<Site>> {
    let mut controls = flow.calls.iter().filter(|call| is_control(call.to)).peekable();
    if controls.peek().is_none() {
        return Some(Vec::new());
    }
    let call = only(controls.filter(|call| call.given(1) == Value::Number(ENCRYPT_AT_ONCE)))?;
    let object = place(flow.place(call, OBJECT, 64)?)?;
    let is_as_expected = matches!(call.given(3), Value::Stack(_));
    let own = inside(object, At::Slot(0), At::Slot(0));
    is_as_expected.then_some(vec![Site { address: call.at, own }])
}

/// As the kernel side is told.
fn place(place: Place) -> Option<At> {
    match place {
        Place::Register(3) => Some(At::Register(0)),
        Place::Register(5) => Some(At::Register(1)),
        Place::Register(number @ 12..=15) => Some(At::Register(u32::from(number) - 10)),
        Place::Register(_) => None,
        Place::Slot(bytes) => u32::try_from(bytes).ok().filter(|bytes| *bytes < SLOTS).map(At::Slot),
    }
}

/// The library's code, and whom it calls.
struct Reader<'e, 'a> {
    elf: &'e Elf<'a>,
    code: Code<'a>,
    beginnings: BTreeSet<u64>,
    imports: HashMap<u64, &'a str>,
}

impl<'e, 'a> Reader<'e, 'a> {
    fn of(elf: &'e Elf<'a>) -> Option<Self> {
        let text = elf.text()?;
        let bytes = elf.bytes(text.start, text.end.checked_sub(text.start)?)?;
        let beginnings = elf.beginnings()?.into_iter().collect();
        Some(Self { elf, code: Code { address: text.start, bytes }, beginnings, imports: elf.imports() })
    }

    fn flow(&self, begin: u64) -> Option<Flow> {
        let returns = |to| {
            if self.copies(to) {
                Returns::ItsFirst
            } else if ["__stack_chk_fail", "abort"].iter().any(|name| self.is_called(to, name)) {
                Returns::Never
            } else {
                Returns::Something
            }
        };
        Flow::of(self.code, begin, |address| self.beginnings.contains(&address), returns)
    }

    fn copies(&self, to: u64) -> bool {
        // The second is what compilers make of it for a check of lengths; its first three arguments are the same.
        self.is_called(to, "memcpy") || self.is_called(to, "__memcpy_chk")
    }

    /// Whether that is another library's function of this name.
    fn is_called(&self, to: u64, name: &str) -> bool {
        self.elf.stub(to).and_then(|place| self.imports.get(&place)).is_some_and(|found| *found == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use At::{Register, Slot};

    const AT: u64 = 0x1000;
    const COPY: u64 = 0x9000;
    const CONTROL: u64 = 0x9020;

    /// As `ssl3_read_bytes` of Debian's 3.0.19 does, in short: `s` is kept in `r13`, and in a slot while that register serves for something
    /// else; one copy is to the caller, and one into the object. At 0x1a and 0x5f there is room for an instruction.
    const READ: [u8; 115] = [
        0x41, 0x57, 0x41, 0x56, 0x41, 0x55, 0x49, 0x89, 0xfd, 0x41, 0x54, 0x49, 0x89, 0xcc, 0x48, 0x83, 0xec, 0x48,
        0x89, 0x74, 0x24, 4, 0x44, 0x89, 0x0c, 0x24, 0x0f, 0x1f, 0x44, 0, 0, 0x4c, 0x89, 0xef, 0xe8, 0xe9, 0x7f, 0, 0,
        0x85, 0xc0, 0x74, 0x34, 0x4d, 0x89, 0xe7, 0x4c, 0x89, 0x6c, 0x24, 0x28, 0x45, 0x31, 0xed, 0x4c, 0x89, 0xff,
        0x4c, 0x89, 0xf2, 0xe8, 0xbf, 0x7f, 0, 0, 0x44, 0x8b, 0x0c, 0x24, 0x4d, 1, 0xf7, 0x45, 0x85, 0xc9, 0x75, 0xe9,
        0x4c, 0x8b, 0x6c, 0x24, 0x28, 0x48, 0x83, 0xc4, 0x48, 0x41, 0x5c, 0x41, 0x5d, 0x41, 0x5e, 0x41, 0x5f, 0xc3,
        0x0f, 0x1f, 0x44, 0, 0, 0x49, 0x8d, 0xbc, 5, 0xc0, 0x1c, 0, 0, 0xe8, 0x8f, 0x7f, 0, 0, 0xeb, 0xb8,
    ];
    /// Where the copies are called.
    const TO_CALLER: u64 = 0x103c;

    /// A frame pointer, the kind in one byte, and a part of the function elsewhere.
    const FRAMED: [u8; 51] = [
        0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 0x28, 0x40, 0x88, 0x75, 0xec, 0x48, 0x89, 0x7d, 0xe0, 0x44,
        0x89, 0x4d, 0xe8, 0x48, 0x89, 0xcb, 0xeb, 0x12, 0x48, 0x89, 0xdf, 0xe8, 0xde, 0x7f, 0, 0, 0x48, 1, 0xc3, 0x48,
        0x8b, 0x5d, 0xf8, 0xc9, 0xc3, 0xcc, 0xe8, 0xdf, 0x7f, 0, 0, 0xeb, 0xe7,
    ];

    /// `do_ssl3_write`: calls itself with an object, 23, a buffer, a place on the stack, 1 and 1.
    const RECORD: [u8; 81] = [
        0x41, 0x56, 0x49, 0x89, 0xfe, 0x48, 0x83, 0xec, 0x38, 0x48, 0x89, 0x54, 0x24, 0x18, 0x89, 0x74, 0x24, 0x20,
        0xe8, 0xf9, 0x7f, 0, 0, 0x85, 0xc0, 0x74, 0x2f, 0x48, 0x8d, 0x4c, 0x24, 0x30, 0x48, 0x83, 0xec, 8, 0x41, 0xb8,
        1, 0, 0, 0, 0x4c, 0x89, 0xf7, 0x41, 0xb9, 1, 0, 0, 0, 0xbe, 0x17, 0, 0, 0, 0x48, 0x8d, 0x44, 0x24, 0x10, 0x50,
        0x48, 0x8b, 0x54, 0x24, 0x28, 0xe8, 0xb8, 0xff, 0xff, 0xff, 0x59, 0x5e, 0x48, 0x83, 0xc4, 0x38, 0x41, 0x5e,
        0xc3,
    ];

    /// `ssl3_write_bytes`: two controls, 0x19 and 0x1a.
    const AT_ONCE_CODE: [u8; 72] = [
        0x41, 0x54, 0x49, 0x89, 0xfc, 0x48, 0x83, 0xec, 0x40, 0x48, 0x8d, 0x4c, 0x24, 8, 0xba, 0x20, 0, 0, 0, 0xbe,
        0x19, 0, 0, 0, 0x49, 0x8b, 0xbc, 0x24, 0x78, 8, 0, 0, 0xe8, 0xfb, 0x7f, 0, 0, 0x48, 0x8d, 0x4c, 0x24, 8, 0xba,
        0x20, 0, 0, 0, 0xbe, 0x1a, 0, 0, 0, 0x49, 0x8b, 0xbc, 0x24, 0x78, 8, 0, 0, 0xe8, 0xdf, 0x7f, 0, 0, 0x48, 0x83,
        0xc4, 0x40, 0x41, 0x5c, 0xc3,
    ];

    fn flow(code: &[u8]) -> Option<Flow> {
        let returns = |to| if to == COPY { Returns::ItsFirst } else { Returns::Something };
        Flow::of(Code { address: AT, bytes: code }, AT, |_| false, returns)
    }

    fn copied_in(code: &[u8]) -> Option<Vec<Site>> {
        copied(&flow(code)?, |to| to == COPY)
    }

    fn with<const N: usize>(mut code: [u8; N], at: usize, other: &[u8]) -> [u8; N] {
        code[at..at + other.len()].copy_from_slice(other);
        code
    }

    #[test]
    fn the_copy_to_the_caller_is_found_with_its_arguments() {
        let own = inside(Slot(0x28), Slot(4), Slot(0));
        assert_eq!(copied_in(&READ), Some(vec![Site { address: TO_CALLER, own }]));
        // Two copies to the caller: the other one's is `lea rdi, [r12+rax]`, and `s` is where it was before.
        let other = Site { address: 0x106c, own: inside(Register(3), Slot(4), Slot(0)) };
        let both = with(READ, 0x64, &[0x49, 0x8d, 0x3c, 0x04, 0x0f, 0x1f, 0x40, 0]);
        assert_eq!(copied_in(&both), Some(vec![Site { address: TO_CALLER, own }, other]));
        // The next one goes to where the last one went, as `memcpy` tells: `mov r15, rax`.
        assert!(copied_in(&with(READ, 0x45, &[0x49, 0x89, 0xc7])).is_some());
        let own = inside(Slot(0x10), Slot(0x1c), Slot(0x18));
        assert_eq!(copied_in(&FRAMED), Some(vec![Site { address: 0x101d, own }]));
    }

    #[test]
    fn what_is_not_certain_is_none() {
        let no_other = |at, other: &[u8]| assert_eq!(copied_in(&with(READ, at, other)), None, "{other:x?}");
        // A place's address is taken: `lea rdi, [rsp+4]`, in front or on another way.
        no_other(0x1a, &[0x48, 0x8d, 0x7c, 0x24, 0x04]);
        no_other(0x5f, &[0x48, 0x8d, 0x7c, 0x24, 0x04]);
        // It is overwritten on one way: `mov [rsp], eax`; somewhere on the stack: `mov [rsp+rax*4], ecx`.
        no_other(0x5f, &[0x89, 0x04, 0x24]);
        no_other(0x5f, &[0x89, 0x0c, 0x84]);
        // `s` is lost: `mov r13, rdx`.
        no_other(0x1a, &[0x49, 0x89, 0xd5]);
        // None is to the caller: `mov r12, rdx`.
        no_other(0x1a, &[0x49, 0x89, 0xd4]);
        // `jmp rax`, `sub rsp, rax`, and no instruction.
        no_other(0x1a, &[0xff, 0xe0]);
        no_other(0x1a, &[0x48, 0x29, 0xc4]);
        no_other(0x1a, &[0x06]);
        // A frame that is another on one way: `push rax`.
        no_other(0x5f, &[0x50, 0x0f, 0x1f, 0x40, 0]);
        // The address of something else: `lea rdi, [rsp+0x30]`.
        assert!(copied_in(&with(READ, 0x1a, &[0x48, 0x8d, 0x7c, 0x24, 0x30])).is_some());
        // The lower half of `s` alone: `mov r13d, edi`.
        no_other(0x06, &[0x41, 0x89, 0xfd]);
    }

    #[test]
    fn a_record_is_known_by_the_call_of_itself() {
        let found = |code: &[u8]| sealed(&flow(code)?, AT);
        assert_eq!(found(&RECORD), Some(Site { address: AT, own: 0 }));
        // Two pipes; not marked as empty; another kind; another buffer (`mov rdx, [rsp+0x30]`); another object (`mov rdi, rsi`).
        assert_eq!(found(&with(RECORD, 0x26, &[2])), None);
        assert_eq!(found(&with(RECORD, 0x2f, &[0])), None);
        assert_eq!(found(&with(RECORD, 0x34, &[0x15])), None);
        assert_eq!(found(&with(RECORD, 0x42, &[0x30])), None);
        assert_eq!(found(&with(RECORD, 0x2a, &[0x48, 0x89, 0xf7])), None);
        // It calls another one.
        assert_eq!(found(&with(RECORD, 0x44, &[0])), None);
    }

    #[test]
    fn records_that_are_made_at_once_are_known_by_their_control() {
        let found = |code: &[u8]| at_once(&flow(code)?, |to| to == CONTROL);
        let own = inside(Register(2), Slot(0), Slot(0));
        assert_eq!(found(&AT_ONCE_CODE), Some(vec![Site { address: 0x103c, own }]));
        // Both the same; none; another place for what is made of (`mov rcx, [rsp+8]`).
        assert_eq!(found(&with(AT_ONCE_CODE, 0x14, &[0x1a])), None);
        assert_eq!(found(&with(AT_ONCE_CODE, 0x30, &[0x19])), None);
        assert_eq!(found(&with(AT_ONCE_CODE, 0x26, &[0x8b])), None);
        // A library without them.
        assert_eq!(at_once(&flow(&AT_ONCE_CODE).unwrap(), |_| false), Some(Vec::new()));
    }

    /// Debian's 3.0 and later have it all.
    #[test]
    fn the_library_of_this_machine() {
        let Ok(file) = File::open("/usr/lib/x86_64-linux-gnu/libssl.so.3") else { return };
        let cache = object::read::ReadCache::new(file.try_clone().unwrap());
        let elf = Elf::parse(&cache).unwrap();
        let found = find(&elf, &file);
        if std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("ID=debian")) {
            assert!(found.copied.is_some(), "{found:?}");
        }
        for site in found.copied.iter().chain(&found.sealed).flatten() {
            assert!(elf.text().unwrap().contains(&site.address));
        }
    }
}
