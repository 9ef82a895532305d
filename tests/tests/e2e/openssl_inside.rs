//! OpenSSL that is read inside of its functions: which probes are in, and for how long.

use crate::Scenario;
use crate::tls::{ask, read_whole, round};
use crate::tls_elsewhere::openssl_of;
use crate::tls_go::{served, text};
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::daemon::{Daemon, Status};
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{free_port, front::Front, local, minio};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::tool;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The copying, two for records (from 3.2 on entry and return of writes), `SSL_clear`, entry and return of `SSL_do_handshake` and
/// `SSL_sendfile`.
const PROBES: u64 = 8;
/// And entry and return of reads.
const WITH_READS: u64 = PROBES + 2;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let (nginx, threads) = (Front::Nginx.needs(), Front::Threads.needs());
    vec![
        Scenario::needing("openssl_inside::reads_are_probed_until_connections_are_tied", &nginx, until_tied),
        Scenario::needing("openssl_inside::reads_are_probed_for_handshakes_inside_of_them", &threads, in_reads),
        Scenario::needing("openssl_inside::records_that_are_made_at_once_are_whole", &threads, at_once),
        Scenario::needing("openssl_inside::what_is_not_found_is_read_at_entry_and_return", &threads, not_found),
    ]
}

/// What is said of the library, and how many probes are in.
fn said(status: &Status) -> (String, u64) {
    let libraries = served(status).into_iter().filter(|one| !text(one, "library").is_empty());
    let of = |one: &serde_json::Value| one.get("probes").and_then(serde_json::Value::as_u64).unwrap_or_default();
    libraries.map(|one| (text(&one, "library"), of(&one))).next().unwrap_or_default()
}

fn wait_for(daemon: &Daemon, probes: u64) -> anyhow::Result<()> {
    let status = daemon.status_when(PATIENCE, |status| said(status).1 == probes)?;
    anyhow::ensure!(said(&status).1 == probes, "{:?}, and not {probes} probes", said(&status));
    Ok(())
}

/// A connection that was open before the daemon keeps the reads probed while it is idle, and until its next call has tied it.
fn until_tied() -> anyhow::Result<()> {
    let gateway = Front::Nginx.start()?;
    let mut before = gateway.connect()?;
    ask(&gateway, &mut before, "CreateBucket", Method::Put, "before", None, b"")?;
    let world = World::around(gateway, &[])?;
    // Several looks.
    std::thread::sleep(Duration::from_secs(4));
    let (library, probes) = said(&world.daemon.status()?);
    anyhow::ensure!(library.starts_with("openssl") && !library.contains("(entry"), "{library} is not read inside");
    anyhow::ensure!(probes == WITH_READS, "{probes} probes while a connection is not tied");
    let one = |connection: &mut _, op, method, body: &[u8]| {
        ask(&world.gateway, connection, op, method, "before", Some("key"), body)
    };
    let mut calls = vec![one(&mut before, "PutObject", Method::Put, b"hello")?];
    wait_for(&world.daemon, PROBES)?;
    calls.push(one(&mut before, "GetObject", Method::Get, b"")?);
    let mut after = world.gateway.connect()?;
    calls.push(one(&mut after, "GetObject", Method::Get, b"")?);
    calls.push(one(&mut before, "HeadObject", Method::Head, b"")?);
    drop((before, after));
    let after = world.expect(&calls)?;
    anyhow::ensure!(after.status.rebuild("tls_connections_read") == 2, "{}", after.status.0);
    Ok(())
}

/// A server that never asks for a handshake: the first connection goes unread and is counted; what comes then is read.
fn in_reads() -> anyhow::Result<()> {
    let gateway = Front::Threads.start_otherwise(minio::start()?, |command| command.arg("reads"))?;
    let webhook = Webhook::start()?;
    let daemon = Daemon::start(&[gateway.port()], Some(&webhook.url()), &[])?;
    wait_for(&daemon, PROBES)?;
    round(&gateway, "unread")?;
    let status = daemon.status_when(PATIENCE, |status| status.rebuild("tls_connections_unread") > 0)?;
    anyhow::ensure!(status.rebuild("tls_connections_unread") == 1, "not told as unread: {}", status.0);
    wait_for(&daemon, WITH_READS)?;
    let calls = round(&gateway, "read")?;
    let after = World { gateway, webhook, daemon }.settle(calls.len())?;
    expect::same(&calls, &after.records).with_context(|| after.status.0.to_string())
}

/// With a cipher for which several records are made at once of what is large, by another way.
fn at_once() -> anyhow::Result<()> {
    let world = World::around(Front::Threads.start()?, &[])?;
    let python = tool("S3AUDITD_PYTHON").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let address = local(free_port()?);
    let mut command = Command::new(python);
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways/cbc_relay.py"));
    command.args([address.port().to_string(), world.gateway.port().to_string()]);
    // It ends with its only connection, or without one.
    let mut relay = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("no pipe")?).read_line(&mut line)?;
    anyhow::ensure!(line == "ready\n", "the relay says {line}");
    let mut connection = Connection::open(address)?;
    let body = vec![b'x'; 8 << 20];
    let mut one = |op, method, key, body: &[u8]| {
        let call = ask(&world.gateway, &mut connection, op, method, "at-once", key, body)?;
        Ok::<_, anyhow::Error>(Call { client: None, ..call })
    };
    let calls = [
        one("CreateBucket", Method::Put, None, b"")?,
        one("PutObject", Method::Put, Some("key"), &body)?,
        one("GetObject", Method::Get, Some("key"), b"")?,
        one("HeadObject", Method::Head, Some("key"), b"")?,
    ];
    drop(connection);
    relay.wait()?;
    read_whole(&world.expect(&calls)?)
}

/// A library in which a function has another name: it is read as before.
fn not_found() -> anyhow::Result<()> {
    let python = tool("S3AUDITD_PYTHON").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let [library, companion] = openssl_of(&python)?;
    let mut code = fs::read(&library)?;
    let (name, other) = (b"\0ssl3_read_bytes\0", b"\0ssl3_rEad_bytes\0");
    let at = code.windows(name.len()).position(|window| window == name).context("no name to change")?;
    code.get_mut(at..at + other.len()).context("a place in the file")?.copy_from_slice(other);
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(library.file_name().context("a name")?), code)?;
    fs::copy(&companion, folder.path().join(companion.file_name().context("a name")?))?;
    let gateway =
        Front::Threads.start_otherwise(minio::start()?, |command| command.env("LD_LIBRARY_PATH", folder.path()))?;
    let world = World::around(gateway, &[])?;
    let calls = round(&world.gateway, "by-returns")?;
    let (name, _) = said(&world.daemon.status()?);
    anyhow::ensure!(name == "openssl (entry and return)", "it is said to be {name}");
    read_whole(&world.expect(&calls)?)
}
