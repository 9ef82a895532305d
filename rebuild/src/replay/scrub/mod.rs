//! What was taken of connections, without what must not be written down.
//!
//! The rule is an allow-list: a byte is kept only where it is certain what it is. Certain are a head that stands in
//! order behind the connection's opening and is whole (its secrets masked, see `head`), the framing of chunks (their
//! extensions and trailers masked), and documents and forms that records tell of (their text masked, see `xml`, `form`). All other
//! bodies keep their length alone. Where there is doubt (a hole, framing that breaks, a protocol that is none) the rest of
//! the connection keeps its lengths alone: what comes of it in a replay is partial, and never wrong.
//!
//! Pieces of a head wait until it is whole, so splitting hides nothing.

mod form;
mod head;
mod xml;

use crate::http::chunked::{Chunked, Step};
use crate::http::framing::{self, Framing};
use crate::http::head::Headers;
use crate::http::parse;
use crate::http::reader::{Event, HeadReader};
use crate::pipeline::Moved;
use crate::redact::Redaction;
use crate::s3::post_form::boundary;
use crate::sample::OwnedSample;
use form::{Multipart, Urlencoded};
use s3auditd_common::sample::{Kind, SampleHeader, Unseen};
use std::collections::{HashMap, VecDeque};
use xml::Xml;

/// Heads that are longer are not recorded.
const MAX_HEAD_BYTES: usize = 1024 * 1024;
/// Bytes of unfinished heads of all connections; beyond it the connection at hand is given up.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// A head that takes longer (in the time of samples) is given up, so that the recording goes on.
const MAX_HELD_NS: u64 = 30_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Scrubber {
    redaction: Redaction,
    connections: HashMap<u64, Conversation>,
    held_bytes: usize,
    out: VecDeque<OwnedSample>,
    dark_bytes: u64,
}

/// One connection.
#[derive(Debug)]
struct Conversation {
    request: Direction,
    reply: Direction,
    /// Requests whose final reply has not begun.
    asked: VecDeque<Asked>,
}

/// What of a request tells how its reply is framed.
#[derive(Debug)]
struct Asked {
    method: Vec<u8>,
    may_hide_an_error: bool,
    expects_continue: bool,
}

#[derive(Debug)]
struct Direction {
    state: State,
    /// Pieces of an unfinished head.
    held: Vec<OwnedSample>,
    /// The position behind the last piece.
    next: u32,
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    Length {
        left: u64,
        kept: Option<Masker>,
        touched: bool,
    },
    Chunked {
        chunked: Chunked,
        kept: Option<Masker>,
    },
    UntilClose {
        kept: Option<Masker>,
    },
    /// More was sent than the reply declared, as some servers do: up to the next request.
    Surplus,
    /// In doubt.
    Dark,
}

/// How a body that says something is masked.
#[derive(Debug)]
enum Masker {
    Xml(Xml),
    Multipart(Multipart),
    Urlencoded(Urlencoded),
}

impl Masker {
    fn of(headers: &Headers) -> Self {
        let kind = headers.first("content-type").unwrap_or_default();
        match boundary(kind) {
            Some(boundary) => Self::Multipart(Multipart::new(boundary)),
            None if kind.to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded") => {
                Self::Urlencoded(Urlencoded::default())
            }
            None => Self::Xml(Xml::new()),
        }
    }

    /// Masks the next piece; says how much of it may be kept. Less than all: nothing of what follows may.
    fn mask(&mut self, bytes: &mut [u8]) -> usize {
        match self {
            Self::Xml(xml) => {
                if xml.mask(bytes) {
                    bytes.len()
                } else {
                    0
                }
            }
            Self::Multipart(form) => form.mask(bytes),
            Self::Urlencoded(form) => {
                form.mask(bytes);
                bytes.len()
            }
        }
    }
}

/// What a head says of what follows it.
enum Next {
    State(State),
    /// Both directions are something else from here on.
    Leave,
}

impl Scrubber {
    /// A scrubber that knows no connection yet.
    #[must_use]
    pub fn new(redaction: Redaction) -> Self {
        Self { redaction, ..Self::default() }
    }

    /// Takes what the pipeline took.
    pub fn take(&mut self, moved: Moved) {
        match moved {
            Moved::Sample(sample) => self.take_sample(sample),
            Moved::Forgotten { cookie } => {
                if let Some(mut conversation) = self.connections.remove(&cookie) {
                    self.go_dark(&mut conversation.request);
                    self.go_dark(&mut conversation.reply);
                }
            }
        }
    }

    /// The next sample that may be written down.
    pub fn next_sample(&mut self) -> Option<OwnedSample> {
        self.out.pop_front()
    }

    /// The time before which everything has come out, given that everything older than `drained_until_ns` has been
    /// taken. Gives up heads that take too long.
    pub fn settled(&mut self, drained_until_ns: u64) -> u64 {
        let mut settled = drained_until_ns;
        let first = |direction: &Direction| direction.held.first().map(|sample| sample.header.time_ns);
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, one)| {
                [&one.request, &one.reply].into_iter().filter_map(first).any(|time_ns| {
                    let late = drained_until_ns.saturating_sub(time_ns) > MAX_HELD_NS;
                    if !late {
                        settled = settled.min(time_ns);
                    }
                    late
                })
            })
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in late {
            if let Some(mut one) = self.connections.remove(&cookie) {
                self.go_dark(&mut one.request);
                self.go_dark(&mut one.reply);
                self.connections.insert(cookie, one);
            }
        }
        settled
    }

    /// Seen bytes that were left out in doubt.
    #[must_use]
    pub const fn dark_bytes(&self) -> u64 {
        self.dark_bytes
    }

    fn take_sample(&mut self, sample: OwnedSample) {
        let header = sample.header;
        let kind = Kind::try_from(header.kind).unwrap_or(Kind::Closed);
        if !matches!(kind, Kind::Received | Kind::Sent) {
            if kind == Kind::Opened {
                self.connections.entry(header.cookie).or_insert_with(|| Conversation {
                    request: Direction::new(State::Head(HeadReader::request()), header.seq),
                    reply: Direction::new(State::Head(HeadReader::reply()), header.other_seq),
                    asked: VecDeque::new(),
                });
            }
            self.out.push_back(sample);
            return;
        }
        // What was open before has no known beginning, and so never a certain place.
        let mut conversation = self.connections.remove(&header.cookie).unwrap_or_else(|| Conversation {
            request: Direction::new(State::Dark, header.seq),
            reply: Direction::new(State::Dark, header.seq),
            asked: VecDeque::new(),
        });
        self.take_piece(&mut conversation, kind, sample);
        self.connections.insert(header.cookie, conversation);
    }

    fn take_piece(&mut self, conversation: &mut Conversation, kind: Kind, sample: OwnedSample) {
        let received = kind == Kind::Received;
        let direction = if received { &mut conversation.request } else { &mut conversation.reply };
        let mut header = sample.header;
        if direction.next != header.seq {
            self.gap(direction, received, u64::from(header.seq.wrapping_sub(direction.next)));
        }
        direction.next = header.seq.wrapping_add(header.len);
        if header.unseen != Unseen::Seen as u8 {
            self.gap(direction, received, u64::from(header.len));
            self.out.push_back(sample);
            return;
        }
        let mut bytes = sample.payload;
        while !bytes.is_empty() {
            let used = self.step(conversation, received, &header, &mut bytes).clamp(1, bytes.len());
            bytes.drain(..used);
            header.seq = header.seq.wrapping_add(low(used));
        }
    }

    /// One step over the beginning of `bytes`; says how many it used.
    fn step(
        &mut self,
        conversation: &mut Conversation,
        received: bool,
        header: &SampleHeader,
        bytes: &mut [u8],
    ) -> usize {
        let direction = if received { &mut conversation.request } else { &mut conversation.reply };
        let total = bytes.len();
        if matches!(direction.state, State::Surplus) && !conversation.asked.is_empty() {
            direction.state = next_head(received);
        }
        match &mut direction.state {
            State::Head(reader) => {
                let (mut used, mut event) = reader.push(bytes, MAX_HEAD_BYTES);
                while event == Event::FirstLine && used < total {
                    let (more, next) = reader.push(bytes.get(used..).unwrap_or_default(), MAX_HEAD_BYTES);
                    (used, event) = (used + more, next);
                }
                let held = bytes.get(..used).unwrap_or_default().to_vec();
                self.held_bytes += held.len();
                direction.held.push(piece(header, 0, held));
                match event {
                    Event::More | Event::FirstLine if self.held_bytes <= MAX_HELD_BYTES => used,
                    Event::End => {
                        self.end_head(conversation, received);
                        used
                    }
                    Event::Rejected if !received && conversation.asked.is_empty() => {
                        self.go_dark(direction);
                        direction.state = State::Surplus;
                        self.hide(header, used, total - used);
                        total
                    }
                    Event::More | Event::FirstLine | Event::Http2 | Event::Rejected | Event::TooLong => {
                        self.leave(conversation);
                        self.hide(header, used, total - used);
                        total
                    }
                }
            }
            State::Length { left, kept, touched } => {
                *touched = true;
                let used = usize::try_from(*left).map_or(total, |left| left.min(total));
                *left -= used as u64;
                let ends = *left == 0;
                let mut kept = kept.take();
                self.content(header, 0, bytes.get_mut(..used).unwrap_or_default(), &mut kept);
                match &mut direction.state {
                    State::Length { kept: place, .. } if !ends => *place = kept,
                    state => *state = next_head(received),
                }
                used
            }
            State::UntilClose { kept } => {
                let mut taken = kept.take();
                self.content(header, 0, bytes, &mut taken);
                *kept = taken;
                total
            }
            State::Chunked { chunked, kept } => {
                let mut kept = kept.take();
                let (used, ended) = self.chunks(chunked, &mut kept, header, bytes);
                match (&mut direction.state, ended) {
                    (state, Some(true)) => *state = next_head(received),
                    (_, Some(false)) => self.go_dark(direction),
                    (State::Chunked { kept: place, .. }, None) => *place = kept,
                    (_, None) => {}
                }
                used
            }
            State::Surplus | State::Dark => {
                self.hide(header, 0, total);
                total
            }
        }
    }

    /// The head of a request or a reply is whole: out with it, masked.
    fn end_head(&mut self, conversation: &mut Conversation, received: bool) {
        let direction = if received { &mut conversation.request } else { &mut conversation.reply };
        let State::Head(reader) = &direction.state else { return };
        let next = if received {
            parse::request(&mut reader.clone()).map(|(head, _)| {
                conversation.asked.push_back(Asked {
                    method: head.method.clone(),
                    expects_continue: framing::expects_continue(&head),
                    may_hide_an_error: framing::may_hide_an_error(&head),
                });
                let kept = framing::wants_request_body(&head).then(|| Masker::of(&head.headers));
                Next::State(body(framing::of_request(&head).0, kept, true))
            })
        } else {
            parse::response(&mut reader.clone()).and_then(|(head, _)| {
                if matches!(head.status, 100..200) && head.status != 101 {
                    if let Some(asked) = conversation.asked.front_mut() {
                        asked.expects_continue &= head.status != 100;
                    }
                    return Some(Next::State(next_head(false)));
                }
                let asked = conversation.asked.pop_front()?;
                if head.status == 101 || asked.method == b"CONNECT" {
                    return Some(Next::Leave);
                }
                // Refused before the body: what comes may be it, or the next request. A record is made of what looks
                // like one, so this shows no more than records do.
                let untouched = match &conversation.request.state {
                    State::Length { touched, .. } => !touched,
                    State::Chunked { chunked, .. } => *chunked == Chunked::START,
                    _ => false,
                };
                if asked.expects_continue && conversation.asked.is_empty() && untouched {
                    conversation.request.state = State::Head(HeadReader::certain_request());
                }
                let kept = framing::wants_reply_body(&head, asked.may_hide_an_error).then(|| Masker::Xml(Xml::new()));
                Some(Next::State(body(framing::of_reply(&head, Some(&asked.method)).0, kept, false)))
            })
        };
        let Some(next) = next else {
            self.leave(conversation);
            return;
        };
        let direction = if received { &mut conversation.request } else { &mut conversation.reply };
        let mut whole: Vec<u8> = direction.held.iter().flat_map(|sample| sample.payload.iter().copied()).collect();
        head::mask(&mut whole, &self.redaction);
        self.held_bytes = self.held_bytes.saturating_sub(whole.len());
        let mut rest = whole.as_slice();
        for mut sample in std::mem::take(&mut direction.held) {
            let Some((masked, tail)) = rest.split_at_checked(sample.payload.len()) else { break };
            sample.payload.copy_from_slice(masked);
            rest = tail;
            if !masked.is_empty() {
                self.out.push_back(sample);
            }
        }
        match next {
            Next::State(state) => direction.state = state,
            Next::Leave => {
                direction.state = State::Dark;
                self.leave(conversation);
            }
        }
    }

    /// Chunks: says how many bytes they used, and whether they ended in order (true) or broke (false).
    fn chunks(
        &mut self,
        chunked: &mut Chunked,
        kept: &mut Option<Masker>,
        header: &SampleHeader,
        bytes: &mut [u8],
    ) -> (usize, Option<bool>) {
        let mut used = 0;
        // Framing of which no sample has been made yet.
        let mut framing = 0..0;
        loop {
            let before = *chunked;
            let rest = bytes.get(used..).unwrap_or_default();
            let step = if rest.is_empty() { None } else { Some(chunked.step(rest)) };
            let hidden = matches!(before, Chunked::Extension { .. } | Chunked::Trailer { .. });
            match step {
                Some(Step::Framing(count) | Step::End(count)) => {
                    for byte in bytes.get_mut(used..used + count).unwrap_or_default() {
                        if hidden && !matches!(byte, b'\r' | b'\n') {
                            *byte = b'*';
                        }
                    }
                    used += count;
                    framing.end = used;
                    if matches!(step, Some(Step::Framing(_))) {
                        continue;
                    }
                }
                Some(Step::Data(_) | Step::Broken) | None => {}
            }
            if !framing.is_empty() {
                let text = bytes.get(framing.clone()).unwrap_or_default().to_vec();
                self.out.push_back(piece(header, framing.start, text));
            }
            match step {
                Some(Step::Data(count)) => {
                    self.content(header, used, bytes.get_mut(used..used + count).unwrap_or_default(), kept);
                    used += count;
                    framing = used..used;
                }
                Some(Step::End(_)) => return (used, Some(true)),
                Some(Step::Broken) => {
                    self.hide(header, used, bytes.len() - used);
                    return (bytes.len(), Some(false));
                }
                Some(Step::Framing(_)) | None => return (used, None),
            }
        }
    }

    /// Content of a body, `at` bytes into the sample.
    fn content(&mut self, header: &SampleHeader, at: usize, bytes: &mut [u8], kept: &mut Option<Masker>) {
        if bytes.is_empty() {
            return;
        }
        let shown = kept.as_mut().map_or(0, |masker| masker.mask(bytes));
        let (text, rest) = bytes.split_at(shown.min(bytes.len()));
        if !text.is_empty() {
            self.out.push_back(piece(header, at, text.to_vec()));
        }
        if !rest.is_empty() {
            *kept = None;
            self.out.push_back(unseen(header, at + text.len(), rest.len(), Unseen::Skipped));
        }
    }

    /// Bytes in doubt: their length alone.
    fn hide(&mut self, header: &SampleHeader, at: usize, count: usize) {
        if count > 0 {
            self.dark_bytes += count as u64;
            self.out.push_back(unseen(header, at, count, Unseen::Withheld));
        }
    }

    fn gap(&mut self, direction: &mut Direction, received: bool, count: u64) {
        match &mut direction.state {
            State::Length { left, kept, touched } if count <= *left => {
                *touched = true;
                *kept = None;
                *left -= count;
                if *left == 0 {
                    direction.state = next_head(received);
                }
            }
            State::Chunked { chunked, kept } => {
                *kept = None;
                if !chunked.pass(count) {
                    self.go_dark(direction);
                }
            }
            State::UntilClose { kept } => *kept = None,
            State::Head(_) | State::Length { .. } => self.go_dark(direction),
            State::Surplus | State::Dark => {}
        }
    }

    fn leave(&mut self, conversation: &mut Conversation) {
        self.go_dark(&mut conversation.request);
        self.go_dark(&mut conversation.reply);
    }

    fn go_dark(&mut self, direction: &mut Direction) {
        direction.state = State::Dark;
        for sample in std::mem::take(&mut direction.held) {
            self.held_bytes = self.held_bytes.saturating_sub(sample.payload.len());
            self.hide(&sample.header, 0, sample.payload.len());
        }
    }
}

impl Direction {
    const fn new(state: State, next: u32) -> Self {
        Self { state, held: Vec::new(), next }
    }
}

const fn next_head(received: bool) -> State {
    State::Head(if received { HeadReader::request() } else { HeadReader::reply() })
}

fn body(framing: Framing, kept: Option<Masker>, received: bool) -> State {
    match framing {
        Framing::None => next_head(received),
        Framing::Length(left) => State::Length { left, kept, touched: false },
        Framing::Chunked => State::Chunked { chunked: Chunked::START, kept },
        Framing::UntilClose => State::UntilClose { kept },
        Framing::Unknown => State::Dark,
    }
}

/// A part of a sample that stands `at` bytes behind its beginning.
fn piece(header: &SampleHeader, at: usize, payload: Vec<u8>) -> OwnedSample {
    let len = low(payload.len());
    OwnedSample { header: SampleHeader { seq: header.seq.wrapping_add(low(at)), len, copied: len, ..*header }, payload }
}

fn unseen(header: &SampleHeader, at: usize, count: usize, why: Unseen) -> OwnedSample {
    let seq = header.seq.wrapping_add(low(at));
    let header = SampleHeader { seq, len: low(count), copied: 0, unseen: why as u8, ..*header };
    OwnedSample { header, payload: Vec::new() }
}

/// Pieces are far shorter than 4 GiB.
fn low(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
