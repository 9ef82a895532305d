//! Does a stream begin with a message head? Decided byte by byte, from the first line alone.

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A first line may still come of it.
    Open,
    /// It is the first line of a head.
    Yes,
    /// It is the HTTP/2 connection preface (RFC 9113, 3.4).
    Http2,
    /// It is no head; the byte that showed it does not belong to what came before.
    No,
}

/// Which first line is looked for, and how much of it has been met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// In the method: how many bytes it has.
    Method(u8),
    /// In the target: whether it has a byte.
    Target(bool),
    /// In what may be the version: how many bytes of `HTTP/` fit.
    Version(u8),
    /// Behind `HTTP/`, or in the white space behind the version.
    Major,
    Minor,
    LineEnd,
    /// In a status line: how many bytes fit.
    Status(u8),
    /// The verdict has been given.
    Decided,
}

/// Longer than any registered method (the longest has 17 bytes).
const MAX_METHOD_BYTES: u8 = 64;
const PROTOCOL: &[u8] = b"HTTP/";

impl Probe {
    pub(crate) const REQUEST: Self = Self::Method(0);
    pub(crate) const REPLY: Self = Self::Status(0);

    /// Whether any byte of a target but a space changes nothing.
    pub(crate) const fn is_in_target(self) -> bool {
        matches!(self, Self::Target(true))
    }

    /// Takes the next byte. After a verdict other than `Open` the probe is spent.
    pub(crate) fn push(&mut self, byte: u8) -> Verdict {
        let next = match *self {
            Self::Method(0) if !is_token(byte) => None,
            Self::Method(_) if byte == b' ' => Some(Self::Target(false)),
            Self::Method(n) if n < MAX_METHOD_BYTES && is_token(byte) => Some(Self::Method(n + 1)),
            Self::Method(_) => None,
            Self::Target(true) if byte == b' ' => Some(Self::Version(0)),
            Self::Target(_) => target(byte),
            Self::Version(n) if PROTOCOL.get(usize::from(n)) == Some(&byte) => {
                Some(if usize::from(n) + 1 == PROTOCOL.len() { Self::Major } else { Self::Version(n + 1) })
            }
            // A target with a space in it is wrong, and servers meet it.
            Self::Version(_) if byte == b' ' => Some(Self::Version(0)),
            Self::Version(_) => target(byte),
            Self::Major if byte == b'1' => Some(Self::Minor),
            Self::Major if byte == b'2' => {
                *self = Self::Decided;
                return Verdict::Http2;
            }
            Self::Major => target(byte),
            Self::Minor if byte == b'.' => Some(Self::Minor),
            Self::Minor if byte.is_ascii_digit() => Some(Self::LineEnd),
            Self::Minor => target(byte),
            Self::LineEnd if byte == b'\n' => {
                *self = Self::Decided;
                return Verdict::Yes;
            }
            Self::LineEnd if matches!(byte, b'\r' | b' ') => Some(Self::LineEnd),
            Self::LineEnd => target(byte),
            Self::Status(n) => return self.status(n, byte),
            Self::Decided => None,
        };
        *self = next.unwrap_or(Self::Decided);
        if next.is_some() { Verdict::Open } else { Verdict::No }
    }

    /// `HTTP/1.` digit, space, three digits, then a space or the line's end.
    fn status(&mut self, n: u8, byte: u8) -> Verdict {
        let fits = match n {
            0..=6 => b"HTTP/1.".get(usize::from(n)) == Some(&byte),
            7 | 9..=11 => byte.is_ascii_digit(),
            8 => byte == b' ',
            _ => matches!(byte, b' ' | b'\r' | b'\n'),
        };
        let verdict = match (fits, n) {
            (false, _) => Verdict::No,
            (true, 12) => Verdict::Yes,
            (true, _) => Verdict::Open,
        };
        *self = if verdict == Verdict::Open { Self::Status(n + 1) } else { Self::Decided };
        verdict
    }
}

/// A byte of a request target. Bytes above 127 are wrong, and servers meet them.
const fn target(byte: u8) -> Option<Probe> {
    if byte < 0x20 || byte == 0x7f { None } else { Some(Probe::Target(true)) }
}

/// RFC 9110, 5.6.2.
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(mut probe: Probe, bytes: &[u8]) -> Verdict {
        bytes.iter().map(|byte| probe.push(*byte)).find(|verdict| *verdict != Verdict::Open).unwrap_or(Verdict::Open)
    }

    #[test]
    fn request_lines() {
        for yes in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\n",
            "PUT /a b HTTP/1.1\r\n",
            "x *  HTTP/1.1 \r\n",
            "GET /HTTP/ HTTP/1.1\n",
        ] {
            assert_eq!(verdict(Probe::REQUEST, yes.as_bytes()), Verdict::Yes, "{yes}");
        }
        for no in
            ["\x16\x03\x01", "GET /\r\n", "GET / HTTP/3.0\r\n", "a\tb", " GET / HTTP/1.1\r\n", "{\"a\": 1} HTTP/1.1\n"]
        {
            assert_eq!(verdict(Probe::REQUEST, no.as_bytes()), Verdict::No, "{no}");
        }
        assert_eq!(verdict(Probe::REQUEST, b"PRI * HTTP/2.0\r\n"), Verdict::Http2);
        assert_eq!(verdict(Probe::REQUEST, b"GET /aaaa"), Verdict::Open);
    }

    #[test]
    fn status_lines() {
        for yes in ["HTTP/1.1 200 OK", "HTTP/1.0 404\r"] {
            assert_eq!(verdict(Probe::REPLY, yes.as_bytes()), Verdict::Yes, "{yes}");
        }
        for no in ["HTTP/2 200 ", "HTTP/1.1 20 ", "<html>", "HTTP/1.1 2000"] {
            assert_eq!(verdict(Probe::REPLY, no.as_bytes()), Verdict::No, "{no}");
        }
    }
}
