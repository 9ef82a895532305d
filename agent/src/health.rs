//! `/metrics`, `/health` and `/status`: what the daemon publishes, over HTTP to whoever may reach the address.
//!
//! Bounded: so many connections at once, one request each, so much time. A slow or rude client costs nothing else.

mod metrics;

use crate::balance;
use crate::capture::status::CaptureStatus;
use crate::deliver::stats::{DeliveryState, DeliveryStats, unix_seconds};
use crate::ledger::{Count, Ledger};
use crate::losses;
use crate::spool::Spool;
use crate::status::Status;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections at once; further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 16;

/// From accept to the last byte of the reply.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A capture that has published nothing for so long is no longer one.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// What the daemon publishes and the server shows.
pub struct Health {
    instance_id: String,
    started: SystemTime,
    ledger: Ledger,
    queue_limit: Count,
    spool: Spool,
    endpoints: Mutex<BTreeMap<String, Arc<DeliveryStats>>>,
    published: Mutex<Published>,
}

#[derive(Default)]
struct Published {
    capture: CaptureStatus,
    capture_at: Option<Instant>,
    rebuild: BTreeMap<String, u64>,
    losses: BTreeMap<String, u64>,
}

impl Health {
    /// `instance_id` changes with every start.
    #[must_use]
    pub fn new(instance_id: String, started: SystemTime, ledger: Ledger, queue_limit: Count, spool: Spool) -> Self {
        let (endpoints, published) = (Mutex::default(), Mutex::default());
        Self { instance_id, started, ledger, queue_limit, spool, endpoints, published }
    }

    /// From now on this is shown for the endpoint.
    pub fn show_endpoint(&self, name: &str, stats: Arc<DeliveryStats>) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), stats);
    }

    /// The endpoint is no longer one.
    pub fn hide_endpoint(&self, name: &str) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Replaces the snapshot of capture. To be called at least every 30 s: an older one counts as degraded.
    pub fn publish_capture(&self, capture: CaptureStatus) {
        let mut published = self.lock();
        published.capture = capture;
        published.capture_at = Some(Instant::now());
    }

    /// Replaces the counters of rebuild and of the stream, and the losses of rebuild by cause.
    pub fn publish_rebuild(
        &self,
        counters: impl IntoIterator<Item = (impl Into<String>, u64)>,
        losses: impl IntoIterator<Item = (impl Into<String>, u64)>,
    ) {
        let mut published = self.lock();
        published.rebuild = counters.into_iter().map(|(name, value)| (name.into(), value)).collect();
        published.losses = losses.into_iter().map(|(name, value)| (name.into(), value)).collect();
    }

    /// Everything, as it stands now.
    #[must_use]
    pub fn status(&self) -> Status {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery: BTreeMap<_, _> = endpoints.iter().map(|(name, stats)| (name.clone(), stats.status())).collect();
        drop(endpoints);
        let spool = self.spool.status();
        let books = self.ledger.books();
        let published = self.lock();
        let mut degraded = Vec::new();
        match published.capture_at.map(|at| at.elapsed()) {
            None => degraded.push("capture: not started".to_owned()),
            Some(age) if age > STALE_AFTER => degraded.push(format!("capture: silent for {} s", age.as_secs())),
            Some(_) => {}
        }
        for (name, delivery) in &delivery {
            if delivery.state != DeliveryState::Ok {
                let error = delivery.last_error.as_deref().unwrap_or("no reason known");
                degraded.push(format!("endpoint {name}: {}: {error}", delivery.state.name()));
            }
        }
        let balance = balance::equations(&published.capture, &published.rebuild, &books);
        let wrong = balance.iter().filter(|equation| !equation.holds());
        degraded.extend(wrong.map(|equation| format!("ledger: not so: {}", equation.name)));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance_id.clone(),
            pid: std::process::id(),
            started: unix_seconds(self.started),
            now: unix_seconds(SystemTime::now()),
            degraded,
            losses: losses::counts(&published.capture, &published.losses, &books),
            balance,
            capture: published.capture.clone(),
            rebuild: published.rebuild.clone(),
            records: books,
            queue_limit: self.queue_limit,
            spool,
            delivery,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("metrics-listen: cannot listen at {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Listens, before anything else of the daemon starts.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves until `stop` is true or has no sender any more.
pub async fn serve(listener: TcpListener, health: Arc<Health>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = accept(&listener, &health) => {}
        _stopped = stop.wait_for(|stop| *stop) => {}
    }
}

async fn accept(listener: &TcpListener, health: &Arc<Health>) {
    // Dropped with its tasks when the server stops.
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(health)))),
            // Out of descriptors, or a client that left at once: neither is ended by asking again immediately.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, health: Arc<Health>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &health);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever a client does to its own connection is its own affair.
    let _result = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

#[derive(Serialize)]
struct HealthReply<'a> {
    ok: bool,
    degraded: &'a [String],
}

fn respond(method: &Method, path: &str, health: &Health) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
    }
    match path {
        "/metrics" => match metrics::encode(&health.status()) {
            Ok(text) => reply(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the metrics cannot be written\n"),
        },
        "/health" => {
            let degraded = health.status().degraded;
            let ok = degraded.is_empty();
            let code = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply(code, JSON, json(&HealthReply { ok, degraded: &degraded }))
        }
        "/status" => reply(StatusCode::OK, JSON, json(&health.status())),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", "there are /metrics, /health and /status\n"),
    }
}

/// Maps with text keys and plain numbers: serialising them cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn reply(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
