//! What both ends of a connection do, from a seed.

use super::layers::Layer;
use s3auditd_common::sample::{Kind, Unseen};
use s3auditd_tests::mptcp;
use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
};

/// A way for the server to receive or send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Read,
    Readv,
    Recv,
    RecvFrom,
    RecvMsg,
    Preadv2,
    /// Looks before it reads: the look moves nothing.
    PeekThenRead,
    /// Byte by byte.
    Bytewise,
    /// A list of messages, of one.
    RecvMmsg,
    /// A list of three.
    RecvMmsgThree,
    /// By a 32-bit system call, which x86-64 has.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no such calls there"))]
    Recv32,
    /// By an option of the socket, that maps its pages.
    ByOption,
    /// Thrown away by the kernel.
    Truncate,
    /// Into a pipe.
    SpliceFrom,
    Write,
    Writev,
    /// With 1,000 segments.
    WritevMany,
    Send,
    SendTo,
    SendMsg,
    Pwritev2,
    /// Does not block: partial writes.
    NonBlocking,
    ZeroCopy,
    /// From another thread than the one that receives.
    OtherThread,
    SendMmsg,
    SendMmsgThree,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no such calls there"))]
    Write32,
    Sendfile,
    SpliceTo,
}

use Way::*;

const BACKENDS: [&str; 4] = ["socket-tracepoints", "fexit", "kprobe", "syscall"];

const ALL: &[Way] = &[
    Read,
    Readv,
    Recv,
    RecvFrom,
    RecvMsg,
    Preadv2,
    PeekThenRead,
    Bytewise,
    RecvMmsg,
    RecvMmsgThree,
    #[cfg(target_arch = "x86_64")]
    Recv32,
    ByOption,
    Truncate,
    SpliceFrom,
    Write,
    Writev,
    WritevMany,
    Send,
    SendTo,
    SendMsg,
    Pwritev2,
    NonBlocking,
    ZeroCopy,
    OtherThread,
    SendMmsg,
    SendMmsgThree,
    #[cfg(target_arch = "x86_64")]
    Write32,
    Sendfile,
    SpliceTo,
];

/// Those that may follow each other in any order: their bytes can be seen, and they are not slow.
fn quick_and_seen() -> Vec<Way> {
    let all = ALL.iter().copied();
    all.filter(|way| {
        !matches!(way, Bytewise) && BACKENDS.iter().all(|backend| way.expected(backend).contains(&Unseen::Seen))
    })
    .collect()
}

impl Way {
    pub fn kind(self) -> Kind {
        match self {
            Read | Readv | Recv | RecvFrom | RecvMsg | Preadv2 | PeekThenRead | Bytewise | RecvMmsg | RecvMmsgThree
            | Recv32 | ByOption | Truncate | SpliceFrom => Kind::Received,
            Write | Writev | WritevMany | Send | SendTo | SendMsg | Pwritev2 | NonBlocking | ZeroCopy | OtherThread
            | SendMmsg | SendMmsgThree | Write32 | Sendfile | SpliceTo => Kind::Sent,
        }
    }

    /// How its bytes show in samples with that backend: one of these. None: not at all, a gap.
    pub fn expected(self, backend: &str) -> &'static [Unseen] {
        match (self, backend) {
            (SpliceFrom, "syscall") => &[Unseen::NoBuffer],
            (SpliceFrom, _) => &[],
            (Truncate | Sendfile | SpliceTo, _) => &[Unseen::NoBuffer],
            (ByOption, _) => &[],
            (RecvMmsg | SendMmsg | RecvMmsgThree | SendMmsgThree, "socket-tracepoints") => &[Unseen::NoBuffer],
            (Recv32 | Write32, "socket-tracepoints") => &[Unseen::ForeignCaller],
            (RecvMmsgThree | SendMmsgThree | Recv32 | Write32, "syscall") => &[],
            (WritevMany, _) if !has_bpf_loop() => &[Unseen::Seen, Unseen::TooManySegments],
            _ => &[Unseen::Seen],
        }
    }
}

/// Before 5.17 the kernel side follows fewer segments.
pub(crate) fn has_bpf_loop() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(17))
}

/// So many bytes, that way.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub way: Way,
    pub len: usize,
}

/// What a connection does. The server learns it from the first bytes it receives.
#[derive(Clone, Debug)]
pub struct Plan {
    seed: u64,
    ipv6: bool,
    mptcp: bool,
    pub steps: Vec<Step>,
}

/// Of the server's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Usual,
    /// Nice.
    Low,
    /// Takes the CPU from the others as soon as it can run.
    RealTime,
}

/// Seeds from here on are of [`Plan::contended`].
const CONTENDED: u64 = 1_000_000;

/// A first step in which the seed travels.
pub const SEED_BYTES: usize = 8;

/// A plan for each way, with what stands in front and behind; numbers below 1,000 are theirs.
pub fn each_way() -> Vec<Plan> {
    (0..ALL.len() as u64).map(Plan::of_seed).collect()
}

impl Plan {
    /// A plan of many steps in random order and sizes.
    pub fn random(number: u64) -> Self {
        Self::of_seed(1000 + number)
    }

    /// One of many at once, by threads of different priority.
    pub fn contended(number: u64) -> Self {
        Self::of_seed(CONTENDED + number)
    }

    /// What becomes of the server's thread.
    pub fn priority(&self) -> Priority {
        match self.seed.checked_sub(CONTENDED) {
            None => Priority::Usual,
            Some(number) => match number % 4 {
                0 => Priority::Low,
                1 => Priority::RealTime,
                _ => Priority::Usual,
            },
        }
    }

    /// The plan of a seed: both ends come to the same.
    pub fn of_seed(seed: u64) -> Self {
        let mut steps = vec![Step { way: Read, len: SEED_BYTES }];
        if let Some(layer) = Layer::of_seed(seed) {
            steps.extend(layer.steps());
        } else if let Some(way) = usize::try_from(seed).ok().and_then(|index| ALL.get(index)) {
            let sizes: &[usize] = match way {
                Bytewise => &[1, 300],
                // One call each, so that each shows whole.
                RecvMmsg | SendMmsg | RecvMmsgThree => &[64, 4000],
                // Pages to be mapped; to be copied only since 5.11.
                ByOption if has_bpf_loop() => &[40_960, 1000, 8192 + 10],
                ByOption => &[40_960],
                SpliceFrom | SpliceTo | Truncate => &[10, 4096, 60_000],
                _ => &[1, 100, 4096, 32_767, 32_768, 32_769, 200_000, 1_000_000],
            };
            for len in sizes {
                // A step of the other direction between them, so that each finds a fresh run budget.
                let other = if way.kind() == Kind::Received { Write } else { Read };
                steps.extend([Step { way: *way, len: *len }, Step { way: other, len: 40 }]);
            }
        } else {
            let (mut random, ways) = (Random(seed), quick_and_seen());
            // Many small calls, so that some are made while a large one is copied.
            let (count, sizes): (_, &[usize]) =
                if seed < CONTENDED { (30, &[50, 3_000, 70_000]) } else { (20, &[50, 50, 3_000, 3_000, 50_000]) };
            for _ in 0..count {
                let way = *random.one_of(&ways);
                let largest = *random.one_of(sizes);
                let len = 1 + random.below(largest);
                steps.push(Step { way, len });
            }
        }
        // The last bytes come with a FIN right behind.
        steps.push(Step { way: Recv, len: 77 });
        Self { seed, ipv6: false, mptcp: false, steps }
    }

    /// The same, to be checked against that address.
    pub fn over(mut self, address: SocketAddr) -> Self {
        self.ipv6 = address.is_ipv6();
        self
    }

    /// The same, by a client that speaks MPTCP.
    pub fn by_mptcp(self) -> Self {
        Self { mptcp: true, ..self }
    }

    /// What takes the server's socket over, if anything.
    pub fn layer(&self) -> Option<Layer> {
        Layer::of_seed(self.seed)
    }

    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if self.mptcp { mptcp::connect(address) } else { TcpStream::connect(address) }
    }

    pub fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// The bytes of a direction from that offset. Eight at once: an emulated machine makes hundreds of megabytes of them.
    pub fn bytes(&self, kind: Kind, at: u64, len: usize) -> Vec<u8> {
        const BLOCK: u64 = 8;
        let salt = if kind == Kind::Received { 0x55 } else { 0xaa00 };
        let (first, end) = (at / BLOCK, at + len as u64);
        let mut bytes = Vec::with_capacity(len + 2 * SEED_BYTES);
        for block in first..end.div_ceil(BLOCK) {
            let value = match (kind, block) {
                // The first bytes received are the seed itself.
                (Kind::Received, 0) => self.seed,
                _ => Random(self.seed ^ salt ^ (block << 20)).next(),
            };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.drain(..usize::try_from(at % BLOCK).unwrap_or(0));
        bytes.truncate(len);
        bytes
    }

    /// Each step with its offset in its direction.
    pub fn all_placed(&self) -> impl Iterator<Item = (u64, &Step)> {
        let (mut received, mut sent) = (0, 0);
        self.steps.iter().map(move |step| {
            let next = if step.way.kind() == Kind::Received { &mut received } else { &mut sent };
            let at = *next;
            *next += step.len as u64;
            (at, step)
        })
    }

    pub fn placed(&self, kind: Kind) -> impl Iterator<Item = (u64, &Step)> {
        self.all_placed().filter(move |(_, step)| step.way.kind() == kind)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (usize::try_from(self.seed).ok().and_then(|index| ALL.get(index)), self.layer()) {
            (Some(way), _) => write!(f, "{way:?}"),
            (None, Some(layer)) => write!(f, "{layer:?}"),
            (None, None) => write!(f, "seed {}", self.seed),
        }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    #[expect(clippy::indexing_slicing, reason = "`below` the length; a list without an item is a mistake of the plan")]
    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
