//! One direction of a connection: what has arrived of it, and the window that the kernel side is to keep for it.

use crate::account::Account;
use crate::assembler::{Assembler, low};
use crate::http::span::Appetite;
use s3auditd_common::sample::{WINDOW_STEP_BYTES, Window, WindowKind};

/// How far ahead a want window reaches, and how much of the kernel side's run budget may be used before one is set:
/// most heads and chunked replies are shorter and cost no window at all.
const WANT_STEP_BYTES: u64 = 1024 * 1024;
const WANT_AFTER_BYTES: u64 = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    pub(crate) account: Account,
    /// Up to here our own skip window reaches: what is missing below was not wanted.
    pub(crate) skip_until: u64,
    /// Up to here a want window reaches.
    want_until: u64,
    /// Bytes copied since the other direction last moved or a skip window ended, outside want windows: as the kernel
    /// side counts them for the run budget.
    run: u64,
}

impl Stream {
    pub(crate) fn starting_at(raw: u32) -> Self {
        Self {
            assembler: Assembler::starting_at(raw),
            account: Account::default(),
            skip_until: 0,
            want_until: 0,
            run: 0,
        }
    }

    pub(crate) const fn begin_at(&mut self, position: u64) {
        self.assembler.set_cursor(position);
        self.account.begin_at(position);
    }

    /// The bytes from `at` to `end` have been taken, `seen` of them copied.
    pub(crate) const fn moved(&mut self, at: u64, end: u64, seen: u64) {
        self.assembler.set_cursor(end);
        if at < self.skip_until && self.skip_until <= end {
            self.run = 0;
        }
        if at >= self.want_until {
            self.run = self.run.saturating_add(seen);
        }
    }

    /// The other direction moved.
    pub(crate) const fn turn(&mut self) {
        self.run = 0;
    }

    /// The window to set, if the one that is set does not do.
    pub(crate) fn window(&mut self, appetite: Appetite) -> Option<Window> {
        let cursor = self.assembler.cursor();
        if cursor < self.skip_until {
            return None;
        }
        match appetite {
            Appetite::Indifferent => None,
            Appetite::Skips { bytes } => {
                let (first, more_steps) = steps(bytes);
                self.skip_until = cursor.saturating_add(first + u64::from(more_steps) * STEP_BYTES);
                // One map entry a direction: this replaces a want window.
                self.want_until = 0;
                let until = low(cursor.saturating_add(first));
                Some(Window { until, kind: WindowKind::Skip as u8, plaintext: 0, more_steps })
            }
            Appetite::Needs => {
                let covered = self.want_until.saturating_sub(cursor);
                if self.run < WANT_AFTER_BYTES || covered > WANT_STEP_BYTES / 2 {
                    return None;
                }
                self.want_until = cursor.saturating_add(WANT_STEP_BYTES);
                Some(Window { until: low(self.want_until), kind: WindowKind::Want as u8, plaintext: 0, more_steps: 0 })
            }
        }
    }
}

const STEP_BYTES: u64 = WINDOW_STEP_BYTES as u64;

/// A skip as a first step of at most [`WINDOW_STEP_BYTES`] and further ones; what is longer than the steps can say is
/// cut, and asked for again when it is reached.
fn steps(bytes: u64) -> (u64, u16) {
    let more = bytes.saturating_sub(1) / STEP_BYTES;
    match u16::try_from(more) {
        Ok(steps) => (bytes - more * STEP_BYTES, steps),
        Err(_) => (STEP_BYTES, u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_the_skip() {
        for bytes in [1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES, (5 << 30) + 7] {
            let (first, more) = steps(bytes);
            assert!((1..=STEP_BYTES).contains(&first), "{bytes}");
            assert_eq!(first + u64::from(more) * STEP_BYTES, bytes);
        }
        assert_eq!(steps(u64::MAX), (STEP_BYTES, u16::MAX));
    }
}
