//! Odd but lawful ways to put requests on a wire.

use crate::Scenario;
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::{light::Light, sign};
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::{ACCESS_KEY, Gateway, raw, s3s};
use s3auditd_tests::http::{Connection, Reply};
use s3auditd_tests::need::Need;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::World;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("wire::a_connection_opened_before_the_daemon", opened_before),
        Scenario::new("wire::heads_sent_byte_by_byte", byte_by_byte),
        Scenario::needing("wire::a_gateway_on_ipv6", &[Need::Ipv6], ipv6),
        Scenario::new("wire::the_next_head_right_behind_a_body", pipelined),
        Scenario::new("wire::a_fin_in_the_same_receive", fin_in_the_same_receive),
        Scenario::new("wire::text_that_is_not_http", not_http),
    ]
}

/// A presigned call of one of our raw requests, with everything known about it.
pub(crate) fn presigned_call(
    call: Call,
    connection: &Connection,
    request: &[u8],
    reply: &Reply,
) -> anyhow::Result<Call> {
    Ok(Call { access_key: Some(ACCESS_KEY.to_owned()), ..plain_call(call, connection, request, reply)? })
}

/// The same, unsigned.
pub(crate) fn plain_call(call: Call, connection: &Connection, request: &[u8], reply: &Reply) -> anyhow::Result<Call> {
    Ok(Call {
        status: reply.status,
        sent: Some(request.len() as u64),
        received: Some(reply.received),
        user_agent: Some("raw-socket/1".to_owned()),
        client: Some(connection.local()?),
        ..call
    })
}

fn put(gateway: &Gateway, bucket: &str, key: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let target = sign::target(gateway, Method::Put, &format!("/{bucket}/{key}"))?;
    Ok(sign::request(gateway, "PUT", &target, &[], body))
}

fn get(gateway: &Gateway, bucket: &str, key: &str) -> anyhow::Result<Vec<u8>> {
    let target = sign::target(gateway, Method::Get, &format!("/{bucket}/{key}"))?;
    Ok(sign::request(gateway, "GET", &target, &[], b""))
}

fn create_bucket(gateway: &Gateway, bucket: &str) -> anyhow::Result<Vec<u8>> {
    let target = sign::target(gateway, Method::Put, &format!("/{bucket}"))?;
    Ok(sign::request(gateway, "PUT", &target, &[], b""))
}

fn opened_before() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let mut connection = Connection::open(gateway.address)?;
    connection.ask(&create_bucket(&gateway, "early")?)?;
    let mut idle = Connection::open(gateway.address)?;

    let world = World::around(gateway, &[])?;
    let mut calls = Vec::new();
    for connection in [&mut connection, &mut idle] {
        let key = format!("from-{}", connection.local()?.port());
        let request = put(&world.gateway, "early", &key, b"hello")?;
        let reply = connection.ask(&request)?;
        calls.push(presigned_call(Call::new("PutObject", Some("early"), Some(&key), 0), connection, &request, &reply)?);
        let request = get(&world.gateway, "early", &key)?;
        let reply = connection.ask(&request)?;
        anyhow::ensure!(reply.body == b"hello", "got {:?}", reply.body);
        calls.push(presigned_call(Call::new("GetObject", Some("early"), Some(&key), 0), connection, &request, &reply)?);
    }
    let after = world.expect(&calls)?;
    let open_at_start = after.status.count(&["capture", "open_at_start"]);
    anyhow::ensure!(open_at_start == 2, "2 connections were open at the start, and status says {open_at_start}");
    Ok(())
}

fn byte_by_byte() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    let requests = [
        (Call::new("CreateBucket", Some("slow"), None, 0), create_bucket(&world.gateway, "slow")?),
        (Call::new("PutObject", Some("slow"), Some("key"), 0), put(&world.gateway, "slow", "key", b"drop by drop")?),
        (Call::new("GetObject", Some("slow"), Some("key"), 0), get(&world.gateway, "slow", "key")?),
    ];
    for (call, request) in requests {
        for byte in request.chunks(1) {
            connection.send(byte)?;
            // Long enough that most bytes are received alone.
            std::thread::sleep(Duration::from_micros(200));
        }
        let reply = connection.reply(false)?;
        anyhow::ensure!(reply.status == 200, "{call:?} got {}", reply.head);
        calls.push(presigned_call(call, &connection, &request, &reply)?);
    }
    world.expect(&calls)?;
    Ok(())
}

fn ipv6() -> anyhow::Result<()> {
    let world = World::around(s3s::start_at(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0))?, &[])?;
    let mut calls = Light::of(&world.gateway)?.round("six")?;
    let mut connection = Connection::open(world.gateway.address)?;
    let request = create_bucket(&world.gateway, "six-again")?;
    let reply = connection.ask(&request)?;
    calls.push(presigned_call(Call::new("CreateBucket", Some("six-again"), None, 0), &connection, &request, &reply)?);
    world.expect(&calls)?;
    Ok(())
}

/// Bodies of many sizes, each with the next request's head in the same send: whatever is skipped of a body, the head
/// behind it is read.
fn pipelined() -> anyhow::Result<()> {
    let world = World::around(raw::answering(3)?, &[])?;
    let mut connection = Connection::open(world.gateway.address)?;
    let mut calls = Vec::new();
    for size in [1, 4096, 32 * 1024, 100_000, 300_000, 1_048_576 + 17, 3_000_000] {
        let put_key = format!("put-{size}");
        let get_key = format!("get-{size}");
        let first = sign::request(&world.gateway, "PUT", &format!("/pipe/{put_key}"), &[], &vec![b'b'; size]);
        let second = sign::request(&world.gateway, "GET", &format!("/pipe/{get_key}"), &[], b"");
        // The first half alone, so that the body is being skipped when its end arrives together with the next head.
        let (early, late) = first.split_at(first.len() / 2);
        connection.send(early)?;
        std::thread::sleep(Duration::from_millis(150));
        connection.send(&[late, second.as_slice()].concat())?;
        for (op, key, request) in [("PutObject", put_key, first), ("GetObject", get_key, second)] {
            let reply = connection.reply(false)?;
            calls.push(plain_call(Call::new(op, Some("pipe"), Some(&key), 0), &connection, &request, &reply)?);
        }
    }
    world.expect(&calls)?;
    Ok(())
}

/// A FIN moves the kernel's position by one byte that is none.
fn fin_in_the_same_receive() -> anyhow::Result<()> {
    let gateway = raw::start_late(Duration::from_millis(20), |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    })?;
    let world = World::around(gateway, &[])?;
    let mut calls = Vec::new();
    for number in 0..60 {
        let mut connection = Connection::open(world.gateway.address)?;
        let key = format!("fin-{number}");
        let request = sign::request(&world.gateway, "PUT", &format!("/last/{key}"), &[], &vec![b'f'; number * 7]);
        connection.send(&request)?;
        connection.finish()?;
        let reply = connection.reply(false)?;
        calls.push(plain_call(Call::new("PutObject", Some("last"), Some(&key), 0), &connection, &request, &reply)?);
    }
    let after = world.expect(&calls)?;
    let holes = after.status.rebuild("holes");
    anyhow::ensure!(holes == 0, "{holes} holes where nothing was lost");
    Ok(())
}

fn not_http() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let webhook = Webhook::start()?;
    let daemon = Daemon::start(&[gateway.port()], Some(&webhook.url()), &[])?;
    let world = World { gateway, webhook, daemon };
    for text in ["SSH-2.0-OpenSSH_9.0\r\n", "\u{1}\u{2}\u{3}\u{4} no request at all\r\n\r\n"] {
        let mut connection = Connection::open(world.gateway.address)?;
        connection.send(text.as_bytes()).context("text that is not HTTP")?;
        // The gateway answers 400 or just closes: either way it is over.
        let _ = connection.reply(false);
    }
    let calls = Light::of(&world.gateway)?.round("after-the-noise")?;
    let after = world.expect(&calls)?;
    let counted = after.status.rebuild("not_http_connections");
    anyhow::ensure!(counted == 2, "2 connections were not HTTP, {counted} were counted: {}", after.status.0);
    Ok(())
}
