//! Large bodies: what of them crosses the rings, and that nothing is missing for what does not.

use crate::Scenario;
use crate::capture::has_bpf_loop;
use crate::wire::plain_call;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::gateway::Gateway;
use s3auditd_tests::gateway::raw::{self, Request};
use s3auditd_tests::http::{Connection, in_chunks};
use s3auditd_tests::world::World;
use std::io::Write as _;
use std::net::TcpStream;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("bodies::large_objects_hardly_cross_the_rings", large),
        Scenario::new("bodies::a_length_without_a_body_hides_no_reply", without_body),
        Scenario::new("bodies::what_is_read_is_not_withheld", read),
    ]
}

const OBJECT_BYTES: usize = 64 << 20;
/// What a call of the gateway moves.
const CALL_BYTES: usize = 32 << 10;

fn large() -> anyhow::Result<()> {
    let world = World::around(raw::start(answer)?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    // Before that the kernel side does not look at heads (docs/limitations.md).
    let (rounds, looks) = (4, has_bpf_loop());
    for number in 0..rounds {
        let key = format!("object-{number}");
        let path = format!("/large/{key}");
        let mut requests = vec![
            ("PutObject", sign::request(&world.gateway, "PUT", &path, &[], &vec![b'b'; OBJECT_BYTES])),
            ("GetObject", sign::request(&world.gateway, "GET", &path, &[], b"")),
        ];
        if looks {
            requests.push(("PutObject", put_in_chunks(&world.gateway, &path)));
        }
        for (op, request) in requests {
            let reply = connection.ask(&request)?;
            calls.push(plain_call(Call::new(op, Some("large"), Some(&key), 0), &connection, &request, &reply)?);
        }
    }
    let after = world.expect(&calls)?;
    let (crossed, gib) = (after.status.ring("read_bytes"), (3 * rounds * OBJECT_BYTES) as u64);
    if looks {
        anyhow::ensure!(crossed << 10 < gib, "{crossed} bytes through the rings for {gib}: {}", after.status.0);
    }
    let withheld = after.status.rebuild("unseen_withheld_bytes");
    anyhow::ensure!(withheld == 0 || !looks, "{withheld} bytes are said to be missing");
    Ok(())
}

/// A PUT in chunks of odd sizes, with a head that is longer than the first call of some gateways.
fn put_in_chunks(gateway: &Gateway, path: &str) -> Vec<u8> {
    let filling = "f".repeat(1500);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: raw-socket/1\r\nX-Filling: {filling}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        gateway.address
    );
    [head.into_bytes(), in_chunks(&vec![b'c'; OBJECT_BYTES], 1_000_003)].concat()
}

/// A reply to HEAD has the length of what it does not bring, and so has a 304.
fn without_body() -> anyhow::Result<()> {
    let world = World::around(raw::start(answer)?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    for number in 0..3 {
        let (seen, got) = (format!("seen-{number}"), format!("got-{number}"));
        let head = sign::request(&world.gateway, "HEAD", &format!("/large/{seen}"), &[], b"");
        let get = sign::request(&world.gateway, "GET", &format!("/large/{got}"), &[], b"");
        // In turn, then pipelined.
        let replies = if number == 0 {
            [connection.ask(&head)?, connection.ask(&get)?]
        } else {
            connection.send(&[head.as_slice(), &get].concat())?;
            [connection.reply(true)?, connection.reply(false)?]
        };
        let unchanged = sign::request(&world.gateway, "GET", &format!("/unchanged/{got}"), &[], b"");
        let reply = connection.ask(&unchanged)?;
        for (op, bucket, key, request, reply) in [
            ("HeadObject", "large", &seen, &head, &replies[0]),
            ("GetObject", "large", &got, &get, &replies[1]),
            ("GetObject", "unchanged", &got, &unchanged, &reply),
        ] {
            calls.push(plain_call(Call::new(op, Some(bucket), Some(key), 0), &connection, request, reply)?);
        }
    }
    world.expect(&calls)?;
    Ok(())
}

/// Chunks must be followed, documents are read: neither is withheld, whatever else the head says.
fn read() -> anyhow::Result<()> {
    let world = World::around(raw::start(answer)?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    for number in 0..3 {
        let key = format!("chunked-{number}");
        let request = sign::request(&world.gateway, "GET", &format!("/chunked/{key}"), &[], b"");
        let reply = connection.ask(&request)?;
        calls.push(plain_call(Call::new("GetObject", Some("chunked"), Some(&key), 0), &connection, &request, &reply)?);
        let request = sign::request(&world.gateway, "GET", "/documents?list-type=2", &[], b"");
        let reply = connection.ask(&request)?;
        calls.push(plain_call(Call::new("ListObjectsV2", Some("documents"), None, 0), &connection, &request, &reply)?);
    }
    let after = world.expect(&calls)?;
    let withheld = after.status.rebuild("unseen_withheld_bytes");
    anyhow::ensure!(withheld == 0, "{withheld} bytes withheld of what is to be read");
    Ok(())
}

fn answer(request: &Request, stream: &mut TcpStream) -> bool {
    let bucket = request.target.split(['/', '?']).nth(1).unwrap_or_default();
    let (status, kind, length) = match (request.method.as_str(), bucket) {
        ("PUT", _) => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok(),
        (_, "chunked") => return chunks(stream).is_ok(),
        (_, "unchanged") => ("304 Not Modified", "binary/octet-stream", OBJECT_BYTES),
        (_, "documents") => ("200 OK", "application/xml", 300_000),
        _ => ("200 OK", "binary/octet-stream", OBJECT_BYTES),
    };
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
    // As long as a first call must be to be looked at.
    head.push_str(&format!("X-Filling: {}\r\n\r\n", "f".repeat(4096 - head.len() - 15)));
    let bodiless = request.method == "HEAD" || bucket == "unchanged";
    let mut first = head.into_bytes();
    if !bodiless {
        first.resize(first.len() + CALL_BYTES, b'r');
    }
    let piece = [b'r'; CALL_BYTES];
    let mut left = if bodiless { 0 } else { length - CALL_BYTES };
    let mut sent = stream.write_all(&first);
    while left > 0 && sent.is_ok() {
        let count = left.min(CALL_BYTES);
        sent = stream.write_all(piece.get(..count).unwrap_or_default());
        left -= count;
    }
    sent.is_ok()
}

/// More than the budget of a head, so that user space has to ask for the rest.
fn chunks(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut first = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..24 {
        first.extend_from_slice(format!("{CALL_BYTES:x}\r\n").as_bytes());
        first.resize(first.len() + CALL_BYTES, b'c');
        first.extend_from_slice(b"\r\n");
        stream.write_all(&first)?;
        first.clear();
    }
    stream.write_all(b"0\r\n\r\n")
}
