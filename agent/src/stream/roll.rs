//! Where finished lines lie: one behind the other in pieces of memory that they share, so that a line takes none of its
//! own. A piece goes when the last of its lines has gone, which is about when the first has: they are delivered in order.

use bytes::{Bytes, BytesMut};

/// Of one piece; a longer line has a piece to itself. What is at rest holds no more than one.
const PIECE_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// What is left of the newest piece.
    rest: BytesMut,
}

impl Roll {
    /// Keeps a copy of this line.
    pub(super) fn keep(&mut self, line: &[u8]) -> Bytes {
        if self.rest.capacity() < line.len() {
            self.rest = BytesMut::with_capacity(PIECE_BYTES.max(line.len()));
        }
        self.rest.extend_from_slice(line);
        self.rest.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_share_pieces_and_keep_their_bytes() {
        let mut roll = Roll::default();
        let lines: Vec<_> = (0..100_u8)
            .map(|nth| vec![nth; if nth == 50 { 3 * PIECE_BYTES } else { 1 + 97 * usize::from(nth) }])
            .collect();
        let kept: Vec<_> = lines.iter().map(|line| roll.keep(line)).collect();
        assert!(kept.iter().zip(&lines).all(|(kept, line)| kept == line));
        let behind = |pair: &[Bytes]| pair[0].as_ptr_range().end == pair[1].as_ptr();
        assert!(kept.windows(2).filter(|pair| behind(pair)).count() > 80);
    }
}
