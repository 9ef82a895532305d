//! From spool to webhook: records wait behind a webhook that does not answer, then it does.

use crate::load::Paced;
use crate::nginx::{self, Nginx};
use crate::report::Report;
use crate::sink::Sink;
use crate::stats::Spread;
use crate::usage;
use crate::watch::Watch;
use crate::{Bench, Effort};
use std::time::{Duration, Instant};

const PART: &str = "deliver";

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    // The queue in front of a spool in memory holds 100,000 by default.
    let seconds = if bench.effort == Effort::Quick { 2 } else { 4 };
    for (name, flags) in [("spool on disk", [].as_slice()), ("spool in memory", &["--spool-dir", "off"])] {
        let (mut rates, mut costs, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.repeats() {
            let watch = Watch::start(&bench.daemon, server.address.port(), &sink, flags)?;
            let mut client = Paced::open(server.address, nginx::SMALL, 64)?;
            let mark = watch.mark()?;
            sink.hold(true);
            client.offer(15_000, 1, Duration::from_secs(seconds))?;
            // Whatever is on its way into the spool gets there.
            std::thread::sleep(Duration::from_millis(1500));
            let (before, cpu, begun) = (sink.lines(), usage::cpu(watch.daemon.pid())?, Instant::now());
            sink.hold(false);
            let (cost, last) = watch.cost_and_end_since(&mark)?;
            let delivered = (sink.lines() - before) as f64;
            rates.push(delivered / last.duration_since(begun).as_secs_f64());
            costs.push((usage::cpu(watch.daemon.pid())?.saturating_sub(cpu)).as_secs_f64() * 1e6 / delivered);
            lost.push((cost.lost_samples + cost.lost_records) as f64);
        }
        report.figure(PART, format!("{name}: records a second"), "", Spread::of(rates));
        report.figure(PART, format!("{name}: daemon CPU a record"), "us", Spread::of(costs));
        report.figure(PART, format!("{name}: lost"), "", Spread::of(lost));
    }
    Ok(())
}
