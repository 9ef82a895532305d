//! A model of the kernel side: windows, run budget, pieces (see `s3auditd_common::sample`). Bodies have a length
//! rather than bytes: only what is copied exists.

use crate::support::{Owned, assert_balanced};
use s3auditd_common::head::{self, LOOK_BYTES, Look, inside};
use s3auditd_common::sample::{
    Direction, Kind, MAX_PIECE_BYTES, RUN_BUDGET_BYTES, Unseen, WINDOW_STEP_BYTES, Window, WindowKind,
};
use s3auditd_rebuild::exchange::Exchange;
use s3auditd_rebuild::gap::Gap;
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};
use std::collections::VecDeque;

/// What a call moves.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Text(Vec<u8>),
    Zeros(u64),
}

#[derive(Default)]
struct Stream {
    at: u32,
    run: u64,
    window: Option<Window>,
    /// As `s3auditd_common::settings::Place` has them.
    inside: u32,
    body_end: u32,
    kept: u32,
    /// Withheld and not told, and where the other direction stood.
    untold: u32,
    untold_other: u32,
}

/// So much may be withheld before it is told.
const MAX_UNTOLD_BYTES: u32 = 1 << 20;

/// The kernel side of one connection, and the pipeline behind it.
pub(crate) struct Kernel {
    pub(crate) pipeline: Pipeline,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) gaps: Vec<Gap>,
    streams: [Stream; 2],
    time_ns: u64,
    /// Windows take so many calls to arrive.
    delay: usize,
    on_their_way: VecDeque<(usize, Direction, Window)>,
    calls: usize,
    /// The first four bytes of the last request.
    request: u32,
}

impl Kernel {
    pub(crate) fn new(delay: usize) -> Self {
        let mut kernel = Self {
            pipeline: Pipeline::new(Limits::default()),
            exchanges: Vec::new(),
            gaps: Vec::new(),
            streams: [Stream { at: u32::MAX - 9, ..Stream::default() }, Stream { at: 1 << 31, ..Stream::default() }],
            time_ns: 0,
            delay,
            on_their_way: VecDeque::new(),
            calls: 0,
            request: 0,
        };
        let opened = Owned::new(Kind::Opened, 0, kernel.streams[0].at, kernel.streams[1].at);
        opened.give(&mut kernel.pipeline);
        kernel
    }

    /// One system call that moves all of `parts`.
    pub(crate) fn call(&mut self, direction: Direction, parts: &[Bytes]) {
        self.time_ns += 10;
        self.calls += 1;
        while self.on_their_way.front().is_some_and(|(due, ..)| *due <= self.calls) {
            let (_, direction, window) = self.on_their_way.pop_front().unwrap();
            self.streams[direction as usize].window = Some(window);
        }
        let mut left: VecDeque<Bytes> = parts.to_vec().into();
        let total: u64 = parts.iter().map(length).sum();
        let end = self.streams[direction as usize].at.wrapping_add(low(total));
        let mut unlimited = false;
        self.streams[1 - direction as usize].run = 0;
        let follows_chunks = inside::follows_chunks(self.streams[direction as usize].inside);
        match self.streams[direction as usize].window.filter(|_| !follows_chunks) {
            Some(mut window) if window.kind == WindowKind::Skip as u8 => {
                if end.wrapping_sub(window.until).cast_signed() < 0 {
                    self.streams[direction as usize].at = end;
                    return;
                }
                while window.more_steps != 0 && end.wrapping_sub(window.until).cast_signed() >= 0 {
                    window.until = window.until.wrapping_add(WINDOW_STEP_BYTES);
                    window.more_steps -= 1;
                }
                if end.wrapping_sub(window.until).cast_signed() < 0 {
                    self.streams[direction as usize].window = Some(window);
                    return self.emit(direction, Unseen::Skipped, total, &mut left, end);
                }
                let inside = window.until.wrapping_sub(self.streams[direction as usize].at);
                if inside.cast_signed() > 0 {
                    self.emit(direction, Unseen::Skipped, u64::from(inside), &mut left, end);
                }
                self.streams[direction as usize].window = None;
                self.streams[direction as usize].run = 0;
            }
            Some(window) if end.wrapping_sub(window.until).cast_signed() >= 0 => {
                unlimited = self.streams[direction as usize].at.wrapping_sub(window.until).cast_signed() < 0;
                self.streams[direction as usize].window = None;
            }
            _ => {}
        }
        let wanted = unlimited || (self.streams[direction as usize].window.is_some() && !follows_chunks);
        if wanted {
            self.streams[direction as usize].inside = inside::NOTHING;
            self.streams[direction as usize].untold = 0;
        } else if !self.withhold(direction, &mut left, end) {
            return;
        }
        let resumes = inside::resumes(self.streams[direction as usize].inside);
        let held = !wanted && (self.streams[direction as usize].run <= 1 || resumes);
        let mut budget = if held { self.look(direction, &left, end) } else { None };
        let goes_on = matches!(self.streams[direction as usize].inside, inside::BODY | inside::CHUNK);
        let told_later = budget.is_some() && goes_on;
        while let rest @ 1.. = left.iter().map(length).sum::<u64>() {
            let stream = &mut self.streams[direction as usize];
            let run_left = if wanted { u64::MAX } else { u64::from(RUN_BUDGET_BYTES).saturating_sub(stream.run) };
            let piece = rest.min(MAX_PIECE_BYTES as u64).min(budget.unwrap_or(run_left));
            if piece == 0 && told_later {
                stream.untold = low(rest);
                stream.at = end;
                self.streams[direction as usize].untold_other = self.streams[1 - direction as usize].at;
                break;
            } else if piece == 0 {
                self.emit(direction, Unseen::Withheld, rest, &mut left, end);
            } else {
                if !wanted {
                    stream.run += piece;
                }
                budget = budget.map(|budget| budget - piece);
                self.emit(direction, Unseen::Seen, piece, &mut left, end);
            }
        }
        self.pipeline.advance(self.time_ns);
        self.collect();
    }

    /// What the body leaves of a call that is in one; false: nothing is owed for it.
    fn withhold(&mut self, direction: Direction, left: &mut VecDeque<Bytes>, end: u32) -> bool {
        let other = self.streams[1 - direction as usize].at;
        let stream = &mut self.streams[direction as usize];
        if !matches!(stream.inside, inside::BODY | inside::CHUNK) {
            assert!(stream.inside == inside::NOTHING || stream.at == stream.body_end);
            return true;
        }
        let body_end = stream.body_end;
        let past = end.wrapping_sub(body_end).cast_signed();
        if stream.untold == 0 {
            stream.untold_other = other;
        }
        let skip = match stream.run {
            0 => 0,
            _ if past < 0 => end.wrapping_sub(stream.at),
            _ => body_end.wrapping_sub(stream.at),
        };
        let told = stream.untold + skip;
        stream.at = stream.at.wrapping_add(skip);
        take(left, u64::from(skip), false);
        if stream.run != 0 && past < 0 && told < MAX_UNTOLD_BYTES {
            stream.untold = told;
            return false;
        }
        stream.untold = 0;
        if stream.run != 0 && past >= 0 {
            stream.inside = inside::behind(stream.inside);
            stream.run = 0;
        }
        if told != 0 {
            let kind = if direction == Direction::Received { Kind::Received } else { Kind::Sent };
            let sample = Owned::new(kind, self.time_ns, stream.at.wrapping_sub(told), stream.untold_other);
            sample.with_unseen(Unseen::Withheld, told).give(&mut self.pipeline);
            self.collect();
        }
        self.streams[direction as usize].at != end
    }

    /// Looks at the beginning of a call: how much of it is copied, if a long body follows or goes on.
    fn look(&mut self, direction: Direction, left: &VecDeque<Bytes>, end: u32) -> Option<u64> {
        let total: u64 = left.iter().map(length).sum();
        let filled = total.min(u64::from(LOOK_BYTES));
        let bytes = take(&mut left.clone(), filled, true);
        let aligned = |at: u32| {
            let at = usize::try_from(at).unwrap();
            let word: Vec<u8> = (at..at + 8).map(|at| bytes.get(at).copied().unwrap_or(b'\n')).collect();
            u64::from_le_bytes(word.try_into().unwrap())
        };
        let (known, mut first, second) = (filled >= 16, aligned(0), aligned(8));
        let stream = &mut self.streams[direction as usize];
        let resumes = inside::resumes(stream.inside) && !(known && head::begins(direction, first));
        let at_chunk = resumes && stream.inside == inside::SIZE;
        if direction == Direction::Received && !resumes {
            if stream.run == 1 {
                first = first << 8 | u64::from(self.request & 0xff);
            }
            self.request = match filled {
                1 => low(first & 0xff),
                _ if known => low(first),
                _ => 0,
            };
        }
        let mut copied = filled;
        if resumes || (known && (stream.inside == inside::NOTHING || head::begins(direction, first))) {
            let mut look = if resumes { Look::resumed(stream.inside, stream.kept) } else { Look::START };
            stream.inside = inside::NOTHING;
            let long = direction == Direction::Received || total >= 8192 || total == 4096;
            if !resumes && (!long || !head::may_be_left_out(direction, self.request, first, second)) {
                return None;
            }
            while look.step(low(filled), aligned) {}
            let found = look.found(direction);
            let found_end = stream.at.wrapping_add(found.at).wrapping_add(found.bytes);
            if found.inside >= inside::CHUNK && end.wrapping_sub(found_end).cast_signed() > 0 {
                return None;
            }
            (stream.inside, stream.body_end, stream.kept) = (found.inside, found_end, look.kept());
            if at_chunk && found.inside == inside::CHUNK {
                copied = u64::from(found.at);
            }
        }
        if !matches!(stream.inside, inside::BODY | inside::CHUNK) {
            return None;
        }
        let past = end.wrapping_sub(stream.body_end).cast_signed();
        if past >= 0 {
            stream.inside = if past == 0 { inside::behind(stream.inside) } else { inside::NOTHING };
            if stream.inside == inside::SIZE {
                stream.run = 0;
            }
        }
        (past <= 0).then_some(copied)
    }

    /// A body in calls of `call_bytes`; `tail` follows its last byte in the same call.
    pub(crate) fn body(&mut self, direction: Direction, mut bytes: u64, call_bytes: u64, tail: &[u8]) {
        while bytes > call_bytes {
            self.call(direction, &[Bytes::Zeros(call_bytes)]);
            bytes -= call_bytes;
        }
        self.call(direction, &[Bytes::Zeros(bytes), Bytes::Text(tail.to_vec())]);
    }

    /// All of `parts`, in calls of `call_bytes` wherever they cut it.
    pub(crate) fn calls(&mut self, direction: Direction, parts: &[Bytes], call_bytes: u64) {
        let mut left: VecDeque<Bytes> = parts.to_vec().into();
        while !left.is_empty() {
            let (mut call, mut room) = (Vec::new(), call_bytes);
            while let Some(part) = left.pop_front() {
                let count = length(&part).min(room);
                let (now, later) = match part {
                    Bytes::Text(text) => {
                        let (now, later) = text.split_at(usize::try_from(count).unwrap());
                        (Bytes::Text(now.to_vec()), Bytes::Text(later.to_vec()))
                    }
                    Bytes::Zeros(zeros) => (Bytes::Zeros(count), Bytes::Zeros(zeros - count)),
                };
                call.push(now);
                room -= count;
                if length(&later) > 0 {
                    left.push_front(later);
                    break;
                }
            }
            self.call(direction, &call);
        }
    }

    pub(crate) fn text(&mut self, direction: Direction, text: &[u8]) {
        self.call(direction, &[Bytes::Text(text.to_vec())]);
    }

    /// The gateway closes; everything comes out.
    pub(crate) fn close(&mut self) {
        for kind in [Kind::LocalClosed, Kind::Closed] {
            self.time_ns += 10;
            Owned::new(kind, self.time_ns, self.streams[0].at, self.streams[1].at).give(&mut self.pipeline);
        }
        self.pipeline.advance(self.time_ns + 1);
        self.collect();
        assert_eq!(self.pipeline.counters().connections_open(), 0);
        assert_balanced(self.pipeline.counters());
        assert_eq!(self.pipeline.counters().connections_out_of_balance, 0);
        assert_eq!(self.gaps, [], "nothing was lost");
    }

    fn emit(&mut self, direction: Direction, unseen: Unseen, count: u64, left: &mut VecDeque<Bytes>, end: u32) {
        let taken = take(left, count, unseen == Unseen::Seen);
        let kind = if direction == Direction::Received { Kind::Received } else { Kind::Sent };
        let stream = &mut self.streams[direction as usize];
        let seq = stream.at;
        stream.at = seq.wrapping_add(low(count));
        // A skipped end is told by the call that reached it: its own bytes only, which is what `count` is.
        assert!(end.wrapping_sub(stream.at).cast_signed() >= 0);
        let other = self.streams[1 - direction as usize].at;
        let sample = Owned::new(kind, self.time_ns, seq, other);
        let sample =
            if unseen == Unseen::Seen { sample.with_bytes(&taken) } else { sample.with_unseen(unseen, low(count)) };
        sample.give(&mut self.pipeline);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.pipeline.next_output() {
            match output {
                Output::Exchange(exchange) => self.exchanges.push(*exchange),
                Output::Gap(gap) => self.gaps.push(*gap),
                Output::Window { direction, window, .. } => {
                    self.on_their_way.push_back((self.calls + self.delay, direction, window));
                }
            }
        }
    }
}

fn low(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap()
}

pub(crate) fn length(bytes: &Bytes) -> u64 {
    match bytes {
        Bytes::Text(text) => text.len() as u64,
        Bytes::Zeros(count) => *count,
    }
}

/// Takes `count` bytes off the front; makes them real when they are copied.
fn take(left: &mut VecDeque<Bytes>, mut count: u64, real: bool) -> Vec<u8> {
    let mut taken = Vec::new();
    while count > 0 {
        match left.pop_front().unwrap() {
            Bytes::Text(text) => {
                let at = usize::try_from(count).unwrap().min(text.len());
                count -= at as u64;
                if real {
                    taken.extend_from_slice(&text[..at]);
                }
                if at < text.len() {
                    left.push_front(Bytes::Text(text[at..].to_vec()));
                }
            }
            Bytes::Zeros(zeros) => {
                let of_these = zeros.min(count);
                count -= of_these;
                if real {
                    taken.resize(taken.len() + usize::try_from(of_these).unwrap(), 0);
                }
                if of_these < zeros {
                    left.push_front(Bytes::Zeros(zeros - of_these));
                }
            }
        }
    }
    taken
}
