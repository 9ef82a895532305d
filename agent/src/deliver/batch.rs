//! A batch: records of one frame of the spool that travel in one request, under one idempotency key.

use crate::ledger::Count;
use crate::spool::Frame;
use bytes::Bytes;
use ring::digest;
use std::sync::Arc;
use uuid::Uuid;

/// One request's records.
///
/// The key names the records: a whole frame has the frame's key, any part of it a key made of the frame's, the endpoint's
/// name, and which of its lines they are. So retries, also those after a restart, keep the key, and no two sets of
/// records share one. How the records are packed into a request is not part of it.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    frame: Arc<Frame>,
    /// Which lines, ascending; never empty.
    lines: Vec<usize>,
    key: Uuid,
}

impl Batch {
    pub(super) fn new(frame: Arc<Frame>, lines: Vec<usize>, endpoint: &str) -> Self {
        let key = if lines.len() == frame.lines.len() { frame.key } else { part_key(frame.key, endpoint, &lines) };
        Self { frame, lines, key }
    }

    pub(super) fn key(&self) -> Uuid {
        self.key
    }

    pub(super) fn frame(&self) -> &Frame {
        &self.frame
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Bytes> + Clone {
        self.lines.iter().filter_map(|line| self.frame.lines.get(*line))
    }

    /// The number of its first record.
    pub(super) fn first_sequence(&self) -> u64 {
        let first = self.lines.first().map_or(0, |line| *line as u64);
        self.frame.first_sequence.saturating_add(first)
    }

    pub(super) fn count(&self) -> Count {
        self.lines().fold(Count::default(), |count, line| count.plus(Count::line(line)))
    }

    /// The first and the second half, in order. Of a single record the second half is empty; `policy` never asks for that.
    pub(super) fn halves(mut self, endpoint: &str) -> [Self; 2] {
        let second = self.lines.split_off(self.lines.len().div_ceil(2));
        [Self::new(Arc::clone(&self.frame), self.lines, endpoint), Self::new(self.frame, second, endpoint)]
    }
}

/// A UUID of version 8 (RFC 9562, section 5.8): the beginning of a SHA-256. A frame never changes, so its key and the
/// places of the lines say exactly which bytes they are.
fn part_key(frame: Uuid, endpoint: &str, lines: &[usize]) -> Uuid {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(b"s3auditd part of a frame, 1");
    digest.update(frame.as_bytes());
    digest.update(&(endpoint.len() as u64).to_le_bytes());
    digest.update(endpoint.as_bytes());
    for line in lines {
        digest.update(&(*line as u64).to_le_bytes());
    }
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest.finish().as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn frame(lines: usize) -> Arc<Frame> {
        Arc::new(Frame {
            number: 1,
            key: Uuid::from_u128(7),
            lines: (0..lines).map(|line| Bytes::from(format!("{line}"))).collect(),
            instance_id: "i".into(),
            first_sequence: 10,
        })
    }

    fn text(batch: &Batch) -> String {
        batch.lines().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn halves_keep_order_and_get_keys_of_their_own() {
        let batch = Batch::new(frame(3), vec![0, 1, 2], "e");
        assert_eq!((batch.key(), batch.count()), (Uuid::from_u128(7), Count { records: 3, bytes: 3 }));
        let [first, second] = batch.clone().halves("e");
        assert_eq!((text(&first), text(&second)), ("0 1".to_owned(), "2".to_owned()));
        assert_eq!((first.first_sequence(), second.first_sequence()), (10, 12));
        let [again, _] = batch.halves("e");
        assert_eq!(again.key(), first.key(), "the same records always have the same key");
        assert_eq!(first.key().get_version_num(), 8);
    }

    #[test]
    fn no_two_sets_of_lines_share_a_key() {
        let mut keys = HashSet::new();
        for set in 1u32..256 {
            let lines: Vec<_> = (0..8).filter(|line| set & (1 << line) != 0).collect();
            assert!(keys.insert(Batch::new(frame(8), lines, "e").key()));
        }
        assert!(keys.insert(Batch::new(frame(8), vec![0], "another").key()), "nor do two endpoints' parts");
        // Such a change would make receivers take what is sent again after an update for something new.
        let part = Batch::new(frame(8), vec![0, 2], "default").key();
        assert_eq!(part.to_string(), "6a66bc40-b8ad-87d7-8d77-4157e35fa849");
    }
}
