//! The running workers, one for each endpoint: begun, given new orders, and ended.

use crate::config::endpoint::{self, Endpoint};
use crate::deliver::dead_letter::DeadLetter;
use crate::deliver::stats::DeliveryStats;
use crate::deliver::stdout::Stdout;
use crate::deliver::webhook::{Webhook, WebhookError};
use crate::deliver::worker::Worker;
use crate::deliver::{Ended, Orders};
use crate::health::Health;
use crate::ledger::{Count, DropCause, Ledger};
use crate::spool::Spool;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tracing::warn;

/// What all workers share.
pub(super) struct Shared {
    pub(super) spool: Spool,
    pub(super) ledger: Ledger,
    pub(super) health: Arc<Health>,
    pub(super) dead_letter: Option<DeadLetter>,
    /// See `Writer::appending`.
    pub(super) appending: Arc<Mutex<()>>,
}

/// See the module.
pub(super) struct Endpoints {
    shared: Shared,
    running: BTreeMap<String, Running>,
    drain: Duration,
}

struct Running {
    orders: Option<watch::Sender<Orders>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Ended>,
}

/// What is to run from now on: every endpoint with its webhook, ready to be used.
pub(super) struct Wanted(Vec<(Arc<Webhook>, bool)>);

impl Wanted {
    /// Reads tokens and certificates, so that whatever is wrong with them is found before anything is changed. `disabled`
    /// is about the default endpoint.
    pub(super) fn open(endpoints: &[Endpoint], disabled: bool) -> Result<Self, WebhookError> {
        let open = |of: &Endpoint| {
            let enabled = !(disabled && of.name == endpoint::DEFAULT);
            Ok((Arc::new(Webhook::open(of.clone())?), enabled))
        };
        endpoints.iter().map(open).collect::<Result<_, _>>().map(Self)
    }
}

impl Endpoints {
    pub(super) fn new(shared: Shared, drain: Duration) -> Self {
        Self { shared, running: BTreeMap::new(), drain }
    }

    /// From now on these are served, and no others; none means standard output.
    pub(super) async fn apply(&mut self, wanted: Wanted) {
        let mut names: BTreeSet<String> = wanted.0.iter().map(|(webhook, _)| webhook.endpoint().name.clone()).collect();
        if names.is_empty() {
            names.insert(endpoint::DEFAULT.to_owned());
        }
        let gone: Vec<_> = self.running.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(&name).await;
        }
        if wanted.0.is_empty() {
            self.serve_stdout().await;
        }
        for (webhook, enabled) in wanted.0 {
            self.serve(webhook, enabled).await;
        }
    }

    async fn serve(&mut self, webhook: Arc<Webhook>, enabled: bool) {
        let name = webhook.endpoint().name.clone();
        let orders = Orders { webhook, enabled };
        match self.running.get(&name) {
            Some(Running { orders: Some(running), .. }) => {
                running.send_replace(orders);
                return;
            }
            // Standard output gives its place, and what waits for it, to a webhook.
            Some(_) => {
                if let Some(stdout) = self.running.remove(&name) {
                    stdout.stop.send_replace(true);
                    let _ended = stdout.task.await;
                }
            }
            None => {}
        }
        let stats = self.begin(&name).await;
        let (orders, receiver) = watch::channel(orders);
        let (stop, stopped) = watch::channel(false);
        let Shared { spool, ledger, dead_letter, .. } = &self.shared;
        let worker = Worker::new(spool.clone(), ledger.clone(), stats, dead_letter.clone(), receiver, stopped);
        let task = tokio::spawn(worker.run(self.drain));
        self.running.insert(name, Running { orders: Some(orders), stop, task });
    }

    async fn serve_stdout(&mut self) {
        if self.running.contains_key(endpoint::DEFAULT) {
            return;
        }
        let name = endpoint::DEFAULT.to_owned();
        let stats = self.begin(&name).await;
        let (stop, stopped) = watch::channel(false);
        let Shared { spool, ledger, .. } = &self.shared;
        let writer = Box::new(std::io::stdout());
        let stdout = Stdout { name: name.clone(), writer, spool: spool.clone(), ledger: ledger.clone(), stats };
        let task = tokio::spawn(stdout.run(stopped, self.drain));
        self.running.insert(name, Running { orders: None, stop, task });
    }

    /// Its place in spool, ledger and status.
    async fn begin(&self, name: &str) -> Arc<DeliveryStats> {
        let Shared { spool, ledger, health, appending, .. } = &self.shared;
        let _alone = appending.lock().await;
        if let Err(error) = spool.add_reader(name) {
            warn!(endpoint = name, %error, "the spool cannot note where this endpoint begins");
        }
        ledger.begin(name, spool.waiting(name));
        let stats = Arc::new(DeliveryStats::default());
        health.show_endpoint(name, Arc::clone(&stats));
        stats
    }

    async fn remove(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else { return };
        running.task.abort();
        let _aborted = running.task.await;
        let Shared { spool, ledger, health, .. } = &self.shared;
        let waiting = ledger.books().endpoints.get(name).map(|books| books.waiting.plus(books.in_flight));
        let waiting = waiting.unwrap_or_default();
        if waiting.records > 0 {
            warn!(endpoint = name, records = waiting.records, "removed with records that waited for it");
        }
        ledger.abandoned(name, DropCause::EndpointRemoved);
        if let Err(error) = spool.remove_reader(name) {
            warn!(endpoint = name, %error, "the spool cannot forget this endpoint");
        }
        health.hide_endpoint(name);
    }

    /// Resolves when a worker has ended by itself: standard output was closed, or there is a bug.
    pub(super) async fn ended(&self) {
        // A worker has the other end of this for as long as it lives.
        let mut ends: Vec<_> = self.running.values().map(|running| Box::pin(running.stop.closed())).collect();
        poll_fn(|context| {
            let ended = ends.iter_mut().any(|end| end.as_mut().poll(context).is_ready());
            if ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Everything is in the spool: delivers it for so long, then says how much is left, and whether somebody died.
    pub(super) async fn drain(self) -> Drained {
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        let mut drained = Drained::default();
        for (name, running) in self.running {
            match running.task.await {
                Ok(ended) => drained.stdout_closed |= ended.cause == DropCause::StdoutClosed,
                Err(error) => {
                    tracing::error!(endpoint = name, %error, "delivery ended by itself; this is a bug");
                    drained.died = true;
                }
            }
        }
        let books = self.shared.ledger.books();
        let left = books.endpoints.values().map(|books| books.waiting.plus(books.in_flight));
        drained.left = left.fold(Count::default(), |most, left| if left.records > most.records { left } else { most });
        if !self.shared.spool.is_durable() {
            for name in books.endpoints.keys() {
                self.shared.ledger.abandoned(name, DropCause::Shutdown);
            }
        }
        drained
    }
}

/// How delivery ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    /// Records that the endpoint which is furthest behind has not had.
    pub(super) left: Count,
    pub(super) stdout_closed: bool,
    pub(super) died: bool,
}
