//! A model of the kernel side: windows, run budget, pieces (see `s3auditd_common::sample`). Bodies have a length
//! rather than bytes: only what is copied exists.

use crate::support::{Owned, assert_balanced};
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
}

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
        match self.streams[direction as usize].window {
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
        let wanted = unlimited || self.streams[direction as usize].window.is_some();
        while let rest @ 1.. = left.iter().map(length).sum::<u64>() {
            let stream = &mut self.streams[direction as usize];
            let budget = if wanted { u64::MAX } else { u64::from(RUN_BUDGET_BYTES).saturating_sub(stream.run) };
            let piece = rest.min(MAX_PIECE_BYTES as u64).min(budget);
            if piece == 0 {
                self.emit(direction, Unseen::Withheld, rest, &mut left, end);
            } else {
                if !wanted {
                    stream.run += piece;
                }
                self.emit(direction, Unseen::Seen, piece, &mut left, end);
            }
        }
        self.pipeline.advance(self.time_ns);
        self.collect();
    }

    /// A body in calls of `call_bytes`; `tail` follows its last byte in the same call.
    pub(crate) fn body(&mut self, direction: Direction, mut bytes: u64, call_bytes: u64, tail: &[u8]) {
        while bytes > call_bytes {
            self.call(direction, &[Bytes::Zeros(call_bytes)]);
            bytes -= call_bytes;
        }
        self.call(direction, &[Bytes::Zeros(bytes), Bytes::Text(tail.to_vec())]);
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

fn length(bytes: &Bytes) -> u64 {
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
