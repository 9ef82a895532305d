//! S3 gateways on 127.0.0.1, each with a folder of its own, gone when dropped.

pub mod front;
pub mod https;
pub mod minio;
pub mod moto;
pub mod raw;
pub mod s3rver;
pub mod s3s;
pub mod uring;

use crate::http::Connection;
use crate::patience::stretched;
use anyhow::{Context as _, bail};
use rustls::{ClientConfig, SupportedProtocolVersion};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the clients sign with; long enough for MinIO.
pub const ACCESS_KEY: &str = "AKIDS3AUDITDE2E00001";
/// See [`ACCESS_KEY`]. Must never be found in a record.
pub const SECRET_KEY: &str = "e2e-secret-that-no-record-may-hold";
/// Region in every signature.
pub const REGION: &str = "us-east-1";

/// How long a gateway may take to answer for the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Which one, for messages.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// It speaks TLS, with a certificate of this authority (PEM).
    pub authority: Option<String>,
    running: Running,
    /// What it stands in front of.
    behind: Option<Box<Gateway>>,
    // After `running`, so that the server is gone before its folder is.
    _folder: Option<tempfile::TempDir>,
}

/// What keeps it alive.
#[derive(Debug)]
enum Running {
    /// A process of its own.
    Process(Child),
    /// One that takes its own processes along when it is asked to end.
    Family(Child),
    /// Inside this process; dropping the runtime closes every socket.
    Runtime(Option<tokio::runtime::Runtime>),
    /// Threads of this process that end with their sockets.
    Threads,
    /// Not ours to end.
    Elsewhere,
}

impl Gateway {
    /// One that somebody else runs.
    #[must_use]
    pub const fn elsewhere(address: SocketAddr) -> Self {
        Self { name: "elsewhere", address, authority: None, running: Running::Elsewhere, behind: None, _folder: None }
    }

    /// The same, with TLS and a certificate of that authority (PEM).
    #[must_use]
    pub const fn elsewhere_tls(address: SocketAddr, authority: String) -> Self {
        Self {
            name: "elsewhere",
            address,
            authority: Some(authority),
            running: Running::Elsewhere,
            behind: None,
            _folder: None,
        }
    }

    /// `http://ADDRESS` or `https://ADDRESS`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What it stands in front of.
    #[must_use]
    pub fn behind(&self) -> Option<&Self> {
        self.behind.as_deref()
    }

    /// A connection to it, with TLS 1.3 if it speaks TLS.
    ///
    /// # Errors
    /// The socket's, or the authority's.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        match self.authority {
            None => Connection::open(self.address),
            Some(_) => Connection::open_tls(self.address, &self.tls_client(&rustls::version::TLS13)?),
        }
    }

    /// A client of that version that trusts it.
    ///
    /// # Errors
    /// It speaks no TLS; or the authority's.
    pub fn tls_client(&self, version: &'static SupportedProtocolVersion) -> anyhow::Result<Arc<ClientConfig>> {
        crate::tls::client(self.authority.as_deref().context("it speaks no TLS")?, version)
    }

    /// Its process, if it has one of its own.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        match &self.running {
            Running::Process(child) | Running::Family(child) => Some(child.id()),
            Running::Runtime(_) | Running::Threads | Running::Elsewhere => None,
        }
    }

    /// The port to watch.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Process(child) => {
                // It may be gone already; either way there is nobody to tell.
                let _ = child.kill();
                let _ = child.wait();
            }
            Running::Family(child) => {
                let pid = rustix::process::Pid::from_child(child);
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                let _ = child.wait();
            }
            Running::Runtime(runtime) => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_timeout(Duration::from_secs(1));
                }
            }
            Running::Threads | Running::Elsewhere => {}
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
///
/// # Errors
/// The socket's.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// `127.0.0.1:port`
#[must_use]
pub const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Waits until something accepts and answers HTTP there, or the process is gone.
fn wait_ready(name: &'static str, child: &mut Child, address: SocketAddr, target: &str) -> anyhow::Result<()> {
    wait_until(name, child, || crate::http::fetch(address, target).map(drop))
}

/// [`wait_ready`], over TLS if there is an authority.
fn wait_ready_over(
    name: &'static str,
    child: &mut Child,
    address: SocketAddr,
    authority: Option<&str>,
    target: &str,
) -> anyhow::Result<()> {
    let Some(authority) = authority else { return wait_ready(name, child, address, target) };
    let ready = answers_over_tls(address, authority, target)?;
    wait_until(name, child, || {
        let status = ready()?;
        anyhow::ensure!(status == 200, "{target} answered {status}");
        Ok(())
    })
}

/// Waits until something speaks TLS there with a certificate of that authority, and answers HTTP, whatever it answers.
fn wait_for_tls(name: &'static str, child: &mut Child, address: SocketAddr, authority: &str) -> anyhow::Result<()> {
    let ready = answers_over_tls(address, authority, "/")?;
    wait_until(name, child, || ready().map(drop))
}

/// Asks for that over a connection of its own, and says the status.
fn answers_over_tls(
    address: SocketAddr,
    authority: &str,
    target: &str,
) -> anyhow::Result<impl Fn() -> anyhow::Result<u16> + use<>> {
    let config = crate::tls::client(authority, &rustls::version::TLS13)?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    Ok(move || Ok(Connection::open_tls(address, &config)?.ask(request.as_bytes())?.status))
}

/// Waits until that succeeds, or the process is gone.
fn wait_until(name: &'static str, child: &mut Child, ready: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + stretched(START_PATIENCE);
    loop {
        let why = match ready() {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended at its start: {status}");
        }
        if Instant::now() > deadline {
            return Err(why).with_context(|| format!("{name} was not ready in time"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
