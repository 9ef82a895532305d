//! HTTP/1 of one connection: both directions, because neither can be framed alone.
//!
//! [`Conversation`] takes spans of the two streams in causal order: when a span arrives, everything that the other
//! direction had moved by then has been taken. That makes positions comparable: a reply to a request lies at or
//! behind the place where the sent stream stood when that request had been received. `request_side` and `reply_side`
//! hold the transitions of the two directions (`side` has their states), `request_gap` and `reply_gap` those over bytes that were
//! not seen, this file what they share.

use super::body::Body;
use super::doubt::{Doubt, Doubtful, Range, Start};
use super::encrypted::Encrypted;
use super::open::{Open, Part};
use super::preface::Preface;
use super::side::{Origin, ReplyOrigin, ReplySide, RequestSide};
use super::span::{Appetite, Closing, Context, Data, Span};
use crate::exchange::{Announced, Completion, Oddity, UnseenPart};
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// Exchanges begun and not handed out, oldest first. Replies come in order, so those with a reply lead.
    pub(super) open: VecDeque<Open>,
    pub(super) request: RequestSide,
    pub(super) reply: ReplySide,
    /// No request head has been met yet on a connection met in mid-stream.
    pub(super) unsynced: bool,
    /// The sent stream of such a connection began like a request.
    pub(super) outgoing_suspected: bool,
    /// What a proxy's header said.
    pub(super) announced: Option<Announced>,
    next_ordinal: u64,
    /// See [`Doubt`].
    pub(super) doubt: Doubt,
    /// The client was seen to send a request before it had the reply to the one before.
    pub(super) pipelines: bool,
    /// The running reply may have no body, whatever its head says: where that would be, there may be replies.
    pub(super) body_may_be_none: bool,
    /// It began with a TLS hello, and may yet be read as plaintext. Both sides are opaque then.
    pub(super) encrypted: Option<Box<Encrypted>>,
    /// What moved before the connection's beginning for us, and until it is in step, is a loss of ours.
    beginning_lost: bool,
}

impl Conversation {
    /// A connection whose first bytes are to come.
    pub(crate) const fn from_the_start() -> Self {
        Self::new(RequestSide::Preface(Preface::new()), ReplySide::Idle, false, false)
    }

    /// A connection met in mid-stream. `beginning_lost`: not because it was open before the agent.
    pub(crate) const fn in_mid_stream(beginning_lost: bool) -> Self {
        Self::new(RequestSide::Unsynced, ReplySide::Lost { holder: false }, true, beginning_lost)
    }

    const fn new(request: RequestSide, reply: ReplySide, unsynced: bool, beginning_lost: bool) -> Self {
        Self {
            open: VecDeque::new(),
            request,
            reply,
            unsynced,
            outgoing_suspected: false,
            announced: None,
            next_ordinal: 0,
            doubt: Doubt::new(),
            pipelines: false,
            body_may_be_none: false,
            encrypted: None,
            beginning_lost,
        }
    }

    /// The client that a proxy announced for this connection.
    pub(crate) const fn announced(&self) -> Option<Announced> {
        self.announced
    }

    /// What a proxy's header said in front of what this conversation is made of.
    pub(crate) fn announce(&mut self, announced: Option<Announced>) {
        self.announced = announced;
    }

    /// Takes the next span of a direction.
    pub(crate) fn take(&mut self, direction: Direction, span: Span<'_>, cx: &mut Context<'_>) {
        match direction {
            Direction::Received => self.received(span, cx),
            Direction::Sent => self.sent(span, cx),
        }
    }

    /// Hands out what ended before `drained_until_ns`: no surplus bytes of it can come any more.
    pub(crate) fn settle(&mut self, drained_until_ns: u64, cx: &mut Context<'_>) {
        while let Some(open) = self.open.pop_front_if(|open| open.is_done() && open.ended_ns < drained_until_ns) {
            end(open, Completion::Complete, cx);
        }
        if self.open.is_empty() {
            // A connection may be kept for hours: the room for one exchange alone is as large as all the rest of it.
            self.open = VecDeque::new();
        }
    }

    /// Whether [`Self::settle`] has something to wait for.
    pub(crate) fn has_unsettled(&self) -> bool {
        self.open.front().is_some_and(Open::is_done)
    }

    /// Hands out everything.
    pub(crate) fn close(&mut self, closing: Closing, time_ns: u64, cx: &mut Context<'_>) {
        self.end_preface(cx);
        if self.encrypted.take().is_some_and(|encrypted| encrypted.has_application_data()) {
            cx.counters.tls_connections_unread += 1;
        }
        if let RequestSide::Head { reader, origin: Origin::First | Origin::Next } = &self.request
            && !reader.is_empty()
            && !reader.is_decided()
        {
            let started_ns = reader.first_ns;
            self.begin(started_ns, cx);
        }
        self.keep_unfinished();
        let body_ends_with_connection =
            matches!(&self.reply, ReplySide::Body { body, .. } if body.ends_with_connection());
        let target = self.target();
        for (index, mut open) in std::mem::take(&mut self.open).into_iter().enumerate() {
            if open.is_done() {
                end(open, Completion::Complete, cx);
                continue;
            }
            // A client that closed before the reply began closed only its own half: it meant to read the reply.
            let sent_whole = match closing {
                Closing::Gateway => true,
                Closing::Client { peer_closed_ns: Some(closed_ns) } => {
                    open.first_byte_ns.is_some_and(|first_ns| closed_ns < first_ns)
                }
                Closing::Client { peer_closed_ns: None } | Closing::AgentStops | Closing::Evicted => false,
            };
            let ends_here =
                body_ends_with_connection && target == Some(index) && open.request_part == Part::Done && sent_whole;
            // Refused before the body: the client had no reason to send it (RFC 9110, 10.1.1).
            let refused = open.reply_part == Part::Done && open.awaits_continue() && open.request_body_bytes == 0;
            if ends_here {
                open.response_body.whole = open.response_body.bytes.len() as u64 == open.response_body_bytes;
            }
            let completion = match closing {
                Closing::AgentStops => Completion::AgentStopped,
                Closing::Evicted => Completion::Partial,
                Closing::Client { .. } | Closing::Gateway if ends_here || refused => Completion::Complete,
                Closing::Client { .. } => Completion::ClientAborted,
                Closing::Gateway if open.request_part == Part::Done && open.reply_part == Part::Awaited => {
                    Completion::NoReply
                }
                Closing::Gateway => Completion::GatewayAborted,
            };
            if !ends_here && !refused {
                open.touch(time_ns);
            }
            end(open, completion, cx);
        }
        self.request = RequestSide::Opaque;
        self.reply = ReplySide::Opaque;
        self.doubt.end();
    }

    /// The next range that is over and in which operations may hide.
    pub(crate) fn next_doubtful(&mut self) -> Option<Range> {
        self.doubt.next_over()
    }

    /// Bytes received, from `at` on, in which a request's head may be that was not read.
    pub(super) fn doubt_received(&mut self, at: u64, bytes: Doubtful<'_>, span: &Span<'_>, cx: &mut Context<'_>) {
        // Met in mid-stream, bytes that were seen may be of before: they count once something of ours is missing.
        let of_before = matches!(bytes, Doubtful::Seen(_)) && self.unsynced && !self.beginning_lost;
        if of_before && self.doubt.is_empty() {
            return;
        }
        if self.doubt.note(Direction::Received, at, span.time_ns, bytes, false) {
            cx.counters.lose(LossCause::Unplaced);
        }
    }

    /// The same of bytes sent, and a reply's head.
    pub(super) fn doubt_sent(&mut self, at: u64, bytes: Doubtful<'_>, span: &Span<'_>, cx: &mut Context<'_>) {
        let straddles = self.unsynced && self.beginning_lost;
        if self.doubt.note(Direction::Sent, at, span.time_ns, bytes, straddles) {
            cx.counters.lose(LossCause::Unplaced);
        }
    }

    /// The span's data as doubtful bytes: the first `count` of what is unseen.
    pub(super) fn unseen(span: &Span<'_>, count: u64, start: Start) -> Doubtful<'static> {
        let cause = if let Data::Gap(_, cause) = span.data { cause } else { LossCause::Unplaced };
        Doubtful::Unseen { count, cause, start }
    }

    /// Moves what unfinished bodies and heads hold into their exchanges.
    fn keep_unfinished(&mut self) {
        let target = self.target();
        match std::mem::replace(&mut self.request, RequestSide::Opaque) {
            RequestSide::Head { reader, origin: Origin::InsteadOfBody(_) | Origin::DoubtfulBody(_) } => {
                if let Some(open) = self.open.back_mut() {
                    open.request_body_bytes += reader.len() as u64;
                }
            }
            RequestSide::Head { reader, origin: Origin::First | Origin::Next } => {
                if let Some(open) = self.open.back_mut().filter(|open| open.request_part != Part::Done) {
                    open.request_head_bytes = reader.len() as u64;
                }
            }
            RequestSide::Body { body, .. } => {
                if let Some(open) = self.open.back_mut() {
                    open.request_body = body.into_start(false);
                }
            }
            _ => {}
        }
        let Some(open) = target.and_then(|index| self.open.get_mut(index)) else { return };
        match &mut self.reply {
            ReplySide::Head { reader, .. } => open.response_head_bytes += reader.len() as u64,
            ReplySide::Body { body, .. } => {
                let ends_with_connection = body.ends_with_connection();
                let kept = if ends_with_connection { Body::until_close(0) } else { Body::length(0, 0) };
                open.response_body = std::mem::replace(body, kept).into_start(false);
            }
            ReplySide::Idle | ReplySide::Lost { .. } | ReplySide::Unpaired | ReplySide::Opaque => {}
        }
    }

    /// What the direction's reader wants of the bytes to come.
    pub(crate) fn appetite(&self, direction: Direction) -> Appetite {
        if self.encrypted.is_some() {
            return Appetite::Indifferent;
        }
        match direction {
            Direction::Received => match &self.request {
                RequestSide::Preface(_) | RequestSide::Head { .. } => Appetite::Needs,
                RequestSide::Lost { .. } | RequestSide::Unsynced => Appetite::Indifferent,
                RequestSide::Body { body, .. } => self.of_body(direction, body),
                RequestSide::Opaque => Appetite::Skips { bytes: u64::MAX },
            },
            Direction::Sent => match &self.reply {
                ReplySide::Idle | ReplySide::Lost { .. } | ReplySide::Unpaired => Appetite::Indifferent,
                ReplySide::Head { .. } => Appetite::Needs,
                ReplySide::Body { body, .. } => self.of_body(direction, body),
                ReplySide::Opaque => Appetite::Skips { bytes: u64::MAX },
            },
        }
    }

    /// So many bytes of what comes next in that direction nobody needs.
    pub(crate) fn spares(&self, direction: Direction) -> u64 {
        match (direction, &self.request, &self.reply) {
            (Direction::Received, RequestSide::Body { body, .. }, _)
            | (Direction::Sent, _, ReplySide::Body { body, .. })
                if self.is_certain(direction, body) =>
            {
                body.unneeded().0
            }
            (Direction::Received, RequestSide::Opaque, _) | (Direction::Sent, _, ReplySide::Opaque)
                if self.encrypted.is_none() =>
            {
                u64::MAX
            }
            _ => 0,
        }
    }

    /// Whether what comes next is this body, and not a message instead of it.
    fn is_certain(&self, direction: Direction, body: &Body) -> bool {
        let begun = body.taken() > 0;
        let certain = match (direction, &self.reply) {
            (Direction::Received, _) => begun || !self.open.back().is_some_and(Open::awaits_continue),
            (Direction::Sent, ReplySide::Body { sure, .. }) => *sure || begun,
            (Direction::Sent, _) => false,
        };
        certain && !(body.ends_with_connection() && body.taken() < UNTIL_CLOSE_GRACE_BYTES)
    }

    fn of_body(&self, direction: Direction, body: &Body) -> Appetite {
        let (unneeded, ends) = body.unneeded();
        let worth = if ends { SKIP_THRESHOLD_BYTES } else { CHUNK_SKIP_THRESHOLD_BYTES };
        if !self.is_certain(direction, body) {
            Appetite::Indifferent
        } else if unneeded >= worth {
            Appetite::Skips { bytes: unneeded }
        } else if body.needs_bytes() {
            Appetite::Needs
        } else {
            Appetite::Indifferent
        }
    }

    /// An estimate of the memory it holds besides itself.
    pub(crate) fn cost(&self) -> usize {
        let request = match &self.request {
            RequestSide::Preface(preface) => preface.capacity(),
            RequestSide::Head { reader, origin: Origin::InsteadOfBody(body) | Origin::DoubtfulBody(body) } => {
                reader.capacity() + body.capacity()
            }
            RequestSide::Head { reader, .. } => reader.capacity(),
            RequestSide::Body { body, .. } => body.capacity(),
            RequestSide::Lost { .. } | RequestSide::Unsynced | RequestSide::Opaque => 0,
        };
        let reply = match &self.reply {
            ReplySide::Head { reader, origin: ReplyOrigin::InsteadOfBody(body) } => reader.capacity() + body.capacity(),
            ReplySide::Head { reader, .. } => reader.capacity(),
            ReplySide::Body { body, .. } => body.capacity(),
            ReplySide::Idle | ReplySide::Lost { .. } | ReplySide::Unpaired | ReplySide::Opaque => 0,
        };
        let encrypted = if self.encrypted.is_some() { size_of::<Encrypted>() } else { 0 };
        self.open.iter().map(Open::cost).fold(
            request.saturating_add(reply).saturating_add(self.doubt.cost()).saturating_add(encrypted),
            usize::saturating_add,
        )
    }

    /// Index of the first exchange whose reply is not done: it owns the next bytes sent.
    pub(super) fn target(&self) -> Option<usize> {
        self.open.iter().position(|open| open.reply_part != Part::Done)
    }

    /// Opens an exchange; false when there are too many.
    pub(super) fn begin(&mut self, started_ns: u64, cx: &mut Context<'_>) -> bool {
        if self.open.len() >= cx.limits.max_open_exchanges_per_connection {
            self.make_room(cx);
        }
        if self.open.len() >= cx.limits.max_open_exchanges_per_connection {
            cx.counters.lose(LossCause::PipeliningLimit);
            return false;
        }
        cx.counters.exchanges_begun += 1;
        if self.open.capacity() == 0 {
            // Nearly always the only one; a queue's first room would be for four.
            self.open.reserve_exact(1);
        }
        let mut open = Open::new(self.next_ordinal, started_ns);
        if matches!(self.reply, ReplySide::Unpaired) {
            cx.counters.lose(LossCause::ResponseHeadUnseen);
            open.miss(UnseenPart::ResponseHead);
            open.reply_part = Part::Done;
        }
        self.open.push_back(open);
        self.next_ordinal += 1;
        self.unsynced = false;
        true
    }

    /// Opens an exchange whose request was not seen (or not understood); what is received next has no known place.
    pub(super) fn begin_unseen(&mut self, time_ns: u64, cx: &mut Context<'_>) -> bool {
        let begun = self.begin(time_ns, cx);
        if begun && let Some(open) = self.open.back_mut() {
            open.miss(UnseenPart::RequestHead);
            open.request_part = Part::Done;
            self.doubt.unseen_request_has_record();
        }
        begun
    }

    /// Hands out the leading exchanges that are done.
    pub(super) fn hand_out_done(&mut self, cx: &mut Context<'_>) {
        self.settle(u64::MAX, cx);
    }

    /// Leaves HTTP for good.
    pub(super) fn become_opaque(&mut self) {
        self.request = RequestSide::Opaque;
        self.reply = ReplySide::Opaque;
        self.unsynced = false;
    }

    /// It began with a TLS hello: its records are followed until plaintext comes, or should have come.
    pub(super) fn become_encrypted(&mut self, cx: &mut Context<'_>) {
        cx.counters.tls_connections += 1;
        self.become_opaque();
        self.encrypted = Some(Box::default());
    }

    /// Its plaintext is seen from the first byte on: nothing of its ciphertext is unread.
    pub(crate) fn is_read_as_plaintext(&mut self) {
        self.encrypted = None;
    }

    /// Takes bytes of a connection that is opaque.
    pub(super) fn pass_opaque(&mut self, direction: Direction, data: Data<'_>, cx: &mut Context<'_>) {
        let count = match data {
            Data::Seen(bytes) => bytes.len() as u64,
            Data::Gap(count, _) => count,
        };
        cx.counters.opaque_bytes += count;
        let Some(encrypted) = &mut self.encrypted else { return };
        match (direction, data) {
            (Direction::Received, Data::Seen(bytes)) => encrypted.receive(bytes),
            (Direction::Received, Data::Gap(count, _)) => encrypted.lose(count),
            (Direction::Sent, _) => encrypted.send(count),
        }
        if encrypted.is_unread() {
            cx.counters.tls_connections_unread += 1;
            self.encrypted = None;
        }
    }

    /// The running exchange's connection carries something else from here on.
    pub(super) fn upgrade(&mut self, index: usize, time_ns: u64, cx: &mut Context<'_>) {
        if let Some(open) = self.open.get_mut(index) {
            open.note(Oddity::Upgraded);
            open.request_part = Part::Done;
            open.reply_part = Part::Done;
            open.touch(time_ns);
        }
        cx.counters.upgraded_connections += 1;
        self.become_opaque();
    }
}

/// Bodies that end with the connection are read so far before the rest is skipped: a reply that only lacks its
/// length (and a body) must not hide the next one.
const UNTIL_CLOSE_GRACE_BYTES: u64 = 16 * 1024;
/// Skipping less than this costs more than it saves.
const SKIP_THRESHOLD_BYTES: u64 = 16 * 1024;
/// The same for one chunk: the framing behind it must be seen again.
const CHUNK_SKIP_THRESHOLD_BYTES: u64 = 64 * 1024;

fn end(open: Open, completion: Completion, cx: &mut Context<'_>) {
    cx.ended.push((open, completion));
}
