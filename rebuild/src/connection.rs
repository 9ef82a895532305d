//! One connection: two assemblers, the order between them, and the HTTP conversation they feed.
//!
//! **Order.** A piece hangs on everything that the other direction had moved before it (`other`), so the two streams
//! merge into one causal order, whatever CPU each sample came from. Where a piece hangs on bytes that are not there,
//! it waits: until they arrive, until `advance` says that they are lost, or, inside a skip window that we set
//! ourselves, not at all.

mod feed;
mod order;
mod plaintext;

use crate::assembler::{Content, Piece};
use crate::counters::Counters;
use crate::exchange::Completion;
use crate::handshake::Handshake;
use crate::http::conversation::Conversation;
use crate::http::open::Open;
use crate::http::span::Closing;
use crate::loss::LossCause;
use crate::pipeline::{Limits, Moved, Output};
use crate::sample::{OwnedSample, Sample};
use crate::stream::Stream;
use order::GiveUp;
use s3auditd_common::sample::{Direction, Kind, Layer, Role, Unseen, WindowKind};
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
    /// Received and sent. None: the socket was cut off from its peer first (`tcp_disconnect`, as MPTCP does to its first
    /// subflow), which gives it other numbers.
    position: Option<(u32, u32)>,
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
    /// Which bytes the streams are of.
    layer: Layer,
    handshake: Handshake,
    /// Until every ring has been drained past this time, the handshake may still come, late.
    handshake_until: Option<u64>,
    /// What ended meanwhile.
    held: Vec<(Open, Completion)>,
    /// `lost` of the latest sample.
    lost: u32,
    /// The streams' beginning is known. Until then pieces wait: an earlier one may come from another CPU.
    anchored: bool,
    received: Stream,
    sent: Stream,
    peer_closed_ns: Option<u64>,
    local_closed_ns: Option<u64>,
    closed: Option<Closed>,
    /// Where both directions stood at the latest change before the end, received and sent, and when that was.
    told: (u64, u32, u32),
    /// Something in the kernel has the socket, which has been counted.
    upper_layer: bool,
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
            layer: Layer::Socket,
            handshake: if sample.role == Role::Unknown { Handshake::unseen() } else { Handshake::awaited() },
            handshake_until: None,
            held: Vec::new(),
            lost: 0,
            anchored: false,
            received: Stream::starting_at(received),
            sent: Stream::starting_at(sent),
            peer_closed_ns: None,
            local_closed_ns: None,
            closed: None,
            told: (header.time_ns, received, sent),
            upper_layer: false,
            http: Conversation::in_mid_stream(sample.role != Role::Unknown),
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
        if sample.unseen == Unseen::UpperLayer && !self.upper_layer {
            self.upper_layer = true;
            out.counters.upper_layer_connections += 1;
        }
        if sample.layer == Layer::Socket {
            self.handshake.take(sample, out.full);
            if self.handshake.is_whole() {
                self.hand_out_held(out);
            }
        }
        match (self.layer, sample.layer) {
            (Layer::Socket, Layer::Socket) => {}
            (Layer::Socket, layer) => self.become_plaintext(layer, header.time_ns, out),
            (_, Layer::Socket) => return self.take_late_ciphertext(sample, out),
            _ => {}
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
                // Plaintext has numbers of its own, whatever became of the socket.
                let is_told = header.remote_port != 0 || self.layer != Layer::Socket;
                let position = is_told.then_some((header.seq, header.other_seq));
                self.closed = Some(Closed { time_ns: header.time_ns, position });
            }
        }
        if matches!(sample.kind, Kind::PeerClosed | Kind::LocalClosed) && header.time_ns >= self.told.0 {
            self.told = (header.time_ns, header.seq, header.other_seq);
        }
        if let Some(moves) = &mut out.moves
            && !matches!(sample.kind, Kind::Received | Kind::Sent)
        {
            moves.push_back(Moved::Sample(OwnedSample { header: *header, payload: Vec::new() }));
        }
        self.pump(GiveUp::Nothing, out);
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
        if self.handshake_until.is_some_and(|until| until < drained_until_ns) {
            self.hand_out_held(out);
        }
        if !self.anchored && self.first_time().is_some_and(|time_ns| time_ns < drained_until_ns) {
            self.anchor_at_the_first(out);
        }
        self.pump(GiveUp::OlderThan(drained_until_ns), out);
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
        self.hand_out_held(out);
        self.converse(out, |http, cx| http.close(closing, time_ns, cx));
        let balances = self.balances(Direction::Received) && self.balances(Direction::Sent);
        let counter = if balances {
            &mut out.counters.connections_balanced
        } else {
            &mut out.counters.connections_out_of_balance
        };
        *counter += 1;
    }

    /// Whether everything that the kernel says has moved is in the account; by its last word, if that came.
    fn balances(&self, direction: Direction) -> bool {
        let stream = self.stream(direction);
        let end = self.closed.and_then(|closed| closed.position).map(|(received, sent)| match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        });
        let last = end.map_or(stream.assembler.cursor(), |raw| stream.assembler.widen(raw));
        stream.account.balances(last, end.is_some() && self.layer == Layer::Socket)
    }

    /// What is missing is lost, and why: everything that could arrive has, or it is not waited for.
    pub(crate) fn drain(&mut self, cause: LossCause, out: &mut Outside<'_>) {
        self.anchor_at_the_first(out);
        self.pump(GiveUp::All(cause), out);
    }

    /// Whether `advance` may bring it on.
    pub(crate) fn waits(&self) -> bool {
        !self.anchored
            || self.closed.is_some()
            || !self.held.is_empty()
            || !self.received.assembler.is_empty()
            || !self.sent.assembler.is_empty()
            || self.http.has_unsettled()
    }

    /// An estimate of the bytes it buffers.
    pub(crate) fn cost(&self) -> usize {
        let pending = self.received.assembler.cost().saturating_add(self.sent.assembler.cost());
        let held = self.held.iter().map(|(open, _)| open.cost()).sum::<usize>();
        pending.saturating_add(self.http.cost()).saturating_add(self.handshake.cost()).saturating_add(held)
    }

    fn anchor(&mut self, received: u64, sent: u64) {
        self.received.begin_at(received);
        self.sent.begin_at(sent);
        self.anchored = true;
    }

    /// When the earliest thing known of it happened, as long as it is not anchored.
    fn first_time(&self) -> Option<u64> {
        let pieces = [&self.received, &self.sent].map(|stream| stream.assembler.earliest().map(|piece| piece.time_ns));
        let closes = [self.peer_closed_ns, self.local_closed_ns, self.closed.map(|closed| closed.time_ns)];
        pieces.into_iter().chain(closes).flatten().min()
    }

    /// What waits may not grow without end: beyond the limit, what is missing is given up at once.
    fn keep_within_limit(&mut self, out: &mut Outside<'_>) {
        let waiting = self.received.assembler.cost().saturating_add(self.sent.assembler.cost());
        if waiting > out.limits.max_pending_bytes {
            out.counters.lose(LossCause::PendingLimit);
            self.drain(LossCause::PendingLimit, out);
        }
    }

    /// Tells the kernel side what is needed next.
    fn ask(&mut self, out: &mut Outside<'_>) {
        if !self.anchored || self.closed.is_some() {
            return;
        }
        for direction in [Direction::Received, Direction::Sent] {
            let appetite = self.http.appetite(direction);
            let Some(mut window) = self.stream_mut(direction).window(appetite) else { continue };
            window.plaintext = u8::from(self.layer != Layer::Socket);
            let counter = if window.kind == WindowKind::Skip as u8 {
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
