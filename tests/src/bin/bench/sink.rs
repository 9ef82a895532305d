//! A webhook that is as cheap as can be: it counts lines and forgets them.

use anyhow::Context as _;
use s3auditd_tests::gateway::local;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than a batch waits until it is full (`batch-delay-ms`, one second by default).
const QUIET: Duration = Duration::from_millis(1300);

/// Listens as long as this process lives: a run has one.
#[derive(Clone)]
pub(crate) struct Sink {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    lines: AtomicU64,
    held: AtomicBool,
}

impl Sink {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(local(0)).context("the webhook's port")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&shared);
                // A sender that goes away is its own business.
                std::thread::spawn(move || drop(serve(stream, &seen)));
            }
        });
        Ok(Self { address, seen })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/audit", self.address)
    }

    /// Lines taken so far.
    pub(crate) fn lines(&self) -> u64 {
        self.seen.lines.load(Ordering::Relaxed)
    }

    /// While it is held, requests are read and not answered.
    pub(crate) fn hold(&self, held: bool) {
        self.seen.held.store(held, Ordering::Relaxed);
    }

    /// Returns when nothing has come for longer than a batch may wait, or `patience` is over; says when the last came.
    pub(crate) fn settle(&self, patience: Duration) -> Instant {
        let deadline = Instant::now() + patience;
        let (mut lines, mut changed) = (self.lines(), Instant::now());
        while changed.elapsed() < QUIET && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            if self.lines() != lines {
                (lines, changed) = (self.lines(), Instant::now());
            }
        }
        changed
    }
}

fn serve(stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut replies = stream.try_clone()?;
    let mut requests = BufReader::with_capacity(256 * 1024, stream);
    let mut piece = vec![0; 256 * 1024];
    let mut line = String::new();
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = (&mut requests).take(length);
        let mut lines = 0;
        loop {
            let read = body.read(&mut piece)?;
            let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else { break };
            lines += read.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        while seen.held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        seen.lines.fetch_add(lines, Ordering::Relaxed);
        replies.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
