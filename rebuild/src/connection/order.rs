//! The order of the pieces that wait, and what is missing between them.

use super::{Closed, Connection, Outside, opposite};
use crate::account::Disposition;
use crate::assembler::{Content, Piece};
use crate::loss::LossCause;
use crate::stream::Stream;
use s3auditd_common::sample::{Direction, Layer, Unseen};

/// What may be given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum GiveUp {
    /// Nothing: it may still come.
    Nothing,
    /// What is missing before a piece that is older than this.
    OlderThan(u64),
    /// All that is missing, and why.
    All(LossCause),
}

impl GiveUp {
    /// Why what is missing before a piece of that time is lost, if it is.
    const fn cause(self, time_ns: u64) -> Option<LossCause> {
        match self {
            Self::OlderThan(drained_ns) if time_ns < drained_ns => Some(LossCause::Hole),
            Self::All(cause) => Some(cause),
            Self::Nothing | Self::OlderThan(_) => None,
        }
    }
}

impl Connection {
    /// No `Opened` came: the streams begin for us with the piece that moved first.
    pub(super) fn anchor_at_the_first(&mut self, out: &mut Outside<'_>) {
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
        self.handshake.begin_at_the_first();
        self.pump(GiveUp::Nothing, out);
    }

    /// Feeds what can be fed, and gives up what may be.
    pub(super) fn pump(&mut self, give_up: GiveUp, out: &mut Outside<'_>) {
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
            if self.pass_over_missing(give_up, out) {
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
    fn pass_over_missing(&mut self, give_up: GiveUp, out: &mut Outside<'_>) -> bool {
        let fronts = [(Direction::Received, &self.received), (Direction::Sent, &self.sent)].into_iter().filter_map(
            |(direction, stream)| {
                let piece = stream.assembler.front()?;
                Some((piece.time_ns, direction, piece.start, piece.other))
            },
        );
        let Some((time_ns, direction, start, other)) = fronts.min_by_key(|(time_ns, ..)| *time_ns) else {
            return false;
        };
        let lost = give_up.cause(time_ns);
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
    fn pass_over(
        &mut self,
        direction: Direction,
        end: u64,
        time_ns: u64,
        lost: Option<LossCause>,
        out: &mut Outside<'_>,
    ) -> bool {
        let other = self.stream(opposite(direction)).assembler.cursor();
        let fin = match direction {
            Direction::Received => self.peer_closed_ns,
            Direction::Sent => self.local_closed_ns,
        };
        let has_fin = self.layer == Layer::Socket;
        let stream = self.stream_mut(direction);
        let cursor = stream.assembler.cursor();
        let front = stream.assembler.front().map(|piece| piece.start);
        let end = front.map_or(end, |front| end.min(front));
        if end <= cursor {
            return false;
        }
        // A FIN takes a sequence number too; but only time can tell it from a byte that is still on its way.
        if lost.is_some() && has_fin && end == cursor + 1 && front.is_none() && fin.is_some_and(|fin| fin <= time_ns) {
            stream.assembler.set_cursor(end);
            stream.account.pass_fin();
            return true;
        }
        let skipped_end = end.min(stream.skip_until);
        if skipped_end < end && lost.is_none() {
            return false;
        }
        let piece = |start, end, content| Piece { start, end, other, time_ns, content };
        if skipped_end > cursor {
            self.feed(direction, piece(cursor, skipped_end, Content::Unseen(Unseen::Skipped)), out);
        }
        let lost_from = skipped_end.max(cursor);
        if let Some(cause) = lost.filter(|_| lost_from < end) {
            let piece = piece(lost_from, end, Content::Dropped);
            self.feed_gap(direction, lost_from, &piece, Disposition::Lost(cause), out);
        }
        true
    }

    /// The socket is gone: what it moved beyond the last sample is known exactly.
    pub(super) fn fill_tail(&mut self, closed: Closed, out: &mut Outside<'_>) {
        self.anchor_at_the_first(out);
        self.pump(GiveUp::All(LossCause::Hole), out);
        let (_, told_received, told_sent) = self.told;
        let (received, sent) = closed.position.unwrap_or((told_received, told_sent));
        for (direction, raw) in [(Direction::Received, received), (Direction::Sent, sent)] {
            let stream = self.stream(direction);
            let (cursor, end) = (stream.assembler.cursor(), stream.assembler.widen(raw));
            // One more may be the FIN's own number: which close sent it is not always told.
            let sure = end > cursor + 1 || self.layer != Layer::Socket || end <= stream.skip_until;
            if end > cursor && sure {
                self.pass_over(direction, end, closed.time_ns, Some(LossCause::Hole), out);
            }
        }
    }
}
