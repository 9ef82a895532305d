//! `s3auditd spool drain`: delivers what a spool keeps, without capturing anything.

use super::endpoints::{Endpoints, Shared};
use super::manager::Settings;
use super::{RunError, Signals, open_spool};
use crate::config::{Loaded, Sources};
use crate::deliver::dead_letter::DeadLetter;
use crate::health::Health;
use crate::ledger::{Books, Count, Ledger};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often is looked whether something is left.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Records that were delivered, all endpoints together.
    pub delivered: u64,
    /// Records that endpoints' filters left out.
    pub filtered: u64,
    /// Records that were given up; the next daemon says in the stream which.
    pub dropped: u64,
    /// Records that are still there, for the endpoint that is furthest behind.
    pub left: u64,
}

/// Delivers until nothing is left, or until SIGTERM or SIGINT; then in-flight batches get `drain-seconds`.
///
/// # Errors
/// There is no spool or no endpoint, a daemon has the spool, or something else of [`RunError`].
pub fn drain(sources: Sources, loaded: Loaded) -> Result<Drained, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| RunError::System { what: "the async runtime", source })?;
    runtime.block_on(deliver(sources, loaded))
}

async fn deliver(sources: Sources, loaded: Loaded) -> Result<Drained, RunError> {
    let mut signals = Signals::new().map_err(|source| RunError::System { what: "signal handlers", source })?;
    let settings = Settings::of(sources, loaded).map_err(RunError::Managed)?;
    let config = settings.config().clone();
    let refused = |problem: &str| Err(RunError::Managed(problem.to_owned()));
    if config.spool_dir.is_none() {
        return refused("spool-dir is off: there is no spool");
    }
    if config.endpoints.is_empty() || settings.is_disabled() {
        return refused("endpoint: there is none to deliver to, or `s3auditd webhook` has disabled it");
    }
    let wanted = settings.wanted()?;
    let (spool, _recovered) = open_spool(&config)?;
    let dead_letter = match &config.dead_letter_file {
        Some(path) => Some(DeadLetter::open(path, config.dead_letter_bytes)?),
        None => None,
    };
    let ledger = Ledger::default();
    let health = Health::new(String::new(), SystemTime::now(), ledger.clone(), Count::default(), spool.clone());
    let shared = Shared {
        spool: spool.clone(),
        ledger: ledger.clone(),
        health: Arc::new(health),
        dead_letter,
        appending: Arc::default(),
    };
    let mut endpoints = Endpoints::new(shared, Duration::from_secs(config.drain_seconds));
    endpoints.apply(wanted).await;
    tokio::select! {
        () = signals.stop.next() => {}
        () = endpoints.ended() => {}
        () = empty(&ledger) => {}
    }
    let drained = endpoints.drain().await;
    let _flushed = tokio::task::spawn_blocking(move || spool.flush()).await;
    if drained.died {
        return Err(RunError::Died { part: "delivery" });
    }
    let books = ledger.books();
    let sum = |count: fn(&crate::ledger::EndpointBooks) -> Count| {
        books.endpoints.values().map(|books| count(books).records).sum()
    };
    Ok(Drained {
        delivered: sum(|books| books.delivered),
        filtered: sum(|books| books.filtered),
        dropped: sum(|books| books.dropped.total()),
        left: drained.left.records,
    })
}

async fn empty(ledger: &Ledger) {
    let left = |books: Books| books.endpoints.values().any(|books| books.waiting.plus(books.in_flight).records > 0);
    while left(ledger.books()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
