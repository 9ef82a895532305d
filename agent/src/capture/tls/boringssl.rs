//! Where BoringSSL has plaintext in Envoy (x86-64), which holds it and is stripped.
//!
//! No symbol says where its functions are, but each raises errors of its own, in an order of lines that its source has. Only where these
//! say of exactly one function that it is the one, and its code does what the kernel programs rely on, a probe is put
//! (docs/decisions/0078-envoy-by-its-errors.md).

use super::{
    code,
    library::{Library, Point},
    openssl,
    raised::{Raised, Raising, raising},
    symbols::Elf,
};
use memchr::memmem;
use s3auditd_common::settings::openssl::{RESULT_IS_LENGTH, own};
use std::fs::File;

/// The source file of the functions that are looked for ends so; OpenSSL's is another.
const SOURCE: &[u8] = b"ssl/ssl_lib.cc";
/// Envoy's own name for its use of TLS, in its configuration.
const ENVOY: &[u8] = b"envoy.transport_sockets.tls";

/// `ERR_LIB_SSL`
const LIBRARY: u32 = 16;
/// `ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED`
const NOT_CALLED: u32 = 66;
/// `SSL_R_...` (include/openssl/ssl.h): numbers that are never given anew.
const BAD_LENGTH: u32 = 111;
const CONNECTION_TYPE_NOT_SET: u32 = 134;
const NULL_SSL_CTX: u32 = 185;
const HANDSHAKE_FAILURE: u32 = 215;
const UNINITIALIZED: u32 = 226;

/// Whether a program has it, be it Envoy or not.
pub(super) fn is_in(elf: &Elf<'_>) -> bool {
    elf.only_text(SOURCE).is_some()
}

/// Looks for it. None: the program is not Envoy, or has another library.
///
/// # Errors
/// It is and has, and why it cannot be used.
pub(super) fn find(elf: &Elf<'_>, file: &File) -> Result<Option<Library>, String> {
    if !elf.has_text(ENVOY) {
        return Ok(None);
    }
    let Some(source) = elf.only_text(SOURCE) else { return Ok(None) };
    if let Some(release) = openssl::kernel_that_ends_processes() {
        return Err(format!("Linux {release} may end a process with a seccomp filter in which a return is probed"));
    }
    let version = elf.build().unwrap_or_else(|| "of an unknown build".to_owned());
    let not_as_expected = |what: &str| format!("BoringSSL in Envoy {version}: {what} is not as expected");
    let raising = raising(elf, file, source, LIBRARY).ok_or_else(|| not_as_expected("the file's layout"))?;
    let places = Places::among(&raising, |one| elf.code(&one.function)).map_err(not_as_expected)?;
    let offset = |address: u64| {
        let offset = elf.file_offset(address).filter(|offset| *offset != 0);
        offset.ok_or_else(|| not_as_expected("the file's layout"))
    };
    let mut points = vec![Point { program: openssl::BEGINS, offset: offset(places.begins)?, own: 0 }];
    let mut entries = Vec::new();
    for (program, function, flags) in [
        (openssl::RECEIVED, places.read, RESULT_IS_LENGTH),
        (openssl::SENT, places.write, RESULT_IS_LENGTH),
        (openssl::RETURNED, places.handshake, 0),
    ] {
        // No place in an object is known, and none is needed: what ties it is its use, and a connection that Envoy opens is not watched.
        let (offset, own) = (offset(function + openssl::behind_mark(elf, function))?, own(flags, 0, 0));
        points.push(Point { program, offset, own });
        entries.push(Point { program: openssl::CALLED, offset, own });
    }
    points.append(&mut entries);
    Ok(Some(Library::of("boringssl", version, points)))
}

/// Addresses.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    /// `SSL_read`, `SSL_write`, `SSL_do_handshake`
    read: u64,
    write: u64,
    handshake: u64,
    /// In `SSL_new`, where the first argument of a call is the new object.
    begins: u64,
}

impl Places {
    /// # Errors
    /// What is not as expected.
    fn among<'a>(raising: &[Raising], code: impl Fn(&Raising) -> Option<&'a [u8]>) -> Result<Self, &'static str> {
        let handshake = only(raising, &[CONNECTION_TYPE_NOT_SET], &[]).ok_or("SSL_do_handshake")?;
        let new = only(raising, &[NULL_SSL_CTX], &[]).ok_or("SSL_new")?;
        let write = only(raising, &[UNINITIALIZED, HANDSHAKE_FAILURE, BAD_LENGTH], &[]).ok_or("SSL_write")?;
        // What SSL_peek calls for SSL_read, which calls it, or has it in itself.
        let inner = only(raising, &[UNINITIALIZED, HANDSHAKE_FAILURE], &[BAD_LENGTH]).ok_or("ssl_read_impl")?;
        let calls = |one: &Raising, other: &Raising| {
            let (code, from) = (code(one).unwrap_or_default(), one.function.address);
            let to_other = code::calls(code, from).filter(|(_, to)| *to == other.function.address);
            to_other.map(|(at, _)| at).collect::<Vec<_>>()
        };
        if calls(inner, handshake).is_empty() {
            return Err("SSL_do_handshake");
        }
        let kept = code(write).and_then(Kept::by).ok_or("SSL_write")?;
        if !calls(write, handshake).into_iter().any(|call| code(write).is_some_and(|code| kept.is_given_to(code, call)))
        {
            return Err("SSL_write");
        }
        let lines = last_line(inner)..first_line(write);
        if last_line(handshake) >= first_line(inner) || lines.is_empty() {
            return Err("the order of its source");
        }
        let is_read = |one: &&Raising| {
            matches!(one.raised[..], [Raised { reason: NOT_CALLED, line }] if lines.contains(&line))
                && code(one).is_some_and(takes_off)
                && code(one).and_then(Kept::by).is_some_and(|kept| calls(one, inner) == [kept.until])
        };
        let mut reads = raising.iter().filter(is_read);
        let (Some(read), None) = (reads.next(), reads.next()) else { return Err("SSL_read") };
        let begins = code(new).and_then(call_for_object).ok_or("SSL_new")?;
        Ok(Self {
            read: read.function.address,
            write: write.function.address,
            handshake: handshake.function.address,
            begins: new.function.address + begins as u64,
        })
    }
}

/// The one function that may raise all of these, and none of those.
fn only<'a>(raising: &'a [Raising], all: &[u32], none: &[u32]) -> Option<&'a Raising> {
    let raises = |one: &Raising, reason: &u32| one.raised.iter().any(|raised| raised.reason == *reason);
    let is_it = |one: &&Raising| all.iter().all(|of| raises(one, of)) && !none.iter().any(|of| raises(one, of));
    code::only(raising.iter().filter(is_it))
}

fn first_line(one: &Raising) -> u32 {
    one.raised.iter().map(|raised| raised.line).min().unwrap_or_default()
}

fn last_line(one: &Raising) -> u32 {
    one.raised.iter().map(|raised| raised.line).max().unwrap_or_default()
}

/// Where a function puts its arguments, which are an object, a buffer and a length of 32 bits: an object's own function, and none of the
/// program's into which a compiler has put that.
struct Kept {
    /// What comes behind the last of the moves.
    until: usize,
    /// The register for the object.
    object: u8,
}

impl Kept {
    /// The first place where the three are moved, one right behind the other: `mov R, edx`, `mov R, rsi`, `mov R, rdi`.
    fn by(code: &[u8]) -> Option<Self> {
        (0..code.len()).find_map(|from| {
            let (mut rest, mut moved, mut object) = (code.get(from..)?, [false; 3], None);
            // What looks like a length of 32 bits has 64.
            let has_prefix = from.checked_sub(1).and_then(|at| code.get(at)).is_some_and(|byte| byte & 0xf0 == 0x40);
            if rest.first() == Some(&0x89) && has_prefix {
                return None;
            }
            for _ in 0..3 {
                let (index, register, behind) = match rest {
                    [0x89, to @ 0xd0..=0xd7, behind @ ..] => (0, to & 7, behind),
                    [0x41, 0x89, to @ 0xd0..=0xd7, behind @ ..] => (0, 8 | to & 7, behind),
                    [wide @ 0x48..=0x49, 0x89, to @ 0xf0..=0xf7, behind @ ..] => (1, (wide & 1) << 3 | to & 7, behind),
                    [wide @ 0x48..=0x49, 0x89, to @ 0xf8..=0xff, behind @ ..] => (2, (wide & 1) << 3 | to & 7, behind),
                    _ => return None,
                };
                *moved.get_mut(index)? = true;
                object = if index == 2 { Some(register) } else { object };
                rest = behind;
            }
            (moved == [true; 3]).then_some(Self { until: code.len() - rest.len(), object: object? })
        })
    }

    /// Whether that call is given the object, by `mov rdi, R` right in front of it.
    fn is_given_to(&self, code: &[u8], call: usize) -> bool {
        let wide = if self.object < 8 { 0x48 } else { 0x4c };
        let given = [wide, 0x89, 0xc7 | (self.object & 7) << 3];
        code.get(..call).is_some_and(|before| before.ends_with(&given))
    }
}

/// Whether a function takes bytes off a span: at two words of memory, one behind the other, it adds to where it begins, or sets it, and sets
/// its length. `SSL_read` does, `SSL_peek` does not.
fn takes_off(code: &[u8]) -> bool {
    const WORD: u32 = 8;
    code.windows(14).any(|window| {
        let [0x48..=0x4f, 0x01 | 0x89, one, a, b, c, d, 0x48..=0x4f, 0x89, other, e, f, g, h] = window else {
            return false;
        };
        // In memory at a register and a distance of 32 bits; without a further byte for the place.
        let is_field = |operands: &u8| operands >> 6 == 2 && operands & 7 != 4;
        let (begin, length) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
        is_field(one) && is_field(other) && one & 7 == other & 7 && begin.checked_add(WORD) == Some(length)
    })
}

/// Where `SSL_new` calls `object->method->ssl_new(object)`, and its object is the first argument: `mov rax, [R]; mov rdi, R; call [rax+8]`.
/// None: it does not, or in another way, or twice.
fn call_for_object(code: &[u8]) -> Option<usize> {
    const CALL: [u8; 3] = [0xff, 0x50, 0x08];
    const IN_FRONT: usize = 6;
    let at = code::only(memmem::find_iter(code, &CALL))?;
    let [wide, 0x8b, from @ 0..=7, moved, 0x89, to] = code.get(at.checked_sub(IN_FRONT)?..at)? else { return None };
    // Registers 4 and 5 would need a further byte.
    let is_same = matches!((wide, moved), (0x48, 0x48) | (0x49, 0x4c)) && *to == 0xc7 | from << 3;
    (is_same && !matches!(from, 4 | 5)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tls::symbols::Function;

    const READ: u64 = 0x1000;
    const INNER: u64 = 0x2000;
    const WRITE: u64 = 0x3000;
    const HANDSHAKE: u64 = 0x4000;
    const NEW: u64 = 0x5000;
    const PEEK: u64 = 0x6000;

    /// SSL_read of Envoy 1.40.0, in part.
    const TAKES_OFF: [u8; 14] = [0x48, 0x01, 0x98, 0x80, 0, 0, 0, 0x48, 0x89, 0x88, 0x88, 0, 0, 0];
    /// Its SSL_new.
    const SET_UP: [u8; 9] = [0x48, 0x8b, 0x03, 0x48, 0x89, 0xdf, 0xff, 0x50, 0x08];

    /// Both of them: `mov ebx, edx; mov r14, rsi; mov r15, rdi`.
    const KEEPS: [u8; 8] = [0x89, 0xd3, 0x49, 0x89, 0xf6, 0x49, 0x89, 0xff];
    /// SSL_write: `mov rdi, r15`.
    const GIVES: [u8; 3] = [0x4c, 0x89, 0xff];

    /// A function, with code that calls another one in its middle.
    fn function(address: u64, raised: &[(u32, u32)], front: &[u8], to: u64, behind: &[u8]) -> (Raising, Vec<u8>) {
        let mut code = [&[0x55], front, &[0xe8]].concat();
        let distance = to.cast_signed() - (address.cast_signed() + code.len() as i64 + 4);
        code.extend(i32::try_from(distance).unwrap().to_le_bytes());
        code.extend(behind);
        let raised = raised.iter().map(|&(reason, line)| Raised { reason, line }).collect();
        (Raising { function: Function { address, bytes: code.len() as u64 }, raised }, code)
    }

    const READ_RAISES: [(u32, u32); 1] = [(NOT_CALLED, 940)];
    const INNER_RAISES: [(u32, u32); 2] = [(UNINITIALIZED, 846), (HANDSHAKE_FAILURE, 879)];
    const WRITE_RAISES: [(u32, u32); 4] =
        [(NOT_CALLED, 962), (UNINITIALIZED, 967), (BAD_LENGTH, 988), (HANDSHAKE_FAILURE, 982)];

    fn keeps_and_gives() -> Vec<u8> {
        [&KEEPS[..], &GIVES].concat()
    }

    /// As they are in Envoy 1.40.0.
    fn whole() -> Vec<(Raising, Vec<u8>)> {
        vec![
            function(READ, &READ_RAISES, &KEEPS, INNER, &TAKES_OFF),
            function(INNER, &INNER_RAISES, &[], HANDSHAKE, &[]),
            function(WRITE, &WRITE_RAISES, &keeps_and_gives(), HANDSHAKE, &[]),
            function(HANDSHAKE, &[(CONNECTION_TYPE_NOT_SET, 733)], &[], 0, &[]),
            function(NEW, &[(NULL_SSL_CTX, 498)], &[], 0, &SET_UP),
        ]
    }

    fn places(functions: &[(Raising, Vec<u8>)]) -> Result<Places, &'static str> {
        let raising: Vec<_> = functions.iter().map(|(raising, _)| raising.clone()).collect();
        let code = |one: &Raising| functions.iter().find(|(other, _)| other == one).map(|(_, code)| code.as_slice());
        Places::among(&raising, code)
    }

    #[test]
    fn each_function_is_told_by_what_it_raises() {
        // Behind a push and a call.
        let expected = Places { read: READ, write: WRITE, handshake: HANDSHAKE, begins: NEW + 12 };
        assert_eq!(places(&whole()), Ok(expected));
        // Beside SSL_read there is SSL_peek, which raises the same and takes nothing off.
        let mut functions = whole();
        functions.push(function(PEEK, &READ_RAISES, &KEEPS, INNER, &[]));
        assert_eq!(places(&functions).unwrap().read, READ);
    }

    #[test]
    fn without_one_of_them_or_with_a_second_nothing_is_said() {
        let second = 0x10_0000;
        let seconds = [
            function(second, &READ_RAISES, &KEEPS, INNER, &TAKES_OFF),
            function(second, &INNER_RAISES, &[], HANDSHAKE, &[]),
            function(second, &WRITE_RAISES, &keeps_and_gives(), HANDSHAKE, &[]),
            function(second, &[(CONNECTION_TYPE_NOT_SET, 733)], &[], 0, &[]),
            function(second, &[(NULL_SSL_CTX, 498)], &[], 0, &SET_UP),
        ];
        let names = ["SSL_read", "ssl_read_impl", "SSL_write", "SSL_do_handshake", "SSL_new"];
        for (index, (name, second)) in names.into_iter().zip(seconds).enumerate() {
            let mut functions = whole();
            functions.push(second);
            assert_eq!(places(&functions), Err(name));
            let mut functions = whole();
            functions.remove(index);
            assert_eq!(places(&functions), Err(name));
        }
    }

    #[test]
    fn functions_that_do_not_fit_together_are_not_taken() {
        let changed = |index: usize, other: (Raising, Vec<u8>)| {
            let mut functions = whole();
            functions[index] = other;
            places(&functions)
        };
        let read = |raised: &[(u32, u32)], front: &[u8], to, behind: &[u8]| function(READ, raised, front, to, behind);
        for other in [
            // Elsewhere in the source; with another error; without the inner function; one that takes nothing off.
            read(&[(NOT_CALLED, 963)], &KEEPS, INNER, &TAKES_OFF),
            read(&[(NOT_CALLED, 940), (UNINITIALIZED, 941)], &KEEPS, INNER, &TAKES_OFF),
            read(&READ_RAISES, &KEEPS, WRITE, &TAKES_OFF),
            read(&READ_RAISES, &KEEPS, INNER, &TAKES_OFF[..13]),
            // A function of the program's with SSL_read in itself: its object is not the argument.
            read(&READ_RAISES, &KEEPS[..5], INNER, &TAKES_OFF),
            read(&READ_RAISES, &keeps_and_gives(), INNER, &TAKES_OFF),
        ] {
            assert_eq!(changed(0, other), Err("SSL_read"));
        }
        for front in [&KEEPS[..], &[&KEEPS[..], &[0x48, 0x89, 0xdf]].concat(), &GIVES] {
            assert_eq!(changed(2, function(WRITE, &WRITE_RAISES, front, HANDSHAKE, &[])), Err("SSL_write"));
        }
        assert_eq!(changed(1, function(INNER, &INNER_RAISES, &[], READ, &[])), Err("SSL_do_handshake"));
        let late = function(HANDSHAKE, &[(CONNECTION_TYPE_NOT_SET, 850)], &[], 0, &[]);
        assert_eq!(changed(3, late), Err("the order of its source"));
        let twice = [SET_UP, SET_UP].concat();
        assert_eq!(changed(4, function(NEW, &[(NULL_SSL_CTX, 498)], &[], 0, &twice)), Err("SSL_new"));
    }

    #[test]
    fn arguments_are_kept_in_any_order_and_anywhere() {
        let kept = |code: &[u8]| Kept::by(code).map(|kept| (kept.until, kept.object));
        assert_eq!(kept(&[&[0xcc], &KEEPS[..]].concat()), Some((9, 15)));
        // mov rbx, rdi; mov r12d, edx; mov r14, rsi
        assert_eq!(kept(&[0x48, 0x89, 0xfb, 0x41, 0x89, 0xd4, 0x49, 0x89, 0xf6]), Some((9, 3)));
        // The length has 64 bits, or the object is moved twice.
        assert_eq!(kept(&[0x48, 0x89, 0xd3, 0x49, 0x89, 0xf6, 0x49, 0x89, 0xff]), None);
        assert_eq!(kept(&[0x49, 0x89, 0xff, 0x49, 0x89, 0xf6, 0x49, 0x89, 0xff]), None);
    }

    #[test]
    fn bytes_are_taken_off_only_where_begin_and_length_change() {
        assert!(takes_off(&TAKES_OFF));
        let at = |index: usize, byte: u8| {
            let mut code = TAKES_OFF;
            code[index] = byte;
            takes_off(&code)
        };
        // Set instead of added to.
        assert!(at(1, 0x89));
        // A load; another field; another register; a field at 8 bits; a register that needs a byte more.
        for (index, byte) in [(1, 0x8b), (8, 0x8b), (10, 0x90), (9, 0x89), (2, 0x58), (2, 0x9c)] {
            assert!(!at(index, byte), "{index}: {byte:x}");
        }
    }

    #[test]
    fn the_object_is_the_argument_of_the_call() {
        assert_eq!(call_for_object(&SET_UP), Some(6));
        // In r14.
        assert_eq!(call_for_object(&[0x49, 0x8b, 0x06, 0x4c, 0x89, 0xf7, 0xff, 0x50, 0x08]), Some(6));
        for (index, byte) in [(0, 0x49), (2, 0x06), (2, 0x43), (5, 0xf7), (5, 0xde), (8, 0x10)] {
            let mut code = SET_UP;
            code[index] = byte;
            assert_eq!(call_for_object(&code), None, "{index}: {byte:x}");
        }
        assert_eq!(call_for_object(&SET_UP[1..]), None);
    }
}
