//! How long one large object takes over TLS, with and without the daemon.

use crate::nginx::{self, Nginx};
use crate::report::{Bound, Report};
use crate::sink::Sink;
use crate::stats::Spread;
use crate::watch::Watch;
use crate::{Bench, Effort};
use rusty_s3::Method;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::minio;
use s3auditd_tests::http::Connection;
use std::net::SocketAddr;
use std::time::Instant;

const PART: &str = "large";

/// Of the object.
const GIANT_BYTES: usize = 1 << 30;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    let gateway = minio::start_tls(None)?;
    crate::overhead::prepare(&gateway)?;
    let put = sign::target(&gateway, Method::Put, "/bench/giant")?;
    let reply = gateway.connect()?.ask(&sign::request(&gateway, "PUT", &put, &[], &vec![b'g'; GIANT_BYTES]))?;
    anyhow::ensure!(reply.status == 200, "PUT of 1 GiB was answered {}", reply.head);
    let get = sign::target(&gateway, Method::Get, "/bench/giant")?;
    let nginx = || server.connect_tls();
    let minio = || gateway.connect();
    measure(bench, report, &sink, "nginx (OpenSSL 3)", server.tls_address, nginx::GIANT, nginx)?;
    measure(bench, report, &sink, "MinIO (Go)", gateway.address, &get, minio)
}

fn measure(
    bench: &Bench,
    report: &mut Report,
    sink: &Sink,
    name: &str,
    address: SocketAddr,
    target: &str,
    connect: impl Fn() -> anyhow::Result<Connection>,
) -> anyhow::Result<()> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench/1\r\n\r\n").into_bytes();
    let once = || {
        let mut connection = connect()?;
        let begun = Instant::now();
        let reply = connection.ask(&request)?;
        anyhow::ensure!(reply.status == 200 && reply.received > GIANT_BYTES as u64, "{}", reply.head);
        anyhow::Ok(begun.elapsed().as_secs_f64())
    };
    let pairs = if bench.effort == Effort::Quick { 1 } else { bench.pairs() };
    let (mut without, mut with, mut cpu, mut ring) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first round warms up, and is not counted.
    for round in 0..=pairs {
        // There and back, so that nobody always runs after the same one.
        for watched in [round % 2 == 1, round % 2 == 0] {
            if !watched {
                without.push(once()?);
                continue;
            }
            let watch = Watch::start(&bench.daemon, address.port(), sink, &[])?;
            let mark = watch.mark()?;
            with.push(once()?);
            let cost = watch.cost_since(&mark)?;
            anyhow::ensure!(cost.records > 0, "{name}: the GET has no record");
            cpu.push(cost.cpu.as_secs_f64() * 1000.0);
            ring.push(cost.ring_bytes as f64 / f64::from(1 << 20));
        }
    }
    for values in [&mut without, &mut with, &mut cpu, &mut ring] {
        values.remove(0);
    }
    let ratio = Spread::of_ratios(&with, &without);
    report.figure(PART, format!("{name}, 1 GiB GET over TLS: time without"), "s", Spread::of(without));
    report.figure(PART, format!("{name}: time with / without"), "", ratio.clone());
    report.figure(PART, format!("{name}: daemon CPU"), "ms", Spread::of(cpu));
    report.figure(PART, format!("{name}: through the rings"), "MiB", Spread::of(ring));
    report.target(format!("time of a 1 GiB GET over TLS, {name}, with / without"), Bound::AtMost(1.03), "", ratio);
    Ok(())
}
