//! How long a message is, as far as the kernel side may look: only to copy less of a body, never to say what a message is.
//!
//! [`Look`] goes through the bytes in front by steps of eight, each small enough for the verifier. A mistake costs bytes that are
//! withheld, and counted (docs/decisions/0066-a-budget-from-the-head.md, 0081-chunks-are-followed-in-the-kernel.md).
#![expect(clippy::cast_possible_truncation, reason = "the low bytes of a word are what is meant")]
#![expect(clippy::inline_always, reason = "the verifier of old kernels follows a function's numbers one by one")]

use crate::sample::Direction;

/// So many bytes of a call's beginning are looked at: a head that is longer keeps the usual budget.
pub const LOOK_BYTES: u32 = 4096;

/// The most steps of a [`Look`]: one for eight bytes, and some for each line and each digit.
pub const MAX_LOOK_STEPS: u32 = LOOK_BYTES / 8 + 256;

/// A body that is shorter is copied as ever.
pub const MIN_BODY_BYTES: u64 = 32 * 1024;

/// A body, and a chunk, is taken for no longer than this: sequence numbers are compared as signed distances.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// A longer value is none that we know.
const MAX_DIGITS: u32 = 15;

const LINES: u32 = 0;
const DIGITS: u32 = 1;
const ENDED: u32 = 2;
const GIVEN_UP: u32 = 3;
/// In the line in front of a chunk.
const SIZE: u32 = 4;
/// In a chunk that goes on behind the end.
const DATA: u32 = 5;
/// The head goes on behind the end.
const CUT: u32 = 6;

/// In [`Look::kept`] of a chunk's line: digits were read.
const DIGITS_READ: u32 = 1 << 31;
/// In that of a head: the body comes in chunks.
const CHUNKED: u32 = 1 << 31;
/// The body's length was met, which is below the other bits.
const LENGTH_READ: u32 = 1 << 30;
/// In the middle of a line that says nothing.
const IN_LINE: u32 = 1 << 29;

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

/// What a direction is in the middle of, as far as a look could tell ([`crate::settings::Place::inside`]).
pub mod inside {
    /// Nothing that is known.
    pub const NOTHING: u32 = 0;
    /// A body of known length.
    pub const BODY: u32 = 1;
    /// A chunk of a body.
    pub const CHUNK: u32 = 2;
    /// Where a chunk's line begins, or goes on.
    pub const SIZE: u32 = 3;
    /// Where a head goes on.
    pub const HEAD: u32 = 4;

    /// Whether the next call goes on with what the last one ended in the middle of.
    #[must_use]
    #[inline(always)]
    pub const fn resumes(inside: u32) -> bool {
        inside >= SIZE
    }

    /// Whether it is a body in chunks, the last line of which was understood.
    #[must_use]
    #[inline(always)]
    pub const fn follows_chunks(inside: u32) -> bool {
        matches!(inside, CHUNK | SIZE)
    }

    /// What comes at its end.
    #[must_use]
    #[inline(always)]
    pub const fn behind(inside: u32) -> u32 {
        if inside == CHUNK { SIZE } else { NOTHING }
    }
}

/// What a look has found. (No enum: a variant's missing fields would be spilled uninitialised, which the verifier refuses.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the direction is in behind `at`.
    pub inside: u32,
    /// Where that begins.
    pub at: u32,
    /// How long it is; no more than the sequence numbers allow.
    pub bytes: u32,
}

impl Found {
    const NOTHING: Self = Self { inside: inside::NOTHING, at: 0, bytes: 0 };
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
    /// 1: the body comes in chunks.
    chunked: u32,
    /// 1: the first line is the rest of one that says nothing.
    in_line: u32,
}

impl Look {
    pub const START: Self =
        Self { at: 0, line: 0, state: LINES, digits: 0, length: 0, lengths: 0, types: 0, chunked: 0, in_line: 0 };

    /// Goes on with a head, or with the line in front of a chunk, of which so much was kept.
    #[must_use]
    #[inline(always)]
    pub const fn resumed(inside: u32, kept: u32) -> Self {
        if inside == inside::SIZE {
            let length = (kept & !DIGITS_READ) as u64;
            return Self { state: SIZE, digits: kept >> 31, length, ..Self::START };
        }
        Self {
            length: (kept & (IN_LINE - 1)) as u64,
            lengths: (kept & LENGTH_READ != 0) as u32,
            chunked: (kept & CHUNKED != 0) as u32,
            in_line: (kept & IN_LINE != 0) as u32,
            ..Self::START
        }
    }

    /// What the next look has to know, if this one ended in the middle of something.
    #[must_use]
    #[inline(always)]
    pub const fn kept(&self) -> u32 {
        match self.state {
            SIZE if self.digits != 0 => DIGITS_READ | self.length as u32,
            CUT => {
                let most = (IN_LINE - 1) as u64;
                let length = if self.length > most { most } else { self.length };
                self.chunked << 31 | self.lengths << 30 | self.in_line << 29 | length as u32
            }
            _ => 0,
        }
    }

    /// One step over bytes that end at `end`; false when there is no more to learn. `aligned(at)`: the eight bytes at `at`, which
    /// is a multiple of eight, little-endian; what lies behind the end does not matter.
    #[inline(always)]
    pub fn step(&mut self, end: u32, aligned: impl Fn(u32) -> u64) -> bool {
        let at = self.at;
        if at >= end {
            self.run_out(end, aligned);
            return false;
        }
        let (start, shift) = (at & !7, (at & 7) * 8);
        let eight = aligned(start);
        if self.state == DIGITS {
            return self.digit((eight >> shift) as u8);
        }
        if self.state == SIZE {
            return self.size_digit((eight >> shift) as u8, end);
        }
        let newlines = zeros(eight ^ (0x0a * ONES)) & (u64::MAX << shift);
        if newlines == 0 {
            self.at = start + 8;
            return true;
        }
        let lowest = newlines & newlines.wrapping_neg();
        let newline = start + ((lowest >> 7).wrapping_mul(PLACES) >> 56) as u32;
        if newline >= end {
            self.run_out(end, aligned);
            return false;
        }
        self.end_line(newline, aligned)
    }

    /// There is no more. A line that says something must be whole.
    #[inline(always)]
    fn run_out(&mut self, end: u32, aligned: impl Fn(u32) -> u64) {
        if self.state == SIZE {
            return;
        }
        let rest = end.wrapping_sub(self.line);
        let name = anywhere(self.line, &aligned) | FOLD;
        let says_nothing = rest >= 8 && name != word(*b"transfer") && name != word(*b"content-");
        let in_line = self.in_line != 0 || (rest != 0 && says_nothing);
        self.state = if self.state == LINES && (in_line || rest == 0) { CUT } else { GIVEN_UP };
        self.in_line = u32::from(in_line);
        self.at = end;
    }

    /// What comes behind the bytes that were looked at, if they say that, and nobody may want to read it.
    #[must_use]
    #[inline(always)]
    pub const fn found(&self, direction: Direction) -> Found {
        let is_request = matches!(direction, Direction::Received);
        match self.state {
            // A reply without a type is not said to be no document.
            ENDED if self.lengths != 0 && (is_request || self.types != 0) => {
                let body = if self.length > MAX_BODY_BYTES { MAX_BODY_BYTES } else { self.length };
                Found { inside: inside::BODY, at: self.at, bytes: body as u32 }
            }
            DATA if is_request => Found { inside: inside::CHUNK, at: self.at, bytes: self.length as u32 },
            SIZE if is_request => Found { inside: inside::SIZE, at: self.at, bytes: 0 },
            CUT if is_request => Found { inside: inside::HEAD, at: self.at, bytes: 0 },
            _ => Found::NOTHING,
        }
    }

    /// A byte of the line in front of a chunk, or of the end of the line behind the one before.
    #[inline(always)]
    fn size_digit(&mut self, byte: u8, end: u32) -> bool {
        self.at += 1;
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' => return true,
            b'\n' => return self.digits == 0 || self.begin_chunk(end),
            // With an extension, which nobody sends.
            _ => {
                self.state = GIVEN_UP;
                return false;
            }
        };
        self.digits = 1;
        self.length = self.length << 4 | digit as u64;
        if self.length > MAX_BODY_BYTES {
            self.state = GIVEN_UP;
        }
        self.state != GIVEN_UP
    }

    /// A chunk begins: passed over, if the next one's line is within what is looked at.
    #[inline(always)]
    fn begin_chunk(&mut self, end: u32) -> bool {
        if self.length == 0 {
            // The last one.
            self.state = GIVEN_UP;
        } else if self.length <= (end - self.at) as u64 {
            self.at += self.length as u32;
            self.digits = 0;
            self.length = 0;
        } else {
            self.state = DATA;
        }
        self.state == SIZE
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
        if self.in_line != 0 {
            self.in_line = 0;
            return true;
        }
        let first = anywhere(line, &aligned);
        let bytes = newline - line;
        if bytes == 0 || (bytes == 1 && first as u8 == b'\r') {
            self.state = match (self.chunked, self.lengths) {
                (0, _) => ENDED,
                (_, 0) => SIZE,
                _ => GIVEN_UP,
            };
            return self.state == SIZE;
        }
        let name = first | FOLD;
        if name == word(*b"transfer") {
            self.state = if self.chunked == 0 && is_chunked(line, newline, &aligned) { LINES } else { GIVEN_UP };
            self.chunked = 1;
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

/// Whether a line that begins with `transfer` is of the only coding that is followed.
#[inline(always)]
fn is_chunked(line: u32, newline: u32, aligned: &impl Fn(u32) -> u64) -> bool {
    let middle = anywhere(line + 8, aligned) | FOLD;
    let colon = anywhere(line + 16, aligned) | FOLD;
    let value = line + 18 + u32::from((colon >> 16) as u8 == b' ');
    let coding = anywhere(value, aligned) | FOLD;
    let behind = newline.wrapping_sub(value + 7);
    let is_all = behind == 0 || (behind == 1 && coding >> 56 == u64::from(b'\r' | 0x20));
    middle == word(*b"-encodin")
        && colon as u16 == u16::from_le_bytes(*b"g:")
        && coding & SEVEN == word(*b"chunked\0")
        && is_all
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
mod tests;
