//! Collects one head, however it is cut. Each byte is looked at once.

use super::head::{Field, Headers};
use super::plain;
use super::probe::{Probe, Verdict};

/// What came of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// All bytes are in; more are needed.
    More,
    /// The first line is there: it is a head.
    FirstLine,
    /// It begins like the HTTP/2 preface.
    Http2,
    /// It is no head. What is buffered, and the bytes not used, are something else.
    Rejected,
    /// The head is whole: the buffer holds it with its empty line.
    End,
    /// The limit was passed.
    TooLong,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct HeadReader {
    bytes: Vec<u8>,
    probe: Probe,
    decided: bool,
    line_start: usize,
    lines: usize,
    /// Looked for where it need not be: only what is certainly a request line counts.
    strict: bool,
    /// Empty lines before a request are no part of it (RFC 9112, 2.2).
    skip_empty_lines: bool,
    bare_lf: bool,
    /// All fields, if the head is a plain one and they came at once.
    fields: Vec<Field>,
    /// When its first byte moved, and the other direction's position then.
    pub(crate) first_ns: u64,
    pub(crate) first_other: u64,
}

impl HeadReader {
    pub(crate) const fn request() -> Self {
        Self::new(Probe::REQUEST, true, false)
    }

    /// For a place where a request may begin, or not: its method must be a usual one and its target well-formed.
    pub(crate) const fn certain_request() -> Self {
        Self::new(Probe::REQUEST, false, true)
    }

    pub(crate) const fn reply() -> Self {
        Self::new(Probe::REPLY, false, false)
    }

    const fn new(probe: Probe, skip_empty_lines: bool, strict: bool) -> Self {
        Self {
            bytes: Vec::new(),
            probe,
            decided: false,
            line_start: 0,
            lines: 0,
            strict,
            skip_empty_lines,
            bare_lf: false,
            fields: Vec::new(),
            first_ns: 0,
            first_other: 0,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives away the fields of a plain head, and the bytes with them.
    pub(crate) fn take_plain(&mut self) -> Option<Headers> {
        if self.fields.is_empty() {
            return None;
        }
        Some(Headers::in_head(std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields)))
    }

    /// The first line has been met.
    pub(crate) const fn is_decided(&self) -> bool {
        self.decided
    }

    /// Lines that the head has: no less than its fields.
    pub(crate) const fn lines(&self) -> usize {
        self.lines
    }

    pub(crate) const fn has_bare_lf(&self) -> bool {
        self.bare_lf
    }

    /// Takes bytes until something happens; says how many were used (empty lines before the head included).
    pub(crate) fn push(&mut self, bytes: &[u8], max: usize) -> (usize, Event) {
        let mut used = 0;
        if self.bytes.is_empty() && self.skip_empty_lines {
            used = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        }
        if !self.decided {
            // Most heads come in one piece, with little behind them.
            let rest = bytes.get(used..).unwrap_or_default();
            self.bytes.reserve(rest.len().min(USUAL_BYTES).min(max));
            if let Some(first) = self.plain_first_line(rest).filter(|first| first.len() <= max) {
                self.bytes.extend_from_slice(first);
                self.decided = true;
                self.note_line_if_ended();
                return (used + first.len(), Event::FirstLine);
            }
            while let Some(byte) = bytes.get(used) {
                let plain = self.plain_target(bytes.get(used..).unwrap_or_default(), max);
                if !plain.is_empty() {
                    self.bytes.extend_from_slice(plain);
                    used += plain.len();
                    continue;
                }
                match self.probe.push(*byte) {
                    Verdict::No => return (used, Event::Rejected),
                    Verdict::Http2 => return (used, Event::Http2),
                    verdict => {
                        if self.bytes.len() >= max {
                            return (used, Event::TooLong);
                        }
                        let method_is_whole = self.bytes.len() == LONGEST_METHOD + 1 || verdict == Verdict::Yes;
                        if self.strict && method_is_whole && !is_certain(&self.bytes, verdict == Verdict::Yes) {
                            return (used, Event::Rejected);
                        }
                        self.bytes.push(*byte);
                        used += 1;
                        if verdict == Verdict::Yes {
                            self.decided = true;
                            self.note_line_if_ended();
                            return (used, Event::FirstLine);
                        }
                    }
                }
            }
            return (used, Event::More);
        }
        if self.line_start < self.bytes.len() {
            // A line that came in part.
            let rest = bytes.get(used..).unwrap_or_default();
            let line = memchr::memchr(b'\n', rest).and_then(|at| rest.get(..=at)).unwrap_or(rest);
            if self.bytes.len().saturating_add(line.len()) > max {
                return (used, Event::TooLong);
            }
            self.bytes.extend_from_slice(line);
            used += line.len();
            if line.last() != Some(&b'\n') {
                return (used, Event::More);
            }
            if self.note_line_if_ended() {
                return (used, Event::End);
            }
        }
        let rest = bytes.get(used..).unwrap_or_default();
        if self.lines == 1
            && self.line_start == self.bytes.len()
            && let Some((fields, len)) = plain::fields(rest, self.bytes.len())
            && self.bytes.len().saturating_add(len) <= max
        {
            self.bytes.extend_from_slice(rest.get(..len).unwrap_or_default());
            self.line_start = self.bytes.len();
            self.lines += fields.len() + 1;
            self.fields = fields;
            return (used + len, Event::End);
        }
        let (lines, event) = self.push_lines(bytes.get(used..).unwrap_or_default(), max);
        (used + lines, event)
    }

    /// Takes whole lines, and the beginning of one behind them.
    fn push_lines(&mut self, bytes: &[u8], max: usize) -> (usize, Event) {
        let room = max.saturating_sub(self.bytes.len());
        let mut used = 0;
        let mut event = Event::More;
        for end in memchr::memchr_iter(b'\n', bytes).map(|at| at + 1) {
            if end > room {
                event = Event::TooLong;
                break;
            }
            let line = bytes.get(used..end).unwrap_or_default();
            self.bare_lf |= !line.ends_with(b"\r\n");
            self.lines += 1;
            used = end;
            if matches!(line, b"\n" | b"\r\n") {
                event = Event::End;
                break;
            }
        }
        self.line_start = self.bytes.len() + used;
        if event == Event::More {
            if bytes.len() > room {
                event = Event::TooLong;
            } else {
                used = bytes.len();
            }
        }
        self.bytes.extend_from_slice(bytes.get(..used).unwrap_or_default());
        (used, event)
    }

    /// The first line, or as much of it as the probe would ask for, if it comes at once and is as plain as can be.
    fn plain_first_line<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if !self.bytes.is_empty() || self.strict {
            return None;
        }
        match self.probe {
            Probe::REQUEST => {
                let (method, target, _) = plain::request_line(bytes)?;
                bytes.get(..method + target + 12)
            }
            Probe::REPLY => plain::status_line(bytes).and_then(|_| bytes.get(..13)),
            _ => None,
        }
    }

    /// How much comes next of a target that the probe need not look at byte by byte.
    fn plain_target<'b>(&self, bytes: &'b [u8], max: usize) -> &'b [u8] {
        if self.strict || !self.probe.is_in_target() {
            return &[];
        }
        let room = max.saturating_sub(self.bytes.len());
        let plain = bytes.iter().take(room).take_while(|byte| **byte > b' ' && **byte != 0x7f).count();
        bytes.get(..plain).unwrap_or_default()
    }

    /// Whether the line that just ended is the empty one.
    fn note_line_if_ended(&mut self) -> bool {
        if self.bytes.last() != Some(&b'\n') {
            return false;
        }
        let line = self.bytes.get(self.line_start..).unwrap_or_default();
        let empty = matches!(line, b"\n" | b"\r\n");
        self.bare_lf |= !line.ends_with(b"\r\n");
        self.line_start = self.bytes.len();
        self.lines += 1;
        empty
    }
}

/// Heads that are no longer than this are gathered without taking memory twice.
const USUAL_BYTES: usize = 1024;

/// The methods of RFC 9110 and PATCH; S3 knows no others.
const METHODS: [&[u8]; 9] = [b"GET", b"PUT", b"HEAD", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];
const LONGEST_METHOD: usize = 7;

/// Whether a line begins with a usual method and, when it is whole, has three words.
fn is_certain(line: &[u8], whole: bool) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    words.next().is_some_and(|method| METHODS.contains(&method)) && (!whole || words.count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_at_a_time_ends_at_the_empty_line() {
        let head = b"\r\nGET / HTTP/1.1\r\nA: b\n\r\n";
        let mut reader = HeadReader::request();
        let events: Vec<_> =
            head.iter().map(|byte| reader.push(&[*byte], 100).1).filter(|event| *event != Event::More).collect();
        assert_eq!(events, [Event::FirstLine, Event::End]);
        assert_eq!(reader.bytes(), &head[2..]);
        assert!(reader.has_bare_lf());
        assert_eq!(reader.lines(), 3);
    }

    #[test]
    fn limit() {
        let mut reader = HeadReader::request();
        assert_eq!(reader.push(b"GET / HTTP/1.1\r\nabcdefgh", 20).1, Event::FirstLine);
        assert_eq!(reader.push(b"abcdefgh", 20), (0, Event::TooLong));
    }
}
