//! Samples of all connections in; exchanges, gaps and windows out.

use crate::connection::{Connection, Outside};
use crate::counters::Counters;
use crate::exchange::Exchange;
use crate::gap::Gap;
use crate::http::span::Closing;
use crate::loss::LossCause;
use crate::sample::{OwnedSample, Sample};
use s3auditd_common::sample::{Direction, Window};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// What bounds the memory. Each limit, when hit, is a counted loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in the table; beyond it the least recently active one is given up.
    pub max_connections: usize,
    /// A longer request or reply head is not read.
    pub max_head_bytes: usize,
    /// How much of a body is kept, where its start says something (see `Exchange::request_body`).
    pub max_body_start_bytes: usize,
    /// Bytes of one connection that wait for others; beyond it what is missing is given up at once.
    pub max_pending_bytes: usize,
    /// Bytes buffered for all connections; beyond it seen bytes are dropped. What was taken before may still grow while
    /// it is parsed, a head of the shortest fields to four times its bytes.
    pub max_total_bytes: usize,
    /// Requests of one connection without a whole reply; beyond it requests are not read.
    pub max_open_exchanges_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_head_bytes: 1024 * 1024,
            max_body_start_bytes: 64 * 1024,
            max_pending_bytes: 4 * 1024 * 1024,
            max_total_bytes: 256 * 1024 * 1024,
            max_open_exchanges_per_connection: 64,
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A request and its reply, as far as they were seen.
    Exchange(Box<Exchange>),
    /// Bytes in which operations may hide that leave no record.
    Gap(Box<Gap>),
    /// To be written to the kernel side's window map; replaces the one of that connection and direction.
    Window {
        /// The connection.
        cookie: u64,
        /// The direction.
        direction: Direction,
        /// What is wanted of it.
        window: Window,
    },
}

/// What was taken of a connection, in its causal order; see [`Pipeline::follow_moves`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// A sample, or as much of one as was new. What lies between two of one direction was lost.
    Sample(OwnedSample),
    /// Nothing more comes of this connection.
    Forgotten {
        /// The connection.
        cookie: u64,
    },
}

/// See the module. Samples may come in any order across CPUs, as long as `advance` keeps its word.
#[derive(Debug)]
pub struct Pipeline {
    limits: Limits,
    counters: Counters,
    connections: HashMap<u64, Box<Connection>, BuildHasherDefault<CookieHasher>>,
    /// Cookies by activity, least recent first; only the last of each connection counts, the others go in time.
    activity: VecDeque<(u64, u64)>,
    next_activity: u64,
    /// Cookies of connections that wait for `advance`.
    waiting: Vec<u64>,
    buffered: usize,
    outputs: VecDeque<Output>,
    /// None: nobody asks.
    moves: Option<VecDeque<Moved>>,
}

impl Pipeline {
    /// An empty pipeline.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            counters: Counters::default(),
            connections: HashMap::default(),
            activity: VecDeque::new(),
            next_activity: 0,
            waiting: Vec::new(),
            buffered: 0,
            outputs: VecDeque::new(),
            moves: None,
        }
    }

    /// From here on [`Self::next_moved`] says what is taken, at the price of a copy. To be emptied after each batch.
    pub fn follow_moves(&mut self) {
        self.moves.get_or_insert_default();
    }

    /// The next thing that was taken.
    pub fn next_moved(&mut self) -> Option<Moved> {
        self.moves.as_mut()?.pop_front()
    }

    /// Takes one sample.
    pub fn take(&mut self, sample: &Sample<'_>) {
        self.counters.samples += 1;
        let cookie = sample.header.cookie;
        if self.is_full() && !self.connections.contains_key(&cookie) {
            self.make_room();
        }
        let connection = self.connections.entry(cookie).or_insert_with(|| {
            self.counters.connections_seen += 1;
            Box::new(Connection::new(sample))
        });
        self.next_activity += 1;
        connection.activity = self.next_activity;
        self.activity.push_back((connection.activity, cookie));

        let mut out = Outside {
            limits: &self.limits,
            counters: &mut self.counters,
            outputs: &mut self.outputs,
            moves: self.moves.as_mut(),
            full: self.buffered > self.limits.max_total_bytes,
        };
        connection.take(sample, &mut out);
        if connection.waits() && !connection.listed {
            connection.listed = true;
            self.waiting.push(cookie);
        }
        account(&mut self.buffered, connection);
        if self.activity.len() > 2 * self.connections.len() + SPARE_ACTIVITY {
            self.activity.retain(|(activity, cookie)| {
                self.connections.get(cookie).is_some_and(|connection| connection.activity == *activity)
            });
        }
    }

    /// Every ring has been drained past this time: samples of what is older have all been taken, or are lost.
    pub fn advance(&mut self, drained_until_ns: u64) {
        let mut still_waiting = Vec::new();
        for cookie in std::mem::take(&mut self.waiting) {
            let Some(connection) = self.connections.get_mut(&cookie) else { continue };
            let mut out = Outside {
                limits: &self.limits,
                counters: &mut self.counters,
                outputs: &mut self.outputs,
                moves: self.moves.as_mut(),
                full: false,
            };
            let over = connection.advance(drained_until_ns, &mut out);
            account(&mut self.buffered, connection);
            if over {
                self.counters.connections_closed += 1;
                self.remove(cookie);
            } else if connection.waits() {
                still_waiting.push(cookie);
            } else {
                connection.listed = false;
            }
        }
        self.waiting = still_waiting;
    }

    /// The agent stops: everything comes out, and the pipeline is empty.
    pub fn finish(&mut self, now_ns: u64) {
        self.advance(u64::MAX);
        let mut cookies: Vec<u64> = self.connections.keys().copied().collect();
        cookies.sort_unstable();
        for cookie in cookies {
            self.counters.connections_stopped += 1;
            self.give_up(cookie, Closing::AgentStops, now_ns);
        }
        self.waiting.clear();
    }

    /// The next thing that came out. To be emptied after each batch of samples.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// See [`Counters`].
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes buffered for all connections, by estimate.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    fn make_room(&mut self) {
        while self.is_full() {
            let Some((activity, cookie)) = self.activity.pop_front() else { return };
            if self.connections.get(&cookie).is_some_and(|connection| connection.activity == activity) {
                self.counters.lose(LossCause::Evicted);
                self.give_up(cookie, Closing::Evicted, 0);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.limits.max_connections.max(1)
    }

    fn give_up(&mut self, cookie: u64, closing: Closing, time_ns: u64) {
        if let Some(connection) = self.connections.get_mut(&cookie) {
            let mut out = Outside {
                limits: &self.limits,
                counters: &mut self.counters,
                outputs: &mut self.outputs,
                moves: self.moves.as_mut(),
                full: false,
            };
            let cause = if closing == Closing::Evicted { LossCause::Evicted } else { LossCause::Hole };
            connection.drain(cause, &mut out);
            connection.end(closing, time_ns, &mut out);
        }
        self.remove(cookie);
    }

    fn remove(&mut self, cookie: u64) {
        if let Some(connection) = self.connections.remove(&cookie) {
            if let Some(moves) = &mut self.moves {
                moves.push_back(Moved::Forgotten { cookie });
            }
            self.buffered = self.buffered.saturating_sub(connection.accounted);
        }
    }
}

/// Cookies are numbers that the kernel counts up, so nobody chooses them: spreading them is enough.
#[derive(Debug, Default)]
struct CookieHasher(u64);

impl Hasher for CookieHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio (Knuth, "The Art of Computer Programming", 6.4); tables look at both ends of a hash.
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// So many entries of [`Pipeline::activity`] that do not count any more are not looked for.
const SPARE_ACTIVITY: usize = 1024;

/// Brings the sum up to date with what the connection holds now.
fn account(buffered: &mut usize, connection: &mut Connection) {
    let cost = connection.cost();
    *buffered = buffered.saturating_sub(connection.accounted).saturating_add(cost);
    connection.accounted = cost;
}
