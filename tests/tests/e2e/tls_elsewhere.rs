//! Gateways that end TLS in namespaces of their own, as in containers: the network, and the mount with what ends TLS.

use crate::Scenario;
use crate::tls::{ask, read_whole, round};
use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::version::TLS13;
use rusty_s3::Method;
use s3auditd_tests::call::Call;
use s3auditd_tests::gateway::{Gateway, free_port, https, local};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::{Need, tool};
use s3auditd_tests::tls;
use s3auditd_tests::world::{PATIENCE, World};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let spaces = [Need::Namespaces, Need::NetworkNamespaces];
    let needs = |more: Need| [&[more], &spaces[..]].concat();
    vec![
        Scenario::needing("tls_elsewhere::a_go_program", &needs(Need::GoHttps), go_program),
        Scenario::needing("tls_elsewhere::an_openssl_library", &needs(Need::Moto), openssl_library),
    ]
}

/// The program that ends TLS is in a mount that nobody else has.
fn go_program() -> anyhow::Result<()> {
    let built = https::built();
    let binary = built.first().context("no server was built")?.clone();
    let script = "cp \"$1\" \"$0/gateway\" && exec \"$0/gateway\" \"$2\" \"$3\" \"$4\"";
    let told = |address: SocketAddr, [certificate, key]: [PathBuf; 2]| {
        vec![binary.into(), address.to_string().into(), certificate.into(), key.into()]
    };
    serves(script, told, &|gateway| round(gateway, "elsewhere"))
}

/// The library that does is.
fn openssl_library() -> anyhow::Result<()> {
    let moto = tool("S3AUDITD_MOTO").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
    let libraries = openssl_of(&moto.with_file_name("python"))?;
    let script =
        "cp -L \"$5\" \"$6\" \"$0\" && LD_LIBRARY_PATH=\"$0\" exec \"$1\" -H 127.0.0.1 -p \"$2\" -c \"$3\" -k \"$4\"";
    let told = |address: SocketAddr, [certificate, key]: [PathBuf; 2]| {
        let first = [moto.into(), address.port().to_string().into(), certificate.into(), key.into()];
        first.into_iter().chain(libraries.map(OsString::from)).collect()
    };
    // It closes each connection behind its reply.
    serves(script, told, &|gateway| {
        let one = |op, method, key, body: &[u8]| ask(gateway, &mut gateway.connect()?, op, method, "moto", key, body);
        Ok(vec![
            one("CreateBucket", Method::Put, None, b"")?,
            one("PutObject", Method::Put, Some("key"), b"hello")?,
            one("GetObject", Method::Get, Some("key"), b"")?,
            one("HeadObject", Method::Head, Some("key"), b"")?,
        ])
    })
}

/// Where the two libraries of OpenSSL are that this Python has.
pub(crate) fn openssl_of(python: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let output = Command::new(python).args(["-c", "import ssl; print(open('/proc/self/maps').read())"]).output()?;
    let maps = String::from_utf8(output.stdout)?;
    let path_of = |name: &str| {
        let mut paths = maps.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        let found = paths.find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
        found.with_context(|| format!("{} has no {name} as a shared library", python.display()))
    };
    Ok([path_of("libssl.so")?, path_of("libcrypto.so")?])
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a shell's script in namespaces of its own, and asks the gateway that it becomes. `$0` is a folder that is empty to all others;
/// the rest is `told`, of the address and the certificate with its key.
fn serves(
    script: &str,
    told: impl FnOnce(SocketAddr, [PathBuf; 2]) -> Vec<OsString>,
    calls: &(dyn Fn(&Gateway) -> anyhow::Result<Vec<Call>> + Sync),
) -> anyhow::Result<()> {
    let (folder, files, authority) = https::certificate()?;
    let mount = folder.path().join("mount");
    fs::create_dir(&mount)?;
    let address = local(free_port()?);
    let script = format!("ip link set lo up && mount -t tmpfs none \"$0\" && {script}");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", &script]).arg(&mount).args(told(address, files));
    let server = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let space = Space::of(&server)?;
    let config = tls::client(&authority, &TLS13)?;
    space.inside(&|| {
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let deadline = Instant::now() + 3 * PATIENCE;
        while let Err(why) = Connection::open_tls(address, &config).and_then(|mut c| c.ask(request.as_bytes())) {
            anyhow::ensure!(Instant::now() < deadline, "it does not come up: {why:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Vec::new())
    })?;
    anyhow::ensure!(fs::read_dir(&mount)?.next().is_none(), "what ends TLS is here too");
    let world = World::around(Gateway::elsewhere_tls(address, authority), &[])?;
    let calls = space.inside(&|| calls(&world.gateway))?;
    read_whole(&world.expect(&calls)?)
}

/// A network that only that process has.
struct Space(PathBuf);

impl Space {
    /// Waits until it has gone there.
    fn of(process: &Process) -> anyhow::Result<Self> {
        let space = PathBuf::from(format!("/proc/{}/ns/net", process.0.id()));
        let own = fs::metadata("/proc/self/ns/net")?;
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&space).is_ok_and(|its| its.ino() == own.ino()) {
            anyhow::ensure!(Instant::now() < deadline, "it stays in our network");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self(space))
    }

    /// In a thread there: connections belong to the network of the thread that opened them.
    fn inside(&self, calls: &(dyn Fn() -> anyhow::Result<Vec<Call>> + Sync)) -> anyhow::Result<Vec<Call>> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = fs::File::open(&self.0)?;
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                calls()
            });
            thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })
    }
}
