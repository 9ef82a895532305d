//! A batch: records that travel in one request, under one idempotency key.

use crate::queue::Count;
use bytes::{BufMut as _, Bytes, BytesMut};
use uuid::Uuid;

/// One request's records. The key stays the same on every retry; halves get keys of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    lines: Vec<Bytes>,
    key: Uuid,
    body: Bytes,
}

impl Batch {
    /// A batch of these lines.
    #[must_use]
    pub fn new(lines: Vec<Bytes>, key: Uuid) -> Self {
        let mut body = BytesMut::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in &lines {
            body.put_slice(line);
            body.put_u8(b'\n');
        }
        Self { lines, key, body: body.freeze() }
    }

    /// NDJSON: every line with its line end.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The idempotency key.
    #[must_use]
    pub fn key(&self) -> Uuid {
        self.key
    }

    /// How many records, and their bytes without line ends.
    #[must_use]
    pub fn count(&self) -> Count {
        Count::of(&self.lines)
    }

    /// The first and the second half, in order. Of a single record the second half is empty; `policy` never asks for that.
    #[must_use]
    pub fn halves(mut self, mut key: impl FnMut() -> Uuid) -> [Self; 2] {
        let second = self.lines.split_off(self.lines.len().div_ceil(2));
        [Self::new(self.lines, key()), Self::new(second, key())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_order_and_get_keys_of_their_own() {
        let lines = ["a", "b", "c"].map(Bytes::from).to_vec();
        let batch = Batch::new(lines, Uuid::from_u128(1));
        assert_eq!(batch.body(), "a\nb\nc\n");
        let mut next = 1;
        let [first, second] = batch.halves(|| {
            next += 1;
            Uuid::from_u128(next)
        });
        assert_eq!((first.body(), first.key()), (Bytes::from("a\nb\n"), Uuid::from_u128(2)));
        assert_eq!((second.body(), second.key()), (Bytes::from("c\n"), Uuid::from_u128(3)));
        assert_eq!(first.count(), Count { records: 2, bytes: 2 });
    }
}
