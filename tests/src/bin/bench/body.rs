//! Bytes through the rings for a GiB of object data, up and down.

use crate::load;
use crate::nginx::{self, Nginx};
use crate::report::{Bound, Report};
use crate::sink::Sink;
use crate::stats::Spread;
use crate::watch::{Cost, Watch};
use crate::{Bench, Effort};
use rusty_s3::Method;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::minio;
use std::net::SocketAddr;

const PART: &str = "body";

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let server = Nginx::start(&bench.tools)?;
    let gateway = minio::start()?;
    crate::overhead::prepare(&gateway)?;
    let seconds = if bench.effort == Effort::Quick { 2 } else { 8 };
    let signed = |method| sign::target(&gateway, method, "/bench/huge");
    let (put, get) = (signed(Method::Put)?, signed(Method::Get)?);
    let places: [(&str, SocketAddr, &str, &str); 2] =
        [("nginx", server.address, "/bucket/up", nginx::HUGE), ("MinIO", gateway.address, &put, &get)];
    for (name, address, put, get) in places {
        let watch = Watch::start(&bench.daemon, address.port(), &sink, &[])?;
        let mark = watch.mark()?;
        let up = load::put(address, put, nginx::HUGE_BYTES, seconds)?;
        of_target(report, &format!("{name} up"), up.operations, &watch.cost_since(&mark)?);
        if name == "nginx" {
            // MinIO wants them signed.
            let mark = watch.mark()?;
            let up = load::put_in_chunks(address, put, nginx::HUGE_BYTES, seconds)?;
            result(report, "nginx up in chunks", up.operations, &watch.cost_since(&mark)?);
        }
        let mark = watch.mark()?;
        let down = load::wrk(&bench.tools, &format!("http://{address}{get}"), 1, seconds)?;
        of_target(report, &format!("{name} down"), down.operations, &watch.cost_since(&mark)?);
    }
    Ok(())
}

fn of_target(report: &mut Report, name: &str, operations: u64, cost: &Cost) {
    let mib = result(report, name, operations, cost);
    report.target(format!("through the rings a GiB of body, {name}"), Bound::AtMost(1.0), "MiB", mib);
}

fn result(report: &mut Report, name: &str, operations: u64, cost: &Cost) -> Spread {
    let gib = operations as f64 * nginx::HUGE_BYTES as f64 / f64::from(1 << 30);
    let mib = Spread::one(cost.ring_bytes as f64 / f64::from(1 << 20) / gib);
    report.figure(PART, format!("{name}: through the rings a GiB of body"), "MiB", mib.clone());
    let cpu = Spread::one(cost.cpu.as_secs_f64() * 1000.0 / gib);
    report.figure(PART, format!("{name}: daemon CPU a GiB"), "ms", cpu);
    mib
}
