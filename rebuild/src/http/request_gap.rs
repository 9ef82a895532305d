//! The received direction where its bytes were not seen.

use super::body::Progress;
use super::conversation::Conversation;
use super::doubt::Start;
use super::open::{Open, Part};
use super::reader::HeadReader;
use super::request_side::head;
use super::side::{Origin, RequestSide};
use super::span::{Context, Data, Span};
use crate::exchange::{Oddity, UnseenPart};
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;

impl Conversation {
    /// One step over unseen bytes; says how many of them it used.
    pub(super) fn receive_gap(&mut self, count: u64, span: &Span<'_>, cx: &mut Context<'_>) -> u64 {
        self.end_preface(cx);
        match std::mem::replace(&mut self.request, RequestSide::Opaque) {
            RequestSide::Preface(_) => {
                self.request = head(Origin::First);
                0
            }
            RequestSide::Head { reader, origin } => {
                self.gap_in_head(&reader, origin, count, span, cx);
                count
            }
            RequestSide::Body { mut body, committed } => {
                // The client was waiting for `100 Continue`: did it get it, or a refusal, and is this the next head?
                let waited = self.open.back().is_some_and(Open::awaits_continue);
                let doubtful = !committed && waited && body.taken() == 0;
                let (used, progress) = if doubtful { (count, Progress::Broken) } else { body.pass(count) };
                if progress == Progress::Broken {
                    self.doubt_received(span.at, Self::unseen(span, used, Start::Anywhere), span, cx);
                }
                if let Some(open) = self.open.back_mut() {
                    open.request_body_bytes += used;
                    open.touch(span.time_ns);
                }
                self.after_body(body, progress, Some(UnseenPart::RequestBody), span, cx);
                used
            }
            RequestSide::Lost { sent_at } => {
                self.doubt_received(span.at, Self::unseen(span, count, Start::Anywhere), span, cx);
                if self.turned(sent_at, span) {
                    // A request begins here, unseen.
                    if let Some(open) = self.running_request() {
                        open.note(Oddity::InferredFraming);
                        open.request_part = Part::Done;
                    }
                    self.unseen_request(span, cx);
                    cx.counters.unplaced_bytes += count;
                } else {
                    self.place_unknown(count, span, cx);
                }
                self.request = RequestSide::Lost { sent_at: sent_at.max(span.other) };
                count
            }
            RequestSide::Unsynced => {
                self.doubt_received(span.at, Self::unseen(span, count, Start::Anywhere), span, cx);
                cx.counters.unsynced_bytes += count;
                self.request = RequestSide::Unsynced;
                count
            }
            RequestSide::Opaque => {
                self.pass_opaque(Direction::Received, Data::Gap(count, LossCause::Unplaced), cx);
                count
            }
        }
    }

    fn gap_in_head(&mut self, reader: &HeadReader, origin: Origin, count: u64, span: &Span<'_>, cx: &mut Context<'_>) {
        let buffered = reader.len() as u64;
        let lost = RequestSide::Lost { sent_at: span.other };
        if matches!(origin, Origin::Turn | Origin::MidStream) {
            self.doubt_buffered(reader, span.at, span, cx);
        }
        if matches!(origin, Origin::Next) && self.is_awaiting_a_reply() {
            self.doubt.pipelined();
        }
        let starts = matches!(origin, Origin::First | Origin::Next) && reader.is_empty();
        let start = if starts { Start::Boundary } else { Start::Anywhere };
        self.doubt_received(span.at, Self::unseen(span, count, start), span, cx);
        match origin {
            // It is not even known whether this is HTTP: only a reply opens an exchange.
            Origin::First if reader.is_empty() => {
                cx.counters.lose(LossCause::RequestHeadUnseen);
                cx.counters.unplaced_bytes += count;
                self.request = lost;
            }
            Origin::Next if reader.is_empty() => {
                self.unseen_request(span, cx);
                cx.counters.unplaced_bytes += count;
                self.request = lost;
            }
            Origin::First | Origin::Next => {
                cx.counters.lose(LossCause::RequestHeadUnseen);
                cx.counters.unplaced_bytes += count;
                self.lose_head(reader, span, cx);
            }
            Origin::MidStream => {
                cx.counters.unsynced_bytes += buffered + count;
                self.request = RequestSide::Unsynced;
            }
            Origin::Turn => {
                self.place_unknown(buffered + count, span, cx);
                self.request = lost;
            }
            Origin::InsteadOfBody(body) | Origin::DoubtfulBody(body) => {
                if let Some(open) = self.open.back_mut() {
                    open.request_body_bytes += buffered + count;
                }
                self.after_body(body, Progress::Broken, Some(UnseenPart::RequestBody), span, cx);
            }
        }
    }

    /// A request is known to have been here, and was not seen.
    fn unseen_request(&mut self, span: &Span<'_>, cx: &mut Context<'_>) {
        cx.counters.lose(LossCause::RequestHeadUnseen);
        self.begin_unseen(span.time_ns, cx);
    }
}
