//! TLS that BoringSSL ends, in Envoy, which is stripped. What every server in front of a gateway must do is in `openssl.rs`.

use crate::Scenario;
use crate::tls::{ask, clients, every_byte, read_whole};
use crate::tls_load::thousand_connections;
use crate::unseen::said_in_the_coverage;
use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use rustls::version::TLS13;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::{script::Script, sign};
use s3auditd_tests::gateway::{ACCESS_KEY, Gateway, front::Front, minio};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::world::World;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
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
        Scenario {
            needs: needs.iter().copied().chain([Need::Curl]).collect(),
            ..Scenario::new("boringssl::envoy_http2_is_said_and_gives_no_record", http2)
        },
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

/// Of what an HTTP/2 connection carries there is no record, not even if it reads like HTTP/1.1; those beside it have theirs.
fn http2() -> anyhow::Result<()> {
    let world = World::around(Front::Envoy.start()?, &[])?;
    let gateway = &world.gateway;
    let mut connection = gateway.connect()?;
    let mut one = |op, method, key| ask(gateway, &mut connection, op, method, "both", key, b"");
    let mut calls = vec![one("CreateBucket", Method::Put, None)?];
    let body = [
        sign::request(gateway, "GET", &sign::target(gateway, Method::Get, "/both/never")?, &[], b""),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ];
    over_http2(gateway, "/both/key", &body.concat().repeat(1000))?;
    calls.push(one("GetObject", Method::Get, Some("key"))?);
    said_in_the_coverage(&world, "http2")?;
    calls.push(one("HeadObject", Method::Head, Some("key"))?);
    drop(connection);
    let after = world.expect(&calls)?;
    anyhow::ensure!(after.status.rebuild("http2_connections") == 1, "{}", after.status.0);
    read_whole(&after)
}

/// Puts that and gets it back, on one connection.
fn over_http2(gateway: &Gateway, path: &str, body: &[u8]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let [authority, sent, received] = ["authority", "sent", "received"].map(|name| folder.path().join(name));
    fs::write(&authority, gateway.authority.as_deref().context("it speaks no TLS")?)?;
    fs::write(&sent, body)?;
    let url = |method| Ok::<_, anyhow::Error>(format!("{}{}", gateway.url(), sign::target(gateway, method, path)?));
    let mut curl = Command::new("curl");
    curl.args(["--http2", "--silent", "--show-error", "--max-time", "120"]);
    curl.args(["--write-out", "%{http_version} %{http_code} %{num_connects}\n"]).arg("--cacert").arg(&authority);
    curl.arg("--upload-file").arg(&sent).args(["--output", "/dev/null", &url(Method::Put)?]);
    curl.arg("--output").arg(&received).arg(url(Method::Get)?);
    let output = curl.output()?;
    anyhow::ensure!(output.stdout == b"2 200 1\n2 200 0\n", "{output:?}");
    anyhow::ensure!(fs::read(&received)? == body, "what came back is something else");
    Ok(())
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
