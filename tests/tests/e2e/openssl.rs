//! TLS that OpenSSL ends, in servers that use it in different ways; and BoringSSL, in one that stands in front of a gateway as they do.

use crate::Scenario;
use crate::tls::{ask, bodies, clients, every_byte};
use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::client::script::Script;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::{Gateway, front::Front, moto, s3rver};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::record::Record;
use s3auditd_tests::tls;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::World;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for front in Front::ALL {
        let scenario = |what: &str, run: Box<dyn Fn() -> anyhow::Result<()> + Send>| Scenario {
            name: format!("{}::{}_{what}", front.library(), front.name()),
            needs: front.needs().to_vec(),
            run,
        };
        for (name, version) in tls::VERSIONS {
            let run = move || every_byte(front.start()?, version);
            all.push(scenario(&format!("every_byte_{name}"), Box::new(run)));
        }
        all.push(scenario("bodies_do_not_cross_the_ring", Box::new(move || bodies(front.start()?))));
        let before = if front.moves_bytes_itself() { from_before_unread } else { from_before };
        all.push(scenario("connection_from_before", Box::new(move || before(front.start()?))));
        for script in [Script::Boto3, Script::Trailers] {
            let needs = script.needs().iter().chain(&front.needs()).copied().collect();
            let run = Box::new(move || clients(front.start()?, script));
            all.push(Scenario { needs, ..scenario(script.name(), run) });
        }
    }
    for front in [Front::Nginx, Front::Envoy] {
        all.push(Scenario {
            name: format!("{}::{}_in_front_of_a_watched_gateway_is_one_hop", front.library(), front.name()),
            needs: front.needs().to_vec(),
            run: Box::new(move || one_hop(front)),
        });
    }
    for script in Script::ALL {
        all.push(Scenario {
            name: format!("openssl::python_{}", script.name()),
            needs: script.needs().iter().copied().chain([Need::Moto]).collect(),
            run: Box::new(move || clients(moto::start_tls()?, script)),
        });
    }
    for (name, version) in tls::VERSIONS {
        all.push(Scenario {
            name: format!("openssl::s3rver_every_byte_{name}"),
            needs: vec![Need::S3rver],
            run: Box::new(move || every_byte(s3rver::start_tls()?, version)),
        });
    }
    // Not boto3's round: it ends an upload without completing it, which s3rver has not.
    for script in [Script::Awscli, Script::Curl] {
        all.push(Scenario {
            name: format!("openssl::s3rver_{}", script.name()),
            needs: script.needs().iter().copied().chain([Need::S3rver]).collect(),
            run: Box::new(move || clients(s3rver::start_tls()?, script)),
        });
    }
    all
}

/// The hop behind a proxy that ends TLS is what is watched: one record an operation, and the client is the one that the proxy names,
/// as far as the proxy is trusted.
fn one_hop(front: Front) -> anyhow::Result<()> {
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let gateway = front.start()?;
    let behind = gateway.behind().context("nothing behind it")?.address;
    let webhook = Webhook::start()?;
    let daemon = Daemon::start(&[behind.port()], Some(&webhook.url()), &["--trusted-proxies", "127.0.0.1"])?;
    let socket = connect_from(CLIENT, gateway.address)?;
    let config = gateway.tls_client(&rustls::version::TLS13)?;
    let mut connection = Connection::over(socket)?.with_tls(gateway.address, &config)?;
    ask(&gateway, &mut connection, "CreateBucket", Method::Put, "hop", None, b"")?;
    ask(&gateway, &mut connection, "PutObject", Method::Put, "hop", Some("key"), b"hello")?;
    ask(&gateway, &mut connection, "GetObject", Method::Get, "hop", Some("key"), b"")?;
    let after = World { gateway, webhook, daemon }.settle(3)?;
    after.status.whole()?;
    let of = |record: &Record| (record.operation().map(str::to_owned), record.client().map(|peer| peer.ip()));
    let proxy = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let expected = ["CreateBucket", "PutObject", "GetObject"].map(|name| (Some(name.to_owned()), proxy));
    let found: Vec<_> = after.records.iter().map(of).collect();
    anyhow::ensure!(found == expected, "{found:?}");
    for record in &after.records {
        let client = record.0.pointer("/s3auditd/clientAddress").with_context(|| format!("no client: {record}"))?;
        let named = serde_json::json!({ "ip": CLIENT, "source": "x-forwarded-for" });
        anyhow::ensure!(*client == named, "the client is {client}, not {named}");
    }
    Ok(())
}

/// As a client of another address does.
fn connect_from(from: IpAddr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// A connection that has been used before the daemon is there, and what is done on it then.
fn used_before(gateway: Gateway) -> anyhow::Result<(World, Vec<Call>)> {
    let mut connection = gateway.connect()?;
    ask(&gateway, &mut connection, "CreateBucket", Method::Put, "before", None, b"")?;
    let world = World::around(gateway, &[])?;
    let mut calls = Vec::new();
    for number in 0..10 {
        let key = format!("after-{number}");
        let mut one =
            |op, method, body: &[u8]| ask(&world.gateway, &mut connection, op, method, "before", Some(&key), body);
        calls.push(one("PutObject", Method::Put, &vec![b'x'; number * 5000])?);
        calls.push(one("GetObject", Method::Get, b"")?);
    }
    Ok((world, calls))
}

/// Its hello was not seen, and nothing else ties it: its bytes are what they are to anybody, and a new connection is read.
fn from_before_unread(gateway: Gateway) -> anyhow::Result<()> {
    let (world, _) = used_before(gateway)?;
    let mut connection = world.gateway.connect()?;
    let calls = [ask(&world.gateway, &mut connection, "GetObject", Method::Get, "before", Some("after-1"), b"")?];
    drop(connection);
    let after = world.expect(&calls)?;
    let (read, unsynced) = (after.status.rebuild("tls_connections_read"), after.status.rebuild("unsynced_bytes"));
    anyhow::ensure!(read == 1 && unsynced > 0, "{}", after.status.0);
    Ok(())
}

/// What comes when the daemon is there has its records.
fn from_before(gateway: Gateway) -> anyhow::Result<()> {
    let (world, calls) = used_before(gateway)?;
    let after = world.expect(&calls)?;
    anyhow::ensure!(after.status.rebuild("tls_connections_read") == 1, "{}", after.status.0);
    Ok(())
}
