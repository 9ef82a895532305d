//! A server that is as fast as can be: nginx with S3-shaped replies, so that the gateway is not what limits.

use crate::tools::Tools;
use anyhow::{Context as _, bail};
use s3auditd_tests::gateway::{free_port, https, local};
use s3auditd_tests::http::{Connection, fetch};
use s3auditd_tests::tls;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// Of the small object.
pub(crate) const SMALL_BYTES: usize = 4096;
/// Of the large one.
pub(crate) const LARGE_BYTES: usize = 1 << 20;
/// Of the huge one.
pub(crate) const HUGE_BYTES: usize = 64 << 20;

/// Paths of the objects.
pub(crate) const SMALL: &str = "/bucket/small";
/// See [`SMALL`].
pub(crate) const LARGE: &str = "/bucket/large";
/// See [`SMALL`].
pub(crate) const HUGE: &str = "/bucket/huge";

/// One of 1 GiB, which takes no memory: it was never written.
pub(crate) const GIANT: &str = "/bucket/giant";
const GIANT_BYTES: u64 = 1 << 30;

const PATIENCE: Duration = Duration::from_secs(10);

/// Running; ends when dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    /// The same over TLS.
    pub(crate) tls_address: SocketAddr,
    authority: String,
    child: Child,
    _folders: [tempfile::TempDir; 2],
}

impl Nginx {
    pub(crate) fn start(tools: &Tools) -> anyhow::Result<Self> {
        // In memory, so that a PUT measures no disk.
        let folder = tempfile::tempdir_in("/dev/shm").context("a folder for nginx in /dev/shm")?;
        let place = folder.path();
        let (address, tls_address) = (local(free_port()?), local(free_port()?));
        let (certificate_folder, files, authority) = https::certificate()?;
        for name in ["bucket", "temporary", "logs"] {
            std::fs::create_dir(place.join(name))?;
        }
        for (name, bytes) in [("large", LARGE_BYTES), ("huge", HUGE_BYTES)] {
            std::fs::write(place.join("bucket").join(name), vec![b'x'; bytes])?;
        }
        std::fs::File::create(place.join("bucket/giant"))?.set_len(GIANT_BYTES)?;
        let file = place.join("nginx.conf");
        std::fs::write(&file, configuration(&place.to_string_lossy(), address, tls_address, &files))?;
        let mut command = tools.nginx();
        let child = command.arg("-p").arg(place).arg("-c").arg(&file).args(["-e", "stderr"]).spawn();
        let child = child.context("starting nginx")?;
        let mut server = Self { address, tls_address, authority, child, _folders: [folder, certificate_folder] };
        let deadline = Instant::now() + PATIENCE;
        while fetch(address, SMALL).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("nginx ended at its start: {status}");
            }
            anyhow::ensure!(Instant::now() < deadline, "nginx was not ready in time");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Nginx {
    /// A client over TLS 1.2: this nginx speaks no newer one by default.
    pub(crate) fn connect_tls(&self) -> anyhow::Result<Connection> {
        Connection::open_tls(self.tls_address, &tls::client(&self.authority, &rustls::version::TLS12)?)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its workers along; if it is gone already there is nobody to tell.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Without sendfile: no gateway of objects can use it, they check and decrypt what they send.
fn configuration(place: &str, address: SocketAddr, tls_address: SocketAddr, files: &[PathBuf; 2]) -> String {
    let [certificate, key] = files.each_ref().map(|file| file.display());
    let body = "x".repeat(SMALL_BYTES);
    // The longest text that nginx takes as one word.
    let body: Vec<_> = body.as_bytes().chunks(2048).map(String::from_utf8_lossy).collect();
    let [first, second] = [0, 1].map(|nth| body.get(nth).map(AsRef::as_ref).unwrap_or_default());
    format!(
        r#"
daemon off;
worker_processes auto;
pid {place}/nginx.pid;
error_log stderr crit;
user root;
events {{ worker_connections 12000; }}
http {{
  access_log off;
  sendfile off;
  output_buffers 2 256k;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_max_body_size 0;
  client_body_buffer_size 256k;
  client_body_temp_path {place}/temporary;
  proxy_temp_path {place}/temporary;
  fastcgi_temp_path {place}/temporary;
  uwsgi_temp_path {place}/temporary;
  scgi_temp_path {place}/temporary;
  default_type binary/octet-stream;
  etag off;
  map $request_uri $half {{ default "{first}"; }}
  map $request_uri $rest {{ default "{second}"; }}
  server {{
    listen {address} backlog=16384;
    listen {tls_address} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {place};
    add_header Accept-Ranges bytes;
    add_header ETag '"9bb58f26192e4ba00f01e2e7b136bbd8"';
    add_header Vary Origin;
    add_header x-amz-id-2 'dd9025bab4ad464b049177c95eb6ebf374d3b3fd1af9251148b658df7ac2e3e8';
    add_header x-amz-request-id $request_id;
    location / {{ dav_methods PUT DELETE; }}
    location = {SMALL} {{ return 200 $half$rest; }}
  }}
}}
"#
    )
}
