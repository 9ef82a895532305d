//! The sent direction: where replies begin and end, and which request they answer.

use super::body::{Body, Progress};
use super::conversation::Conversation;
use super::doubt::Doubtful;
use super::framing::{self, Framing};
use super::head::ResponseHead;
use super::open::{Open, Part};
use super::pairing::NextReply;
use super::parse;
use super::probe::{Probe, Verdict};
use super::reader::{Event, HeadReader};
use super::side::{Origin, ReplyOrigin, ReplySide, RequestSide};
use super::span::{Context, Data, Span};
use crate::exchange::{Oddity, UnseenPart};
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;

impl Conversation {
    pub(super) fn sent(&mut self, span: Span<'_>, cx: &mut Context<'_>) {
        if self.unsynced {
            self.suspect_outgoing(&span);
        }
        // The gateway answers what it has read, so that was no beginning of a proxy's header.
        self.end_preface(cx);
        let mut span = span;
        match span.data {
            Data::Seen(mut bytes) => {
                while !bytes.is_empty() {
                    let used = self.send(bytes, &span, cx);
                    bytes = bytes.get(used..).unwrap_or_default();
                    span.at += used as u64;
                }
            }
            Data::Gap(mut left, _) => {
                while left > 0 {
                    let used = self.send_gap(left, &span, cx).min(left);
                    left -= used;
                    span.at += used;
                }
            }
        }
    }

    /// The gateway may be the client of a connection that was open before we came. One sign is not enough: an object
    /// may contain a request.
    fn suspect_outgoing(&mut self, span: &Span<'_>) {
        if let Data::Seen(bytes) = span.data {
            let mut probe = Probe::REQUEST;
            let verdict = bytes.iter().map(|byte| probe.push(*byte)).find(|verdict| *verdict != Verdict::Open);
            self.outgoing_suspected |= verdict == Some(Verdict::Yes);
        }
    }

    /// One step; says how many bytes it used. It uses none only when the state changed to one that will.
    fn send(&mut self, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        let count = bytes.len() as u64;
        match std::mem::replace(&mut self.reply, ReplySide::Opaque) {
            ReplySide::Idle => {
                self.reply = ReplySide::Idle;
                self.send_idle(bytes, span, cx)
            }
            ReplySide::Head { reader, origin } => self.send_head(reader, origin, bytes, span, cx),
            ReplySide::Body { body, sure, probed_at } => match self.next_head_at(&body, sure, span) {
                Some(at) if at == span.at && probed_at != at => {
                    self.reply = head(ReplyOrigin::InsteadOfBody(body));
                    0
                }
                Some(at) if at > span.at => {
                    let until = usize::try_from(at - span.at).unwrap_or(usize::MAX);
                    self.send_body(body, sure, bytes.get(..until).unwrap_or(bytes), span, cx)
                }
                _ => self.send_body(body, sure, bytes, span, cx),
            },
            ReplySide::Lost { holder } => match self.next_reply(holder, span.at) {
                NextReply::From { index, at } if at == span.at => {
                    self.end_lost(index, at, cx);
                    self.reply = head(ReplyOrigin::Turn);
                    0
                }
                NextReply::Ambiguous => {
                    self.unpair(span.at, cx);
                    0
                }
                next => {
                    let used = next.distance(span.at).map_or(count, |distance| count.min(distance));
                    let len = usize::try_from(used).unwrap_or(bytes.len());
                    self.doubt_sent(span.at, Doubtful::Seen(bytes.get(..len).unwrap_or(bytes)), span, cx);
                    self.send_lost(used, holder, span, cx);
                    self.reply = ReplySide::Lost { holder };
                    len
                }
            },
            ReplySide::Unpaired => {
                self.doubt_sent(span.at, Doubtful::Seen(bytes), span, cx);
                self.send_unpaired(count, cx);
                bytes.len()
            }
            ReplySide::Opaque => {
                self.pass_opaque(Direction::Sent, Data::Seen(bytes), cx);
                bytes.len()
            }
        }
    }

    /// Between replies: a status line, if a reply is due; anything else is surplus.
    fn send_idle(&mut self, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        let due_from = match self.target() {
            Some(index) => Some(self.open.get(index).and_then(|open| open.reply_from).unwrap_or(span.at)),
            None => self.may_answer_the_unread().then_some(span.at),
        };
        let before = match due_from {
            None => bytes.len(),
            Some(from) if from > span.at => usize::try_from(from - span.at).unwrap_or(usize::MAX).min(bytes.len()),
            Some(_) => memchr::memchr(b'H', bytes).unwrap_or(bytes.len()),
        };
        if before == 0 {
            self.reply = head(ReplyOrigin::Next);
        } else {
            self.doubt_sent(span.at, Doubtful::Seen(bytes.get(..before).unwrap_or(bytes)), span, cx);
            self.surplus(before as u64, span, cx);
        }
        before
    }

    /// Whether a reply may come although no exchange waits for one: its request was not seen, or not to its first line.
    fn may_answer_the_unread(&self) -> bool {
        match &self.request {
            RequestSide::Lost { .. } => true,
            RequestSide::Head { reader, origin: Origin::First | Origin::Next } => !reader.is_empty(),
            _ => false,
        }
    }

    /// More was sent than the reply declared (radosgw's dbstore does).
    pub(super) fn surplus(&mut self, count: u64, span: &Span<'_>, cx: &mut Context<'_>) {
        cx.counters.surplus_bytes += count;
        if let Some(open) = self.open.iter_mut().rfind(|open| open.reply_part == Part::Done) {
            open.note(Oddity::InferredFraming);
            open.response_body_bytes += count;
            open.touch(span.time_ns);
        }
    }

    fn send_head(
        &mut self,
        mut reader: HeadReader,
        origin: ReplyOrigin,
        bytes: &[u8],
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) -> usize {
        if reader.is_empty() {
            reader.first_ns = span.time_ns;
            reader.first_other = span.other;
        }
        let (used, event) = reader.push(bytes, cx.limits.max_head_bytes);
        match event {
            Event::More => self.reply = ReplySide::Head { reader, origin },
            Event::FirstLine => self.accept_reply(reader, origin, span, cx),
            Event::End => self.end_reply_head(reader, used, span, cx),
            Event::TooLong => {
                cx.counters.lose(LossCause::HeadTooLong);
                // Undecided, with the smallest of limits: what it is a part of is doubtful.
                if !reader.is_decided() {
                    self.doubt_reply_buffered(&reader, span.at + used as u64, span, cx);
                }
                self.lose_reply_head(reader.len() as u64, span);
            }
            Event::Http2 | Event::Rejected => self.reject_reply(&reader, origin, used, span, cx),
        }
        used
    }

    /// A reply begins: for the exchange that waits, or for one whose request was not seen.
    fn accept_reply(&mut self, reader: HeadReader, origin: ReplyOrigin, span: &Span<'_>, cx: &mut Context<'_>) {
        match origin {
            ReplyOrigin::Next => {}
            ReplyOrigin::Turn => cx.counters.resyncs += 1,
            ReplyOrigin::InsteadOfBody(body) => {
                if let Some(open) = self.replying() {
                    open.note(Oddity::InferredFraming);
                    open.response_body = body.into_start(false);
                    open.reply_part = Part::Done;
                }
            }
        }
        self.hand_out_done(cx);
        self.doubt.reply_read();
        if self.target().is_none() {
            let begun = match &self.request {
                RequestSide::Head { reader, origin: Origin::First | Origin::Next } if !reader.is_empty() => {
                    let started_ns = reader.first_ns;
                    self.begin(started_ns, cx)
                }
                _ => self.begin_unseen(span.time_ns, cx),
            };
            if !begun {
                self.doubt.no_room_for_reply();
                self.reply = ReplySide::Lost { holder: false };
                return;
            }
        }
        if let Some(open) = self.replying() {
            open.reply_part = Part::Running;
        }
        // From here on it is a reply like any other; the doubt is noted in the exchange.
        self.reply = ReplySide::Head { reader, origin: ReplyOrigin::Next };
    }

    fn end_reply_head(&mut self, mut reader: HeadReader, used: usize, span: &Span<'_>, cx: &mut Context<'_>) {
        let end = span.at + used as u64;
        let head_bytes = reader.len() as u64;
        let Some((response, oddities)) = parse::response(&mut reader) else {
            cx.counters.lose(LossCause::HeadMalformed);
            self.lose_reply_head(head_bytes, span);
            return;
        };
        let Some((index, open)) = self.target().and_then(|index| Some((index, self.open.get_mut(index)?))) else {
            return;
        };
        cx.counters.heads_lenient += u64::from(oddities.contains(&Oddity::LenientHead));
        for oddity in oddities {
            open.note(oddity);
        }
        open.response_head_bytes += head_bytes;
        open.touch(span.time_ns);
        if matches!(response.status, 100..200) && response.status != 101 {
            open.interim_replies = open.interim_replies.saturating_add(1);
            open.continued |= response.status == 100;
            open.reply_part = Part::Awaited;
            self.reply = ReplySide::Idle;
            return;
        }
        open.first_byte_ns = Some(reader.first_ns);
        open.replied_at = span.other;
        // While the end of the request is not known, neither is this.
        if open.request_part != Part::Done && !matches!(self.request, RequestSide::Lost { .. }) {
            open.note(Oddity::EarlyReply);
        }
        let connect = open.request.as_ref().is_some_and(|request| request.method == b"CONNECT");
        if response.status == 101 || (connect && matches!(response.status, 200..300)) {
            open.response = Some(response);
            self.upgrade(index, span.time_ns, cx);
            return;
        }
        let (next, framing_lost) = begin_body(open, &response, cx.limits.max_body_start_bytes, end);
        // After a loss the reply may be another request's, a HEAD's for instance.
        self.body_may_be_none = open.request.is_none() || self.doubt.may_have_missed_requests();
        open.response = Some(response);
        cx.counters.response_framing_lost += u64::from(framing_lost);
        self.reply = next;
    }

    /// The running reply's head cannot be read on (or was not seen).
    pub(super) fn lose_reply_head(&mut self, head_bytes: u64, span: &Span<'_>) {
        let mut holder = false;
        if let Some(open) = self.replying() {
            holder = true;
            open.miss(UnseenPart::ResponseHead);
            open.reply_part = Part::Running;
            open.response_head_bytes += head_bytes;
            open.touch(span.time_ns);
        }
        self.reply = ReplySide::Lost { holder };
    }

    /// What was taken for a reply's head is none.
    fn reject_reply(
        &mut self,
        reader: &HeadReader,
        origin: ReplyOrigin,
        used: usize,
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) {
        let buffered = reader.len() as u64;
        match origin {
            ReplyOrigin::Next => {
                self.doubt_reply_buffered(reader, span.at + used as u64, span, cx);
                self.reply = ReplySide::Idle;
                self.surplus(buffered, span, cx);
            }
            ReplyOrigin::Turn => {
                self.doubt_reply_buffered(reader, span.at + used as u64, span, cx);
                cx.counters.lose(LossCause::ResponseHeadUnseen);
                self.lose_reply_head(buffered, span);
            }
            ReplyOrigin::InsteadOfBody(body) => {
                let at = (span.at + used as u64).saturating_sub(buffered);
                self.reply = ReplySide::Body { body, sure: true, probed_at: at };
                // The bytes were held back; the body takes them now.
                self.sent(Span { at, data: Data::Seen(reader.bytes()), ..*span }, cx);
            }
        }
    }

    fn send_body(&mut self, mut body: Body, sure: bool, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        // Another reply begins in one way only: this is a body, whatever the request was.
        if body.taken() == 0 && bytes.first().is_some_and(|byte| *byte != b'H') {
            self.body_may_be_none = false;
        }
        let (used, progress) = body.take(bytes);
        if self.body_may_be_none || body.ends_with_connection() {
            self.doubt_sent(span.at, Doubtful::Seen(bytes.get(..used).unwrap_or(bytes)), span, cx);
        }
        if let Some(open) = self.replying() {
            open.response_body_bytes += used as u64;
            open.touch(span.time_ns);
        }
        let end = span.at + used as u64;
        self.after_reply_body(body, sure, progress, None, end, cx);
        used
    }

    /// `unseen`: what it means when the framing broke.
    pub(super) fn after_reply_body(
        &mut self,
        body: Body,
        sure: bool,
        progress: Progress,
        unseen: Option<UnseenPart>,
        end: u64,
        cx: &mut Context<'_>,
    ) {
        if progress == Progress::More {
            self.reply = ReplySide::Body { body, sure, probed_at: 0 };
            return;
        }
        let ended = progress == Progress::End;
        if let Some(open) = self.replying() {
            open.response_body = body.into_start(ended);
            if ended {
                open.reply_part = Part::Done;
                open.reply_end = end;
            }
            if let Some(part) = unseen.filter(|_| !ended) {
                open.miss(part);
            }
        }
        self.reply = if ended {
            ReplySide::Idle
        } else {
            cx.counters.lose(LossCause::ResponseFraming);
            ReplySide::Lost { holder: true }
        };
    }

    /// What was held back, up to `end`, was no reply's head, or only a part of one.
    pub(super) fn doubt_reply_buffered(
        &mut self,
        reader: &HeadReader,
        end: u64,
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) {
        let at = end.saturating_sub(reader.len() as u64);
        self.doubt_sent(at, Doubtful::Seen(reader.bytes()), span, cx);
    }

    /// Bytes sent while the end of a reply is not known.
    pub(super) fn send_lost(&mut self, count: u64, holder: bool, span: &Span<'_>, cx: &mut Context<'_>) {
        let before_any = self.unsynced || self.open.is_empty();
        match self.replying().filter(|_| holder) {
            Some(open) => {
                if open.response.is_some() {
                    open.response_body_bytes += count;
                } else {
                    open.response_head_bytes += count;
                }
                open.touch(span.time_ns);
            }
            None if before_any => cx.counters.unsynced_bytes += count,
            None => cx.counters.surplus_bytes += count,
        }
    }

    /// Where the body of the running reply may have ended without saying so: a HEAD that was not seen has none, and a
    /// reply without a length may have been sent by a server that forgot it.
    pub(super) fn next_head_at(&self, body: &Body, sure: bool, span: &Span<'_>) -> Option<u64> {
        let untouched = !sure && body.taken() == 0;
        if !untouched && !body.ends_with_connection() {
            return None;
        }
        let target = self.target()?;
        if let Some(next) = self.open.get(target + 1) {
            return next.request.as_ref().and(next.reply_from).filter(|from| *from >= span.at);
        }
        let replied_at = self.open.get(target)?.replied_at;
        let unread = matches!(self.request, RequestSide::Lost { .. }) && span.other > replied_at;
        (untouched && unread).then_some(span.at)
    }

    pub(super) fn replying(&mut self) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.reply_part != Part::Done)
    }
}

/// The state behind a final reply's head that ended at `end`, and whether its framing makes no sense.
fn begin_body(open: &mut Open, response: &ResponseHead, limit: usize, end: u64) -> (ReplySide, bool) {
    let method = open.request.as_ref().map(|request| request.method.as_slice());
    let sure = method.is_some();
    let (framing, oddity) = framing::of_reply(response, method);
    if let Some(oddity) = oddity {
        open.note(oddity);
    }
    let keep = if framing::wants_reply_body(response, open.request.as_ref().is_some_and(framing::may_hide_an_error)) {
        limit
    } else {
        0
    };
    let body = match framing {
        Framing::None => {
            open.reply_part = Part::Done;
            open.reply_end = end;
            open.response_body.whole = true;
            return (ReplySide::Idle, false);
        }
        Framing::Unknown => return (ReplySide::Lost { holder: true }, true),
        Framing::Length(bytes) => Body::length(bytes, keep),
        Framing::Chunked => Body::chunked(keep),
        Framing::UntilClose => Body::until_close(keep),
    };
    (ReplySide::Body { body, sure, probed_at: 0 }, false)
}

const fn head(origin: ReplyOrigin) -> ReplySide {
    ReplySide::Head { reader: HeadReader::reply(), origin }
}
