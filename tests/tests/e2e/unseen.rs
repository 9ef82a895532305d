//! Bytes that a probe cannot read: said to be unseen, never guessed.

use crate::Scenario;
use crate::capture::layers;
use crate::wire::plain_call;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::{Gateway, raw, uring};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::patience::stretched;
use s3auditd_tests::record::Record;
use s3auditd_tests::world::{PATIENCE, World};
use s3auditd_tests::{expect, mptcp};
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("unseen::a_body_that_goes_out_by_sendfile", sendfile),
        Scenario::needing(
            "unseen::mptcp_is_said_in_the_coverage_and_a_plain_client_is_audited",
            &[Need::Mptcp],
            multipath,
        ),
        Scenario::needing(
            "unseen::kernel_tls_is_said_in_the_coverage_and_the_ledger_balances",
            &[Need::KernelTls],
            kernel_tls,
        ),
        Scenario::needing("unseen::io_uring_never_shows_another_calls_buffer", &[Need::IoUring], io_uring_guard),
    ]
}

/// How many requests go to the server on io_uring.
const CALLS: usize = 300;

/// Large enough for several calls, small enough that most of it is gone before anybody could ask to skip it.
const FILE_BYTES: usize = 200_000;

fn sendfile() -> anyhow::Result<()> {
    let world = World::around(sendfile_gateway()?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    for number in 0..10 {
        let key = format!("file-{number}");
        let request = sign::request(&world.gateway, "GET", &format!("/files/{key}"), &[], b"");
        let reply = connection.ask(&request)?;
        calls.push(plain_call(Call::new("GetObject", Some("files"), Some(&key), 0), &connection, &request, &reply)?);
    }
    let after = world.expect(&calls)?;
    let (unseen, skipped) = (after.status.kernel("unseen_bytes"), after.status.kernel("skipped_bytes"));
    let moved = (calls.len() * FILE_BYTES) as u64;
    anyhow::ensure!(
        unseen > 0 && unseen + skipped >= moved,
        "{moved} bytes moved by sendfile; counted unseen: {unseen}, skipped: {skipped}"
    );
    Ok(())
}

fn sendfile_gateway() -> anyhow::Result<Gateway> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![b's'; FILE_BYTES])?;
    raw::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {FILE_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).is_ok() && send_whole(&file, stream)
    })
}

fn send_whole(file: &File, stream: &TcpStream) -> bool {
    let mut at = 0;
    while at < FILE_BYTES as u64 {
        match rustix::fs::sendfile(stream, file, Some(&mut at), FILE_BYTES) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}

/// A listener that speaks MPTCP, as Go's do by default: plain clients are like any other, and of those that speak it too is
/// said that there are some, and how much they moved.
fn multipath() -> anyhow::Result<()> {
    let listener = mptcp::listener(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let gateway =
        raw::on(listener, |_, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok())?;
    let world = World::around(gateway, &[])?;
    let (mut calls, mut moved) = (Vec::new(), (0, 0));
    let mut plain = Connection::open(world.gateway.address)?;
    let mut multipath = Connection::over(mptcp::connect(world.gateway.address)?)?;
    for number in 0..10 {
        let key = format!("plain-{number}");
        let request = sign::request(&world.gateway, "GET", &format!("/paths/{key}"), &[], b"");
        let reply = plain.ask(&request)?;
        calls.push(plain_call(Call::new("GetObject", Some("paths"), Some(&key), 0), &plain, &request, &reply)?);
        let request = sign::request(&world.gateway, "GET", &format!("/paths/multi-{number}"), &[], b"");
        let reply = multipath.ask(&request)?;
        anyhow::ensure!(reply.body == b"ok", "the gateway answered {}", reply.head);
        moved = (moved.0 + request.len() as u64, moved.1 + reply.received);
    }
    multipath.finish()?;
    drop(multipath);
    // Its end is what tells how much has moved.
    world.daemon.status_when(PATIENCE, |status| status.rebuild("connections_closed") == 1)?;
    said_in_the_coverage(&world, "upper_layer")?;
    let after = world.settle(calls.len())?;
    expect::same(&calls, &after.records)?;
    let lost = (after.status.rebuild("received_lost_bytes"), after.status.rebuild("sent_lost_bytes"));
    anyhow::ensure!(lost == moved, "{moved:?} bytes moved, and {lost:?} are counted: {}", after.status.0);
    after.status.ring_agrees()?;
    after.status.balanced()
}

pub(crate) fn said_in_the_coverage(world: &World, reason: &str) -> anyhow::Result<()> {
    let place = format!("/s3auditd/coverage/unseenConnections/{reason}");
    let said = |record: &Record| record.0.pointer(&place).is_some_and(|count| *count == 1);
    let deadline = Instant::now() + stretched(PATIENCE);
    while !world.webhook.records().iter().any(said) {
        anyhow::ensure!(Instant::now() < deadline, "no coverage record says that a connection is not seen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Both ends turn to kernel TLS after the first answer: of what follows no record tells more than that bytes moved unseen
/// there, and all of it is counted as lost.
fn kernel_tls() -> anyhow::Result<()> {
    let gateway = raw::start(|request, stream| {
        let answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok();
        answered && (request.target != "/keys/clear" || layers::tls(stream).is_ok())
    })?;
    let world = World::around(gateway, &[])?;
    let stream = TcpStream::connect(world.gateway.address)?;
    let mut connection = Connection::over(stream.try_clone()?)?;
    let request = sign::request(&world.gateway, "GET", "/keys/clear", &[], b"");
    let reply = connection.ask(&request)?;
    let calls = [plain_call(Call::new("GetObject", Some("keys"), Some("clear"), 0), &connection, &request, &reply)?];
    layers::tls(&stream)?;
    let mut moved = (0, 0);
    for number in 0..10 {
        let request = sign::request(&world.gateway, "GET", &format!("/keys/secret-{number}"), &[], b"");
        let reply = connection.ask(&request)?;
        anyhow::ensure!(reply.body == b"ok", "the gateway answered {}", reply.head);
        moved = (moved.0 + request.len() as u64, moved.1 + reply.received);
    }
    connection.finish()?;
    drop((connection, stream));
    // Its end is what tells how much has moved.
    world.daemon.status_when(PATIENCE, |status| status.rebuild("connections_closed") == 1)?;
    said_in_the_coverage(&world, "upper_layer")?;
    let after = world.settle(calls.len())?;
    let (beyond, told): (Vec<_>, Vec<_>) =
        after.records.into_iter().partition(|record| record.api_name() == Some("Unknown"));
    expect::same(&calls, &told)?;
    for record in &beyond {
        let says_nothing =
            record.completion() == Some("partial") && record.key().is_none() && record.status().is_none();
        anyhow::ensure!(says_nothing, "of what went by kernel TLS is said: {}", record.0);
    }
    let lost = (after.status.rebuild("received_lost_bytes"), after.status.rebuild("sent_lost_bytes"));
    // Every record of TLS is longer than what it holds.
    anyhow::ensure!(
        lost.0 > moved.0 && lost.1 > moved.1,
        "of {moved:?} bytes {lost:?} are counted: {}",
        after.status.0
    );
    after.status.ring_agrees()?;
    after.status.balanced()
}

fn io_uring_guard() -> anyhow::Result<()> {
    let world = World::around(uring::start()?, &["--log", "trace"])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut moved = 0;
    for number in 0..CALLS {
        let request = sign::request(&world.gateway, "GET", &format!("/ring/key-{number}"), &[], b"");
        let reply = connection.ask(&request)?;
        anyhow::ensure!(reply.body == b"ok", "the gateway answered {}", reply.head);
        moved += request.len() as u64 + reply.received;
        // Time for the server to be in the middle of a write when the next request arrives.
        std::thread::sleep(Duration::from_millis(1));
    }
    let metrics = s3auditd_tests::http::fetch(world.daemon.metrics, "/metrics")?;
    let after = world.settle(0)?;
    let records: Vec<_> = after.records.iter().map(ToString::to_string).collect();
    let everything = [&after.ended.stdout, &after.ended.stderr, &after.status.0.to_string(), &records.join("\n")];
    for text in everything.into_iter().map(String::as_str).chain([&*String::from_utf8_lossy(&metrics)]) {
        anyhow::ensure!(!text.contains(uring::MARKER), "the server's log file is in what the daemon said: {text}");
    }
    let complete = after.records.iter().filter(|record| record.completion() == Some("complete")).count();
    let unseen = after.status.kernel("unseen_bytes");
    match after.status.backend() {
        // They find the buffer where the kernel itself has it, so io_uring is like any other call to them.
        Some("fexit" | "kprobe") => {
            anyhow::ensure!(complete == CALLS, "{complete} complete records of {CALLS} calls: {}", after.status.0);
            anyhow::ensure!(unseen == 0, "{unseen} bytes counted unseen: {}", after.status.0);
        }
        // It is not told of these calls at all: holes, which the connection's end shows.
        Some("syscall") => anyhow::ensure!(complete == 0, "{complete} complete records of what cannot be seen"),
        // No head was seen, so nothing may claim to be a whole exchange.
        _ => {
            anyhow::ensure!(complete == 0, "{complete} complete records of what cannot be seen");
            anyhow::ensure!(unseen >= moved, "{moved} bytes moved, {unseen} counted unseen: {}", after.status.0);
        }
    }
    after.status.ring_agrees()
}
