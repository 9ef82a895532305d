//! Very many small operations over kept connections, pipelined. Each names a key that no other has.

use anyhow::Context as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests that a connection has on their way at once.
const DEPTH: usize = 16;

/// How much, and what happens while it runs.
#[derive(Debug)]
pub struct Flood<'a> {
    /// The gateway.
    pub gateway: SocketAddr,
    /// Bucket of all keys.
    pub bucket: &'a str,
    /// Connections, a thread each.
    pub connections: usize,
    /// Operations of each.
    pub each: usize,
    /// Padding of each request, as a header.
    pub padding: usize,
    /// Counts the replies, for whoever watches.
    pub done: &'a AtomicU64,
}

impl Flood<'_> {
    /// The keys that it asks for, in no order.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        let each = self.each;
        (0..self.connections).flat_map(move |connection| (0..each).map(move |number| key(connection, number)))
    }

    /// Makes all calls; each must be answered with 200.
    ///
    /// # Errors
    /// A socket's, or another answer.
    pub fn run(&self) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|nth| scope.spawn(move || self.connection(nth))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })
    }

    fn connection(&self, connection: usize) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.gateway).context("connecting to the gateway")?;
        stream.set_nodelay(true)?;
        let mut replies = BufReader::new(stream.try_clone()?);
        let padding = "p".repeat(self.padding);
        let mut next = 0;
        while next < self.each {
            let until = self.each.min(next + DEPTH);
            let mut requests = String::new();
            for number in next..until {
                let (bucket, key) = (self.bucket, key(connection, number));
                requests.push_str(&format!("GET /{bucket}/{key} HTTP/1.1\r\nHost: h\r\nX-Padding: {padding}\r\n\r\n"));
            }
            stream.write_all(requests.as_bytes())?;
            for _ in next..until {
                read_reply(&mut replies)?;
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            next = until;
        }
        Ok(())
    }
}

fn key(connection: usize, number: usize) -> String {
    format!("{connection}-{number}")
}

fn read_reply(replies: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let mut line = String::new();
    anyhow::ensure!(replies.read_line(&mut line)? > 0, "the gateway closed the connection");
    anyhow::ensure!(line.starts_with("HTTP/1.1 200"), "the gateway answered {line:?}");
    let mut length = 0;
    loop {
        line.clear();
        anyhow::ensure!(replies.read_line(&mut line)? > 0, "the gateway closed the connection in a head");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().context("a reply's length")?;
        }
    }
    std::io::copy(&mut replies.take(length), &mut std::io::sink())?;
    Ok(())
}
