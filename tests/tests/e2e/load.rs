//! Much at once: many connections, large bodies, and a ring too small for what comes.

use crate::Scenario;
use crate::wire::{plain_call, presigned_call};
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{Gateway, raw, s3s};
use s3auditd_tests::http::Connection;
use s3auditd_tests::world::World;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("load::a_thousand_kept_connections", thousand_connections),
        Scenario::new("load::bodies_do_not_cross_the_ring", large_bodies),
        Scenario::new("load::what_a_small_ring_loses_is_counted_and_no_record_is_wrong", small_ring),
    ]
}

const CONNECTIONS: usize = 1000;
const REQUESTS_EACH: usize = 4;

/// All connections have a request under way at the same time, again and again.
fn thousand_connections() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    let gateway = &world.gateway;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(gateway.address)?);
    }
    let mut calls = Vec::new();
    let bucket = "many";
    let request = sign::request(gateway, "PUT", &sign::target(gateway, Method::Put, "/many")?, &[], b"");
    let first = connections.first_mut().context("no connection")?;
    let reply = first.ask(&request)?;
    calls.push(presigned_call(Call::new("CreateBucket", Some(bucket), None, 0), first, &request, &reply)?);
    for round in 0..REQUESTS_EACH {
        let mut asked = Vec::new();
        for (number, connection) in connections.iter_mut().enumerate() {
            let key = format!("key-{number}");
            let path = format!("/{bucket}/{key}");
            // Each object is put, got, asked for, and a name that does not exist is asked for.
            let (op, method, path) = match round {
                0 => ("PutObject", Method::Put, path),
                1 => ("GetObject", Method::Get, path),
                2 => ("HeadObject", Method::Head, path),
                _ => ("GetObject", Method::Get, format!("{path}-none")),
            };
            let key = if round < 3 { key } else { format!("{key}-none") };
            let body = if round == 0 { format!("body of {number}").into_bytes() } else { Vec::new() };
            let request = sign::request(gateway, method.to_str(), &sign::target(gateway, method, &path)?, &[], &body);
            connection.send(&request)?;
            asked.push((Call::new(op, Some(bucket), Some(&key), 0), request));
        }
        for ((call, request), connection) in asked.into_iter().zip(&mut connections) {
            let reply = connection.reply(call.op == "HeadObject")?;
            let expected = if round < 3 { 200 } else { 404 };
            anyhow::ensure!(reply.status == expected, "{call:?} got {}", reply.head);
            calls.push(presigned_call(call, connection, &request, &reply)?);
        }
    }
    drop(connections);
    world.expect(&calls)?;
    Ok(())
}

const LARGE_BYTES: usize = 256 << 20;
const MOST_RING_BYTES: u64 = 4 << 20;

fn large_bodies() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    let gateway = &world.gateway;
    let mut connection = Connection::open(gateway.address)?;
    let mut calls = Vec::new();
    let steps = [
        ("CreateBucket", Method::Put, "/large", 0),
        ("PutObject", Method::Put, "/large/object", LARGE_BYTES),
        ("GetObject", Method::Get, "/large/object", 0),
    ];
    for (op, method, path, size) in steps {
        let target = sign::target(gateway, method, path)?;
        let request = sign::request(gateway, method.to_str(), &target, &[], &vec![b'z'; size]);
        let reply = connection.ask(&request)?;
        anyhow::ensure!(reply.status == 200, "{op} got {}", reply.head);
        let key = path.strip_prefix("/large/");
        calls.push(presigned_call(Call::new(op, Some("large"), key, 0), &connection, &request, &reply)?);
    }
    let got = calls.last().and_then(|call| call.received).unwrap_or_default();
    anyhow::ensure!(got > LARGE_BYTES as u64, "the object came back with {got} bytes");
    let after = world.expect(&calls)?;
    let through = after.status.ring("read_bytes");
    eprintln!("{} bytes of bodies put {through} bytes through the ring", 2 * LARGE_BYTES);
    anyhow::ensure!(through < MOST_RING_BYTES, "{through} bytes went through the ring: {}", after.status.0);
    Ok(())
}

const LOADERS: usize = 8;
const LOAD_REQUESTS: usize = 600;

/// Answers with a status and a length that follow from the target, so that a reply taken for another one's shows.
fn telling_gateway(calls: Arc<AtomicU64>) -> anyhow::Result<Gateway> {
    raw::start(move |request, stream| {
        let number: usize = request.target.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let status = if number.is_multiple_of(3) { "404 Not Found" } else { "200 OK" };
        let body = vec![b't'; number % 50];
        let mut reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        reply.extend_from_slice(&body);
        // One receive and one send at least.
        calls.fetch_add(2, Ordering::Relaxed);
        stream.write_all(&reply).is_ok()
    })
}

fn small_ring() -> anyhow::Result<()> {
    let least = ["--ring-bytes", "64KiB", "--ring-watermark-bytes", "32KiB", "--ring-flush-ms", "1000"];
    let kernel_calls = Arc::new(AtomicU64::new(0));
    let world = World::around(telling_gateway(Arc::clone(&kernel_calls))?, &least)?;
    let gateway = &world.gateway;
    let load = |loader: usize| -> anyhow::Result<Vec<Call>> {
        let mut connection = Connection::open(gateway.address)?;
        let padding = format!("X-Padding: {}", "p".repeat(3000));
        let mut calls = Vec::new();
        for number in 0..LOAD_REQUESTS {
            let key = format!("key-{loader}-{number}");
            let request = sign::request(gateway, "GET", &format!("/load/{key}"), &[&padding], b"");
            let reply = connection.ask(&request)?;
            calls.push(plain_call(Call::new("GetObject", Some("load"), Some(&key), 0), &connection, &request, &reply)?);
        }
        Ok(calls)
    };
    let mut calls = Vec::new();
    std::thread::scope(|scope| {
        let loaders: Vec<_> = (0..LOADERS).map(|loader| scope.spawn(move || load(loader))).collect();
        for loader in loaders {
            calls.extend(loader.join().map_err(|_| anyhow::anyhow!("a loader panicked"))??);
        }
        anyhow::Ok(())
    })?;
    let after = world.settle(calls.len() / 10)?;
    let (emitted, lost) = (after.status.ring("emitted"), after.status.lost());
    let skipped = after.status.kernel("skipped_calls");
    eprintln!("{} calls, {} records; samples: {emitted} emitted, {lost} lost", calls.len(), after.records.len());
    after.status.ring_agrees()?;
    anyhow::ensure!(lost > 0, "nothing was lost: the ring was not too small for this load, so nothing is shown");
    // Every call of the gateway owes a sample, and a connection at most four more for its lifecycle.
    let (least, most) = (kernel_calls.load(Ordering::Relaxed), 4 * LOADERS as u64);
    let counted = emitted + lost + skipped;
    anyhow::ensure!(
        (least..=least + most).contains(&counted),
        "the gateway made {least} calls; emitted {emitted} + lost {lost} + skipped {skipped} = {counted}"
    );
    expect::none_wrong(&calls, &after.records)
}
