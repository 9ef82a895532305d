//! Go's `crypto/tls` as several versions of Go build it, and GnuTLS: every byte of a small server is read.

use crate::Scenario;
use crate::tls::{ask, read_whole, round};
use anyhow::Context as _;
use rusty_s3::Method;
use s3auditd_tests::daemon::{Daemon, Status};
use s3auditd_tests::gateway::{Gateway, https};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::tls;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::needing("tls_go::a_process_that_is_switched_off", &[Need::GoHttps], switched_off),
        Scenario::needing("tls_go::every_byte_of_gnutls", &[Need::Gnutls], || {
            every_byte(https::start_gnutls()?, "gnutls", None)
        }),
    ];
    for binary in https::built() {
        let name = name_of(&binary);
        let version = name.split('-').next().unwrap_or_default().to_owned();
        let mut add = |scenario: String, run: Box<dyn Fn() -> anyhow::Result<()> + Send>| {
            all.push(Scenario { name: scenario, needs: vec![Need::GoHttps], run });
        };
        let (as_built, told) = (binary.clone(), version.clone());
        add(
            format!("tls_go::every_byte_of_a_server_by_{name}"),
            Box::new(move || every_byte(https::start(&as_built)?, "go crypto/tls", Some(&told))),
        );
        add(
            format!("tls_go::every_byte_by_returns_of_a_server_by_{name}"),
            Box::new(move || by_returns(&binary, &version)),
        );
    }
    all
}

fn name_of(binary: &Path) -> String {
    binary.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A server in which the function that copies cannot be found, because its name is another.
fn by_returns(binary: &Path, version: &str) -> anyhow::Result<()> {
    let mut code = std::fs::read(binary)?;
    let (name, other) = (b"\0runtime.memmove\0", b"\0runtime.mEmmove\0");
    let places: Vec<_> =
        (0..code.len()).filter(|at| code.get(*at..).is_some_and(|rest| rest.starts_with(name))).collect();
    anyhow::ensure!(!places.is_empty(), "{} has no name to change", binary.display());
    for at in places {
        code.get_mut(at..at + other.len()).context("a place in the file")?.copy_from_slice(other);
    }
    let folder = tempfile::tempdir()?;
    let changed = folder.path().join("changed");
    std::fs::write(&changed, code)?;
    std::fs::set_permissions(&changed, std::fs::Permissions::from_mode(0o755))?;
    every_byte(https::start(&changed)?, "go crypto/tls (by returns)", Some(version))
}

/// Two processes that run one file: of one nothing is read, of the other everything.
fn switched_off() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let built = https::built();
    let binary = built.first().context("no server was built")?;
    let [on, off] = ["on", "off"].map(|name| folder.path().join(name));
    std::fs::copy(binary, &on)?;
    std::fs::hard_link(&on, &off)?;
    let (on, off) = (https::start(&on)?, https::start(&off)?);
    let webhook = Webhook::start()?;
    let daemon =
        Daemon::start(&[on.port(), off.port()], Some(&webhook.url()), &["--tls-exclude", "other.service,of*"])?;
    let calls = round(&on, "on")?;
    round(&off, "off")?;
    let status = daemon.status_when(PATIENCE, |status| status.rebuild("tls_connections_unread") > 0)?;
    anyhow::ensure!(status.rebuild("tls_connections_unread") == 1, "not told as unread: {}", status.0);
    let problems: Vec<_> = served(&status).iter().map(|one| (text(one, "comm"), text(one, "problem"))).collect();
    let told = |comm: &str, problem: &str| problems.contains(&(comm.to_owned(), problem.to_owned()));
    anyhow::ensure!(told("on", "") && told("off", "switched off (tls-exclude)"), "told is {problems:?}");
    drop(off);
    let after = World { gateway: on, webhook, daemon }.expect(&calls)?;
    anyhow::ensure!(after.status.kernel("plaintext_untied") == 0, "untied: {}", after.status.0);
    Ok(())
}

pub(crate) fn served(status: &Status) -> Vec<serde_json::Value> {
    status.0.pointer("/capture/tls").and_then(serde_json::Value::as_array).cloned().unwrap_or_default()
}

pub(crate) fn text(one: &serde_json::Value, field: &str) -> String {
    one.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Connections of both versions of TLS, kept and at once; bodies up to 1 MiB each way, in records of every size.
fn every_byte(gateway: Gateway, library: &str, version: Option<&str>) -> anyhow::Result<()> {
    const CONNECTIONS: usize = 10;
    const BODIES: [usize; 6] = [0, 1, 511, 20_000, 16 << 10, 1 << 20];
    // Room for all of it: nothing may be lost, however busy the machine.
    let world = World::around(gateway, &["--ring-bytes", "32MiB"])?;
    let authority = world.gateway.authority.as_deref().context("no TLS")?;
    let configs = tls::VERSIONS.iter().map(|(_, version)| tls::client(authority, version));
    let configs = configs.collect::<anyhow::Result<Vec<_>>>()?;
    let configs = configs.iter().cycle().take(CONNECTIONS);
    let open = |config| Connection::open_tls(world.gateway.address, config);
    let mut connections = configs.map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let mut calls = Vec::new();
    for (round, bytes) in BODIES.into_iter().enumerate() {
        for (number, connection) in connections.iter_mut().enumerate() {
            let key = format!("{number}-{round}");
            let body = vec![b'x'; bytes + number];
            let mut one =
                |op, method, body: &[u8]| ask(&world.gateway, connection, op, method, "bytes", Some(&key), body);
            calls.push(one("PutObject", Method::Put, &body)?);
            calls.push(one("GetObject", Method::Get, b"")?);
            calls.push(one("HeadObject", Method::Head, b"")?);
        }
    }
    drop(connections);
    let served = served(&world.daemon.status()?);
    let right = served
        .iter()
        .any(|one| text(one, "library") == library && version.is_none_or(|version| text(one, "version") == version));
    anyhow::ensure!(right, "{library} {version:?} is not what is told: {served:?}");
    read_whole(&world.expect(&calls)?)
}
