//! Clients: wrk for closed loops, a paced one for offered rates, a sender of large objects.

use crate::tools::Tools;
use anyhow::Context as _;
use s3auditd_tests::http::{Connection, in_chunks};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a client saw in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) operations: u64,
    pub(crate) a_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// wrk says at its end what we can parse: counts, microseconds, latencies.
const WRK_SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

/// As many requests as go through kept connections, for so many seconds.
pub(crate) fn wrk(tools: &Tools, url: &str, connections: usize, seconds: u64) -> anyhow::Result<Seen> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), WRK_SCRIPT)?;
    let mut wrk = tools.wrk();
    // As many threads as it can use: with one of them, and one of the server's, a machine of two CPUs idles whenever a third
    // program takes one.
    let threads = std::thread::available_parallelism()?.get().min(connections);
    wrk.args([&format!("-t{threads}"), &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(script.path())
        .arg(url);
    let output = wrk.stdout(Stdio::piped()).output().context("starting wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse_wrk(&said).with_context(|| format!("wrk said:\n{said}"))
}

fn parse_wrk(said: &str) -> anyhow::Result<Seen> {
    let line = said.lines().find_map(|line| line.strip_prefix("BENCH ")).context("no line of figures")?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [operations, micros, p50, p99, errors] = numbers.as_slice() else { anyhow::bail!("not five figures: {line}") };
    anyhow::ensure!(*errors == 0, "{errors} requests failed");
    let a_second = *operations as f64 * 1e6 / *micros as f64;
    Ok(Seen { operations: *operations, a_second, p50_us: *p50 as f64, p99_us: *p99 as f64 })
}

/// One PUT after the other over one connection, for so many seconds.
pub(crate) fn put(address: SocketAddr, target: &str, bytes: usize, seconds: u64) -> anyhow::Result<Seen> {
    put_body(address, target, &format!("Content-Length: {bytes}"), &vec![b'p'; bytes], seconds)
}

/// The same in chunks.
pub(crate) fn put_in_chunks(address: SocketAddr, target: &str, bytes: usize, seconds: u64) -> anyhow::Result<Seen> {
    /// As boto3 has them.
    const CHUNK_BYTES: usize = 128 * 1024;
    let body = in_chunks(&vec![b'p'; bytes], CHUNK_BYTES);
    put_body(address, target, "Transfer-Encoding: chunked", &body, seconds)
}

fn put_body(address: SocketAddr, target: &str, field: &str, body: &[u8], seconds: u64) -> anyhow::Result<Seen> {
    let head = format!("PUT {target} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench/1\r\n{field}\r\n\r\n");
    let mut connection = Connection::open(address)?;
    let mut took = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        let begun = Instant::now();
        connection.send(head.as_bytes())?;
        connection.send(body)?;
        let reply = connection.reply(false)?;
        anyhow::ensure!((200..300).contains(&reply.status), "a PUT was answered {}", reply.head);
        took.push(begun.elapsed());
    }
    let a_second = took.len() as f64 / started.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len().saturating_sub(1) * part / 100).copied().unwrap_or_default();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(Seen { operations: took.len() as u64, a_second, p50_us: micros(at(50)), p99_us: micros(at(99)) })
}

/// Connections that stay open, and the same request on them.
pub(crate) struct Paced {
    streams: Vec<TcpStream>,
    request: Vec<u8>,
    /// Every reply is as long as the first.
    reply_bytes: usize,
    buffer: Vec<u8>,
    next: usize,
}

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);

impl Paced {
    pub(crate) fn open(address: SocketAddr, target: &str, connections: usize) -> anyhow::Result<Self> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench/1\r\n\r\n").into_bytes();
        let received = Connection::open(address)?.ask(&request)?.received;
        let reply_bytes = usize::try_from(received)?;
        let streams = (0..connections).map(|_| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            Ok(stream)
        });
        let streams = streams.collect::<std::io::Result<Vec<_>>>().context("connecting")?;
        Ok(Self { streams, request, reply_bytes, buffer: vec![0; reply_bytes], next: 0 })
    }

    /// Offers so many operations a second, `depth` of them in one write; returns how many were made. Behind its time it
    /// does not wait, and offers what the gateway takes.
    pub(crate) fn offer(&mut self, a_second: u64, depth: usize, time: Duration) -> anyhow::Result<u64> {
        let requests = self.request.repeat(depth);
        let mut replies = vec![0; self.reply_bytes * depth];
        let (mut made, started) = (0, Instant::now());
        while started.elapsed() < time {
            let due = u64::try_from(started.elapsed().as_micros() * u128::from(a_second) / 1_000_000)?;
            let missing = usize::try_from(due.saturating_sub(made))?.div_ceil(depth).min(self.streams.len());
            let many: Vec<usize> = (0..missing).map(|nth| (self.next + nth) % self.streams.len()).collect();
            self.next += missing;
            for nth in &many {
                if let Some(stream) = self.streams.get_mut(*nth) {
                    stream.write_all(&requests)?;
                }
            }
            for nth in &many {
                if let Some(stream) = self.streams.get_mut(*nth) {
                    stream.read_exact(&mut replies)?;
                }
            }
            made += (missing * depth) as u64;
            if missing == 0 {
                std::thread::sleep(TICK);
            }
        }
        Ok(made)
    }

    /// One operation on every connection, one after the other.
    pub(crate) fn once_each(&mut self) -> anyhow::Result<u64> {
        for stream in &mut self.streams {
            stream.write_all(&self.request)?;
            stream.read_exact(&mut self.buffer)?;
        }
        Ok(self.streams.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let seen = parse_wrk("Running 2s test\nBENCH 1000 2000000 150 900 0\n").unwrap();
        assert_eq!((seen.operations, seen.a_second, seen.p50_us, seen.p99_us), (1000, 500.0, 150.0, 900.0));
        assert!(parse_wrk("BENCH 1000 2000000 150 900 3\n").unwrap_err().to_string().contains("3 requests failed"));
        assert!(parse_wrk("unable to connect").is_err());
    }
}
