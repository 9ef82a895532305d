//! `cargo xtask bench`: what the probes cost, with and without, in one run on one machine.
//!
//! Nothing here passes or fails by a time: it prints a ratio with its spread, and leaves the figures as JSON.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::{free_port, local};
use serde::Serialize;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "What the probes cost on this machine")]
struct Args {
    /// The daemon's binary
    #[arg(long)]
    daemon: PathBuf,
    /// Folder for the figures
    #[arg(long)]
    out: PathBuf,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Sends and receives on sockets that nobody watches
    Unwatched {
        /// Pairs of runs, without and with the daemon
        #[arg(long, default_value_t = 12)]
        pairs: usize,
        /// Round trips of a run
        #[arg(long, default_value_t = 20_000)]
        rounds: u32,
    },
}

/// One kind of run, without and with.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    backend: String,
    /// Nanoseconds a system call (a send or a receive), pair by pair.
    without_ns: Vec<f64>,
    with_ns: Vec<f64>,
    /// Of the pairs' ratios, with / without: first quartile, median, third quartile.
    ratio: [f64; 3],
    /// The same of their differences, in nanoseconds a call.
    added_ns: [f64; 3],
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.part {
        Part::Unwatched { pairs, rounds } => unwatched(&args, pairs, rounds),
    }
}

/// One byte there and one back over loopback: four calls a round trip, each of which runs a probe that leaves at once.
fn unwatched(args: &Args, pairs: usize, rounds: u32) -> anyhow::Result<()> {
    let watched = free_port()?;
    let backend = Daemon::start_binary(&args.daemon, &[watched], None, &[])?
        .status()?
        .0
        .pointer("/capture/backend")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let (mut without_ns, mut with_ns) = (Vec::new(), Vec::new());
    // The first pair warms up, and is not counted.
    for pair in 0..=pairs {
        let without = ping_pong(rounds)?;
        let daemon = Daemon::start_binary(&args.daemon, &[watched], None, &[])?;
        let with = ping_pong(rounds)?;
        drop(daemon);
        if pair > 0 {
            without_ns.push(without);
            with_ns.push(with);
        }
    }
    let of_pairs = |of: fn(f64, f64) -> f64| {
        quartiles(without_ns.iter().zip(&with_ns).map(|(without, with)| of(*without, *with)).collect())
    };
    let (ratio, added_ns) = (of_pairs(|without, with| with / without), of_pairs(|without, with| with - without));
    let figures = Figures { name: "unwatched", backend, without_ns, with_ns, ratio, added_ns };
    let [low, middle, high] = figures.ratio;
    let [low_ns, middle_ns, high_ns] = figures.added_ns;
    println!("bench unwatched: backend {}, {pairs} pairs of {rounds} round trips", figures.backend);
    println!("bench unwatched: time a call, with / without: {middle:.3} ({low:.3} to {high:.3})");
    println!("bench unwatched: added a call: {middle_ns:.0} ns ({low_ns:.0} to {high_ns:.0})");
    std::fs::create_dir_all(&args.out)?;
    let file = args.out.join("unwatched.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&figures)?).with_context(|| file.display().to_string())?;
    println!("bench unwatched: {}", file.display());
    Ok(())
}

/// Nanoseconds a call.
fn ping_pong(rounds: u32) -> anyhow::Result<f64> {
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
    for _ in 0..rounds {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    let took = started.elapsed();
    drop(stream);
    echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    Ok(took.as_secs_f64() * 1e9 / (4.0 * f64::from(rounds)))
}

/// First quartile, median, third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values.get(values.len().saturating_sub(1) * quarter / 4).copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_of_the_sorted_values() {
        assert_eq!(quartiles(vec![5.0, 1.0, 4.0, 2.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![7.0]), [7.0; 3]);
        assert!(quartiles(Vec::new()).iter().all(|value| value.is_nan()));
    }
}
