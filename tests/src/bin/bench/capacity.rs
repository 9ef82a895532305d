//! The loss-against-load curve: offered operations against lost samples and CPU an operation, until the rings overflow.

use crate::load::Paced;
use crate::nginx::{self, Nginx};
use crate::plot::{Plot, Shape};
use crate::report::{Bound, Report};
use crate::sink::Sink;
use crate::stats::Spread;
use crate::watch::Watch;
use crate::{Bench, Effort};
use std::time::Duration;

const PART: &str = "capacity";

/// As in the target.
const WANTED_RATE: u64 = 20_000;

const CONNECTIONS: usize = 256;

/// What may be varied.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Ring sizes of the daemon (its `ring-bytes`)
    #[arg(long, value_delimiter = ',', default_value = "4MiB")]
    ring_bytes: Vec<String>,
    /// Its `ring-watermark-bytes`
    #[arg(long, default_value = "64KiB")]
    watermark_bytes: String,
    /// Requests in one write: more of them offer more, with fewer receives
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    depth: Vec<usize>,
    /// Offered operations a second, rising
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u64>,
}

impl Options {
    /// When nobody said anything.
    pub(crate) fn of(effort: Effort) -> Self {
        let (rings, depth): (&[&str], &[usize]) = match effort {
            Effort::Quick => (&["4MiB"], &[1]),
            Effort::Full => (&["1MiB", "4MiB", "16MiB"], &[1, 16]),
        };
        let ring_bytes = rings.iter().map(|size| (*size).to_owned()).collect();
        Self { ring_bytes, watermark_bytes: "64KiB".to_owned(), depth: depth.to_vec(), rates: Vec::new() }
    }
}

/// Points of a curve, with what was offered and taken on x.
#[derive(Default)]
struct Curve {
    loss_percent: Vec<[f64; 2]>,
    cpu_us: Vec<[f64; 2]>,
}

pub(crate) fn run(bench: &Bench, report: &mut Report, options: &Options) -> anyhow::Result<()> {
    let rates = match (options.rates.as_slice(), bench.effort) {
        ([], Effort::Quick) => &[5_000, WANTED_RATE, 40_000, 80_000],
        ([], Effort::Full) => [2_000, 5_000, 10_000, WANTED_RATE, 30_000, 40_000, 60_000, 80_000, 120_000].as_slice(),
        (rates, _) => rates,
    };
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    let (mut losses, mut costs) = (Vec::new(), Vec::new());
    for ring in &options.ring_bytes {
        for depth in &options.depth {
            let flags = ["--ring-bytes", ring.as_str(), "--ring-watermark-bytes", options.watermark_bytes.as_str()];
            let curve = curve(bench, report, &sink, &server, (&flags, *depth, rates))?;
            let name = format!("ring {ring}, {depth} a write");
            losses.push((name.clone(), curve.loss_percent));
            costs.push((name, curve.cpu_us));
        }
    }
    let x = "operations a second, as offered and taken";
    let plot = |title: &str, y, series| Plot { title: title.to_owned(), x, y, shape: Shape::Curves(series) };
    report.plots.push(plot("Loss against load", "lost samples, %", losses));
    report.plots.push(plot("Daemon CPU an operation, against load", "us", costs));
    Ok(())
}

fn curve(
    bench: &Bench,
    report: &mut Report,
    sink: &Sink,
    server: &Nginx,
    (flags, depth, rates): (&[&str; 4], usize, &[u64]),
) -> anyhow::Result<Curve> {
    let [_, ring, ..] = flags;
    let watch = Watch::start(&bench.daemon, server.address.port(), sink, flags)?;
    let mut client = Paced::open(server.address, nginx::SMALL, CONNECTIONS)?;
    client.once_each()?;
    let mut curve = Curve::default();
    for rate in rates {
        let time = Duration::from_secs(bench.seconds());
        let mark = watch.mark()?;
        let made = client.offer(*rate, depth, time)?;
        let cost = watch.cost_since(&mark)?;
        let taken = made as f64 / time.as_secs_f64();
        let name = |what: &str| format!("ring {ring}, {depth} a write, {rate}/s offered: {what}");
        report.figure(PART, name("taken a second"), "", Spread::one(taken));
        report.figure(PART, name("lost samples"), "", Spread::one(cost.lost_samples as f64));
        report.figure(PART, name("records given up"), "", Spread::one(cost.lost_records as f64));
        report.figure(PART, name("daemon CPU a record"), "us", Spread::one(cost.cpu_us_a_record()));
        curve.loss_percent.push([taken, cost.loss() * 100.0]);
        curve.cpu_us.push([taken, cost.cpu_us_a_record()]);
        if *rate == WANTED_RATE && *ring == "4MiB" && depth == 1 {
            let what = format!("lost samples at {WANTED_RATE} operations/s, default settings");
            report.target(what, Bound::AtMost(0.0), "samples", Spread::one(cost.lost_samples as f64));
            if taken < 0.98 * WANTED_RATE as f64 {
                report.note(format!("this machine took only {taken:.0} operations/s of {WANTED_RATE} offered"));
            }
        }
    }
    Ok(curve)
}
