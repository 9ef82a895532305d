//! Memory a connection, CPU an operation and CPU at rest, with few and with many connections.

use crate::load::Paced;
use crate::nginx::{self, Nginx};
use crate::plot::{Plot, Shape};
use crate::report::{Bound, Report};
use crate::sink::Sink;
use crate::stats::Spread;
use crate::usage;
use crate::watch::Watch;
use crate::{Bench, Effort};
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

const PART: &str = "scale";
const SIZES: [usize; 3] = [1, 100, 10_000];

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    allow_descriptors(12_000)?;
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    let rest = Duration::from_secs(if bench.effort == Effort::Quick { 10 } else { 60 });
    let (mut memory, mut costs) = (Vec::new(), Vec::new());
    for connections in SIZES {
        let watch = Watch::start(&bench.daemon, server.address.port(), &sink, &[])?;
        let pid = watch.daemon.pid();
        let empty = usage::resident_bytes(pid)?;
        let mut client = Paced::open(server.address, nginx::SMALL, connections)?;
        client.once_each()?;
        let mark = watch.mark()?;
        client.offer(5_000, 1, Duration::from_secs(2 * bench.seconds()))?;
        let cost = watch.cost_since(&mark)?;
        let (resident, before) = (usage::resident_bytes(pid)?, usage::by_thread(pid)?);
        std::thread::sleep(rest);
        let idle = usage::fine_cpu_since(pid, &before)?.as_secs_f64() / rest.as_secs_f64() * 100.0;
        let name = |what: &str| format!("{connections} connections: {what}");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        report.figure(PART, name("resident before"), "MiB", Spread::one(mib(empty)));
        report.figure(PART, name("resident"), "MiB", Spread::one(mib(resident)));
        let each = resident.saturating_sub(empty) as f64 / connections as f64;
        report.figure(PART, name("resident a connection"), "bytes", Spread::one(each));
        report.figure(PART, name("daemon CPU a record"), "us", Spread::one(cost.cpu_us_a_record()));
        report.figure(PART, name("CPU at rest"), "%", Spread::one(idle));
        memory.push([connections as f64, mib(resident)]);
        costs.push((format!("{connections} connections"), Spread::one(cost.cpu_us_a_record())));
        if connections == SIZES[2] {
            let what = "resident with 10,000 idle connections";
            report.target(what, Bound::AtMost(64.0), "MiB", Spread::one(mib(resident)));
        }
        if connections == SIZES[0] {
            report.target("CPU at rest", Bound::AtMost(0.1), "%", Spread::one(idle));
        }
    }
    report.plots.push(Plot {
        title: "Resident memory after load".to_owned(),
        x: "connections",
        y: "MiB",
        shape: Shape::Curves(vec![("resident".to_owned(), memory)]),
    });
    report.plots.push(Plot {
        title: "Daemon CPU an operation at 5,000 a second".to_owned(),
        x: "",
        y: "us",
        shape: Shape::Bars(costs),
    });
    Ok(())
}

/// For us, and for nginx, which inherits it.
fn allow_descriptors(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(maximum >= wanted, "no more than {maximum} open files are allowed here, and {wanted} are needed");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).context("the limit of open files")
}
