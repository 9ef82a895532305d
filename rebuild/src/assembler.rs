//! One direction of a connection: pieces by sequence number in, in order out.
//!
//! Positions are 64 bits wide; their low 32 bits are the raw TCP sequence number. Everything below `cursor` has been
//! handed on. Pieces beyond it wait, held by the connection until what they hang on has arrived or is lost.

use s3auditd_common::sample::Unseen;
use std::collections::BTreeMap;

/// Where the widened numbers begin, so that what lies a little before the first one seen is no underflow.
const ORIGIN: u64 = 1 << 32;

/// What a waiting piece costs besides its bytes; an estimate for the limits.
const PIECE_OVERHEAD_BYTES: usize = 128;

/// What is known of a part of the stream.
#[derive(Debug)]
pub(crate) enum Content {
    Seen(Vec<u8>),
    Unseen(Unseen),
    /// Seen and dropped: a limit was hit.
    Dropped,
}

/// A part of the stream; `end` is exclusive and not below `start`.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The other direction's position when this piece moved.
    pub(crate) other: u64,
    pub(crate) time_ns: u64,
    pub(crate) content: Content,
}

impl Piece {
    fn cost(&self) -> usize {
        let bytes = match &self.content {
            Content::Seen(bytes) => bytes.capacity(),
            Content::Unseen(_) | Content::Dropped => 0,
        };
        bytes.saturating_add(PIECE_OVERHEAD_BYTES)
    }

    const fn is_seen(&self) -> bool {
        matches!(self.content, Content::Seen(_))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    cursor: u64,
    waiting: BTreeMap<u64, Piece>,
    cost: usize,
}

impl Assembler {
    pub(crate) fn starting_at(raw: u32) -> Self {
        Self { cursor: ORIGIN | u64::from(raw), ..Self::default() }
    }

    /// The next byte to be handed on.
    pub(crate) const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Bytes held by waiting pieces, with their overhead.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Widens a raw number to the position nearest to the cursor (within 2 GiB either way).
    pub(crate) fn widen(&self, raw: u32) -> u64 {
        // The distance is signed on purpose: that is how sequence numbers compare.
        let distance = raw.wrapping_sub(low(self.cursor)).cast_signed();
        self.cursor.saturating_add_signed(i64::from(distance))
    }

    /// Moves the cursor; only before anything was handed on, or over bytes that are accounted for.
    pub(crate) const fn set_cursor(&mut self, cursor: u64) {
        self.cursor = cursor;
    }

    /// Keeps a piece until its turn. Of two that start at one place the longer stays, or the one that was seen.
    pub(crate) fn insert(&mut self, piece: Piece) {
        if let Some(present) = self.waiting.get(&piece.start)
            && (present.end, present.is_seen()) >= (piece.end, piece.is_seen())
        {
            return;
        }
        self.cost = self.cost.saturating_add(piece.cost());
        if let Some(old) = self.waiting.insert(piece.start, piece) {
            self.cost = self.cost.saturating_sub(old.cost());
        }
    }

    /// The waiting piece with the lowest place.
    pub(crate) fn front(&self) -> Option<&Piece> {
        self.waiting.first_key_value().map(|(_, piece)| piece)
    }

    /// Takes the front.
    pub(crate) fn pop(&mut self) -> Option<Piece> {
        let (_, piece) = self.waiting.pop_first()?;
        self.cost = self.cost.saturating_sub(piece.cost());
        Some(piece)
    }

    /// The waiting piece that moved first.
    pub(crate) fn earliest(&self) -> Option<&Piece> {
        self.waiting.values().min_by_key(|piece| (piece.time_ns, piece.start))
    }
}

/// The raw sequence number of a position.
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the sequence number")]
pub(crate) const fn low(position: u64) -> u32 {
    position as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, bytes: &[u8]) -> Piece {
        let end = start + bytes.len() as u64;
        Piece { start, end, other: 0, time_ns: 0, content: Content::Seen(bytes.to_vec()) }
    }

    #[test]
    fn widening_crosses_the_wrap_both_ways() {
        let assembler = Assembler::starting_at(u32::MAX);
        assert_eq!(assembler.widen(4) - assembler.cursor(), 5);
        let assembler = Assembler::starting_at(3);
        assert_eq!(assembler.cursor() - assembler.widen(u32::MAX), 4);
    }

    #[test]
    fn cost_returns_to_zero() {
        let mut assembler = Assembler::starting_at(0);
        assembler.insert(piece(5, b"abc"));
        assembler.insert(piece(5, b"abcd"));
        assembler.insert(piece(5, b"x"));
        assembler.insert(piece(1, b"y"));
        assert_eq!(assembler.pop().map(|piece| piece.end), Some(2));
        assert_eq!(assembler.pop().map(|piece| piece.end), Some(9));
        assert_eq!(assembler.cost(), 0);
        assert!(assembler.is_empty());
    }
}
