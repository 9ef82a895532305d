//! `cargo xtask bench`: what an audited gateway costs, in one run on one machine. `docs/performance.md` says how to read it.
//!
//! Nothing here passes or fails by a time: it prints figures with their spread, and leaves them as JSON and SVG.

mod allocations;
mod body;
mod capacity;
mod deliver;
mod environment;
mod large;
mod load;
mod nginx;
mod overhead;
mod peer;
mod plot;
mod programs;
mod rebuild;
mod report;
mod samples;
mod scale;
mod sink;
mod stats;
mod tools;
mod unwatched;
mod usage;
mod watch;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use environment::Environment;
use report::Report;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::free_port;
use std::path::PathBuf;
use tools::Tools;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "What an audited gateway costs on this machine")]
struct Args {
    /// The daemon's binary
    #[arg(long)]
    daemon: PathBuf,
    /// Folder for the figures
    #[arg(long)]
    out: PathBuf,
    /// Fewer and shorter runs: all parts in under 10 minutes
    #[arg(long, global = true)]
    quick: bool,
    /// Pairs of runs, without and with the daemon
    #[arg(long, global = true)]
    pairs: Option<usize>,
    /// Without any: all
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Gateway throughput and latency, with and without someone watching
    Overhead,
    /// Offered operations against lost samples and CPU an operation
    Capacity(capacity::Options),
    /// Samples to JSON in one process
    Rebuild,
    /// Spool to webhook
    Deliver,
    /// Memory and CPU with few and with many connections
    Scale,
    /// Bytes through the rings for a GiB of object data
    Body,
    /// One object of 1 GiB over TLS, with and without the daemon
    Large,
    /// Sockets that nobody watches
    Unwatched,
}

/// How long a run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Quick,
    Full,
}

/// What every part needs.
struct Bench {
    daemon: PathBuf,
    tools: Tools,
    effort: Effort,
    pairs: Option<usize>,
}

impl Bench {
    fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.effort == Effort::Quick { 3 } else { 10 })
    }

    const fn repeats(&self) -> usize {
        if matches!(self.effort, Effort::Quick) { 1 } else { 5 }
    }

    /// Of one run.
    const fn seconds(&self) -> u64 {
        if matches!(self.effort, Effort::Quick) { 2 } else { 3 }
    }

    /// What the daemon chooses here.
    fn best_backend(&self) -> anyhow::Result<&'static str> {
        let daemon = Daemon::start_binary(&self.daemon, &[free_port()?], None, &[])?;
        let status = daemon.status()?;
        let chosen = status.backend().context("the daemon names no backend")?;
        BACKENDS.iter().copied().find(|name| *name == chosen).context("the daemon has a backend that we do not know")
    }

    /// Which others work here.
    fn other_backends(&self, best: &str) -> anyhow::Result<Vec<&'static str>> {
        let port = free_port()?;
        let works = |name: &&str| Daemon::start_binary(&self.daemon, &[port], None, &["--backend", name]).is_ok();
        Ok(BACKENDS.iter().copied().filter(|name| *name != best).filter(works).collect())
    }
}

const BACKENDS: [&str; 4] = ["socket-tracepoints", "fexit", "kprobe", "syscall"];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let bench = Bench { daemon: args.daemon, tools: Tools::find()?, effort, pairs: args.pairs };
    let environment = Environment::read(tools::versions(&bench.tools, &bench.daemon));
    environment.print();
    let mut report = Report::new(environment);
    let name = match &args.part {
        None => {
            overhead::run(&bench, &mut report)?;
            capacity::run(&bench, &mut report, &capacity::Options::of(effort))?;
            rebuild::run(&bench, &mut report)?;
            deliver::run(&bench, &mut report)?;
            scale::run(&bench, &mut report)?;
            body::run(&bench, &mut report)?;
            large::run(&bench, &mut report)?;
            unwatched::run(&bench, &mut report)?;
            if effort == Effort::Quick { "quick" } else { "bench" }
        }
        Some(Part::Overhead) => overhead::run(&bench, &mut report).map(|()| "overhead")?,
        Some(Part::Capacity(options)) => capacity::run(&bench, &mut report, options).map(|()| "capacity")?,
        Some(Part::Rebuild) => rebuild::run(&bench, &mut report).map(|()| "rebuild")?,
        Some(Part::Deliver) => deliver::run(&bench, &mut report).map(|()| "deliver")?,
        Some(Part::Scale) => scale::run(&bench, &mut report).map(|()| "scale")?,
        Some(Part::Body) => body::run(&bench, &mut report).map(|()| "body")?,
        Some(Part::Large) => large::run(&bench, &mut report).map(|()| "large")?,
        Some(Part::Unwatched) => unwatched::run(&bench, &mut report).map(|()| "unwatched")?,
    };
    report.finish(&args.out, name)
}
