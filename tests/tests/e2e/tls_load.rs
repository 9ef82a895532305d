//! Gateways that end TLS, under load: many connections, connections that are older than the daemon, and a gateway and a daemon
//! that are killed and come back.

use crate::Scenario;
use crate::tls::{ask, read_whole};
use anyhow::Context as _;
use rustls::{ClientConfig, version::TLS13};
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::sign;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{ACCESS_KEY, Gateway, minio};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::record::Record;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let minio = [Need::Minio];
    vec![
        Scenario::needing("tls_load::a_thousand_kept_connections", &minio, || {
            thousand_connections(minio::start_tls(None)?)
        }),
        Scenario::needing("tls_load::connections_opened_before_the_daemon", &minio, opened_before),
        Scenario::needing("tls_load::a_gateway_that_is_killed_and_comes_back", &minio, gateway_restarted),
        Scenario::needing("tls_load::a_daemon_that_is_killed_and_comes_back", &minio, daemon_restarted),
    ]
}

/// All connections have a request under way at the same time.
pub(crate) fn thousand_connections(gateway: Gateway) -> anyhow::Result<()> {
    const CONNECTIONS: usize = 1000;
    let world = World::around(gateway, &["--ring-bytes", "16MiB"])?;
    let (gateway, config) = (&world.gateway, world.gateway.tls_client(&TLS13)?);
    let open = || Connection::open_tls(gateway.address, &config);
    let mut connections = (0..CONNECTIONS).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    let mut calls = Vec::new();
    let first = connections.first_mut().context("no connection")?;
    calls.push(ask(gateway, first, "CreateBucket", Method::Put, "many", None, b"")?);
    for (op, method) in [("PutObject", Method::Put), ("GetObject", Method::Get)] {
        let mut asked = Vec::new();
        for (number, connection) in connections.iter_mut().enumerate() {
            let key = format!("key-{number}");
            let target = sign::target(gateway, method, &format!("/many/{key}"))?;
            let body = if op == "PutObject" { format!("body of {number}").into_bytes() } else { Vec::new() };
            let request = sign::request(gateway, method.to_str(), &target, &[], &body);
            connection.send(&request)?;
            let call = Call { access_key: Some(ACCESS_KEY.to_owned()), ..Call::new(op, Some("many"), Some(&key), 0) };
            asked.push((call, request));
        }
        for ((call, request), connection) in asked.into_iter().zip(&mut connections) {
            let reply = connection.reply(false)?;
            anyhow::ensure!(reply.status == 200, "{call:?} got {}", reply.head);
            calls.push(crate::wire::plain_call(call, connection, &request, &reply)?);
        }
    }
    drop(connections);
    read_whole(&world.expect(&calls)?)
}

/// From their next request on they are read.
fn opened_before() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 20;
    let gateway = minio::start_tls(None)?;
    let config = gateway.tls_client(&TLS13)?;
    let open = || Connection::open_tls(gateway.address, &config);
    let mut connections = (0..CONNECTIONS).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    let one = |connection: &mut Connection, op: &str, method, key: Option<&str>| {
        ask(&gateway, connection, op, method, "early", key, b"")
    };
    one(connections.first_mut().context("no connection")?, "CreateBucket", Method::Put, None)?;
    for (number, connection) in connections.iter_mut().enumerate() {
        one(connection, "PutObject", Method::Put, Some(&format!("before-{number}")))?;
    }
    let webhook = Webhook::start()?;
    let daemon = Daemon::start(&[gateway.port()], Some(&webhook.url()), &[])?;
    let mut calls = Vec::new();
    for (number, connection) in connections.iter_mut().enumerate() {
        for round in 0..3 {
            let key = format!("after-{number}-{round}");
            calls.push(one(connection, "PutObject", Method::Put, Some(&key))?);
            calls.push(one(connection, "GetObject", Method::Get, Some(&key))?);
        }
    }
    drop(connections);
    let after = World { gateway, webhook, daemon }.expect(&calls)?;
    anyhow::ensure!(after.status.kernel("plaintext_untied") == 0, "untied: {}", after.status.0);
    Ok(())
}

/// Clients that ask one thing after the other, whatever becomes of the gateway.
struct Load {
    config: Mutex<Arc<ClientConfig>>,
    stop: AtomicBool,
    /// The part of the scenario in which a call begins.
    part: AtomicUsize,
    answered: Mutex<Answered>,
}

#[derive(Default)]
struct Answered {
    /// With the part in which each began.
    calls: Vec<(usize, Call)>,
    /// Keys of calls without an answer, or with another than hoped for.
    others: BTreeSet<String>,
}

const CLIENTS: usize = 6;
const BUCKET: &str = "load";
/// What is answered at least in each part.
const PART: usize = 200;

impl Load {
    fn on(gateway: &Gateway) -> anyhow::Result<Self> {
        Ok(Self {
            config: Mutex::new(gateway.tls_client(&TLS13)?),
            stop: AtomicBool::new(false),
            part: AtomicUsize::new(0),
            answered: Mutex::default(),
        })
    }

    /// One client; some of its connections are kept over many calls.
    fn run(&self, client: usize, gateway: &Gateway) {
        let mut number = 0;
        while !self.stop.load(Ordering::Acquire) {
            let config = Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner));
            let Ok(mut connection) = Connection::open_tls(gateway.address, &config) else {
                // Nobody is there.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            for _ in 0..if client.is_multiple_of(2) { 5 } else { 100_000 } {
                if self.stop.load(Ordering::Acquire) {
                    break;
                }
                number += 1;
                let (key, part) = (format!("{client}-{number}"), self.part.load(Ordering::Acquire));
                let body = vec![b'l'; number % 3000];
                let call = ask(gateway, &mut connection, "PutObject", Method::Put, BUCKET, Some(&key), &body);
                let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
                let Ok(call) = call else {
                    answered.others.insert(key);
                    break;
                };
                answered.calls.push((part, call));
                drop(answered);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn count(&self) -> usize {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).calls.len()
    }

    /// A new part begins; waits until enough of it was answered.
    fn part(&self, part: usize) -> anyhow::Result<()> {
        self.part.store(part, Ordering::Release);
        let (until, deadline) = (self.count() + PART, Instant::now() + 6 * PATIENCE);
        while self.count() < until {
            anyhow::ensure!(Instant::now() < deadline, "{} calls were answered, and then no more", self.count());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Runs the clients while that goes on.
    fn during<T>(&self, gateway: &Gateway, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.run(client, gateway));
            }
            let done = run();
            self.stop.store(true, Ordering::Release);
            done
        })
    }

    /// Waits until every call of that part has its record.
    fn wait_for_records(&self, part: usize, webhook: &Webhook) -> anyhow::Result<()> {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let told: BTreeSet<_> =
                webhook.records().iter().filter_map(|record| record.key().map(str::to_owned)).collect();
            let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
            let of_part = answered.calls.iter().filter(|(its, _)| *its == part);
            let missing = of_part.filter_map(|(_, call)| call.key.as_ref()).filter(|key| !told.contains(*key)).count();
            drop(answered);
            if missing == 0 {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{missing} calls have no record");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn into_answered(self) -> anyhow::Result<Answered> {
        self.answered.into_inner().map_err(|_| anyhow::anyhow!("a client panicked"))
    }
}

fn create_bucket(gateway: &Gateway) -> anyhow::Result<Call> {
    let mut connection = gateway.connect()?;
    ask(gateway, &mut connection, "CreateBucket", Method::Put, BUCKET, None, b"")
}

/// Every call that was answered has its record, before and after.
fn gateway_restarted() -> anyhow::Result<()> {
    let World { gateway, webhook, daemon } = World::around(minio::start_tls(None)?, &[])?;
    let first = create_bucket(&gateway)?;
    let (load, there) = (Load::on(&gateway)?, Gateway::elsewhere(gateway.address));
    let (gateway, second) = load.during(&there, || {
        load.part(0)?;
        let address = gateway.address;
        drop(gateway);
        let gateway = minio::start_tls_at(address)?;
        *load.config.lock().unwrap_or_else(PoisonError::into_inner) = gateway.tls_client(&TLS13)?;
        let second = create_bucket(&gateway)?;
        load.part(1)?;
        Ok((gateway, second))
    })?;
    let Answered { calls, others } = load.into_answered()?;
    let calls: Vec<_> = [first, second].into_iter().chain(calls.into_iter().map(|(_, call)| call)).collect();
    let after = World { gateway, webhook, daemon }.settle(calls.len())?;
    // Of a call without an answer there may be a record: the gateway had it, whole or in part, before it was killed.
    let known = |record: &Record| match record.key() {
        Some(key) => !others.contains(key),
        None => record.operation() == Some("CreateBucket"),
    };
    let records: Vec<_> = after.records.into_iter().filter(known).collect();
    expect::same(&calls, &records).with_context(|| after.status.0.to_string())?;
    after.status.whole()?;
    anyhow::ensure!(after.status.kernel("plaintext_untied") == 0, "untied: {}", after.status.0);
    Ok(())
}

/// What was asked before it was killed and is delivered then, and what is asked when it is there again, has its record; of
/// what was asked meanwhile nothing is wrong.
fn daemon_restarted() -> anyhow::Result<()> {
    let (gateway, webhook) = (minio::start_tls(None)?, Webhook::start()?);
    let start = || Daemon::start(&[gateway.port()], Some(&webhook.url()), &[]);
    let daemon = start()?;
    let first = create_bucket(&gateway)?;
    let load = Load::on(&gateway)?;
    let daemon = load.during(&gateway, || {
        load.part(0)?;
        // By now each client has begun a call of this part, so that all of the first are answered.
        load.part(1)?;
        load.wait_for_records(0, &webhook)?;
        // By SIGKILL.
        drop(daemon);
        load.part(1)?;
        let daemon = start()?;
        // A call that was under way then, and perhaps the first one of a kept connection.
        load.part(1)?;
        load.part(2)?;
        Ok(daemon)
    })?;
    let Answered { calls, others } = load.into_answered()?;
    let sure: Vec<_> = calls.iter().filter(|(part, _)| *part != 1).map(|(_, call)| call.clone()).collect();
    let after = World { gateway, webhook, daemon }.settle(sure.len())?;
    let sure_keys: BTreeSet<_> = sure.iter().filter_map(|call| call.key.as_deref()).collect();
    let is_sure = |record: &Record| record.key().is_some_and(|key| sure_keys.contains(key));
    let of_sure: Vec<_> = after.records.iter().filter(|record| is_sure(record)).cloned().collect();
    expect::same(&sure, &of_sure).with_context(|| after.status.0.to_string())?;
    anyhow::ensure!(others.is_empty(), "calls failed that nothing should have touched: {others:?}");
    let all: Vec<_> = [first].into_iter().chain(calls.into_iter().map(|(_, call)| call)).collect();
    expect::none_wrong(&all, &after.records)?;
    // What moved between its probes and its rings is lost, and counted.
    after.status.ring_agrees()?;
    after.status.balanced()?;
    anyhow::ensure!(after.status.kernel("plaintext_untied") == 0, "untied: {}", after.status.0);
    Ok(())
}
