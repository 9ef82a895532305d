//! The received direction: where requests begin and end.

use super::body::{Body, Progress};
use super::conversation::Conversation;
use super::doubt::Doubtful;
use super::framing::{self, Framing};
use super::open::{Open, Part};
use super::parse;
use super::preface::{Found, Preface};
use super::reader::{Event, HeadReader};
use super::side::{Origin, ReplySide, RequestSide};
use super::span::{Context, Data, Span};
use crate::exchange::{Oddity, UnseenPart};
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;

impl Conversation {
    pub(super) fn received(&mut self, span: Span<'_>, cx: &mut Context<'_>) {
        let mut span = span;
        match span.data {
            Data::Seen(mut bytes) => {
                while !bytes.is_empty() {
                    let used = self.receive(bytes, &span, cx);
                    bytes = bytes.get(used..).unwrap_or_default();
                    span.at += used as u64;
                }
            }
            Data::Gap(mut left, _) => {
                while left > 0 {
                    let used = self.receive_gap(left, &span, cx).min(left);
                    left -= used;
                    span.at += used;
                }
            }
        }
    }

    /// One step; says how many bytes it used. It uses none only when the state changed to one that will.
    fn receive(&mut self, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        match std::mem::replace(&mut self.request, RequestSide::Opaque) {
            RequestSide::Preface(preface) => self.receive_preface(preface, bytes, span, cx),
            RequestSide::Head { reader, origin } => self.receive_head(reader, origin, bytes, span, cx),
            RequestSide::Body { body, committed: false } if self.may_be_next_head(&body, span) => {
                self.request = head(Origin::InsteadOfBody(body));
                0
            }
            RequestSide::Body { body, committed: false } if self.may_have_been_refused(&body) => {
                self.request = head(Origin::DoubtfulBody(body));
                0
            }
            RequestSide::Body { body, .. } => self.receive_body(body, bytes, span, cx),
            RequestSide::Lost { sent_at } if self.turned(sent_at, span) => {
                self.request = head(Origin::Turn);
                0
            }
            RequestSide::Lost { sent_at } => {
                self.doubt_received(span.at, Doubtful::Seen(bytes), span, cx);
                self.place_unknown(bytes.len() as u64, span, cx);
                self.request = RequestSide::Lost { sent_at: sent_at.max(span.other) };
                bytes.len()
            }
            RequestSide::Unsynced if self.outgoing_suspected && bytes.starts_with(b"HTTP/1.") => {
                cx.counters.outgoing_connections += 1;
                self.become_opaque();
                0
            }
            RequestSide::Unsynced => {
                self.request = head(Origin::MidStream);
                0
            }
            RequestSide::Opaque => {
                self.pass_opaque(Direction::Received, Data::Seen(bytes), cx);
                bytes.len()
            }
        }
    }

    fn receive_preface(&mut self, mut preface: Preface, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        let was_empty = preface.is_empty();
        if was_empty {
            preface.first_at = span.at;
            preface.first_ns = span.time_ns;
            preface.first_other = span.other;
        }
        let (used, found) = preface.push(bytes);
        match found {
            Found::Open => self.request = RequestSide::Preface(preface),
            Found::Header(announced) => {
                cx.counters.proxy_headers += 1;
                self.announced = announced;
                self.request = head(Origin::First);
            }
            // The usual case: nothing was held back from an earlier span.
            Found::Nothing if was_empty => {
                self.request = head(Origin::First);
                return 0;
            }
            Found::Nothing => {
                let before = preface.bytes().len().saturating_sub(used);
                preface.keep(before);
                self.request = RequestSide::Preface(preface);
                self.end_preface(cx);
                return 0;
            }
        }
        used
    }

    /// What was held back for a proxy's header is none: the usual reader takes it.
    pub(super) fn end_preface(&mut self, cx: &mut Context<'_>) {
        if let RequestSide::Preface(preface) = &mut self.request
            && !preface.is_empty()
        {
            let preface = std::mem::replace(preface, Preface::new());
            self.request = head(Origin::First);
            let (at, time_ns, other) = (preface.first_at, preface.first_ns, preface.first_other);
            self.received(Span { at, time_ns, other, data: Data::Seen(preface.bytes()) }, cx);
        }
    }

    fn receive_head(
        &mut self,
        mut reader: HeadReader,
        origin: Origin,
        bytes: &[u8],
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) -> usize {
        let was_empty = reader.is_empty();
        if matches!(origin, Origin::MidStream) && !was_empty && span.other > reader.first_other {
            // The gateway spoke in the middle of what might have been a first line: so it was none.
            cx.counters.unsynced_bytes += reader.len() as u64;
            self.doubt_buffered(&reader, span.at, span, cx);
            self.request = head(origin);
            return 0;
        }
        let (used, event) = reader.push(bytes, cx.limits.max_head_bytes);
        if was_empty {
            reader.first_ns = span.time_ns;
            reader.first_other = span.other;
        }
        match event {
            Event::More => {
                self.request = RequestSide::Head { reader, origin };
                used
            }
            Event::FirstLine => {
                if let Origin::DoubtfulBody(body) = origin {
                    self.after_body(body, Progress::Broken, Some(UnseenPart::RequestBody), span, cx);
                    self.doubt_buffered(&reader, span.at + used as u64, span, cx);
                    self.place_unknown(reader.len() as u64, span, cx);
                } else {
                    self.accept_head(reader, &origin, span, cx);
                }
                used
            }
            Event::End => {
                self.end_head(reader, span, cx);
                used
            }
            Event::TooLong => {
                cx.counters.lose(LossCause::HeadTooLong);
                if reader.is_decided() || matches!(origin, Origin::First | Origin::Next) {
                    self.lose_head(&reader, span, cx);
                    if let Some(open) = self.open.back_mut() {
                        open.head_too_long = true;
                    }
                    used
                } else {
                    let behind = Span { at: span.at + used as u64, ..*span };
                    used + self.reject_head(&reader, origin, bytes.get(used..).unwrap_or_default(), &behind, cx)
                }
            }
            Event::Http2 if matches!(origin, Origin::First | Origin::MidStream) => {
                cx.counters.http2_connections += 1;
                cx.counters.opaque_bytes += reader.len() as u64 + used as u64;
                self.become_opaque();
                used
            }
            Event::Http2 | Event::Rejected => {
                let behind = Span { at: span.at + used as u64, ..*span };
                used + self.reject_head(&reader, origin, bytes.get(used..).unwrap_or_default(), &behind, cx)
            }
        }
    }

    /// The first line is one of a request: an exchange begins.
    fn accept_head(&mut self, reader: HeadReader, origin: &Origin, span: &Span<'_>, cx: &mut Context<'_>) {
        match origin {
            Origin::First | Origin::Next => {}
            Origin::MidStream => cx.counters.resyncs += 1,
            Origin::Turn => {
                cx.counters.resyncs += 1;
                if let Some(open) = self.running_request() {
                    open.note(Oddity::InferredFraming);
                    open.request_part = Part::Done;
                }
            }
            Origin::InsteadOfBody(_) | Origin::DoubtfulBody(_) => {
                if let Some(open) = self.running_request() {
                    open.request_part = Part::Done;
                }
            }
        }
        self.doubt.request_read();
        if matches!(origin, Origin::Next) {
            self.watch_for_pipelining(reader.first_other, cx);
        }
        let behind_loss = matches!(origin, Origin::Turn | Origin::MidStream);
        if behind_loss && self.pipelines {
            self.unpair(span.other, cx);
        }
        // A reply to the beginning of this head may have opened it already.
        let begun = (matches!(origin, Origin::Next | Origin::First) && self.running_request().is_some())
            || self.begin(reader.first_ns, cx);
        if !begun {
            self.doubt.no_room_for_request(span.at, span.time_ns);
            self.request = RequestSide::Lost { sent_at: span.other };
            return;
        }
        if let Some(open) = self.open.back_mut() {
            open.reply_from = Some(reader.first_other);
            open.behind_loss = behind_loss;
        }
        self.request = RequestSide::Head { reader, origin: Origin::Next };
    }

    /// The head is whole.
    fn end_head(&mut self, mut reader: HeadReader, span: &Span<'_>, cx: &mut Context<'_>) {
        let head_bytes = reader.len() as u64;
        let Some((request, oddities)) = parse::request(&mut reader) else {
            cx.counters.lose(LossCause::HeadMalformed);
            self.lose_head(&reader, span, cx);
            return;
        };
        let Some(open) = self.open.back_mut() else { return };
        cx.counters.heads_lenient += u64::from(oddities.contains(&Oddity::LenientHead));
        for oddity in oddities {
            open.note(oddity);
        }
        open.request_head_bytes = head_bytes;
        open.head_read_ns = span.time_ns;
        open.reply_from = Some(span.other);
        open.touch(span.time_ns);
        let (framing, oddity) = framing::of_request(&request);
        if let Some(oddity) = oddity {
            open.note(oddity);
        }
        open.expects_continue = framing::expects_continue(&request) && framing != Framing::None;
        let keep = if framing::wants_request_body(&request) { cx.limits.max_body_start_bytes } else { 0 };
        open.request = Some(request);
        self.request = match framing {
            Framing::Length(bytes) => RequestSide::Body { body: Body::length(bytes, keep), committed: false },
            Framing::Chunked => RequestSide::Body { body: Body::chunked(keep), committed: false },
            Framing::None | Framing::UntilClose => {
                open.request_part = Part::Done;
                open.request_body.whole = true;
                head(Origin::Next)
            }
            Framing::Unknown => {
                cx.counters.lose(LossCause::RequestFraming);
                RequestSide::Lost { sent_at: span.other }
            }
        };
    }

    /// A head that had begun cannot be read on.
    pub(super) fn lose_head(&mut self, reader: &HeadReader, span: &Span<'_>, cx: &mut Context<'_>) {
        let begun = self.running_request().is_some() || self.begin(reader.first_ns, cx);
        if !begun {
            self.doubt.no_room_for_request(span.at, span.time_ns);
        }
        if let Some(open) = self.open.back_mut().filter(|_| begun) {
            open.request_head_bytes += reader.len() as u64;
            open.request_part = Part::Done;
            open.miss(UnseenPart::RequestHead);
            open.touch(span.time_ns);
        }
        self.request = RequestSide::Lost { sent_at: span.other };
    }

    /// What was taken for a head is none; says how many of `rest` (what follows the buffered bytes, at the span's place) were used up.
    fn reject_head(
        &mut self,
        reader: &HeadReader,
        origin: Origin,
        rest: &[u8],
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) -> usize {
        let buffered = reader.len() as u64;
        let at = span.at;
        match origin {
            Origin::First => {
                let tls = reader.is_empty() && matches!(rest, [0x16, 0x03, ..] | [0x16]);
                cx.counters.opaque_bytes += buffered;
                if tls {
                    self.become_encrypted(cx);
                } else {
                    cx.counters.not_http_connections += 1;
                    self.become_opaque();
                }
                0
            }
            Origin::Next => {
                cx.counters.lose(LossCause::HeadMalformed);
                self.doubt_buffered(reader, at, span, cx);
                self.begin_unseen(span.time_ns, cx);
                cx.counters.unplaced_bytes += buffered;
                self.request = RequestSide::Lost { sent_at: span.other };
                0
            }
            Origin::MidStream => {
                cx.counters.unsynced_bytes += buffered + rest.len() as u64;
                self.doubt_buffered(reader, at, span, cx);
                self.doubt_received(at, Doubtful::Seen(rest), span, cx);
                self.request = RequestSide::Unsynced;
                rest.len()
            }
            Origin::Turn => {
                self.doubt_buffered(reader, at, span, cx);
                self.place_unknown(buffered, span, cx);
                self.request = RequestSide::Lost { sent_at: span.other };
                0
            }
            Origin::InsteadOfBody(body) | Origin::DoubtfulBody(body) => {
                // The bytes were held back; the body takes them now, and whatever is left goes the usual way.
                self.request = RequestSide::Body { body, committed: true };
                let at = at.saturating_sub(buffered);
                self.received(Span { at, data: Data::Seen(reader.bytes()), ..*span }, cx);
                0
            }
        }
    }

    fn receive_body(&mut self, mut body: Body, bytes: &[u8], span: &Span<'_>, cx: &mut Context<'_>) -> usize {
        let (used, progress) = body.take(bytes);
        if let Some(open) = self.open.back_mut() {
            open.request_body_bytes += used as u64;
            open.touch(span.time_ns);
        }
        self.after_body(body, progress, None, span, cx);
        used
    }

    /// `unseen`: what it means when the framing broke.
    pub(super) fn after_body(
        &mut self,
        body: Body,
        progress: Progress,
        unseen: Option<UnseenPart>,
        span: &Span<'_>,
        cx: &mut Context<'_>,
    ) {
        if progress == Progress::More {
            self.request = RequestSide::Body { body, committed: true };
            return;
        }
        let ended = progress == Progress::End;
        if let Some(open) = self.open.back_mut() {
            open.request_body = body.into_start(ended);
            if ended {
                open.request_part = Part::Done;
            }
            if let Some(part) = unseen.filter(|_| !ended) {
                open.miss(part);
            }
        }
        self.request = if ended {
            head(Origin::Next)
        } else {
            cx.counters.lose(LossCause::RequestFraming);
            RequestSide::Lost { sent_at: span.other }
        };
    }

    /// What was held back, up to `end`, was no head.
    pub(super) fn doubt_buffered(&mut self, reader: &HeadReader, end: u64, span: &Span<'_>, cx: &mut Context<'_>) {
        let at = end.saturating_sub(reader.len() as u64);
        self.doubt_received(at, Doubtful::Seen(reader.bytes()), span, cx);
    }

    /// In step, the client sends on although a request before has no whole reply: it pipelines.
    pub(super) fn is_awaiting_a_reply(&self) -> bool {
        !matches!(self.reply, ReplySide::Lost { .. } | ReplySide::Unpaired | ReplySide::Opaque)
            && self.open.iter().any(|open| open.request_part == Part::Done && open.reply_part != Part::Done)
    }

    /// Bytes received while the place in the stream of requests is lost.
    pub(super) fn place_unknown(&mut self, count: u64, span: &Span<'_>, cx: &mut Context<'_>) {
        match self.running_request() {
            Some(open) => {
                open.request_body_bytes += count;
                open.touch(span.time_ns);
            }
            None => match self.open.back_mut().filter(|open| open.head_too_long && open.reply_part == Part::Awaited) {
                Some(open) => {
                    open.request_head_bytes += count;
                    open.touch(span.time_ns);
                }
                None => cx.counters.unplaced_bytes += count,
            },
        }
    }

    /// The newest exchange, as long as its request is not done.
    pub(super) fn running_request(&mut self) -> Option<&mut Open> {
        self.open.back_mut().filter(|open| open.request_part != Part::Done)
    }

    /// Whether a body that was announced may never come: the final reply was there before its first byte, and the
    /// client had waited for `100 Continue` in vain (radosgw refuses uploads that way).
    fn may_be_next_head(&self, body: &Body, span: &Span<'_>) -> bool {
        body.taken() == 0
            && !matches!(self.reply, ReplySide::Unpaired)
            && self.open.back().is_some_and(|open| {
                open.awaits_continue() && open.reply_part == Part::Done && span.other >= open.reply_end
            })
    }

    /// Like [`Self::may_be_next_head`], but what the gateway said in between was not seen.
    fn may_have_been_refused(&self, body: &Body) -> bool {
        let (lost, part) = match self.reply {
            ReplySide::Lost { holder } => (holder, Part::Running),
            ReplySide::Unpaired => (true, Part::Done),
            _ => return false,
        };
        body.taken() == 0
            && lost
            && self
                .open
                .back()
                .is_some_and(|open| open.awaits_continue() && open.reply_part == part && open.response.is_none())
    }

    /// Whether the gateway has spoken since the last byte was received, and may have ended what it had to say: then the
    /// client's next bytes begin a request, unless it pipelines.
    pub(super) fn turned(&self, sent_at: u64, span: &Span<'_>) -> bool {
        span.other > sent_at
            && match &self.reply {
                ReplySide::Idle => self.open.iter().all(|open| open.reply_part == Part::Done),
                ReplySide::Lost { .. } | ReplySide::Unpaired => true,
                ReplySide::Body { body, sure, .. } => (!sure && body.taken() == 0) || body.ends_with_connection(),
                ReplySide::Head { .. } | ReplySide::Opaque => false,
            }
    }
}

pub(super) const fn head(origin: Origin) -> RequestSide {
    let reader = match origin {
        Origin::First | Origin::Next => HeadReader::request(),
        Origin::MidStream | Origin::Turn | Origin::InsteadOfBody(_) | Origin::DoubtfulBody(_) => {
            HeadReader::certain_request()
        }
    };
    RequestSide::Head { reader, origin }
}
