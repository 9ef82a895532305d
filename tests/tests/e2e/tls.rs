//! Gateways that end TLS themselves: the same records, from the plaintext that their library has.

use crate::Scenario;
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::{script::Script, sign};
use s3auditd_tests::gateway::{ACCESS_KEY, Gateway, minio};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::tls;
use s3auditd_tests::webhook::authority::Authority;
use s3auditd_tests::webhook::rude::{self, Rude};
use s3auditd_tests::world::{After, PATIENCE, World};
use std::process::Command;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let minio = [Need::Minio];
    let mut all = vec![
        Scenario::needing("tls::minio_stripped", &minio, stripped),
        Scenario::needing("tls::bodies_do_not_cross_the_ring", &minio, || bodies(minio::start_tls(None)?)),
        Scenario::needing("tls::off_is_said", &minio, off),
        Scenario::new("tls::rustls_is_named", rustls),
        Scenario::needing("tls::minio_restarted", &minio, restarted),
        Scenario::needing("tls::minio_trailers", &[Need::Minio, Need::Python], || {
            clients(minio::start_tls(None)?, Script::Trailers)
        }),
    ];
    for (name, version) in tls::VERSIONS {
        all.push(Scenario {
            name: format!("tls::minio_every_byte_{name}"),
            needs: minio.to_vec(),
            run: Box::new(move || every_byte(minio::start_tls(None)?, version)),
        });
    }
    all
}

/// What a real client does.
pub(crate) fn clients(gateway: Gateway, script: Script) -> anyhow::Result<()> {
    let world = World::around(gateway, &[])?;
    let calls = script.round(&world.gateway)?;
    read_whole(&world.expect(&calls)?)
}

fn stripped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("minio");
    let stripped = Command::new("strip").arg("-o").arg(&binary).arg(minio::binary()?).status().context("strip")?;
    anyhow::ensure!(stripped.success(), "strip ended with {stripped}");
    let world = World::around(minio::start_tls(Some(&binary))?, &[])?;
    let calls = round(&world.gateway, "stripped")?;
    read_whole(&world.expect(&calls)?)
}

/// Several connections at a time, each call with its exact bytes and the client's own port.
pub(crate) fn every_byte(gateway: Gateway, version: &'static rustls::SupportedProtocolVersion) -> anyhow::Result<()> {
    const CONNECTIONS: usize = 20;
    const ROUNDS: usize = 5;
    let world = World::around(gateway, &[])?;
    let config = world.gateway.tls_client(version)?;
    let open = || Connection::open_tls(world.gateway.address, &config);
    let mut calls = Vec::new();
    let mut first = open()?;
    calls.push(ask(&world.gateway, &mut first, "CreateBucket", Method::Put, "bytes", None, b"")?);
    let mut connections = (0..CONNECTIONS).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    for round in 0..ROUNDS {
        for (number, connection) in connections.iter_mut().enumerate() {
            let key = format!("{number}-{round}");
            let body = vec![b'x'; 1 + number * 1000];
            let mut one =
                |op, method, body: &[u8]| ask(&world.gateway, connection, op, method, "bytes", Some(&key), body);
            calls.push(one("PutObject", Method::Put, &body)?);
            calls.push(one("GetObject", Method::Get, b"")?);
        }
    }
    drop((first, connections));
    let after = world.expect(&calls)?;
    let name = if version.version == rustls::ProtocolVersion::TLSv1_3 { "TLSv1.3" } else { "TLSv1.2" };
    for record in &after.records {
        let said = &record.0.pointer("/s3auditd/tls/version");
        anyhow::ensure!(*said == Some(&name.into()), "a record of {name} says {said:?}: {}", record.0);
    }
    read_whole(&after)
}

/// Two large bodies, one each way: what crosses the ring is a bounded part of each.
pub(crate) fn bodies(gateway: Gateway) -> anyhow::Result<()> {
    const BODY_BYTES: usize = 64 << 20;
    let world = World::around(gateway, &[])?;
    let mut connection = world.gateway.connect()?;
    let body = vec![b'b'; BODY_BYTES];
    let mut one = |op, method, key, body: &[u8]| ask(&world.gateway, &mut connection, op, method, "bodies", key, body);
    let calls = [
        one("CreateBucket", Method::Put, None, b"")?,
        one("PutObject", Method::Put, Some("large"), &body)?,
        one("GetObject", Method::Get, Some("large"), b"")?,
        one("HeadObject", Method::Head, Some("large"), b"")?,
    ];
    drop(connection);
    let after = world.expect(&calls)?;
    read_whole(&after)?;
    let crossed = after.status.kernel("emitted_bytes");
    // A run budget each way before the word to skip arrives, and as much again for what else there is.
    anyhow::ensure!(crossed < 5 << 20, "{crossed} bytes crossed the ring of 2 x {BODY_BYTES}");
    // A busy agent's word may come when a body has passed: then what is beyond the budget is withheld.
    let left_out = after.status.kernel("skipped_bytes") + after.status.kernel("unseen_bytes");
    let bodies = 2 * BODY_BYTES as u64;
    anyhow::ensure!(left_out <= bodies && left_out + crossed >= bodies, "{left_out} bytes of {bodies} were left out");
    Ok(())
}

/// With the switch off nothing is read, and the connections are named.
fn off() -> anyhow::Result<()> {
    let world = World::around(minio::start_tls(None)?, &["--tls", "off"])?;
    round(&world.gateway, "not-read")?;
    let status = world.daemon.status_when(PATIENCE, |status| status.rebuild("tls_connections_unread") > 0)?;
    anyhow::ensure!(status.rebuild("tls_connections_read") == 0, "something was read: {}", status.0);
    let unread = status.rebuild("tls_connections_unread");
    anyhow::ensure!(unread > 0, "a connection that is not read is not counted: {}", status.0);
    let after = world.settle(0)?;
    anyhow::ensure!(after.records.is_empty(), "records of what was not read: {:?}", after.records);
    after.status.whole()
}

/// A library that is not read is named with who has it, and its connections are counted. This process is the gateway.
fn rustls() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let authority = Authority::new()?;
    let server = runtime.block_on(Rude::start_tls(authority.acceptor(false)?, |_, _| rude::status(200)))?;
    let world = World::around(Gateway::elsewhere_tls(server.address, authority.pem()), &[])?;
    world.gateway.connect()?.ask(b"PUT /bucket HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n")?;
    let status = world.daemon.status_when(PATIENCE, |status| status.rebuild("tls_connections_unread") > 0)?;
    let served = status.0.pointer("/capture/tls").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let problems: Vec<_> = served.iter().filter_map(|one| one.get("problem")?.as_str()).collect();
    anyhow::ensure!(problems.iter().any(|problem| problem.starts_with("it has rustls ")), "named is {problems:?}");
    let after = world.settle(0)?;
    anyhow::ensure!(after.records.is_empty(), "records of what was not read: {:?}", after.records);
    after.status.whole()
}

/// The gateway goes and comes back: its probes go with the file, not the process.
fn restarted() -> anyhow::Result<()> {
    let world = World::around(minio::start_tls(None)?, &[])?;
    let mut calls = round(&world.gateway, "before")?;
    let World { gateway, webhook, daemon } = world;
    let address = gateway.address;
    drop(gateway);
    let gateway = minio::start_tls_at(address)?;
    calls.extend(round(&gateway, "after")?);
    let after = World { gateway, webhook, daemon }.expect(&calls)?;
    read_whole(&after)
}

/// Every connection was read from its first byte on, and every call of the library is accounted for.
pub(crate) fn read_whole(after: &After) -> anyhow::Result<()> {
    let status = &after.status;
    let said = || format!("{}", status.0);
    anyhow::ensure!(status.rebuild("tls_connections_read") > 0, "no TLS was read: {}", said());
    for never in ["tls_connections_unread", "gaps", "holes", "lost_bytes"] {
        anyhow::ensure!(status.rebuild(never) == 0, "{never} is {}: {}", status.rebuild(never), said());
    }
    for never in ["plaintext_untied", "plaintext_no_buffer"] {
        anyhow::ensure!(status.kernel(never) == 0, "{never} is {}: {}", status.kernel(never), said());
    }
    for record in &after.records {
        let tls = record.0.pointer("/s3auditd/tls").with_context(|| format!("no TLS is named: {}", record.0))?;
        let is_whole = tls.get("handshake") == Some(&"seen".into()) && tls.get("cipherSuite").is_some();
        anyhow::ensure!(is_whole, "the handshake was seen, and the record says {tls}");
    }
    Ok(())
}

/// A few calls on a connection of their own.
pub(crate) fn round(gateway: &Gateway, bucket: &str) -> anyhow::Result<Vec<Call>> {
    let mut connection = gateway.connect()?;
    let mut one = |op, method, key, body: &[u8]| ask(gateway, &mut connection, op, method, bucket, key, body);
    Ok(vec![
        one("CreateBucket", Method::Put, None, b"")?,
        one("PutObject", Method::Put, Some("key"), b"hello, audit")?,
        one("GetObject", Method::Get, Some("key"), b"")?,
        one("HeadObject", Method::Head, Some("key"), b"")?,
    ])
}

pub(crate) fn ask(
    gateway: &Gateway,
    connection: &mut Connection,
    op: &str,
    method: Method,
    bucket: &str,
    key: Option<&str>,
    body: &[u8],
) -> anyhow::Result<Call> {
    let path = key.map_or_else(|| format!("/{bucket}"), |key| format!("/{bucket}/{key}"));
    let target = sign::target(gateway, method, &path)?;
    let request = sign::request(gateway, method.to_str(), &target, &[], body);
    let reply = connection.ask(&request)?;
    anyhow::ensure!(reply.status == 200, "{op} {path} ended with {}: {:?}", reply.status, reply.body);
    let call = Call { access_key: Some(ACCESS_KEY.to_owned()), ..Call::new(op, Some(bucket), key, 0) };
    crate::wire::plain_call(call, connection, &request, &reply)
}
