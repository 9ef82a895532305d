//! A frame as it is kept: a head that tells what it is, a body with its lines, a checksum on each.
//!
//! Head: JSON. Body: the number of lines, the length of each (u32, little endian), then the lines themselves.

use super::known::Info;
use super::{Frame, Mark, Range};
use crate::ledger::Count;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is known of a frame without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) number: u64,
    key: u128,
    pub(super) mark: Mark,
    pub(super) records: u64,
    /// Of the lines, line ends not counted.
    pub(super) bytes: u64,
    body_checksum: u32,
}

/// A frame in the form of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) head: Vec<u8>,
    pub(super) checksum: u32,
    pub(super) body: Vec<u8>,
}

impl Row {
    /// `None`: a line of 4 GiB, or so many lines.
    pub(super) fn new(number: u64, key: Uuid, mark: &Mark, lines: &[Bytes]) -> Option<(Self, Head)> {
        let bytes: usize = lines.iter().map(Bytes::len).sum();
        let mut body = Vec::with_capacity(4 + 4 * lines.len() + bytes);
        body.extend_from_slice(&u32::try_from(lines.len()).ok()?.to_le_bytes());
        for line in lines {
            body.extend_from_slice(&u32::try_from(line.len()).ok()?.to_le_bytes());
        }
        for line in lines {
            body.extend_from_slice(line);
        }
        let head = Head {
            number,
            key: key.as_u128(),
            mark: mark.clone(),
            records: lines.len() as u64,
            bytes: bytes as u64,
            body_checksum: crc32fast::hash(&body),
        };
        let text = serde_json::to_vec(&head).ok()?;
        Some((Self { checksum: crc32fast::hash(&text), head: text, body }, head))
    }

    /// The frame, if every byte of it is what was written.
    pub(super) fn frame(self, number: u64) -> Option<Frame> {
        let head = Head::read(number, &self.head, self.checksum)?;
        if crc32fast::hash(&self.body) != head.body_checksum {
            return None;
        }
        let Range { instance_id, first, .. } = head.range();
        let lines = lines(&Bytes::from(self.body))?;
        Some(Frame { number, key: Uuid::from_u128(head.key), lines, instance_id, first_sequence: first })
    }
}

impl Head {
    /// The head of that frame, if it is whole.
    pub(super) fn read(number: u64, text: &[u8], checksum: u32) -> Option<Self> {
        if crc32fast::hash(text) != checksum {
            return None;
        }
        serde_json::from_slice::<Self>(text).ok().filter(|head| head.number == number)
    }

    /// What is remembered of it.
    pub(super) fn info(&self) -> Info {
        Info { range: self.range(), time_ns: self.mark.time_ns }
    }

    /// The sequence numbers of its lines.
    fn range(&self) -> Range {
        Range::of(&self.mark, Count { records: self.records, bytes: self.bytes })
    }
}

fn lines(body: &Bytes) -> Option<Vec<Bytes>> {
    let number = |at: usize| {
        let bytes = body.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let mut at = count.checked_mul(4)?.checked_add(4)?;
    let mut lines = Vec::with_capacity(count.min(body.len()));
    for nth in 0..count {
        let end = at.checked_add(number(4 + 4 * nth)?)?;
        if end > body.len() {
            return None;
        }
        lines.push(body.slice(at..end));
        at = end;
    }
    (at == body.len()).then_some(lines)
}
