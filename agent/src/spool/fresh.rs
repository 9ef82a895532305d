//! The newest frames as they were put into the spool, so that a reader who keeps up gets them without a look at the disk.
//!
//! What is kept and what is gone is not decided here: whoever asks has a number from `Known`, and numbers are never used
//! twice.

use super::Frame;
use bytes::Bytes;
use std::collections::VecDeque;

/// Lines of frames that wait here, at most: a few batches. Whoever is further behind reads the disk.
const MOST_BYTES: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// By number, upwards.
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Fresh {
    /// A frame that is in the spool now; its number is above all before.
    pub(super) fn keep(&mut self, frame: Frame) {
        self.bytes += bytes(&frame);
        self.frames.push_back(frame);
        while self.bytes > MOST_BYTES {
            self.forget_first();
        }
    }

    /// The frame of this number, if it is still here.
    pub(super) fn frame(&self, number: u64) -> Option<Frame> {
        let at = self.frames.binary_search_by_key(&number, |frame| frame.number).ok()?;
        self.frames.get(at).cloned()
    }

    /// Nobody asks for these any more.
    pub(super) fn forget_up_to(&mut self, number: u64) {
        while self.frames.front().is_some_and(|frame| frame.number <= number) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let first = self.frames.pop_front();
        self.bytes -= first.as_ref().map_or(self.bytes, bytes);
    }
}

fn bytes(frame: &Frame) -> usize {
    frame.lines.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn frame(number: u64, bytes: usize) -> Frame {
        let lines = vec![Bytes::from(vec![b'x'; bytes])];
        Frame { number, key: Uuid::nil(), lines, instance_id: "i".into(), first_sequence: 1 }
    }

    #[test]
    fn the_newest_are_here_and_no_more_than_a_few() {
        let mut fresh = Fresh::default();
        for number in (1..100).step_by(2) {
            fresh.keep(frame(number, MOST_BYTES / 4));
        }
        assert_eq!((92..=99).filter(|number| fresh.frame(*number).is_some()).collect::<Vec<_>>(), [93, 95, 97, 99]);
        assert_eq!(fresh.frame(97), Some(frame(97, MOST_BYTES / 4)));
        fresh.forget_up_to(96);
        assert!(fresh.frame(95).is_none() && fresh.frame(97).is_some());
        // One that is larger than all may be is not kept at all, and nothing else is then.
        fresh.keep(frame(101, MOST_BYTES + 1));
        assert_eq!((fresh.frames.len(), fresh.bytes), (0, 0));
    }
}
