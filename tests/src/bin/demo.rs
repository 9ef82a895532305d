//! `cargo xtask run --demo`: all of s3auditd at work on one machine, in seconds.
//!
//! A small real gateway (s3s-fs) in a temporary folder, a webhook, the daemon with live probes, and a client that makes
//! rounds of calls. Prints each record as the webhook received it, then the daemon's table of counters. Ends with 0 only
//! if every call has its record and the counters agree.

use anyhow::Context as _;
use clap::Parser;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::{Daemon, Status};
use s3auditd_tests::record::Record;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::PATIENCE;
use s3auditd_tests::{expect, gateway};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Pause between rounds: the demo shows, it does not load.
const PAUSE: Duration = Duration::from_secs(3);
/// However long it may go on.
const MOST_ROUNDS: usize = 1000;

#[derive(Debug, Parser)]
#[command(name = "demo", about = "s3auditd at work on a gateway of its own")]
struct Args {
    /// The daemon's binary
    #[arg(long)]
    daemon: PathBuf,
    /// How long to go on, as in 20s or 2m; one round is always made
    #[arg(long = "for", default_value = "20s", value_parser = parse_duration)]
    duration: Duration,
}

fn main() -> ExitCode {
    match demo(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &Args) -> anyhow::Result<()> {
    let until = Instant::now() + args.duration;
    let gateway = gateway::s3s::start()?;
    let webhook = Webhook::start()?;
    eprintln!("demo: gateway {} at {}, webhook at {}", gateway.name, gateway.url(), webhook.url());
    let daemon = Daemon::start_binary(&args.daemon, &[gateway.port()], Some(&webhook.url()), &[])?;
    eprintln!("demo: the probes are attached; status at http://{}/status", daemon.metrics);

    let client = Light::of(&gateway)?;
    let mut calls = Vec::new();
    let mut printed = 0;
    for round in 1..=MOST_ROUNDS {
        calls.extend(client.round(&format!("demo-{round}"))?);
        // What is missing is found at the end, with its name.
        let _ = webhook.wait_for(calls.len(), PATIENCE);
        printed += print(webhook.records().get(printed..).unwrap_or_default())?;
        if Instant::now() + PAUSE > until {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    let status = daemon.status_when(PATIENCE, |status| agree(status, &webhook).is_ok())?;
    print(webhook.records().get(printed..).unwrap_or_default())?;
    println!("{}", daemon.status_table()?.trim_end());
    let agreed = agree(&status, &webhook);
    let ended = daemon.stop()?;
    verdict(&calls, &webhook.records())
        .and(agreed)
        .and_then(|()| {
            anyhow::ensure!(ended.status.success(), "the daemon ended with {}", ended.status);
            Ok(())
        })
        .with_context(|| format!("the daemon wrote:\n{}\nand its status was {}", ended.stderr, status.0))
}

/// Every call has its record and every record its call.
fn verdict(calls: &[Call], records: &[Record]) -> anyhow::Result<()> {
    expect::same(calls, records)?;
    let operations: BTreeSet<_> = calls.iter().map(|call| call.op.as_str()).collect();
    eprintln!("demo: {} calls of {} operations, each with its record", calls.len(), operations.len());
    Ok(())
}

/// What the kernel side put out was read, nothing was lost, and what was made was delivered.
fn agree(status: &Status, webhook: &Webhook) -> anyhow::Result<()> {
    status.whole()?;
    let records = webhook.records().len() as u64;
    let delivered = status.endpoint("default", "delivered");
    anyhow::ensure!(delivered == records, "delivered is {delivered}, and the webhook has {records} records");
    Ok(())
}

fn print(records: &[Record]) -> anyhow::Result<usize> {
    let mut out = std::io::stdout().lock();
    for record in records {
        writeln!(out, "{record}").context("printing a record")?;
    }
    Ok(records.len())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let amount: u64 = digits.parse().map_err(|_| format!("{text:?} is no time like 20s or 2m"))?;
    match text.strip_prefix(digits) {
        Some("" | "s") => Ok(Duration::from_secs(amount)),
        Some("m") => Ok(Duration::from_secs(amount.saturating_mul(60))),
        Some("ms") => Ok(Duration::from_millis(amount)),
        _ => Err(format!("{text:?} is no time like 20s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("5h").is_err());
    }
}
