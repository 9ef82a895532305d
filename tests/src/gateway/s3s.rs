//! s3s-fs: a small S3 gateway of hyper and tokio, inside this process.

use super::{ACCESS_KEY, Gateway, Running, SECRET_KEY};
use anyhow::Context as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

/// Starts one on a free port of 127.0.0.1.
///
/// # Errors
/// The folder's or the socket's.
pub fn start() -> anyhow::Result<Gateway> {
    start_at(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
}

/// Starts one there; port 0 means any free one.
///
/// # Errors
/// The folder's or the socket's.
pub fn start_at(address: SocketAddr) -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir().context("a folder for s3s-fs")?;
    let files = FileSystem::new(folder.path()).map_err(|error| anyhow::anyhow!("{error:?}")).context("s3s-fs")?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(address)).with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?;
    runtime.spawn(serve(listener, service));
    Ok(Gateway {
        name: "s3s-fs",
        address,
        authority: None,
        running: Running::Runtime(Some(runtime)),
        behind: None,
        _folder: Some(folder),
    })
}

/// As s3s-fs's own binary serves: HTTP/1 and, by its preface, HTTP/2.
async fn serve(listener: TcpListener, service: S3Service) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the ones that are open have to end first.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A broken connection is the client's business, which sees it.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
