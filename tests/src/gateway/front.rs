//! Servers that end TLS in front of MinIO, with OpenSSL, each in its own way, and with BoringSSL. The hop behind them is plain HTTP on a port of
//! its own, which nobody watches.

use super::{Gateway, Running, free_port, local, minio, wait_for_tls};
use crate::need::{Missing, Need, server, tool};
use crate::tls;
use crate::webhook::authority::Authority;
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Reads and writes its sockets through the library; processes.
    Nginx,
    /// Reads and writes them itself, inside the library's calls; threads.
    Haproxy,
    /// The same, with BoringSSL in its own stripped binary.
    Envoy,
    /// Moves the bytes itself, outside the library's calls, which are in its own binary.
    Node,
    /// The same, with the shared library.
    Asyncio,
    /// A thread a connection, in Python; not one of [`Self::ALL`].
    Threads,
}

impl Front {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Node, Self::Asyncio];

    /// For the names of tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Node => "node",
            Self::Asyncio => "asyncio",
            Self::Threads => "threads",
        }
    }

    /// What ends TLS in it, for the names of tests.
    #[must_use]
    pub const fn library(self) -> &'static str {
        match self {
            Self::Envoy => "boringssl",
            Self::Nginx | Self::Haproxy | Self::Node | Self::Asyncio | Self::Threads => "openssl",
        }
    }

    /// Whether the library never sees the socket.
    #[must_use]
    pub const fn moves_bytes_itself(self) -> bool {
        matches!(self, Self::Node | Self::Asyncio)
    }

    /// What it cannot run without.
    #[must_use]
    pub const fn needs(self) -> [Need; 2] {
        match self {
            Self::Nginx => [Need::Minio, Need::Nginx],
            Self::Haproxy => [Need::Minio, Need::Haproxy],
            Self::Envoy => [Need::Minio, Need::Envoy],
            Self::Node => [Need::Minio, Need::Node],
            Self::Asyncio | Self::Threads => [Need::Minio, Need::Python],
        }
    }

    /// Starts it on a free port, and MinIO behind it.
    ///
    /// # Errors
    /// One of them is missing, or does not come up.
    pub fn start(self) -> anyhow::Result<Gateway> {
        self.start_before(minio::start()?)
    }

    /// Starts it on a free port in front of that, to which all but Envoy speak plain HTTP.
    ///
    /// # Errors
    /// It is missing, or does not come up.
    pub fn start_before(self, behind: Gateway) -> anyhow::Result<Gateway> {
        self.start_otherwise(behind, |command| command)
    }

    /// The same, with something else in its command.
    ///
    /// # Errors
    /// It is missing, or does not come up.
    pub fn start_otherwise(
        self,
        behind: Gateway,
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<Gateway> {
        let address = local(free_port()?);
        let authority = Authority::new()?;
        let folder = tempfile::tempdir().context("a folder for a server")?;
        let mut command = self.command(folder.path(), &authority, address, &behind)?;
        let command = change(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("starting {}", self.name()))?;
        let authority = authority.pem();
        let ready = wait_for_tls(self.name(), &mut child, address, &authority);
        // In the struct first, so that an error below ends the process too.
        let gateway = Gateway {
            name: self.name(),
            address,
            authority: Some(authority),
            running: Running::Family(child),
            behind: Some(Box::new(behind)),
            _folder: Some(folder),
        };
        ready.map(|()| gateway)
    }

    fn command(
        self,
        folder: &Path,
        authority: &Authority,
        address: SocketAddr,
        gateway: &Gateway,
    ) -> anyhow::Result<Command> {
        let behind = gateway.address;
        let (certificate, key) = tls::files(authority, folder)?;
        let configuration = folder.join("configuration");
        let interpreted = |interpreter: &Path, script: &str| {
            let mut command = Command::new(interpreter);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways").join(script));
            command.args([address.port().to_string(), behind.port().to_string()]).arg(&certificate).arg(&key);
            // Python would leave compiled modules beside its scripts.
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        Ok(match self {
            Self::Nginx => {
                std::fs::create_dir(folder.join("logs"))?;
                std::fs::write(&configuration, nginx(&folder.to_string_lossy(), address, behind))?;
                let mut command = self.unpacked()?;
                command.arg("-p").arg(folder).arg("-c").arg(configuration).args(["-e", "stderr"]);
                command
            }
            Self::Haproxy => {
                let both = folder.join("both.pem");
                std::fs::write(&both, [std::fs::read(&certificate)?, std::fs::read(&key)?].concat())?;
                std::fs::write(&configuration, haproxy(&both.to_string_lossy(), address, behind))?;
                let mut command = self.unpacked()?;
                command.arg("-db").arg("-f").arg(configuration);
                command
            }
            Self::Envoy => {
                let [certificate, key] = [&certificate, &key].map(|path| path.to_string_lossy());
                let mut command = Command::new(tool("S3AUDITD_ENVOY").map_err(said)?);
                // Several at once would share memory by a number that is the same in all.
                command.arg("--disable-hot-restart").args(["--concurrency", "2", "--log-level", "off"]);
                command.arg("--config-yaml").arg(envoy(&certificate, &key, address, gateway));
                command
            }
            Self::Node => interpreted(Path::new("node"), "https_front.js"),
            Self::Asyncio => interpreted(&tool("S3AUDITD_PYTHON").map_err(said)?, "asyncio_front.py"),
            Self::Threads => interpreted(&tool("S3AUDITD_PYTHON").map_err(said)?, "threads_front.py"),
        })
    }

    /// One of Debian's servers.
    fn unpacked(self) -> anyhow::Result<Command> {
        let (binary, libraries) = server(self.name()).map_err(said)?;
        let mut command = Command::new(binary);
        command.env("LD_LIBRARY_PATH", libraries);
        Ok(command)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn said(missing: Missing) -> anyhow::Error {
    anyhow::anyhow!(missing.reason().to_owned())
}

fn nginx(folder: &str, address: SocketAddr, behind: SocketAddr) -> String {
    format!(
        r#"
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log stderr crit;
user root;
events {{ worker_connections 1000; }}
http {{
  access_log off;
  client_max_body_size 0;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/replies;
  fastcgi_temp_path {folder}/unused;
  uwsgi_temp_path {folder}/unused;
  scgi_temp_path {folder}/unused;
  upstream behind {{ server {behind}; keepalive 32; }}
  server {{
    listen {address} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
}}
"#
    )
}

fn haproxy(pair: &str, address: SocketAddr, behind: SocketAddr) -> String {
    format!(
        "
global
  maxconn 1000
  nbthread 2
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend front
  bind {address} ssl crt {pair} ssl-min-ver TLSv1.2
  default_backend behind
backend behind
  server minio {behind}
"
    )
}

fn envoy(certificate: &str, key: &str, address: SocketAddr, behind: &Gateway) -> String {
    let api = "type.googleapis.com/envoy.extensions";
    let upstream = format!(
        r#"
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config: {{ "@type": {api}.transport_sockets.tls.v3.UpstreamTlsContext }}"#
    );
    let upstream = if behind.authority.is_some() { upstream } else { String::new() };
    let [front, behind] = [address, behind.address]
        .map(|address| format!("socket_address: {{ address: {}, port_value: {} }}", address.ip(), address.port()));
    format!(
        r#"
static_resources:
  listeners:
  - address: {{ {front} }}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": {api}.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: "{certificate}" }}
              private_key: {{ filename: "{key}" }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {api}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: behind
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: behind, timeout: 0s }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {api}.filters.http.router.v3.Router }}
  clusters:
  - name: behind
    connect_timeout: 10s{upstream}
    load_assignment:
      cluster_name: behind
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ {behind} }} }}
"#
    )
}
