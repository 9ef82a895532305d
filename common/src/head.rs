//! How long a message is, as far as the kernel side may look: only to copy less of a body, never to say what a message is.
//!
//! [`Look`] goes through the bytes in front by steps of eight, each small enough for the verifier. A mistake costs bytes that are
//! withheld, and counted (docs/decisions/0066-a-budget-from-the-head.md).
#![expect(clippy::cast_possible_truncation, reason = "the low bytes of a word are what is meant")]
#![expect(clippy::inline_always, reason = "the verifier of old kernels follows a function's numbers one by one")]

use crate::sample::Direction;

/// So many bytes of a call's beginning are looked at: a head that is longer keeps the usual budget.
pub const LOOK_BYTES: u32 = 4096;

/// The most steps of a [`Look`]: one for eight bytes, and some for each line and each digit.
pub const MAX_LOOK_STEPS: u32 = LOOK_BYTES / 8 + 256;

/// A body that is shorter is copied as ever.
pub const MIN_BODY_BYTES: u64 = 32 * 1024;

/// A body is taken for no longer than this: sequence numbers are compared as signed distances.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// A longer value is none that we know.
const MAX_DIGITS: u32 = 15;

const LINES: u32 = 0;
const DIGITS: u32 = 1;
const ENDED: u32 = 2;
const GIVEN_UP: u32 = 3;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
/// Lower case for letters; what else it changes looks like no name of ours.
const FOLD: u64 = 0x20 * ONES;
/// Multiplied by `1 << 8 * n` its highest byte is n.
const PLACES: u64 = 0x0001_0203_0405_0607;

const FIVE: u64 = (1 << 40) - 1;
const SEVEN: u64 = (1 << 56) - 1;

/// Eight letters as they lie in memory.
const fn word(text: [u8; 8]) -> u64 {
    u64::from_le_bytes(text)
}

const fn half(text: [u8; 4]) -> u32 {
    u32::from_le_bytes(text)
}

/// The first four bytes of a request that has an object for its body.
const PUT: u32 = half(*b"PUT ");
/// A reply to it has no body, whatever it says.
const HEAD: u32 = half(*b"HEAD");
/// Both its body and that of its reply may have to be read.
const POST: u32 = half(*b"POST");

/// Whether a message of that direction begins there, by its first eight bytes.
#[must_use]
#[inline(always)]
pub const fn begins(direction: Direction, first: u64) -> bool {
    match direction {
        Direction::Received => {
            let letters = first as u32;
            letters == PUT
                || letters == HEAD
                || letters == POST
                || letters == half(*b"GET ")
                || letters == half(*b"DELE")
                || letters == half(*b"OPTI")
        }
        Direction::Sent => first & SEVEN == word(*b"HTTP/1.\0"),
    }
}

/// Whether a message that begins so may have a body of which nobody needs a byte. `request`: the first four bytes of what was
/// received before.
#[must_use]
#[inline(always)]
pub const fn may_be_left_out(direction: Direction, request: u32, first: u64, second: u64) -> bool {
    match direction {
        Direction::Received => first as u32 == PUT,
        // Errors are read.
        Direction::Sent => {
            begins(direction, first)
                && second as u16 == u16::from_le_bytes(*b" 2")
                && request != HEAD
                && request != POST
        }
    }
}

/// A message whose head is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    pub head_bytes: u32,
    /// No more than the sequence numbers allow.
    pub body_bytes: u32,
}

/// See the module. Plain numbers, because it lies in a map.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Look {
    /// Where the next step looks, and where its line begins.
    at: u32,
    line: u32,
    state: u32,
    digits: u32,
    length: u64,
    lengths: u32,
    /// Content types that were met.
    types: u32,
}

impl Look {
    pub const START: Self = Self { at: 0, line: 0, state: LINES, digits: 0, length: 0, lengths: 0, types: 0 };

    /// One step over bytes that end at `end`; false when there is no more to learn. `aligned(at)`: the eight bytes at `at`, which
    /// is a multiple of eight, little-endian; what lies behind the end does not matter.
    #[inline(always)]
    pub fn step(&mut self, end: u32, aligned: impl Fn(u32) -> u64) -> bool {
        let at = self.at;
        if at >= end {
            self.state = GIVEN_UP;
            return false;
        }
        let (start, shift) = (at & !7, (at & 7) * 8);
        let eight = aligned(start);
        if self.state == DIGITS {
            return self.digit((eight >> shift) as u8);
        }
        let newlines = zeros(eight ^ (0x0a * ONES)) & (u64::MAX << shift);
        if newlines == 0 {
            self.at = start + 8;
            return true;
        }
        let lowest = newlines & newlines.wrapping_neg();
        let newline = start + ((lowest >> 7).wrapping_mul(PLACES) >> 56) as u32;
        if newline >= end {
            self.state = GIVEN_UP;
            return false;
        }
        self.end_line(newline, aligned)
    }

    /// What the head says, if it is whole and says how long the body is, and nobody may want to read that.
    #[must_use]
    #[inline(always)]
    pub const fn announced(&self, direction: Direction) -> Option<Announced> {
        // A reply without a type is not said to be no document.
        let untyped = matches!(direction, Direction::Sent) && self.types == 0;
        if self.state != ENDED || self.lengths == 0 || untyped {
            return None;
        }
        let body = if self.length > MAX_BODY_BYTES { MAX_BODY_BYTES } else { self.length };
        Some(Announced { head_bytes: self.at, body_bytes: body as u32 })
    }

    #[inline(always)]
    fn digit(&mut self, byte: u8) -> bool {
        match byte {
            b' ' | b'\t' if self.digits == 0 => self.at += 1,
            b'0'..=b'9' if self.digits < MAX_DIGITS => {
                self.at += 1;
                self.digits += 1;
                self.length = self.length * 10 + u64::from(byte - b'0');
            }
            // The rest of a head whose body is copied in any case says nothing more.
            b'\r' | b'\n' if self.digits != 0 && self.length >= MIN_BODY_BYTES => {
                self.at = self.line;
                self.state = LINES;
            }
            _ => self.state = GIVEN_UP,
        }
        self.state != GIVEN_UP
    }

    /// The line ends with the newline there.
    #[inline(always)]
    fn end_line(&mut self, newline: u32, aligned: impl Fn(u32) -> u64) -> bool {
        let line = self.line;
        self.line = newline + 1;
        self.at = newline + 1;
        let first = anywhere(line, &aligned);
        let bytes = newline - line;
        if bytes == 0 || (bytes == 1 && first as u8 == b'\r') {
            self.state = ENDED;
            return false;
        }
        let name = first | FOLD;
        if name == word(*b"transfer") {
            self.state = GIVEN_UP;
        } else if name == word(*b"content-") {
            let rest = anywhere(line + 8, &aligned) | FOLD;
            if rest & SEVEN == word(*b"length:\0") {
                self.lengths += 1;
                self.at = line + 15;
                self.state = if self.lengths == 1 { DIGITS } else { GIVEN_UP };
            } else if rest & FIVE == word(*b"type:\0\0\0") {
                self.types += 1;
                let blank = u32::from(anywhere(line + 13, &aligned) as u8 == b' ');
                let kind = anywhere(line + 13 + blank, &aligned) | FOLD;
                let more = anywhere(line + 21 + blank, &aligned) | FOLD;
                // Documents are read.
                if kind == word(*b"text/xml") || (kind == word(*b"applicat") && more & SEVEN == word(*b"ion/xml\0")) {
                    self.state = GIVEN_UP;
                }
            }
        }
        self.state != GIVEN_UP
    }
}

/// The eight bytes at any place.
#[inline(always)]
fn anywhere(at: u32, aligned: impl Fn(u32) -> u64) -> u64 {
    let (start, shift) = (at & !7, (at & 7) * 8);
    // In two steps, because a shift by 64 is none.
    aligned(start) >> shift | aligned(start + 8) << 1 << (63 - shift)
}

/// The highest bit of each byte that is zero, exactly.
#[inline(always)]
const fn zeros(eight: u64) -> u64 {
    !(((eight & !HIGH) + !HIGH) | eight | !HIGH)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{format, string::String, vec::Vec};

    fn look(direction: Direction, bytes: &[u8]) -> Option<Announced> {
        looked(direction, bytes).0
    }

    /// With the number of steps that it took.
    fn looked(direction: Direction, bytes: &[u8]) -> (Option<Announced>, u32) {
        let mut padded: Vec<u8> = bytes.to_vec();
        // What lies behind is of somebody else.
        padded.extend_from_slice(b"\r\ncontent-length: 999999\r\n\r\n\n\n\n\n\n\n\n\n");
        padded.resize(padded.len().next_multiple_of(8) + 32, b'\n');
        let aligned = |at: u32| u64::from_le_bytes(padded[at as usize..at as usize + 8].try_into().unwrap());
        let (mut look, mut steps) = (Look::START, 0);
        while look.step(bytes.len() as u32, aligned) {
            steps += 1;
            assert!(steps < MAX_LOOK_STEPS);
        }
        (look.announced(direction), steps)
    }

    fn put(fields: &str) -> String {
        format!("PUT /b/k HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    }

    #[test]
    fn a_length_is_found_wherever_it_stands() {
        for before in 0..20 {
            for name in ["Content-Length: ", "content-length:", "CONTENT-LENGTH: \t"] {
                let filling = format!("X: {}\r\n", &"abcdefghijklmnopqrstuvwxyz"[..before]);
                let head = put(&format!("{filling}{name}67108864\r\n{filling}"));
                let found = Some(Announced { head_bytes: head.len() as u32, body_bytes: 67_108_864 });
                assert_eq!(look(Direction::Received, head.as_bytes()), found, "{head}");
                assert_eq!(look(Direction::Received, format!("{head}\r\n\r\nbody").as_bytes()), found, "{head}");
                for cut in 0..head.len() {
                    assert_eq!(look(Direction::Received, &head.as_bytes()[..cut]), None, "{cut} of {head}");
                }
            }
        }
        let bare = "PUT / HTTP/1.1\nContent-Length: 40000\n\n";
        let found = Announced { head_bytes: bare.len() as u32, body_bytes: 40_000 };
        assert_eq!(look(Direction::Received, bare.as_bytes()), Some(found));
        let huge = put("Content-Length: 5368709120\r\n");
        let found = Announced { head_bytes: huge.len() as u32, body_bytes: 1 << 30 };
        assert_eq!(look(Direction::Received, huge.as_bytes()), Some(found));
    }

    #[test]
    fn what_is_short_doubtful_or_to_be_read_is_left_alone() {
        for fields in [
            "",
            "Content-Length: 32767\r\n",
            "Content-Length: 67108864\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nContent-Length: 67108864\r\n",
            "Content-Length: 67108864\r\nContent-Length: 67108864\r\n",
            "Content-Length: 67108864, 67108864\r\n",
            "Content-Length: +67108864\r\n",
            "Content-Length: 0x4000000\r\n",
            "Content-Length: \r\n",
            "Content-Length: 1234567890123456\r\n",
            "Content-Length : 67108864\r\n",
            "Content-Lengths: 67108864\r\n",
            "X-Content-Length: 67108864\r\n",
            "X: y\r\n Content-Length: 67108864\r\n",
            "Content-Length: 67108864\r\nContent-Type: application/xml\r\n",
            "Content-Type:text/XML; charset=utf-8\r\nContent-Length: 67108864\r\n",
        ] {
            assert_eq!(look(Direction::Received, put(fields).as_bytes()), None, "{fields}");
        }
    }

    #[test]
    fn behind_a_length_that_is_short_nothing_is_looked_at() {
        let more = "X-Amz-Meta-Long: value\r\n".repeat(40);
        let (found, steps) = looked(Direction::Received, put(&format!("Content-Length: 4096\r\n{more}")).as_bytes());
        assert!(found.is_none() && steps < 20, "{steps} steps");
        let (found, steps) = looked(Direction::Received, put(&format!("Content-Length: 40960\r\n{more}")).as_bytes());
        assert!(found.is_some() && steps > 100, "{steps} steps");
    }

    #[test]
    fn replies_say_what_they_are() {
        let reply = |fields| format!("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n{fields}\r\n");
        assert_eq!(look(Direction::Sent, reply("").as_bytes()), None);
        assert_eq!(look(Direction::Sent, reply("Content-Type: application/xml\r\n").as_bytes()), None);
        let object = reply("Content-Type: application/octet-stream\r\n");
        let found = Announced { head_bytes: object.len() as u32, body_bytes: 1 << 20 };
        assert_eq!(look(Direction::Sent, object.as_bytes()), Some(found));
    }

    #[test]
    fn beginnings() {
        let words = |text: &[u8; 16]| {
            (u64::from_le_bytes(text[..8].try_into().unwrap()), u64::from_le_bytes(text[8..].try_into().unwrap()))
        };
        let left_out = |direction, request: &[u8; 4], text| {
            let (first, second) = words(text);
            may_be_left_out(direction, half(*request), first, second)
        };
        assert!(left_out(Direction::Received, b"\0\0\0\0", b"PUT /b/k HTTP/1."));
        assert!(!left_out(Direction::Received, b"\0\0\0\0", b"POST /b?delete H"));
        assert!(left_out(Direction::Sent, b"GET ", b"HTTP/1.1 206 Par"));
        for (request, text) in [
            (b"GET ", b"HTTP/1.1 304 Not"),
            (b"GET ", b"HTTP/1.1 404 Not"),
            (b"PUT ", b"HTTP/1.1 100 Con"),
            (b"HEAD", b"HTTP/1.1 200 OK\r"),
            (b"POST", b"HTTP/1.1 200 OK\r"),
        ] {
            assert!(!left_out(Direction::Sent, request, text), "{request:?} {text:?}");
        }
        for text in [b"PUT /b/k HTTP/1.", b"GET /b/k HTTP/1.", b"DELETE /b/k HTTP"] {
            assert!(begins(Direction::Received, words(text).0));
            assert!(!begins(Direction::Sent, words(text).0));
        }
        assert!(!begins(Direction::Received, words(b"PUTTY is a body.").0));
    }
}
