//! The sent direction where its bytes were not seen.

use super::body::Progress;
use super::conversation::Conversation;
use super::doubt::Start;
use super::pairing::NextReply;
use super::side::{ReplyOrigin, ReplySide, RequestSide};
use super::span::{Context, Data, Span};
use crate::exchange::UnseenPart;
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;

impl Conversation {
    /// One step over unseen bytes; says how many of them it used.
    pub(super) fn send_gap(&mut self, count: u64, span: &Span<'_>, cx: &mut Context<'_>) -> u64 {
        match std::mem::replace(&mut self.reply, ReplySide::Opaque) {
            ReplySide::Idle => self.gap_between_replies(count, span, cx),
            ReplySide::Head { reader, origin } => {
                let buffered = reader.len() as u64;
                if !reader.is_decided() {
                    self.doubt_reply_buffered(&reader, span.at, span, cx);
                }
                self.doubt_sent(span.at, Self::unseen(span, count, Start::Anywhere), span, cx);
                if let ReplyOrigin::InsteadOfBody(body) = origin {
                    if let Some(open) = self.replying() {
                        open.response_body_bytes += buffered + count;
                    }
                    let unseen = Some(UnseenPart::ResponseBody);
                    self.after_reply_body(body, false, Progress::Broken, unseen, span.at, cx);
                } else {
                    cx.counters.lose(LossCause::ResponseHeadUnseen);
                    self.lose_reply_head(buffered + count, span);
                }
                count
            }
            ReplySide::Body { mut body, sure, .. } => {
                let next = self.next_head_at(&body, sure, span);
                let (used, progress) = match next {
                    Some(at) if at > span.at => body.pass(count.min(at - span.at)),
                    Some(_) => (count, Progress::Broken),
                    None => body.pass(count),
                };
                if self.body_may_be_none || body.ends_with_connection() || progress == Progress::Broken {
                    self.doubt_sent(span.at, Self::unseen(span, used, Start::Anywhere), span, cx);
                }
                if let Some(open) = self.replying() {
                    open.response_body_bytes += used;
                    open.touch(span.time_ns);
                }
                let unseen = Some(UnseenPart::ResponseBody);
                self.after_reply_body(body, sure, progress, unseen, span.at + used, cx);
                used
            }
            ReplySide::Lost { holder } => match self.next_reply(holder, span.at) {
                NextReply::From { index, at } if at == span.at => {
                    self.end_lost(index, at, cx);
                    self.doubt_sent(span.at, Self::unseen(span, count, Start::Anywhere), span, cx);
                    cx.counters.lose(LossCause::ResponseHeadUnseen);
                    self.lose_reply_head(count, span);
                    count
                }
                NextReply::Ambiguous => {
                    self.unpair(span.at, cx);
                    0
                }
                next => {
                    let used = next.distance(span.at).map_or(count, |distance| count.min(distance));
                    self.doubt_sent(span.at, Self::unseen(span, used, Start::Anywhere), span, cx);
                    self.send_lost(used, holder, span, cx);
                    self.reply = ReplySide::Lost { holder };
                    used
                }
            },
            ReplySide::Unpaired => {
                self.doubt_sent(span.at, Self::unseen(span, count, Start::Anywhere), span, cx);
                self.send_unpaired(count, cx);
                count
            }
            ReplySide::Opaque => {
                self.pass_opaque(Direction::Sent, Data::Gap(count, LossCause::Unplaced), cx);
                count
            }
        }
    }

    fn gap_between_replies(&mut self, count: u64, span: &Span<'_>, cx: &mut Context<'_>) -> u64 {
        self.reply = ReplySide::Idle;
        let due_from = match self.target() {
            Some(index) => self.open.get(index).and_then(|open| open.reply_from).unwrap_or(span.at),
            None if matches!(self.request, RequestSide::Lost { .. }) => span.at,
            None => u64::MAX,
        };
        if due_from > span.at {
            let used = count.min(due_from - span.at);
            self.doubt_sent(span.at, Self::unseen(span, used, Start::Boundary), span, cx);
            self.surplus(used, span, cx);
            return used;
        }
        let start = if self.target().is_some() { Start::OfRecord } else { Start::Boundary };
        self.doubt_sent(span.at, Self::unseen(span, count, start), span, cx);
        cx.counters.lose(LossCause::ResponseHeadUnseen);
        self.lose_reply_head(count, span);
        count
    }
}
