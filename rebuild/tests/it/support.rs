//! Conversations as text become samples; exchanges become text.
//!
//! A conversation has one line a system call:
//!
//! ```text
//! # a comment
//! > bytes received by the gateway        (escapes: \r \n \t \\ \xHH; {a*1000} repeats)
//! < bytes sent by the gateway
//! !> bytes received that no sample tells of      !< the same for sent
//! ?> bytes received, reported as unseen (Fault)  ?< the same for sent
//! peer closes | gateway closes | closed
//! ```
//! and may begin with `preexisting` (open before the agent, no `Opened`) or `opened lost`.

use s3auditd_common::sample::{Kind, Role, SampleHeader, Unseen};
use s3auditd_rebuild::counters::Counters;
use s3auditd_rebuild::exchange::{BodyStart, Exchange};
use s3auditd_rebuild::http::head::Headers;
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};
use s3auditd_rebuild::sample::Sample;
use std::fmt::Write as _;
use zerocopy::IntoBytes as _;

/// Both streams begin just below the wrap, so that every case crosses it.
pub(crate) const RECEIVED_FROM: u32 = u32::MAX - 20;
pub(crate) const SENT_FROM: u32 = u32::MAX - 3;

/// A sample that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) header: SampleHeader,
    pub(crate) payload: Vec<u8>,
}

impl Owned {
    pub(crate) fn new(kind: Kind, time_ns: u64, seq: u32, other_seq: u32) -> Self {
        let mut header: SampleHeader = zerocopy::FromZeros::new_zeroed();
        header.time_ns = time_ns;
        header.cookie = 1;
        header.seq = seq;
        header.other_seq = other_seq;
        header.kind = kind as u8;
        header.role = Role::Accepted as u8;
        header.family = 2;
        header.local_port = 9000;
        header.remote_port = 40_000;
        header.local_addr[..4].copy_from_slice(&[10, 0, 0, 1]);
        header.remote_addr[..4].copy_from_slice(&[10, 0, 0, 2]);
        if matches!(kind, Kind::Received | Kind::Sent) {
            header.tgid = 77;
            header.comm[..5].copy_from_slice(b"minio");
        }
        Self { header, payload: Vec::new() }
    }

    pub(crate) fn with_bytes(mut self, bytes: &[u8]) -> Self {
        self.header.len = u32::try_from(bytes.len()).unwrap();
        self.header.copied = self.header.len;
        self.payload = bytes.to_vec();
        self
    }

    pub(crate) fn with_unseen(mut self, unseen: Unseen, len: u32) -> Self {
        self.header.unseen = unseen as u8;
        self.header.len = len;
        self.header.copied = 0;
        self.payload.clear();
        self
    }

    pub(crate) fn of(mut self, cookie: u64) -> Self {
        self.header.cookie = cookie;
        self
    }

    pub(crate) fn is_data(&self) -> bool {
        self.header.kind <= Kind::Sent as u8
    }

    /// The same bytes in two calls at the same moment.
    pub(crate) fn cut(&self, at: usize) -> [Self; 2] {
        let (a, b) = self.payload.split_at(at);
        let first = Self { header: self.header, payload: Vec::new() }.with_bytes(a);
        let mut second = Self { header: self.header, payload: Vec::new() }.with_bytes(b);
        second.header.seq = second.header.seq.wrapping_add(u32::try_from(at).unwrap());
        [first, second]
    }

    pub(crate) fn give(&self, pipeline: &mut Pipeline) {
        let mut record = self.header.as_bytes().to_vec();
        record.extend_from_slice(&self.payload);
        record.extend_from_slice(&[0; 5]);
        pipeline.take(&Sample::parse(&record).unwrap());
    }
}

pub(crate) fn samples(text: &str) -> Vec<Owned> {
    let (mut samples, mut time_ns) = (Vec::new(), 0);
    let (mut received, mut sent) = (RECEIVED_FROM, SENT_FROM);
    let mut role = Role::Accepted;
    let opened = Owned::new(Kind::Opened, 5, received, sent);
    samples.push(opened);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        time_ns += 10;
        let lifecycle = |kind| Owned::new(kind, time_ns, received, sent);
        match line {
            "preexisting" => {
                samples.clear();
                role = Role::Unknown;
            }
            "opened lost" => samples.clear(),
            "peer closes" => samples.push(lifecycle(Kind::PeerClosed)),
            "gateway closes" => samples.push(lifecycle(Kind::LocalClosed)),
            "closed" => samples.push(lifecycle(Kind::Closed)),
            _ => {
                let (mark, line) = match line.as_bytes()[0] {
                    mark @ (b'!' | b'?') => (Some(mark), &line[1..]),
                    _ => (None, line),
                };
                let bytes = unescape(&line[2..]);
                let len = u32::try_from(bytes.len()).unwrap();
                let sample = match &line[..2] {
                    "> " => {
                        received = received.wrapping_add(len);
                        Owned::new(Kind::Received, time_ns, received.wrapping_sub(len), sent)
                    }
                    "< " => {
                        sent = sent.wrapping_add(len);
                        Owned::new(Kind::Sent, time_ns, sent.wrapping_sub(len), received)
                    }
                    other => panic!("{other:?} begins no line"),
                };
                match mark {
                    None => samples.push(sample.with_bytes(&bytes)),
                    Some(b'?') => samples.push(sample.with_unseen(Unseen::Fault, len)),
                    Some(_) => {}
                }
            }
        }
    }
    for sample in &mut samples {
        sample.header.role = role as u8;
    }
    samples
}

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'{'
            && let Some(end) = rest.iter().position(|byte| *byte == b'}')
        {
            let (unit, times) = std::str::from_utf8(&rest[..end]).unwrap().rsplit_once('*').unwrap();
            bytes.extend(unescape(unit).repeat(times.parse().unwrap()));
            rest = &rest[end + 1..];
        } else if byte == b'\\' {
            let (&escaped, after) = rest.split_first().unwrap();
            rest = after;
            bytes.push(match escaped {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'x' => {
                    let digits = std::str::from_utf8(&rest[..2]).unwrap();
                    rest = &rest[2..];
                    u8::from_str_radix(digits, 16).unwrap()
                }
                other => other,
            });
        } else {
            bytes.push(byte);
        }
    }
    bytes
}

/// Later than anything in a conversation.
pub(crate) const LATER_NS: u64 = 1_000_000;

pub(crate) fn exchanges(pipeline: &mut Pipeline) -> Vec<Exchange> {
    std::iter::from_fn(|| pipeline.next_output())
        .filter_map(|output| match output {
            Output::Exchange(exchange) => Some(*exchange),
            Output::Gap(_) | Output::Window { .. } => None,
        })
        .collect()
}

/// What moved by the sequence numbers is what became of it, and every connection that ended was found so.
pub(crate) fn assert_balanced(counters: &Counters) {
    let c = counters;
    let received = c.received_seen_bytes
        + c.received_skipped_bytes
        + c.received_unseen_bytes
        + c.received_lost_bytes
        + c.received_dropped_bytes;
    let sent =
        c.sent_seen_bytes + c.sent_skipped_bytes + c.sent_unseen_bytes + c.sent_lost_bytes + c.sent_dropped_bytes;
    assert_eq!((c.received_moved_bytes, c.sent_moved_bytes), (received, sent), "{c:?}");
    let ended = c.connections_seen - c.connections_open();
    assert_eq!(c.connections_balanced + c.connections_out_of_balance, ended, "{c:?}");
}

/// All of it, in order, then the end.
pub(crate) fn run(samples: &[Owned]) -> (Vec<Exchange>, Pipeline) {
    let mut pipeline = Pipeline::new(Limits::default());
    for sample in samples {
        sample.give(&mut pipeline);
    }
    pipeline.advance(LATER_NS);
    pipeline.finish(LATER_NS);
    assert_eq!(pipeline.buffered_bytes(), 0);
    let exchanges = exchanges(&mut pipeline);
    let counters = pipeline.counters();
    assert_eq!(counters.exchanges_begun, counters.exchanges_ended);
    assert_eq!(counters.exchanges_ended, exchanges.len() as u64);
    assert_eq!(counters.connections_open(), 0);
    assert_balanced(counters);
    assert_eq!(counters.connections_out_of_balance, 0);
    (exchanges, pipeline)
}

pub(crate) fn render(exchanges: &[Exchange]) -> String {
    let mut text = String::new();
    for exchange in exchanges {
        render_one(exchange, &mut text).unwrap();
    }
    text
}

fn render_one(exchange: &Exchange, out: &mut String) -> std::fmt::Result {
    let e = exchange;
    write!(out, "exchange {} {:?}", e.ordinal, e.completion)?;
    if !e.unseen.is_empty() {
        write!(out, ", unseen {:?}", e.unseen)?;
    }
    if !e.oddities.is_empty() {
        write!(out, ", odd {:?}", e.oddities)?;
    }
    if e.connection.preexisting {
        write!(out, ", preexisting")?;
    }
    if let Some(announced) = e.connection.announced {
        write!(out, ", announced {} {:?}", announced.client, announced.version)?;
    }
    writeln!(out)?;
    match &e.request {
        Some(head) => {
            let (method, target) = (head.method.escape_ascii(), head.target.escape_ascii());
            writeln!(out, "  > {method} {target} {:?} {}", head.version, fields(&head.headers))?;
        }
        None => writeln!(out, "  > not seen")?,
    }
    body(&e.request_body, "> body", out)?;
    match &e.response {
        Some(head) => writeln!(out, "  < {} {:?} {}", head.status, head.version, fields(&head.headers))?,
        None => writeln!(out, "  < none or not seen")?,
    }
    body(&e.response_body, "< body", out)?;
    if e.interim_replies > 0 {
        writeln!(out, "  interim replies: {}", e.interim_replies)?;
    }
    writeln!(
        out,
        "  bytes: > {}+{}, < {}+{}; times: started {}, head {}, first byte {}, ended {}",
        e.request_head_bytes,
        e.request_body_bytes,
        e.response_head_bytes,
        e.response_body_bytes,
        e.started_ns,
        e.head_read_ns,
        e.first_byte_ns.map_or("-".to_owned(), |time| time.to_string()),
        e.ended_ns
    )
}

fn fields(headers: &Headers) -> String {
    let fields = headers.iter().map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii()));
    format!("[{}]", fields.collect::<Vec<_>>().join(", "))
}

fn body(start: &BodyStart, name: &str, out: &mut String) -> std::fmt::Result {
    if start.bytes.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {name}{}: {}", if start.whole { "" } else { " (not whole)" }, start.bytes.escape_ascii())
}

/// A small generator: tests must not depend on the clock, and need no more than this.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
