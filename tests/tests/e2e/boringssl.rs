//! TLS that BoringSSL ends, in Envoy, which is stripped. What every server in front of a gateway must do is in `openssl.rs`.

use crate::Scenario;
use crate::tls::{ask, clients, every_byte, read_whole};
use crate::tls_load::thousand_connections;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use rustls::version::TLS13;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::{script::Script, sign};
use s3auditd_tests::gateway::{ACCESS_KEY, Gateway, front::Front, minio};
use s3auditd_tests::http::Connection;
use s3auditd_tests::world::World;
use std::net::TcpStream;
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let needs = Front::Envoy.needs();
    let mut all = vec![
        Scenario::needing("boringssl::envoy_objects_are_used_again", &needs, used_again),
        Scenario::needing("boringssl::envoy_a_thousand_kept_connections", &needs, || {
            thousand_connections(Front::Envoy.start()?)
        }),
        Scenario::needing("boringssl::envoy_is_a_client_of_tls_too", &needs, || {
            // No call comes twice, and nothing of the connections behind it is counted.
            every_byte(Front::Envoy.start_before(minio::start_tls(None)?)?, &TLS13)
        }),
    ];
    for script in [Script::Awscli, Script::Curl] {
        all.push(Scenario {
            name: format!("boringssl::envoy_{}", script.name()),
            needs: script.needs().iter().chain(&needs).copied().collect(),
            run: Box::new(move || clients(Front::Envoy.start()?, script)),
        });
    }
    all
}

/// Envoy has closed a connection and given its object to another one, while the kernel has still to send on the first: each keeps what is
/// its own.
fn used_again() -> anyhow::Result<()> {
    // The room that a socket has at first for what it sends: Envoy gives up what it could not even give to the kernel.
    const LARGE_BYTES: usize = 40 << 10;
    const SLOW: usize = 10;
    const AFTER: usize = 60;
    // Envoy's `delayed_close_timeout`, one second, and more.
    const UNTIL_CLOSED: Duration = Duration::from_millis(2500);
    let world = World::around(Front::Envoy.start()?, &[])?;
    let gateway = &world.gateway;
    let mut first = gateway.connect()?;
    let mut calls = vec![
        ask(gateway, &mut first, "CreateBucket", Method::Put, "again", None, b"")?,
        ask(gateway, &mut first, "PutObject", Method::Put, "again", Some("large"), &vec![b'l'; LARGE_BYTES])?,
    ];
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut connection = with_little_room(gateway)?;
        let target = sign::target(gateway, Method::Get, "/again/large")?;
        let request = sign::request(gateway, "GET", &target, &["Connection: close"], b"");
        connection.send(&request)?;
        slow.push((connection, request));
    }
    std::thread::sleep(UNTIL_CLOSED);
    for number in 0..AFTER {
        let mut connection = gateway.connect()?;
        let key = format!("key-{number}");
        calls.push(ask(gateway, &mut connection, "PutObject", Method::Put, "again", Some(&key), key.as_bytes())?);
        calls.push(ask(gateway, &mut connection, "GetObject", Method::Get, "again", Some(&key), b"")?);
    }
    for (mut connection, request) in slow {
        let reply = connection.reply(false)?;
        anyhow::ensure!(reply.body.len() == LARGE_BYTES, "{} of {LARGE_BYTES} bytes came", reply.body.len());
        let call = Call::new("GetObject", Some("again"), Some("large"), 0);
        let call = Call { access_key: Some(ACCESS_KEY.to_owned()), ..call };
        calls.push(crate::wire::plain_call(call, &connection, &request, &reply)?);
    }
    drop(first);
    read_whole(&world.expect(&calls)?)
}

/// Most of a large reply stays with the gateway's kernel until it is read.
fn with_little_room(gateway: &Gateway) -> anyhow::Result<Connection> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, 4 << 10)?;
    connect(&socket, &gateway.address)?;
    Connection::over(TcpStream::from(socket))?.with_tls(gateway.address, &gateway.tls_client(&TLS13)?)
}
