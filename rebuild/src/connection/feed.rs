//! What is fed to the conversation, and what comes of it; each span is entered in the direction's account.

use super::{Connection, Outside, opposite};
use crate::account::Disposition;
use crate::assembler::{Content, Piece, low};
use crate::exchange::{Completion, ConnectionInfo, Exchange};
use crate::gap::Gap;
use crate::http::conversation::Conversation;
use crate::http::doubt::Range;
use crate::http::open::Open;
use crate::http::span::{Context, Data, Span};
use crate::pipeline::{Moved, Output};
use crate::sample::{OwnedSample, raw_addresses};
use s3auditd_common::sample::{Direction, Kind, Layer, Role, SampleHeader, Unseen};

impl Connection {
    /// Feeds a piece; what of it was fed before is left out.
    pub(super) fn feed(&mut self, direction: Direction, piece: Piece, out: &mut Outside<'_>) {
        let cursor = self.stream(direction).assembler.cursor();
        let from = piece.start.max(cursor);
        match &piece.content {
            Content::Seen(bytes) => {
                let stale = usize::try_from(from - piece.start).unwrap_or(usize::MAX);
                self.feed_seen(direction, bytes.get(stale..).unwrap_or_default(), &piece, out);
            }
            Content::Unseen(unseen) => {
                self.tell_moved(direction, *unseen, &[], from, &piece, out);
                let disposition = match unseen {
                    // The kernel side knew it from the head, before our word came.
                    Unseen::Withheld if self.can_do_without(direction, from, piece.end) => Disposition::Skipped,
                    unseen => Disposition::of(*unseen),
                };
                self.feed_gap(direction, from, &piece, disposition, out);
            }
            Content::Dropped => self.feed_gap(direction, from, &piece, Disposition::Dropped, out),
        }
    }

    pub(super) fn feed_seen(&mut self, direction: Direction, bytes: &[u8], piece: &Piece, out: &mut Outside<'_>) {
        out.counters.stale_bytes += (piece.end - piece.start).saturating_sub(bytes.len() as u64);
        let at = piece.end.saturating_sub(bytes.len() as u64);
        self.tell_moved(direction, Unseen::Seen, bytes, at, piece, out);
        let span = Span { at, time_ns: piece.time_ns, other: piece.other, data: Data::Seen(bytes) };
        self.feed_span(direction, span, piece.end, Disposition::Seen, out);
    }

    /// Says what is fed: the part of a piece from `from` on.
    fn tell_moved(
        &self,
        direction: Direction,
        unseen: Unseen,
        bytes: &[u8],
        from: u64,
        piece: &Piece,
        out: &mut Outside<'_>,
    ) {
        let Some(moves) = &mut out.moves else { return };
        let len = u32::try_from(piece.end.saturating_sub(from)).unwrap_or(u32::MAX);
        if len == 0 {
            return;
        }
        let (family, local_addr, remote_addr) = raw_addresses(self.server.ip(), self.client.ip());
        let kind = if direction == Direction::Received { Kind::Received } else { Kind::Sent };
        let header = SampleHeader {
            time_ns: piece.time_ns,
            cookie: self.cookie,
            cgroup_id: self.cgroup_id,
            seq: low(from),
            other_seq: low(piece.other),
            len,
            copied: if unseen == Unseen::Seen { len } else { 0 },
            lost: self.lost,
            tgid: self.tgid,
            netns: self.netns,
            local_port: self.server.port(),
            remote_port: self.client.port(),
            kind: kind as u8,
            unseen: unseen as u8,
            role: self.role as u8,
            family,
            layer: self.layer as u8,
            reserved: [0; 3],
            local_addr,
            remote_addr,
            comm: self.comm,
        };
        moves.push_back(Moved::Sample(OwnedSample { header, payload: bytes.to_vec() }));
    }

    /// Whether nobody needs these bytes, which come next: we said so, or would.
    fn can_do_without(&self, direction: Direction, from: u64, end: u64) -> bool {
        end <= self.stream(direction).skip_until || self.http.spares(direction) >= end.saturating_sub(from)
    }

    /// The part of a piece from `from` on, whose bytes are not there.
    pub(super) fn feed_gap(
        &mut self,
        direction: Direction,
        from: u64,
        piece: &Piece,
        disposition: Disposition,
        out: &mut Outside<'_>,
    ) {
        let data = Data::Gap(piece.end.saturating_sub(from), disposition.cause());
        let span = Span { at: from, time_ns: piece.time_ns, other: piece.other, data };
        self.feed_span(direction, span, piece.end, disposition, out);
    }

    fn feed_span(
        &mut self,
        direction: Direction,
        span: Span<'_>,
        end: u64,
        disposition: Disposition,
        out: &mut Outside<'_>,
    ) {
        let (bytes, seen) = match span.data {
            Data::Seen(bytes) => (bytes.len() as u64, bytes.len() as u64),
            Data::Gap(bytes, _) => (bytes, 0),
        };
        self.stream_mut(direction).account.enter(direction, disposition, bytes, out.counters);
        self.converse(out, |http, cx| http.take(direction, span, cx));
        let before = self.stream(direction).assembler.cursor();
        self.stream_mut(direction).moved(span.at, end, seen);
        let moved = match direction {
            Direction::Received => &mut out.counters.received_moved_bytes,
            Direction::Sent => &mut out.counters.sent_moved_bytes,
        };
        *moved += end.saturating_sub(before);
        self.stream_mut(opposite(direction)).turn();
    }

    pub(super) fn converse(&mut self, out: &mut Outside<'_>, step: impl FnOnce(&mut Conversation, &mut Context<'_>)) {
        let mut ended = Vec::new();
        let mut cx = Context { limits: out.limits, counters: out.counters, ended: &mut ended };
        step(&mut self.http, &mut cx);
        if self.handshake_until.is_some() {
            self.held.append(&mut ended);
        }
        for (open, completion) in ended {
            self.hand_out(open, completion, out);
        }
        while let Some(range) = self.http.next_doubtful() {
            out.counters.gaps += 1;
            out.counters.operations_hidden_at_most += range.may_hide;
            out.outputs.push_back(Output::Gap(Box::new(self.gap(range))));
        }
    }

    pub(super) fn hand_out(&self, open: Open, completion: Completion, out: &mut Outside<'_>) {
        let exchange = self.exchange(open, completion);
        out.counters.ended(exchange.completion);
        out.outputs.push_back(Output::Exchange(Box::new(exchange)));
    }

    fn gap(&self, range: Range) -> Gap {
        let account = &self.stream(range.direction).account;
        Gap {
            cookie: self.cookie,
            client: self.client,
            server: self.server,
            netns: self.netns,
            preexisting: self.role == Role::Unknown,
            direction: range.direction,
            cause: range.cause,
            from: account.offset(range.from),
            to: account.offset(range.to),
            first_ns: range.first_ns,
            last_ns: range.last_ns,
            may_hide: range.may_hide,
        }
    }

    fn exchange(&self, open: Open, completion: Completion) -> Exchange {
        let comm = self.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let info = ConnectionInfo {
            cookie: self.cookie,
            client: self.client,
            announced: self.http.announced(),
            server: self.server,
            netns: self.netns,
            tgid: self.tgid,
            cgroup_id: self.cgroup_id,
            comm: crate::redact::lossy(comm).into_owned(),
            preexisting: self.role == Role::Unknown,
            tls: (self.layer != Layer::Socket).then(|| self.handshake.session()),
        };
        open.into_exchange(info, completion)
    }
}
