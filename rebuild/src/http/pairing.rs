//! Which request a reply answers, behind a loss.
//!
//! A client that waits for each reply makes that easy: the first byte sent after its request was received begins the
//! reply. One that pipelines does not: of the replies before, some may lie in the lost part, and some may be still to
//! come. A guess could give a request somebody else's reply, so from there on no request of that connection has one.

use super::conversation::Conversation;
use super::open::Part;
use super::side::ReplySide;
use super::span::Context;
use crate::exchange::{Oddity, UnseenPart};
use crate::loss::LossCause;

/// Where the reply behind a lost one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextReply {
    /// No request was seen that could have it.
    NotYet,
    /// There, and of the exchange with this index.
    From { index: usize, at: u64 },
    /// Several requests may have it.
    Ambiguous,
}

impl NextReply {
    /// How far it is from here.
    pub(super) const fn distance(self, here: u64) -> Option<u64> {
        match self {
            Self::From { at, .. } => Some(at.saturating_sub(here)),
            Self::NotYet | Self::Ambiguous => None,
        }
    }
}

impl Conversation {
    /// Notes whether the client sends a request, from where the sent stream stood at `first_other`, before it has the
    /// replies to those before.
    pub(super) fn watch_for_pipelining(&mut self, first_other: u64, cx: &mut Context<'_>) {
        let in_step = self.is_awaiting_a_reply();
        // Out of step it is sure only where nothing was sent since.
        let sent_nothing = self.open.back().is_some_and(|open| {
            open.request_part == Part::Done && open.reply_part == Part::Awaited && open.reply_from == Some(first_other)
        });
        if in_step {
            self.doubt.pipelined();
        }
        if !in_step && !sent_nothing {
            return;
        }
        self.pipelines = true;
        if self.open.iter().any(|open| open.behind_loss && open.reply_part != Part::Done) {
            self.unpair(first_other, cx);
        }
    }

    /// Where the reply behind a lost one begins, from here on. `holder`: the lost one has an exchange.
    pub(super) fn next_reply(&self, holder: bool, here: u64) -> NextReply {
        let Some(first) = self.target().map(|target| target + usize::from(holder)) else { return NextReply::NotYet };
        for (index, open) in self.open.iter().enumerate().skip(first) {
            match open.reply_from {
                // In its head, which moves the place.
                _ if open.request.is_none() && open.request_part != Part::Done => return NextReply::NotYet,
                Some(at) if at >= here => return NextReply::From { index, at },
                // Its reply may lie in the lost part, or not.
                _ if self.pipelines => return NextReply::Ambiguous,
                // It was over before the client sent the next request.
                _ => {}
            }
        }
        NextReply::NotYet
    }

    /// The reply whose end was lost is over, and those of the other exchanges before `next` were not seen.
    pub(super) fn end_lost(&mut self, next: usize, at: u64, cx: &mut Context<'_>) {
        for open in self.open.iter_mut().take(next) {
            match open.reply_part {
                Part::Done => continue,
                Part::Running => open.note(Oddity::InferredFraming),
                Part::Awaited => {
                    cx.counters.lose(LossCause::ResponseHeadUnseen);
                    open.miss(UnseenPart::ResponseHead);
                }
            }
            open.reply_part = Part::Done;
            open.reply_end = at;
        }
    }

    /// Whose the next replies are is not known, and will not be: no request has one any more.
    pub(super) fn unpair(&mut self, at: u64, cx: &mut Context<'_>) {
        if matches!(self.reply, ReplySide::Unpaired) {
            return;
        }
        for open in self.open.iter_mut().filter(|open| open.behind_loss && open.reply_part == Part::Running) {
            // It may be another request's.
            open.response = None;
            open.first_byte_ns = None;
            open.reply_part = Part::Awaited;
        }
        self.end_lost(self.open.len(), at, cx);
        cx.counters.lose(LossCause::RepliesUnpaired);
        self.reply = ReplySide::Unpaired;
    }

    /// Bytes of replies that nobody can tell the requests of.
    pub(super) fn send_unpaired(&mut self, count: u64, cx: &mut Context<'_>) {
        cx.counters.unplaced_bytes += count;
        self.reply = ReplySide::Unpaired;
    }

    /// A request comes and there is no room, while a reply's end is lost: nothing can be waited for any more.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>) {
        match self.reply {
            ReplySide::Lost { .. } if self.pipelines => self.unpair(0, cx),
            ReplySide::Lost { .. } => {
                self.end_lost(self.open.len(), 0, cx);
                self.reply = ReplySide::Lost { holder: false };
            }
            _ => {}
        }
        self.hand_out_done(cx);
    }
}
