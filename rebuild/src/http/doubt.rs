//! Bytes in which a head may have been missed, and how many operations may hide there; the bound is that of
//! [`crate::gap`].

use crate::gap::{SHORTEST_REPLY_BYTES, SHORTEST_REQUEST_BYTES};
use crate::loss::LossCause;
use s3auditd_common::sample::Direction;
use std::collections::VecDeque;

/// In the first line of every head that the readers take.
const TOKEN: &[u8] = b"HTTP/1";

/// A contiguous range of doubtful bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) direction: Direction,
    pub(crate) cause: LossCause,
    /// Positions.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) may_hide: u64,
}

/// Doubtful bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doubtful<'a> {
    Seen(&'a [u8]),
    Unseen { count: u64, cause: LossCause, start: Start },
}

/// Where unseen bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Perhaps in the middle of a head.
    Anywhere,
    /// Where a head begins, if they have one.
    Boundary,
    /// Where the head of a message begins that has its record, if they have one.
    OfRecord,
}

/// How many heads may lie in the doubtful bytes of one direction.
#[derive(Debug, Default)]
struct Side {
    /// In what is over.
    heads: u64,
    /// Unseen bytes, in one run, up to here; and what to add to them before they are divided.
    run: u64,
    slack: u64,
    /// The first head in the run has its record.
    first_has_record: bool,
    /// How much of `TOKEN` the last seen bytes end with.
    matched: usize,
    range: Option<Range>,
}

impl Side {
    fn heads(&self, shortest: u64) -> u64 {
        let in_run = if self.run == 0 { 0 } else { (self.run + self.slack) / shortest };
        self.heads + in_run.saturating_sub(u64::from(self.first_has_record))
    }

    fn end_run(&mut self, shortest: u64) {
        self.heads = self.heads(shortest);
        self.run = 0;
        self.first_has_record = false;
    }

    fn add(&mut self, bytes: Doubtful<'_>, shortest: u64, token_at: u64) {
        match bytes {
            Doubtful::Seen(bytes) => {
                self.end_run(shortest);
                self.heads += tokens(&mut self.matched, bytes);
            }
            Doubtful::Unseen { count, start, .. } => {
                if self.run == 0 {
                    self.first_has_record = start == Start::OfRecord;
                    let at_boundary = start != Start::Anywhere;
                    // The first head's token begins `token_at` behind its start; a run that may begin inside a token can
                    // hold as little as its last byte.
                    let token_end = TOKEN.len() as u64 - 1;
                    self.slack = shortest - 1 + if at_boundary { 0 } else { token_end };
                    if at_boundary {
                        self.slack -= token_at;
                    }
                }
                self.run += count;
                self.matched = 0;
            }
        }
    }
}

/// See the module. Nothing is held for a connection that was read without doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubt(Option<Box<State>>);

#[derive(Debug, Default)]
struct State {
    received: Side,
    sent: Side,
    /// Requests that may be without a record, from before the last request head that was read.
    earlier: u64,
    /// Records of requests that were not seen, begun since.
    begun_unseen: u64,
    /// Operations that may be without a record now: replies that were missed after as many requests.
    hidden: u64,
    /// Requests were received while others waited for their reply.
    pipelined: bool,
    /// The latest range received: what is unanswered in the end lies there.
    last_received: Option<Range>,
    ready: VecDeque<Range>,
}

impl Doubt {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The memory it takes.
    pub(super) fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |state| size_of::<State>() + state.ready.capacity() * size_of::<Range>())
    }

    /// There may be requests of which no record tells.
    pub(super) fn may_have_missed_requests(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.requests() > 0)
    }

    /// Enters doubtful bytes at a position. `straddles`: replies may be to requests from before the beginning. True
    /// when a new range began of bytes that were seen.
    pub(super) fn note(
        &mut self,
        direction: Direction,
        at: u64,
        time_ns: u64,
        bytes: Doubtful<'_>,
        straddles: bool,
    ) -> bool {
        let (count, cause) = match bytes {
            Doubtful::Seen(bytes) => (bytes.len() as u64, LossCause::Unplaced),
            Doubtful::Unseen { count, cause, .. } => (count, cause),
        };
        if count == 0 {
            return false;
        }
        let state = self.0.get_or_insert_default();
        let (side, shortest, token_at) = match direction {
            Direction::Received => (&mut state.received, SHORTEST_REQUEST_BYTES, 4),
            Direction::Sent => (&mut state.sent, SHORTEST_REPLY_BYTES, 0),
        };
        let before = side.heads(shortest);
        if side.range.is_none_or(|range| range.to != at) {
            side.end_run(shortest);
            side.matched = 0;
            let over = side.range.take();
            state.ready.extend(over.filter(|range| range.may_hide > 0));
        }
        let fresh = side.range.is_none();
        let new = Range { direction, cause, from: at, to: at, first_ns: time_ns, last_ns: time_ns, may_hide: 0 };
        let range = side.range.get_or_insert(new);
        range.to = at.saturating_add(count);
        range.last_ns = range.last_ns.max(time_ns);
        if range.cause == LossCause::Unplaced {
            range.cause = cause;
        }
        let noted = *range;
        side.add(bytes, shortest, token_at);
        let more = side.heads(shortest).saturating_sub(before);
        let began = match direction {
            Direction::Received => {
                state.last_received = Some(noted);
                fresh
            }
            Direction::Sent => {
                if straddles {
                    state.earlier += more;
                }
                state.miss_replies(more);
                fresh && state.requests() > 0
            }
        };
        began && cause == LossCause::Unplaced
    }

    /// A request's head was read: what was received before it is over.
    pub(super) fn request_read(&mut self) {
        if let Some(state) = &mut self.0 {
            state.earlier = state.requests();
            state.begun_unseen = 0;
            let over = std::mem::take(&mut state.received).range;
            state.ready.extend(over.filter(|range| range.may_hide > 0));
        }
    }

    /// A reply's head was read.
    pub(super) fn reply_read(&mut self) {
        if let Some(state) = &mut self.0 {
            let over = state.sent.range.take();
            state.sent.end_run(SHORTEST_REPLY_BYTES);
            state.ready.extend(over.filter(|range| range.may_hide > 0));
        }
    }

    /// A record began for a request that was not seen.
    pub(super) fn unseen_request_has_record(&mut self) {
        self.0.get_or_insert_default().begun_unseen += 1;
    }

    /// The client sends requests before it has the replies to those before.
    pub(super) fn pipelined(&mut self) {
        self.0.get_or_insert_default().pipelined = true;
    }

    /// A request was read to which there is no room for a record.
    pub(super) fn no_room_for_request(&mut self, at: u64, time_ns: u64) {
        let state = self.0.get_or_insert_default();
        state.earlier += 1;
        state.pipelined = true;
        let cause = LossCause::PipeliningLimit;
        state.last_received.get_or_insert(Range {
            direction: Direction::Received,
            cause,
            from: at,
            to: at,
            first_ns: time_ns,
            last_ns: time_ns,
            may_hide: 0,
        });
    }

    /// A reply was read to which there is no record, and no room for one.
    pub(super) fn no_room_for_reply(&mut self) {
        if let Some(state) = &mut self.0 {
            state.miss_replies(1);
        }
    }

    /// The connection ends: what was received and not answered counts too.
    pub(super) fn end(&mut self) {
        let Some(state) = &mut self.0 else { return };
        let requests = state.requests();
        let unanswered = if state.pipelined { requests } else { requests - state.earlier };
        let bound = requests.min(state.hidden + unanswered).max(state.hidden);
        let more = bound - state.hidden;
        state.hidden = bound;
        if let Some(range) = &mut state.sent.range.take()
            && range.may_hide > 0
        {
            state.ready.push_back(*range);
        }
        if let Some(range) = &mut state.last_received.take()
            && more > 0
        {
            range.may_hide = more;
            state.ready.push_back(*range);
        }
    }

    /// The next range that is over and may hide something.
    pub(crate) fn next_over(&mut self) -> Option<Range> {
        self.0.as_mut()?.ready.pop_front()
    }
}

impl State {
    /// The most requests without a record.
    fn requests(&self) -> u64 {
        self.earlier + self.received.heads(SHORTEST_REQUEST_BYTES).saturating_sub(self.begun_unseen)
    }

    fn miss_replies(&mut self, count: u64) {
        let bound = (self.hidden + count).min(self.requests()).max(self.hidden);
        let more = bound - self.hidden;
        self.hidden = bound;
        if more == 0 {
            return;
        }
        match (&mut self.sent.range, &self.last_received) {
            (Some(range), received) => {
                range.may_hide += more;
                // What was seen, and not placed, is so because of what the request side lost.
                if range.cause == LossCause::Unplaced
                    && let Some(received) = received
                {
                    range.cause = received.cause;
                }
            }
            (None, Some(received)) => self.ready.push_back(Range { may_hide: more, ..*received }),
            (None, None) => {}
        }
    }
}

/// How many times `TOKEN` ends in `bytes`; `matched` carries a beginning over.
fn tokens(matched: &mut usize, bytes: &[u8]) -> u64 {
    let mut found = 0;
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        if *matched == 0 && *byte != b'H' {
            let Some(at) = memchr::memchr(b'H', after) else { return found };
            rest = after.get(at..).unwrap_or_default();
            continue;
        }
        *matched = match TOKEN.get(*matched) {
            Some(wanted) if wanted == byte => *matched + 1,
            _ => usize::from(*byte == b'H'),
        };
        if *matched == TOKEN.len() {
            found += 1;
            *matched = 0;
        }
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSEEN: fn(u64, bool) -> Doubtful<'static> = |count, at_boundary| Doubtful::Unseen {
        count,
        cause: LossCause::Hole,
        start: if at_boundary { Start::Boundary } else { Start::Anywhere },
    };

    fn heads(direction: Direction, count: u64, at_boundary: bool) -> u64 {
        let mut doubt = Doubt::default();
        doubt.note(direction, 0, 0, UNSEEN(count, at_boundary), false);
        let state = doubt.0.unwrap();
        match direction {
            Direction::Received => state.received.heads(SHORTEST_REQUEST_BYTES),
            Direction::Sent => state.sent.heads(SHORTEST_REPLY_BYTES),
        }
    }

    #[test]
    fn what_fits_into_unseen_bytes() {
        // A head counts where a byte of its token is unseen: from `G / H` on.
        for (bytes, fit) in [(4, 0), (5, 1), (13, 1), (17, 1), (18, 2), (31, 3)] {
            assert_eq!(heads(Direction::Received, bytes, true), fit, "{bytes}");
        }
        for (bytes, fit) in [(1, 1), (8, 1), (9, 2)] {
            assert_eq!(heads(Direction::Received, bytes, false), fit, "{bytes}");
        }
        for (bytes, fit) in [(1, 1), (14, 1), (15, 2)] {
            assert_eq!(heads(Direction::Sent, bytes, true), fit, "{bytes}");
        }
        for (bytes, fit) in [(1, 1), (9, 1), (10, 2)] {
            assert_eq!(heads(Direction::Sent, bytes, false), fit, "{bytes}");
        }
    }

    #[test]
    fn the_shortest_heads_are_heads() {
        use super::super::reader::{Event, HeadReader};
        for (mut reader, head, shortest) in [
            (HeadReader::request(), &b"G / HTTP/10\n\n"[..], SHORTEST_REQUEST_BYTES),
            (HeadReader::reply(), b"HTTP/1.0 200\n\n", SHORTEST_REPLY_BYTES),
        ] {
            assert_eq!(head.len() as u64, shortest);
            let (used, event) = reader.push(head, 100);
            assert_eq!(event, Event::FirstLine);
            assert_eq!(reader.push(&head[used..], 100).1, Event::End);
        }
    }

    #[test]
    fn tokens_are_found_however_they_are_cut() {
        let text = b"GET / HTTP/1.1\r\n\r\nHHTTP/1HTTP/HTTP/2 HTTP/1";
        for cut in 0..text.len() {
            let mut matched = 0;
            let (a, b) = text.split_at(cut);
            assert_eq!(tokens(&mut matched, a) + tokens(&mut matched, b), 3, "{cut}");
        }
    }

    #[test]
    fn a_reply_hides_an_operation_only_after_a_request() {
        let mut doubt = Doubt::default();
        doubt.note(Direction::Sent, 100, 1, UNSEEN(100, true), false);
        doubt.note(Direction::Received, 0, 2, UNSEEN(100, true), false);
        doubt.request_read();
        doubt.end();
        assert_eq!(doubt.next_over(), None);

        let mut doubt = Doubt::default();
        doubt.note(Direction::Received, 0, 2, UNSEEN(13, true), false);
        doubt.note(Direction::Sent, 100, 3, Doubtful::Seen(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1"), false);
        doubt.end();
        let gap = doubt.next_over().unwrap();
        assert_eq!((gap.direction, gap.cause, gap.may_hide), (Direction::Sent, LossCause::Hole, 1));
        assert_eq!((gap.from, gap.to, gap.first_ns), (100, 127, 3));
        assert_eq!(doubt.next_over(), None);
    }

    #[test]
    fn what_was_not_answered_hides_in_the_end() {
        for (begun, read, hidden) in [(false, false, 3), (true, false, 2), (false, true, 0)] {
            let mut doubt = Doubt::default();
            doubt.note(Direction::Received, 0, 2, UNSEEN(31, true), false);
            if begun {
                doubt.unseen_request_has_record();
            }
            if read {
                doubt.request_read();
            }
            assert_eq!(doubt.next_over(), None);
            doubt.end();
            assert_eq!(doubt.next_over().map_or(0, |gap| gap.may_hide), hidden);
            doubt.end();
            assert_eq!(doubt.next_over(), None);
        }
    }
}
