//! Much at once: many connections, large bodies, and a ring too small for what comes.

use crate::Scenario;
use crate::wire::{plain_call, presigned_call};
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::daemon::Status;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{Gateway, raw, s3s};
use s3auditd_tests::http::Connection;
use s3auditd_tests::world::{After, PATIENCE, World};
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("load::a_thousand_kept_connections", thousand_connections),
        Scenario::new("load::bodies_do_not_cross_the_ring", large_bodies),
        Scenario::new("load::bodies_beyond_2_gib_and_the_heads_right_behind_them", beyond_2_gib),
        Scenario::new("load::a_full_connection_table_is_counted_and_said", full_table),
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

/// Above 2 GiB, where signed 32-bit distances turn, and no multiple of the pieces it is moved in.
const HUGE_BYTES: u64 = (5 << 29) + 12_345;

/// Two uploads and two downloads, pipelined: every head stands right behind the body before it.
fn beyond_2_gib() -> anyhow::Result<()> {
    let gateway = raw::start(|request, stream| {
        if request.method == "PUT" {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).is_ok() && pour(stream, HUGE_BYTES).is_ok()
    })?;
    let world = World::around(gateway, &[])?;
    for method in ["PUT", "GET"] {
        let mut stream = TcpStream::connect(world.gateway.address)?;
        let mut requests = stream.try_clone()?;
        let writer = std::thread::spawn(move || -> std::io::Result<()> {
            for number in 0..2 {
                let length = if method == "PUT" { HUGE_BYTES } else { 0 };
                let head = format!("{method} /huge/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
                requests.write_all(head.as_bytes())?;
                pour(&mut requests, length)?;
            }
            requests.shutdown(Shutdown::Write)
        });
        std::io::copy(&mut stream, &mut std::io::sink())?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    }
    let After { status, records, .. } = world.settle(4)?;
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            let number = |name: &str| record.0.pointer(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
            let bodies = (number("/s3auditd/requestBodyBytes"), number("/s3auditd/responseBodyBytes"));
            (record.api_name(), record.key(), record.completion(), bodies.0, bodies.1)
        })
        .collect();
    let expected = [
        (Some("PutObject"), Some("0"), Some("complete"), HUGE_BYTES, 0),
        (Some("PutObject"), Some("1"), Some("complete"), HUGE_BYTES, 0),
        (Some("GetObject"), Some("0"), Some("complete"), 0, HUGE_BYTES),
        (Some("GetObject"), Some("1"), Some("complete"), 0, HUGE_BYTES),
    ];
    anyhow::ensure!(seen == expected, "{seen:?}\nstatus: {}", status.0);
    let through = status.ring("read_bytes");
    eprintln!("{} bytes of bodies put {through} bytes through the ring", 4 * HUGE_BYTES);
    anyhow::ensure!(through < 4 * MOST_RING_BYTES, "{through} bytes went through the ring: {}", status.0);
    status.whole()
}

fn pour(stream: &mut TcpStream, mut bytes: u64) -> std::io::Result<()> {
    let piece = vec![b'h'; 1 << 20];
    while bytes > 0 {
        let now = usize::try_from(bytes).unwrap_or(usize::MAX).min(piece.len());
        stream.write_all(piece.get(..now).unwrap_or_default())?;
        bytes -= now as u64;
    }
    Ok(())
}

fn full_table() -> anyhow::Result<()> {
    const AT_ONCE: usize = 40;
    let world = World::around(raw::answering(5)?, &["--max-connections", "8"])?;
    let mut connections = Vec::new();
    for _ in 0..AT_ONCE {
        connections.push(Connection::open(world.gateway.address)?);
    }
    let mut calls = Vec::new();
    for (number, connection) in connections.iter_mut().enumerate() {
        let key = format!("key-{number}");
        let request = format!("GET /table/{key} HTTP/1.1\r\nHost: h\r\nUser-Agent: raw-socket/1\r\n\r\n");
        let reply = connection.ask(request.as_bytes())?;
        calls.push(plain_call(
            Call::new("GetObject", Some("table"), Some(&key), 0),
            connection,
            request.as_bytes(),
            &reply,
        )?);
    }
    drop(connections);
    let after = world.settle(AT_ONCE)?;
    let full = after.status.kernel("table_full");
    anyhow::ensure!(full > 0, "{AT_ONCE} connections at once fitted into 8: {}", after.status.0);
    anyhow::ensure!(after.ended.stderr.contains("connection table full"), "it is not said:\n{}", after.ended.stderr);
    after.status.ring_agrees()?;
    expect::none_wrong(&calls, &after.records)
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
    let least = ["--ring-bytes", "8KiB", "--ring-watermark-bytes", "4KiB", "--ring-flush-ms", "1000"];
    let kernel_calls = Arc::new(AtomicU64::new(0));
    let world = World::around(telling_gateway(Arc::clone(&kernel_calls))?, &least)?;
    let gateway = &world.gateway;
    let accounted = |status: &Status| status.ring("emitted") + status.lost() + status.kernel("skipped_calls");
    let padding = format!("X-Padding: {}", "p".repeat(3000));
    let ask = |connection: &mut Connection, loader: usize, number: usize| -> anyhow::Result<Call> {
        let key = format!("key-{loader}-{number}");
        let request = sign::request(gateway, "GET", &format!("/load/{key}"), &[&padding], b"");
        let reply = connection.ask(&request)?;
        plain_call(Call::new("GetObject", Some("load"), Some(&key), 0), connection, &request, &reply)
    };
    let load = |loader: usize| -> anyhow::Result<(Connection, Vec<Call>)> {
        let mut connection = Connection::open(gateway.address)?;
        let calls = (0..LOAD_REQUESTS).map(|number| ask(&mut connection, loader, number));
        let calls = calls.collect::<anyhow::Result<_>>()?;
        Ok((connection, calls))
    };
    let (mut connections, mut calls) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let loaders: Vec<_> = (0..LOADERS).map(|loader| scope.spawn(move || load(loader))).collect();
        for loader in loaders {
            let (connection, made) = loader.join().map_err(|_| anyhow::anyhow!("a loader panicked"))??;
            connections.push(connection);
            calls.extend(made);
        }
        anyhow::Ok(())
    })?;
    // The connections go on, one call at a time and read before the next: behind the loss they are whole again. Each connection
    // owes a sample for its opening too: without it in the sum, the call before may still be in the ring.
    let read = |status: &Status| status.ring("read") >= status.ring("emitted");
    let opened = LOADERS as u64;
    let mut again = Vec::new();
    for (loader, connection) in connections.iter_mut().enumerate().take(2) {
        for number in LOAD_REQUESTS..LOAD_REQUESTS + 3 {
            let owed = kernel_calls.load(Ordering::Relaxed) + opened;
            world.daemon.status_when(PATIENCE, |status| accounted(status) >= owed && read(status))?;
            again.push(ask(connection, loader, number)?);
        }
    }
    // The first of each only brings it back into step.
    let whole: Vec<_> = again.chunks(3).filter_map(<[Call]>::last).cloned().collect();
    calls.extend(again);
    // How many records there will be is not known, but every call owes a sample, and all are counted before the daemon is told
    // to end; what is in the rings by then is still read.
    let owed = kernel_calls.load(Ordering::Relaxed);
    world.daemon.status_when(PATIENCE, |status| accounted(status) >= owed)?;
    let after = world.settle(1)?;
    let (emitted, lost) = (after.status.ring("emitted"), after.status.lost());
    let skipped = after.status.kernel("skipped_calls");
    eprintln!("{} calls, {} records; samples: {emitted} emitted, {lost} lost", calls.len(), after.records.len());
    after.status.ring_agrees()?;
    anyhow::ensure!(lost > 0, "nothing was lost: the ring was not too small for this load, so nothing is shown");
    // Every call of the gateway owes a sample, and a connection at most four more for its lifecycle.
    let most = 4 * LOADERS as u64;
    let counted = accounted(&after.status);
    anyhow::ensure!(
        (owed..=owed + most).contains(&counted),
        "the gateway made {owed} calls; emitted {emitted} + lost {lost} + skipped {skipped} = {counted}"
    );
    for call in whole {
        let found = after.records.iter().any(|record| expect::differences(&call, record).is_empty());
        anyhow::ensure!(found, "the connection did not come back: no whole record of {call:?}");
    }
    expect::none_wrong(&calls, &after.records)
}
