//! One direction of a connection: what has arrived of it, and the window that the kernel side is to keep for it.

use crate::assembler::{Assembler, low};
use crate::http::conversation::Appetite;
use s3auditd_common::sample::{MAX_WINDOW_STEP_BYTES, Window, WindowKind};

/// How far ahead a want window reaches, and how much of the kernel side's run budget may be used before one is set:
/// most heads and chunked replies are shorter and cost no window at all.
const WANT_STEP_BYTES: u64 = 1024 * 1024;
const WANT_AFTER_BYTES: u64 = 256 * 1024;
/// With the budget used up, a skip window before bytes that must be seen ends so much earlier: what moves until the
/// want window is there is no loss then.
const WANT_MARGIN_BYTES: u64 = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    /// Up to here our own skip window reaches: what is missing below was not wanted.
    pub(crate) skip_until: u64,
    /// Up to here a want window reaches.
    want_until: u64,
    /// Bytes copied since the other direction last moved, as the kernel side counts them for the run budget.
    pub(crate) run: u64,
}

impl Stream {
    pub(crate) fn starting_at(raw: u32) -> Self {
        Self { assembler: Assembler::starting_at(raw), skip_until: 0, want_until: 0, run: 0 }
    }

    pub(crate) const fn begin_at(&mut self, position: u64) {
        self.assembler.set_cursor(position);
    }

    /// The window to set, if the one that is set does not do.
    pub(crate) fn window(&mut self, appetite: Appetite) -> Option<Window> {
        let cursor = self.assembler.cursor();
        if cursor < self.skip_until {
            return None;
        }
        let budget_is_short = self.run >= WANT_AFTER_BYTES;
        let appetite = match appetite {
            Appetite::Skips { bytes, then_needs: true } if budget_is_short => {
                match bytes.checked_sub(WANT_MARGIN_BYTES).filter(|bytes| *bytes >= WANT_MARGIN_BYTES) {
                    Some(bytes) => Appetite::Skips { bytes, then_needs: false },
                    None => Appetite::Needs,
                }
            }
            other => other,
        };
        let (until, kind) = match appetite {
            // What is left of a want window would keep the other direction's run from ending: take it back.
            Appetite::Indifferent | Appetite::Needs if !budget_is_short && self.want_until > cursor => {
                self.want_until = 0;
                (cursor, WindowKind::Want)
            }
            Appetite::Indifferent => return None,
            Appetite::Skips { bytes, .. } => {
                let until = cursor.saturating_add(bytes.min(u64::from(MAX_WINDOW_STEP_BYTES)));
                self.skip_until = until;
                // One map entry a direction: this replaces a want window.
                self.want_until = 0;
                (until, WindowKind::Skip)
            }
            Appetite::Needs => {
                let covered = self.want_until.saturating_sub(cursor);
                if !budget_is_short || covered > WANT_STEP_BYTES / 2 {
                    return None;
                }
                self.want_until = cursor.saturating_add(WANT_STEP_BYTES);
                (self.want_until, WindowKind::Want)
            }
        };
        Some(Window { until: low(until), kind: kind as u32 })
    }
}
