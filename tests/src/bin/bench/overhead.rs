//! Gateway throughput and latency, with and without someone watching, in turn.

use crate::load::{self, Seen};
use crate::nginx::{self, Nginx};
use crate::peer::{Peer, Told};
use crate::plot::{Plot, Shape};
use crate::programs::{Clock, Runs};
use crate::report::{Bound, Report};
use crate::sink::Sink;
use crate::stats::Spread;
use crate::tools::Tools;
use crate::watch::{Cost, Watch};
use crate::{Bench, Effort};
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::{Gateway, minio};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const PART: &str = "overhead";

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Nobody,
    /// The daemon with that backend.
    Daemon(&'static str),
    /// What people do today: tcpdump writes the first 2 KiB of every packet of the port to a file.
    Tcpdump,
    /// OpenTelemetry's agent; only where the gateway is a Go program.
    OpenTelemetry,
}

/// What a client does.
enum Traffic {
    Get { connections: usize },
    Put { bytes: usize },
}

struct Workload {
    name: &'static str,
    traffic: Traffic,
    scheme: &'static str,
    address: SocketAddr,
    target: String,
    /// Its target, if it has one: the part of the throughput that is left with the best backend.
    wanted: Option<f64>,
    /// In a whole run, with the other backends, with tcpdump and with OpenTelemetry's agent too.
    compared: bool,
    /// The gateway, if it is a Go program.
    go_process: Option<u32>,
}

/// One run of a workload.
struct Run {
    seen: Seen,
    cost: Option<Cost>,
    told: Option<Told>,
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    let gateways = [minio::start()?, minio::start_tls(None)?];
    for gateway in &gateways {
        prepare(gateway)?;
    }
    let best = bench.best_backend()?;
    let ours = [Watcher::Nobody, Watcher::Daemon(best)];
    let mut all = ours.to_vec();
    if bench.effort == Effort::Full {
        all.extend(bench.other_backends(best)?.into_iter().map(Watcher::Daemon));
        all.push(Watcher::Tcpdump);
        match gateways.first().and_then(Gateway::process).map(|process| Peer::start(process, &sink)) {
            Some(Ok(_)) => all.push(Watcher::OpenTelemetry),
            Some(Err(why)) => eprintln!("bench: without OpenTelemetry's agent: {why:#}"),
            None => {}
        }
    }
    let mut left = Vec::new();
    for workload in workloads(bench, &server, &gateways)? {
        // With the others for all of them a whole run would take an hour and more.
        let watchers = if workload.compared { all.as_slice() } else { &ours };
        let can = |watcher: &Watcher| *watcher != Watcher::OpenTelemetry || workload.go_process.is_some();
        let watchers: Vec<_> = watchers.iter().copied().filter(can).collect();
        let kept = measure(bench, report, &sink, &workload, &watchers)?;
        if workload.wanted.is_some() {
            time_programs(bench, report, &sink, &workload, best)?;
        }
        left.extend(kept.into_iter().map(|(watcher, spread)| (format!("{}: {watcher}", workload.name), spread)));
    }
    report.plots.push(Plot {
        title: "Throughput that is left while someone watches".to_owned(),
        x: "",
        y: "with / without",
        shape: Shape::Bars(left),
    });
    Ok(())
}

fn workloads(bench: &Bench, server: &Nginx, [plain, over_tls]: &[Gateway; 2]) -> anyhow::Result<Vec<Workload>> {
    let get = |name, connections, path: &str, wanted| Workload {
        name,
        traffic: Traffic::Get { connections },
        scheme: "http",
        address: server.address,
        target: path.to_owned(),
        wanted,
        compared: wanted.is_some(),
        go_process: None,
    };
    let secure = |name, path, wanted| {
        let plain = Workload { wanted, ..get(name, 16, path, None) };
        Workload { scheme: "https", address: server.tls_address, ..plain }
    };
    let of = |gateway: &Gateway, name, traffic, method, path: &str, wanted| {
        let target = sign::target(gateway, method, path)?;
        let scheme = if gateway.authority.is_some() { "https" } else { "http" };
        let (address, go_process) = (gateway.address, gateway.process());
        anyhow::Ok(Workload { name, traffic, scheme, address, target, wanted, compared: false, go_process })
    };
    let signed = |name, traffic, method, path: &str, wanted| of(plain, name, traffic, method, path, wanted);
    let signed_secure = |name, path, wanted| {
        let get = Traffic::Get { connections: 16 };
        of(over_tls, name, get, Method::Get, path, wanted)
    };
    let put = Traffic::Put { bytes: nginx::HUGE_BYTES };
    let mut all = vec![
        get("nginx 4 KiB GET x16", 16, nginx::SMALL, Some(0.90)),
        Workload {
            compared: true,
            ..signed("MinIO 4 KiB GET x16", Traffic::Get { connections: 16 }, Method::Get, "/bench/small", Some(0.97))?
        },
        get("nginx 1 MiB GET x16", 16, nginx::LARGE, None),
    ];
    all.push(Workload { traffic: put, target: "/bucket/put".to_owned(), ..get("nginx 64 MiB PUT", 1, "", None) });
    all.push(secure("nginx HTTPS 4 KiB GET x16", nginx::SMALL, Some(0.75)));
    all.push(signed_secure("MinIO HTTPS 4 KiB GET x16", "/bench/small", Some(0.90))?);
    if bench.effort == Effort::Full {
        all.push(secure("nginx HTTPS 1 MiB GET x16", nginx::LARGE, None));
        all.push(signed_secure("MinIO HTTPS 1 MiB GET x16", "/bench/large", None)?);
        all.push(get("nginx 4 KiB GET x256", 256, nginx::SMALL, None));
        let many = Traffic::Get { connections: 256 };
        all.push(signed("MinIO 4 KiB GET x256", many, Method::Get, "/bench/small", None)?);
        let large = Traffic::Get { connections: 16 };
        all.push(signed("MinIO 1 MiB GET x16", large, Method::Get, "/bench/large", None)?);
        let put = Traffic::Put { bytes: nginx::HUGE_BYTES };
        all.push(signed("MinIO 64 MiB PUT", put, Method::Put, "/bench/put", None)?);
    }
    Ok(all)
}

/// The objects that are asked for.
pub(crate) fn prepare(gateway: &Gateway) -> anyhow::Result<()> {
    let mut connection = gateway.connect()?;
    for (path, bytes) in [("/bench", 0), ("/bench/small", nginx::SMALL_BYTES), ("/bench/large", nginx::LARGE_BYTES)] {
        let target = sign::target(gateway, Method::Put, path)?;
        let reply = connection.ask(&sign::request(gateway, "PUT", &target, &[], &vec![b'm'; bytes]))?;
        anyhow::ensure!(reply.status == 200, "PUT {path} was answered {}", reply.head);
    }
    Ok(())
}

/// The watchers with the throughput that was left.
fn measure(
    bench: &Bench,
    report: &mut Report,
    sink: &Sink,
    workload: &Workload,
    watchers: &[Watcher],
) -> anyhow::Result<Vec<(String, Spread)>> {
    let mut runs: Vec<Vec<Run>> = watchers.iter().map(|_| Vec::new()).collect();
    // The first round warms up, and is not counted.
    for round in 0..=bench.pairs() {
        let mut order: Vec<usize> = (0..watchers.len()).collect();
        // There and back, so that nobody always runs after the same one.
        if round % 2 == 1 {
            order.reverse();
        }
        for nth in order {
            let (Some(watcher), Some(runs)) = (watchers.get(nth), runs.get_mut(nth)) else { continue };
            let run = once(bench, sink, workload, *watcher)
                .with_context(|| format!("{}, watched by {watcher:?}", workload.name))?;
            if round > 0 {
                runs.push(run);
            }
        }
    }
    let of = |nth: usize, value: fn(&Seen) -> f64| -> Vec<f64> {
        runs.get(nth).into_iter().flatten().map(|run| value(&run.seen)).collect()
    };
    let mut left = Vec::new();
    for (nth, watcher) in watchers.iter().enumerate() {
        let name = |what: &str| format!("{}, {}: {what}", workload.name, watcher.name());
        report.figure(PART, name("operations a second"), "", Spread::of(of(nth, |seen| seen.a_second)));
        report.figure(PART, name("p50"), "us", Spread::of(of(nth, |seen| seen.p50_us)));
        report.figure(PART, name("p99"), "us", Spread::of(of(nth, |seen| seen.p99_us)));
        if *watcher == Watcher::Nobody {
            continue;
        }
        let ratio = |value| Spread::of_ratios(&of(nth, value), &of(0, value));
        let throughput = ratio(|seen| seen.a_second);
        report.figure(PART, name("throughput, with / without"), "", throughput.clone());
        report.figure(PART, name("p50, with / without"), "", ratio(|seen| seen.p50_us));
        report.figure(PART, name("p99, with / without"), "", ratio(|seen| seen.p99_us));
        if let (Some(wanted), 1) = (workload.wanted, nth) {
            let what = format!("throughput with the daemon, {}", workload.name);
            report.target(what, Bound::AtLeast(wanted), "", throughput.clone());
        }
        left.push((watcher.name().to_owned(), throughput));
        let runs_of_it = || runs.get(nth).into_iter().flatten();
        let spans: Vec<_> = runs_of_it().filter_map(|run| Some((&run.seen, run.told?))).collect();
        if !spans.is_empty() {
            let cpu = Spread::of(spans.iter().map(|(_, told)| told.cpu_us_a_span()).collect());
            report.figure(PART, name("agent CPU a span"), "us", cpu);
            let missing = spans.iter().map(|(seen, told)| seen.operations.saturating_sub(told.spans) as f64);
            report.figure(PART, name("operations without a span a run"), "", Spread::of(missing.collect()));
        }
        let costs: Vec<_> = runs.get(nth).into_iter().flatten().filter_map(|run| run.cost).collect();
        if costs.is_empty() {
            continue;
        }
        let a_record = Spread::of(costs.iter().map(Cost::cpu_us_a_record).collect());
        report.figure(PART, name("daemon CPU a record"), "us", a_record.clone());
        // wrk is a program of its own; bodies are put by the bench itself.
        if let Traffic::Get { .. } = workload.traffic {
            let webhook = Spread::of(costs.iter().map(Cost::own_cpu_us_a_record).collect());
            report.figure(PART, name("the webhook's CPU a record"), "us", webhook);
        }
        let lost = Spread::of(costs.iter().map(|cost| cost.lost_samples as f64).collect());
        report.figure(PART, name("lost samples a run"), "", lost);
        let lost = Spread::of(costs.iter().map(|cost| cost.lost_records as f64).collect());
        report.figure(PART, name("records given up a run"), "", lost);
        let missing = |run: &Run| Some(run.seen.operations.saturating_sub(run.cost?.records) as f64);
        let missing = Spread::of(runs.get(nth).into_iter().flatten().filter_map(missing).collect());
        report.figure(PART, name("operations without a record a run"), "", missing);
        if nth == 1 && workload.name.starts_with("nginx 4 KiB GET x16") {
            report.target("daemon CPU an operation, from sample to webhook", Bound::AtMost(5.0), "us", a_record);
        }
    }
    Ok(left)
}

/// The kernel side by itself. In runs of its own, because to time the programs costs something too.
fn time_programs(
    bench: &Bench,
    report: &mut Report,
    sink: &Sink,
    workload: &Workload,
    best: &'static str,
) -> anyhow::Result<()> {
    let clock = Clock::start()?;
    let (mut took, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats() {
        let watch = Watch::start(&bench.daemon, workload.address.port(), sink, &["--backend", best])?;
        let before = Runs::of(watch.daemon.pid())?;
        let operations = workload.go(&bench.tools, bench.seconds())?.operations as f64;
        let since = Runs::of(watch.daemon.pid())?.since(before);
        took.push(since.took.as_secs_f64() * 1e6 / operations);
        runs.push(since.count as f64 / operations);
    }
    drop(clock);
    report.figure(PART, format!("{}: kernel programs, time an operation", workload.name), "us", Spread::of(took));
    report.figure(PART, format!("{}: kernel programs, runs an operation", workload.name), "", Spread::of(runs));
    Ok(())
}

impl Watcher {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Daemon(backend) => backend,
            Self::Tcpdump => "tcpdump",
            Self::OpenTelemetry => "OpenTelemetry's agent",
        }
    }
}

fn once(bench: &Bench, sink: &Sink, workload: &Workload, watcher: Watcher) -> anyhow::Result<Run> {
    let port = workload.address.port();
    match watcher {
        Watcher::Nobody => Ok(Run { seen: workload.go(&bench.tools, bench.seconds())?, cost: None, told: None }),
        Watcher::Daemon(backend) => {
            let watch = Watch::start(&bench.daemon, port, sink, &["--backend", backend])?;
            let mark = watch.mark()?;
            let seen = workload.go(&bench.tools, bench.seconds())?;
            Ok(Run { seen, cost: Some(watch.cost_since(&mark)?), told: None })
        }
        Watcher::Tcpdump => {
            let file = tempfile::NamedTempFile::new()?;
            let mut tcpdump = Tcpdump::start(&bench.tools, port, file.path())?;
            let seen = workload.go(&bench.tools, bench.seconds());
            tcpdump.stop();
            Ok(Run { seen: seen?, cost: None, told: None })
        }
        Watcher::OpenTelemetry => {
            let peer = Peer::start(workload.go_process.context("the gateway is no Go program")?, sink)?;
            let seen = workload.go(&bench.tools, bench.seconds())?;
            Ok(Run { seen, cost: None, told: Some(peer.stop()?) })
        }
    }
}

impl Workload {
    fn go(&self, tools: &Tools, seconds: u64) -> anyhow::Result<Seen> {
        match self.traffic {
            Traffic::Get { connections } => {
                load::wrk(tools, &format!("{}://{}{}", self.scheme, self.address, self.target), connections, seconds)
            }
            Traffic::Put { bytes } => load::put(self.address, &self.target, bytes, seconds),
        }
    }
}

struct Tcpdump(std::process::Child);

impl Tcpdump {
    fn start(tools: &Tools, port: u16, file: &Path) -> anyhow::Result<Self> {
        let mut command = tools.tcpdump();
        command.args(["-i", "lo", "-n", "-s", "2048", "-Z", "root", "-w"]).arg(file);
        let child = command.args(["tcp", "port", &port.to_string()]).spawn().context("starting tcpdump")?;
        // It says nothing when it is ready; its file gets a head then.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self(child))
    }

    fn stop(&mut self) {
        // It may be gone already; either way there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        self.stop();
    }
}
