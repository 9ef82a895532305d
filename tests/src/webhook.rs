//! A webhook: takes NDJSON by POST, keeps every line, and answers as it is told.

pub mod authority;
pub mod receiver;
pub mod rude;
pub mod splunk;

use crate::patience::stretched;
use crate::record::Record;
use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// See the module. Listens until dropped.
#[derive(Debug)]
pub struct Webhook {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

/// One POST.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The client's end: the same for deliveries over one kept connection.
    pub from: SocketAddr,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The Idempotency-Key header.
    pub idempotency_key: Option<String>,
    /// The Content-Type header.
    pub content_type: Option<String>,
    /// What it was answered.
    pub status: u16,
    /// Lines in its body.
    pub records: usize,
}

#[derive(Debug, Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    answer: StatusCode,
    deliveries: Vec<Delivery>,
    records: Vec<Record>,
    /// What was no JSON.
    rubbish: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self { answer: StatusCode::OK, deliveries: Vec::new(), records: Vec::new(), rubbish: Vec::new() }
    }
}

impl Webhook {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The socket's.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(0)
    }

    /// Starts one on that port.
    ///
    /// # Errors
    /// The socket's.
    pub fn start_at(port: u16) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(crate::gateway::local(port))).context("a webhook's port")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        runtime.spawn(serve(listener, Arc::clone(&seen)));
        Ok(Self { address, seen, runtime: Some(runtime) })
    }

    /// The endpoint to give to the daemon.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/audit", self.address)
    }

    /// Answers every delivery so from now on; only a 2xx takes its records.
    pub fn answer(&self, status: StatusCode) {
        self.seen.lock().answer = status;
    }

    /// What was taken so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.seen.lock().records.clone()
    }

    /// Every POST so far, taken or not.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.seen.lock().deliveries.clone()
    }

    /// Lines that were no JSON object.
    #[must_use]
    pub fn rubbish(&self) -> Vec<String> {
        self.seen.lock().rubbish.clone()
    }

    /// Waits until at least `count` records of operations came, or `patience` is over; says how many there are.
    #[must_use]
    pub fn wait_for(&self, count: usize, patience: Duration) -> usize {
        let deadline = Instant::now() + stretched(patience);
        let mut state = self.seen.lock();
        loop {
            let operations = state.records.iter().filter(|record| record.is_operation()).count();
            let left = deadline.saturating_duration_since(Instant::now());
            if operations >= count || left.is_zero() {
                return operations;
            }
            state = self.seen.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, from: SocketAddr, head: &hyper::http::request::Parts, body: &[u8]) -> StatusCode {
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut state = self.lock();
        let status = if head.method == hyper::Method::POST { state.answer } else { StatusCode::METHOD_NOT_ALLOWED };
        // NDJSON: every line ends, the last one too, and none is empty.
        let lines: Vec<_> = body.strip_suffix(b"\n").unwrap_or(body).split(|byte| *byte == b'\n').collect();
        state.deliveries.push(Delivery {
            from,
            authorization: header("authorization"),
            idempotency_key: header("idempotency-key"),
            content_type: header("content-type"),
            status: status.as_u16(),
            records: lines.len(),
        });
        if status.is_success() {
            for line in lines {
                match serde_json::from_slice::<serde_json::Value>(line) {
                    Ok(value) if value.is_object() => state.records.push(Record(value)),
                    _ => state.rubbish.push(String::from_utf8_lossy(line).into_owned()),
                }
            }
        }
        self.changed.notify_all();
        status
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>) {
    while let Ok((stream, from)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| answer(from, request, Arc::clone(&seen)));
        tokio::spawn(async move {
            // A broken connection is the sender's business: it retries.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    from: SocketAddr,
    request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let status = match body.collect().await {
        Ok(body) => seen.take(from, &head, &body.to_bytes()),
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}
