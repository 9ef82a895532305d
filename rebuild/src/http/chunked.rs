//! The chunked transfer coding (RFC 9112, 7.1): where data is, and where it ends.

/// A chunk-size line, with its extensions, may not be longer.
const MAX_LINE_BYTES: u32 = 16 * 1024;
/// Nor may all trailer fields together.
const MAX_TRAILER_BYTES: u32 = 1024 * 1024;

/// See the module. A bare LF ends a line too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In the digits of a size: the value, and how many bytes the line has.
    Size { value: u64, line: u32 },
    /// Behind the digits, up to the line's end.
    Extension { value: u64, line: u32 },
    /// In the data: bytes left.
    Data(u64),
    /// Behind the data, before its line end.
    DataEnd,
    /// In the trailer section: whether the line has a byte yet, and how many bytes all lines have.
    Trailer { line_has_bytes: bool, total: u32 },
}

/// What the next bytes are; each but `Broken` says how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Framing(usize),
    Data(usize),
    End(usize),
    Broken,
}

impl Chunked {
    pub(crate) const START: Self = Self::Size { value: 0, line: 0 };

    /// Data bytes up to the end of the chunk.
    pub(crate) const fn data_left(&self) -> u64 {
        if let Self::Data(left) = self { *left } else { 0 }
    }

    /// Passes over unseen bytes; false when they reach beyond the chunk's data.
    pub(crate) fn pass(&mut self, count: u64) -> bool {
        match self {
            Self::Data(left) if count <= *left => {
                *left -= count;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                true
            }
            _ => count == 0,
        }
    }

    /// Takes the first of `bytes`, which is not empty, and as many more as are of the same kind.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Step {
        if let Self::Data(left) = *self {
            let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let left = left.saturating_sub(count as u64);
            *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
            return Step::Data(count);
        }
        let Some(byte) = bytes.first().copied() else { return Step::Framing(0) };
        let next = match *self {
            Self::Size { value, line } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) => value
                    .checked_mul(16)
                    .and_then(|value| value.checked_add(u64::from(digit)))
                    .filter(|_| line < MAX_LINE_BYTES)
                    .map(|value| Self::Size { value, line: line + 1 }),
                (None, b'\n') if line > 0 => Some(Self::after_size(value)),
                (None, b'\r' | b';' | b' ' | b'\t') if line > 0 => Some(Self::Extension { value, line }),
                (None, _) => None,
            },
            Self::Extension { value, .. } if byte == b'\n' => Some(Self::after_size(value)),
            Self::Extension { value, line } => {
                (line < MAX_LINE_BYTES).then_some(Self::Extension { value, line: line + 1 })
            }
            Self::DataEnd => match byte {
                b'\r' => Some(Self::DataEnd),
                b'\n' => Some(Self::START),
                _ => None,
            },
            Self::Trailer { line_has_bytes: false, .. } if byte == b'\n' => return Step::End(1),
            Self::Trailer { total, .. } if total >= MAX_TRAILER_BYTES => None,
            Self::Trailer { total, .. } if byte == b'\n' => {
                Some(Self::Trailer { line_has_bytes: false, total: total + 1 })
            }
            Self::Trailer { line_has_bytes, total } => {
                Some(Self::Trailer { line_has_bytes: line_has_bytes || byte != b'\r', total: total + 1 })
            }
            Self::Data(_) => None,
        };
        match next {
            Some(next) => {
                *self = next;
                Step::Framing(1)
            }
            None => Step::Broken,
        }
    }

    const fn after_size(value: u64) -> Self {
        if value == 0 { Self::Trailer { line_has_bytes: false, total: 0 } } else { Self::Data(value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, and how many bytes the coding took; None: broken or not at its end.
    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (mut chunked, mut data, mut at) = (Chunked::START, Vec::new(), 0);
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            match chunked.step(rest) {
                Step::Framing(count) => at += count,
                Step::Data(count) => {
                    data.extend_from_slice(&rest[..count]);
                    at += count;
                }
                Step::End(count) => return Some((data, at + count)),
                Step::Broken => return None,
            }
        }
    }

    #[test]
    fn sizes_extensions_trailers() {
        assert_eq!(decode(b"5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\nrest"), Some((b"hello".to_vec(), 27)));
        assert_eq!(decode(b"A\n0123456789\n0\n\n"), Some((b"0123456789".to_vec(), 16)));
        assert_eq!(decode(b"\r\n"), None);
        assert_eq!(decode(b"5\r\nhelloX"), None);
        assert_eq!(decode(b"11111111111111111\r\n"), None);
        assert_eq!(decode(b"-1\r\n"), None);
    }

    #[test]
    fn unseen_data_may_be_passed_and_nothing_else() {
        let mut chunked = Chunked::Data(5);
        assert!(chunked.pass(4));
        assert!(chunked.pass(1));
        assert_eq!(chunked, Chunked::DataEnd);
        assert!(!chunked.pass(1));
    }
}
