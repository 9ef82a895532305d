//! A frame as it is kept: a head that tells what it is, a body with its lines, a checksum on each.
//!
//! Head: JSON. Body: the number of lines, the length of each (u32, little endian), then the lines themselves; packed as one block
//! of LZ4 where the head says so.

use super::known::Info;
use super::{Frame, Mark, Range};
use crate::config::SpoolCompression;
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
    /// Of the body as it is kept.
    body_checksum: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    packed: bool,
}

/// The lines of a frame in the form of their column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    bytes: Bytes,
    packed: bool,
    checksum: u32,
    /// Of the lines.
    pub(super) count: Count,
}

impl Body {
    /// `None`: a line of 4 GiB, or so many lines.
    pub(super) fn of(lines: &[Bytes], compression: SpoolCompression) -> Option<Self> {
        let count = Count::of(lines);
        let mut plain = Vec::with_capacity(usize::try_from(length(count)?).ok()?);
        plain.extend_from_slice(&u32::try_from(lines.len()).ok()?.to_le_bytes());
        for line in lines {
            plain.extend_from_slice(&u32::try_from(line.len()).ok()?.to_le_bytes());
        }
        for line in lines {
            plain.extend_from_slice(line);
        }
        let packed = match compression {
            SpoolCompression::Lz4 => {
                Some(lz4_flex::block::compress(&plain)).filter(|packed| packed.len() < plain.len())
            }
            SpoolCompression::None => None,
        };
        let (is_packed, bytes) = (packed.is_some(), packed.unwrap_or(plain));
        Some(Self { checksum: crc32fast::hash(&bytes), bytes: bytes.into(), packed: is_packed, count })
    }
}

/// How long a body is that is not packed.
fn length(count: Count) -> Option<u64> {
    count.records.checked_mul(4)?.checked_add(4)?.checked_add(count.bytes)
}

/// A frame in the form of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) head: Vec<u8>,
    pub(super) checksum: u32,
    pub(super) body: Bytes,
}

impl Row {
    /// `None`: the mark cannot be written.
    pub(super) fn new(number: u64, key: Uuid, mark: &Mark, body: &Body) -> Option<(Self, Head)> {
        let head = Head {
            number,
            key: key.as_u128(),
            mark: mark.clone(),
            records: body.count.records,
            bytes: body.count.bytes,
            body_checksum: body.checksum,
            packed: body.packed,
        };
        let text = serde_json::to_vec(&head).ok()?;
        Some((Self { checksum: crc32fast::hash(&text), head: text, body: body.bytes.clone() }, head))
    }

    /// The frame, if every byte of it is what was written.
    pub(super) fn frame(self, number: u64) -> Option<Frame> {
        let head = Head::read(number, &self.head, self.checksum)?;
        if crc32fast::hash(&self.body) != head.body_checksum {
            return None;
        }
        let body = if head.packed { unpacked(&self.body, &head)? } else { self.body };
        Some(Frame::of(number, Uuid::from_u128(head.key), lines(&body)?, &head.range()))
    }
}

/// The body as it was before it was packed. `None`: it is no LZ4, or another length than the head says.
fn unpacked(packed: &[u8], head: &Head) -> Option<Bytes> {
    /// A byte of LZ4 stands for no more than that (LZ4 Block Format Description).
    const MOST_FOR_A_BYTE: usize = 255;
    let length = length(Count { records: head.records, bytes: head.bytes })?;
    let length =
        usize::try_from(length).ok().filter(|length| *length <= packed.len().saturating_mul(MOST_FOR_A_BYTE))?;
    let plain = lz4_flex::block::decompress(packed, length).ok()?;
    (plain.len() == length).then(|| plain.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        let (instance_id, boot_id) = ("i".to_owned(), "b".to_owned());
        Mark { instance_id, boot_id, sequence: 41, time_ns: 1, chain: None, stopped: false }
    }

    fn row(lines: &[Bytes], compression: SpoolCompression) -> (Row, Head) {
        Row::new(7, Uuid::from_u128(3), &mark(), &Body::of(lines, compression).unwrap()).unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_to_the_same() {
        let alike: Vec<_> =
            (0..200).map(|nth| Bytes::from(format!("{{\"record\":{nth},\"and\":\"what all have\"}}"))).collect();
        let of = |compression| {
            let (row, head) = row(&alike, compression);
            (row.body.len(), head.packed, row.frame(7).unwrap())
        };
        let (plain, packed) = (of(SpoolCompression::None), of(SpoolCompression::Lz4));
        assert!(packed.1 && !plain.1 && packed.0 * 4 < plain.0, "{} of {}", packed.0, plain.0);
        assert_eq!((&packed.2, &packed.2.lines), (&plain.2, &alike));
        // What gets no shorter is kept as it is.
        let (row, head) = row(&[Bytes::from_static(b"x")], SpoolCompression::Lz4);
        assert!(!head.packed && row.frame(7).is_some());
        assert_eq!(row_of_none().frame(7).unwrap().lines, Vec::<Bytes>::new());
    }

    fn row_of_none() -> Row {
        row(&[], SpoolCompression::Lz4).0
    }

    #[test]
    fn a_packed_body_that_is_not_what_its_head_says_is_damaged() {
        let lines = vec![Bytes::from(vec![b'a'; 10_000]); 3];
        let (whole, head) = row(&lines, SpoolCompression::Lz4);
        let other = |change: &dyn Fn(&mut Head, &mut Vec<u8>)| {
            let (mut head, mut body) = (head.clone(), whole.body.to_vec());
            change(&mut head, &mut body);
            // Checksums that fit: what is wrong was written so.
            head.body_checksum = crc32fast::hash(&body);
            let text = serde_json::to_vec(&head).unwrap();
            Row { checksum: crc32fast::hash(&text), head: text, body: body.into() }.frame(7)
        };
        assert!(other(&|_, _| ()).is_some());
        assert!(other(&|head, _| head.bytes -= 1).is_none());
        assert!(other(&|head, _| head.bytes += 1).is_none());
        assert!(other(&|head, _| head.bytes = u64::MAX - 8).is_none());
        assert!(other(&|head, _| head.bytes = 1 << 40).is_none());
        assert!(other(&|head, _| head.packed = false).is_none());
        assert!(other(&|_, body| body.truncate(body.len() / 2)).is_none());
        assert!(other(&|_, body| body.clear()).is_none());
    }
}
