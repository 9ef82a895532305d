//! Bytes that a probe cannot read: said to be unseen, never guessed.

use crate::Scenario;
use crate::wire::plain_call;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::{Gateway, raw, uring};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::world::World;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("unseen::a_body_that_goes_out_by_sendfile", sendfile),
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

fn send_whole(file: &File, stream: &std::net::TcpStream) -> bool {
    let mut at = 0;
    while at < FILE_BYTES as u64 {
        match rustix::fs::sendfile(stream, file, Some(&mut at), FILE_BYTES) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
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
