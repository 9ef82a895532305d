//! One connection: two assemblers, the order between them, and the HTTP conversation they feed.
//!
//! **Order.** A piece hangs on everything that the other direction had moved before it (`other`), so the two streams
//! merge into one causal order, whatever CPU each sample came from. Where a piece hangs on bytes that are not there,
//! it waits: until they arrive, until `advance` says that they are lost, or, inside a skip window that we set
//! ourselves, not at all.

use crate::assembler::{Content, Piece, low};
use crate::counters::Counters;
use crate::exchange::{Completion, ConnectionInfo, Exchange};
use crate::http::conversation::{Closing, Context, Conversation, Data, Span};
use crate::http::open::Open;
use crate::loss::LossCause;
use crate::pipeline::{Limits, Moved, Output};
use crate::sample::{OwnedSample, Sample, raw_addresses};
use crate::stream::Stream;
use s3auditd_common::sample::{Direction, Kind, Role, SampleHeader, Unseen, WindowKind};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a connection's steps need from outside.
pub(crate) struct Outside<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) counters: &'a mut Counters,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    /// None: nobody asks.
    pub(crate) moves: Option<&'a mut VecDeque<Moved>>,
    /// Seen bytes are to be dropped: all connections together hold too much.
    pub(crate) full: bool,
}

/// The end of the socket.
#[derive(Clone, Copy, Debug)]
struct Closed {
    time_ns: u64,
    received: u32,
    sent: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    cookie: u64,
    client: SocketAddr,
    server: SocketAddr,
    netns: u32,
    tgid: u32,
    cgroup_id: u64,
    comm: [u8; 16],
    role: Role,
    /// `lost` of the latest sample.
    lost: u32,
    /// The streams' beginning is known. Until then pieces wait: an earlier one may come from another CPU.
    anchored: bool,
    received: Stream,
    sent: Stream,
    peer_closed_ns: Option<u64>,
    local_closed_ns: Option<u64>,
    closed: Option<Closed>,
    http: Conversation,
    /// In the pipeline's list of connections that wait for `advance`.
    pub(crate) listed: bool,
    /// Its place in the order of activity.
    pub(crate) activity: u64,
    /// What the pipeline has accounted for it.
    pub(crate) accounted: usize,
}

impl Connection {
    /// A connection as its first sample shows it.
    pub(crate) fn new(sample: &Sample<'_>) -> Self {
        let header = &sample.header;
        let (received, sent) = match sample.kind {
            Kind::Sent => (header.other_seq, header.seq),
            Kind::Received | Kind::Opened | Kind::PeerClosed | Kind::LocalClosed | Kind::Closed => {
                (header.seq, header.other_seq)
            }
        };
        Self {
            cookie: header.cookie,
            client: sample.remote(),
            server: sample.local(),
            netns: header.netns,
            tgid: header.tgid,
            cgroup_id: header.cgroup_id,
            comm: header.comm,
            role: sample.role,
            lost: 0,
            anchored: false,
            received: Stream::starting_at(received),
            sent: Stream::starting_at(sent),
            peer_closed_ns: None,
            local_closed_ns: None,
            closed: None,
            http: Conversation::in_mid_stream(),
            listed: false,
            activity: 0,
            accounted: 0,
        }
    }

    /// Takes a sample of this connection.
    pub(crate) fn take(&mut self, sample: &Sample<'_>, out: &mut Outside<'_>) {
        let header = &sample.header;
        let newly_lost = header.lost.wrapping_sub(self.lost);
        // Samples of several CPUs may arrive out of order: going back is no loss.
        if newly_lost.cast_signed() > 0 {
            out.counters.kernel_lost_samples += u64::from(newly_lost);
            self.lost = header.lost;
        }
        match sample.kind {
            Kind::Received => self.take_data(Direction::Received, sample, out),
            Kind::Sent => self.take_data(Direction::Sent, sample, out),
            Kind::Opened => {
                if !self.anchored {
                    let (received, sent) =
                        (self.received.assembler.widen(header.seq), self.sent.assembler.widen(header.other_seq));
                    self.http = Conversation::from_the_start();
                    self.anchor(received, sent);
                }
            }
            Kind::PeerClosed => note_first(&mut self.peer_closed_ns, header.time_ns),
            Kind::LocalClosed => note_first(&mut self.local_closed_ns, header.time_ns),
            Kind::Closed => {
                self.closed = Some(Closed { time_ns: header.time_ns, received: header.seq, sent: header.other_seq });
            }
        }
        if let Some(moves) = &mut out.moves
            && !matches!(sample.kind, Kind::Received | Kind::Sent)
        {
            moves.push_back(Moved::Sample(OwnedSample { header: *header, payload: Vec::new() }));
        }
        self.pump(None, out);
        self.keep_within_limit(out);
        self.ask(out);
    }

    fn take_data(&mut self, direction: Direction, sample: &Sample<'_>, out: &mut Outside<'_>) {
        let header = &sample.header;
        self.tgid = header.tgid;
        self.cgroup_id = header.cgroup_id;
        self.comm = header.comm;
        if self.role == Role::Unknown {
            self.role = sample.role;
        }
        let start = self.stream(direction).assembler.widen(header.seq);
        let other = self.stream(opposite(direction)).assembler.widen(header.other_seq);
        let end = start.saturating_add(u64::from(header.len));
        let cursor = self.stream(direction).assembler.cursor();
        if header.len == 0 {
            return;
        }
        if self.anchored && end <= cursor {
            out.counters.stale_bytes += u64::from(header.len);
            return;
        }
        let piece = |content| Piece { start, end, other, time_ns: header.time_ns, content };
        // The usual case needs no copy: nothing waits, and the piece is the next one.
        if self.anchored
            && start <= cursor
            && other <= self.stream(opposite(direction)).assembler.cursor()
            && self.received.assembler.is_empty()
            && self.sent.assembler.is_empty()
        {
            match (sample.unseen, out.full) {
                (Unseen::Seen, false) => {
                    let fresh = usize::try_from(cursor - start).ok().and_then(|stale| sample.payload.get(stale..));
                    self.feed_seen(direction, fresh.unwrap_or_default(), &piece(Content::Dropped), out);
                }
                (Unseen::Seen, true) => {
                    out.counters.lose(LossCause::TotalLimit);
                    self.feed(direction, piece(Content::Dropped), out);
                }
                (unseen, _) => self.feed(direction, piece(Content::Unseen(unseen)), out),
            }
            return;
        }
        let content = match (sample.unseen, out.full) {
            (Unseen::Seen, false) => Content::Seen(sample.payload.to_vec()),
            (Unseen::Seen, true) => {
                out.counters.lose(LossCause::TotalLimit);
                Content::Dropped
            }
            (unseen, _) => Content::Unseen(unseen),
        };
        self.stream_mut(direction).assembler.insert(piece(content));
    }

    /// Every ring has been drained past this time: what is older has arrived or is lost. True when the connection is
    /// over.
    pub(crate) fn advance(&mut self, drained_until_ns: u64, out: &mut Outside<'_>) -> bool {
        if !self.anchored && self.first_time().is_some_and(|time_ns| time_ns < drained_until_ns) {
            self.anchor_at_the_first(out);
        }
        self.pump(Some(drained_until_ns), out);
        let over = self.closed.filter(|closed| closed.time_ns < drained_until_ns);
        if let Some(closed) = over {
            self.fill_tail(closed, out);
            let time_ns =
                [self.peer_closed_ns, self.local_closed_ns].into_iter().flatten().fold(closed.time_ns, u64::min);
            let closing = match (self.peer_closed_ns, self.local_closed_ns) {
                (None, Some(_)) => Closing::Gateway,
                (Some(peer), Some(local)) if local <= peer => Closing::Gateway,
                (peer_closed_ns, local) => {
                    Closing::Client { peer_closed_ns: peer_closed_ns.filter(|_| local.is_some()) }
                }
            };
            self.end(closing, time_ns, out);
        } else {
            self.converse(out, |http, cx| http.settle(drained_until_ns, cx));
            self.ask(out);
        }
        over.is_some()
    }

    /// Hands out what is open, because the connection ends for us.
    pub(crate) fn end(&mut self, closing: Closing, time_ns: u64, out: &mut Outside<'_>) {
        self.converse(out, |http, cx| http.close(closing, time_ns, cx));
    }

    /// Everything that could arrive has; what is missing is lost.
    pub(crate) fn drain(&mut self, out: &mut Outside<'_>) {
        self.anchor_at_the_first(out);
        self.pump(Some(u64::MAX), out);
    }

    /// Whether `advance` may bring it on.
    pub(crate) fn waits(&self) -> bool {
        !self.anchored
            || self.closed.is_some()
            || !self.received.assembler.is_empty()
            || !self.sent.assembler.is_empty()
            || self.http.has_unsettled()
    }

    /// An estimate of the bytes it buffers.
    pub(crate) fn cost(&self) -> usize {
        self.received.assembler.cost().saturating_add(self.sent.assembler.cost()).saturating_add(self.http.cost())
    }

    fn anchor(&mut self, received: u64, sent: u64) {
        self.received.begin_at(received);
        self.sent.begin_at(sent);
        self.anchored = true;
    }

    /// No `Opened` came: the streams begin for us with the piece that moved first.
    fn anchor_at_the_first(&mut self, out: &mut Outside<'_>) {
        if self.anchored {
            return;
        }
        let received = self.received.assembler.earliest();
        let sent = self.sent.assembler.earliest();
        let (received, sent) = match (received, sent) {
            (Some(received), Some(sent)) if sent.time_ns < received.time_ns => (sent.other, sent.start),
            (Some(received), _) => (received.start, received.other),
            (None, Some(sent)) => (sent.other, sent.start),
            (None, None) => (self.received.assembler.cursor(), self.sent.assembler.cursor()),
        };
        self.anchor(received, sent);
        self.pump(None, out);
    }

    /// When the earliest thing known of it happened, as long as it is not anchored.
    fn first_time(&self) -> Option<u64> {
        let pieces = [&self.received, &self.sent].map(|stream| stream.assembler.earliest().map(|piece| piece.time_ns));
        let closes = [self.peer_closed_ns, self.local_closed_ns, self.closed.map(|closed| closed.time_ns)];
        pieces.into_iter().chain(closes).flatten().min()
    }

    /// Feeds what can be fed. With a time, what is missing before a piece that is older than it is lost.
    fn pump(&mut self, drained_until_ns: Option<u64>, out: &mut Outside<'_>) {
        if !self.anchored {
            return;
        }
        loop {
            self.drop_stale(out);
            if let Some(direction) = self.next_ready() {
                if let Some(piece) = self.stream_mut(direction).assembler.pop() {
                    self.feed(direction, piece, out);
                }
                continue;
            }
            if self.pass_over_missing(drained_until_ns, out) {
                continue;
            }
            return;
        }
    }

    fn drop_stale(&mut self, out: &mut Outside<'_>) {
        for stream in [&mut self.received, &mut self.sent] {
            let cursor = stream.assembler.cursor();
            while stream.assembler.front().is_some_and(|piece| piece.end <= cursor) {
                if let Some(piece) = stream.assembler.pop() {
                    out.counters.stale_bytes += piece.end - piece.start;
                }
            }
        }
    }

    /// The direction whose front is next in causal order. Two fronts that hang on each other (two threads, one socket)
    /// go by time.
    fn next_ready(&self) -> Option<Direction> {
        let front = |stream: &Stream, other: &Stream| {
            let piece = stream.assembler.front().filter(|piece| piece.start <= stream.assembler.cursor())?;
            Some((piece.time_ns, piece.other <= other.assembler.cursor()))
        };
        match (front(&self.received, &self.sent), front(&self.sent, &self.received)) {
            (Some((_, true)), None) => Some(Direction::Received),
            (None, Some((_, true))) => Some(Direction::Sent),
            (Some((received_ns, received_free)), Some((sent_ns, sent_free))) => {
                let received_first = if received_free == sent_free { received_ns <= sent_ns } else { received_free };
                Some(if received_first { Direction::Received } else { Direction::Sent })
            }
            (Some((_, false)) | None, None) | (None, Some((_, false))) => None,
        }
    }

    /// The earliest front shows bytes that moved before it. Passes over them where they are not wanted, or lost.
    fn pass_over_missing(&mut self, drained_until_ns: Option<u64>, out: &mut Outside<'_>) -> bool {
        let fronts = [(Direction::Received, &self.received), (Direction::Sent, &self.sent)].into_iter().filter_map(
            |(direction, stream)| {
                let piece = stream.assembler.front()?;
                Some((piece.time_ns, direction, piece.start, piece.other))
            },
        );
        let Some((time_ns, direction, start, other)) = fronts.min_by_key(|(time_ns, ..)| *time_ns) else {
            return false;
        };
        let lost = drained_until_ns.is_some_and(|drained| time_ns < drained);
        let (received_end, sent_end) = match direction {
            Direction::Received => (start, other),
            Direction::Sent => (other, start),
        };
        // A request comes before its reply.
        self.pass_over(Direction::Received, received_end, time_ns, lost, out)
            || self.pass_over(Direction::Sent, sent_end, time_ns, lost, out)
    }

    /// Passes over what is missing up to `end`, or to the next piece that is there; false when there is nothing to
    /// pass, or it may still come.
    fn pass_over(&mut self, direction: Direction, end: u64, time_ns: u64, lost: bool, out: &mut Outside<'_>) -> bool {
        let other = self.stream(opposite(direction)).assembler.cursor();
        let fin = match direction {
            Direction::Received => self.peer_closed_ns,
            Direction::Sent => self.local_closed_ns,
        };
        let stream = self.stream_mut(direction);
        let cursor = stream.assembler.cursor();
        let front = stream.assembler.front().map(|piece| piece.start);
        let end = front.map_or(end, |front| end.min(front));
        if end <= cursor {
            return false;
        }
        // A FIN takes a sequence number too; but only time can tell it from a byte that is still on its way.
        if lost && end == cursor + 1 && front.is_none() && fin.is_some_and(|fin| fin <= time_ns) {
            stream.assembler.set_cursor(end);
            return true;
        }
        let skipped_end = end.min(stream.skip_until);
        if skipped_end < end && !lost {
            return false;
        }
        let piece = |start, end, content| Piece { start, end, other, time_ns, content };
        if skipped_end > cursor {
            self.feed(direction, piece(cursor, skipped_end, Content::Unseen(Unseen::Skipped)), out);
        }
        let lost_from = skipped_end.max(cursor);
        if lost_from < end {
            out.counters.lose(LossCause::Hole);
            out.counters.lost_bytes += end - lost_from;
            self.feed_gap(direction, lost_from, end, other, time_ns, out);
        }
        true
    }

    /// The socket is gone: what it moved beyond the last sample is known exactly.
    fn fill_tail(&mut self, closed: Closed, out: &mut Outside<'_>) {
        self.anchor_at_the_first(out);
        self.pump(Some(u64::MAX), out);
        for (direction, raw) in [(Direction::Received, closed.received), (Direction::Sent, closed.sent)] {
            let stream = self.stream(direction);
            let (cursor, end) = (stream.assembler.cursor(), stream.assembler.widen(raw));
            // One more may be the FIN's own number: which close sent it is not always told.
            if end > cursor + 1 || (end > cursor && end <= stream.skip_until) {
                self.pass_over(direction, end, closed.time_ns, true, out);
            }
        }
    }

    /// Feeds a piece; what of it was fed before is left out.
    fn feed(&mut self, direction: Direction, piece: Piece, out: &mut Outside<'_>) {
        let cursor = self.stream(direction).assembler.cursor();
        let from = piece.start.max(cursor);
        let count = piece.end.saturating_sub(from);
        match &piece.content {
            Content::Seen(bytes) => {
                let stale = usize::try_from(from - piece.start).unwrap_or(usize::MAX);
                self.feed_seen(direction, bytes.get(stale..).unwrap_or_default(), &piece, out);
            }
            Content::Unseen(unseen) => {
                *out.counters.bytes_of(*unseen) += count;
                self.tell_moved(direction, *unseen, &[], from, &piece, out);
                self.feed_gap(direction, from, piece.end, piece.other, piece.time_ns, out);
            }
            Content::Dropped => {
                out.counters.dropped_bytes += count;
                self.feed_gap(direction, from, piece.end, piece.other, piece.time_ns, out);
            }
        }
    }

    fn feed_seen(&mut self, direction: Direction, bytes: &[u8], piece: &Piece, out: &mut Outside<'_>) {
        out.counters.seen_bytes += bytes.len() as u64;
        out.counters.stale_bytes += (piece.end - piece.start).saturating_sub(bytes.len() as u64);
        let at = piece.end.saturating_sub(bytes.len() as u64);
        self.tell_moved(direction, Unseen::Seen, bytes, at, piece, out);
        let span = Span { at, time_ns: piece.time_ns, other: piece.other, data: Data::Seen(bytes) };
        self.feed_span(direction, span, piece.end, out);
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
            reserved: 0,
            local_addr,
            remote_addr,
            comm: self.comm,
        };
        moves.push_back(Moved::Sample(OwnedSample { header, payload: bytes.to_vec() }));
    }

    fn feed_gap(&mut self, direction: Direction, from: u64, end: u64, other: u64, time_ns: u64, out: &mut Outside<'_>) {
        let span = Span { at: from, time_ns, other, data: Data::Gap(end.saturating_sub(from)) };
        self.feed_span(direction, span, end, out);
    }

    fn feed_span(&mut self, direction: Direction, span: Span<'_>, end: u64, out: &mut Outside<'_>) {
        self.converse(out, |http, cx| http.take(direction, span, cx));
        let seen = if let Data::Seen(bytes) = span.data { bytes.len() as u64 } else { 0 };
        self.stream_mut(direction).moved(span.at, end, seen);
        self.stream_mut(opposite(direction)).turn();
    }

    fn converse(&mut self, out: &mut Outside<'_>, step: impl FnOnce(&mut Conversation, &mut Context<'_>)) {
        let mut ended = Vec::new();
        let mut cx = Context { limits: out.limits, counters: out.counters, ended: &mut ended };
        step(&mut self.http, &mut cx);
        for (open, completion) in ended {
            let exchange = self.exchange(open, completion);
            out.counters.ended(exchange.completion);
            out.outputs.push_back(Output::Exchange(Box::new(exchange)));
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
            comm: String::from_utf8_lossy(comm).into_owned(),
            preexisting: self.role == Role::Unknown,
        };
        open.into_exchange(info, completion)
    }

    /// What waits may not grow without end: beyond the limit, what is missing is given up at once.
    fn keep_within_limit(&mut self, out: &mut Outside<'_>) {
        let waiting = self.received.assembler.cost().saturating_add(self.sent.assembler.cost());
        if waiting > out.limits.max_pending_bytes {
            out.counters.lose(LossCause::PendingLimit);
            self.drain(out);
        }
    }

    /// Tells the kernel side what is needed next.
    fn ask(&mut self, out: &mut Outside<'_>) {
        if !self.anchored || self.closed.is_some() {
            return;
        }
        for direction in [Direction::Received, Direction::Sent] {
            let appetite = self.http.appetite(direction);
            let Some(window) = self.stream_mut(direction).window(appetite) else { continue };
            let counter = if window.kind == WindowKind::Skip as u16 {
                &mut out.counters.skip_windows
            } else {
                &mut out.counters.want_windows
            };
            *counter += 1;
            out.outputs.push_back(Output::Window { cookie: self.cookie, direction, window });
        }
    }

    const fn stream(&self, direction: Direction) -> &Stream {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }

    const fn stream_mut(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => &mut self.sent,
        }
    }
}

/// A side may end in several steps (FIN, then RST): the first tells when.
fn note_first(closed_ns: &mut Option<u64>, time_ns: u64) {
    *closed_ns = Some(closed_ns.map_or(time_ns, |first| first.min(time_ns)));
}

const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Received => Direction::Sent,
        Direction::Sent => Direction::Received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() < 1024, "{}", size_of::<Connection>());
    }
}
