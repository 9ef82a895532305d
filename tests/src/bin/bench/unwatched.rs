//! Sends and receives on sockets that nobody watches: what the rest of the machine pays.

use crate::Bench;
use crate::report::Report;
use crate::stats::Spread;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::{free_port, local};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

const PART: &str = "unwatched";

/// Round trips of a run.
const ROUNDS: u32 = 20_000;

/// One byte there and one back over loopback: four calls a round trip, each of which runs a probe that leaves at once.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let watched = free_port()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // The first pair warms up, and is not counted.
    for pair in 0..=bench.pairs() {
        let quiet = ping_pong()?;
        let daemon = Daemon::start_binary(&bench.daemon, &[watched], None, &[])?;
        let probed = ping_pong()?;
        drop(daemon);
        if pair > 0 {
            without.push(quiet);
            with.push(probed);
        }
    }
    let added = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    report.figure(PART, "time a call, with / without", "", Spread::of_ratios(&with, &without));
    report.figure(PART, "added a call", "ns", Spread::of(added));
    Ok(())
}

/// Nanoseconds a call.
fn ping_pong() -> anyhow::Result<f64> {
    let listener = TcpListener::bind(local(0))?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut byte = [1];
    let started = Instant::now();
    for _ in 0..ROUNDS {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    let took = started.elapsed();
    drop(stream);
    echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    Ok(took.as_secs_f64() * 1e9 / (4.0 * f64::from(ROUNDS)))
}
