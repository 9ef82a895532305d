//! A [`Rude`] webhook for scenarios that do not run on a runtime themselves.

use super::rude::{Reply, Request, Rude};
use crate::stream::Stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// See the module. Listens until dropped.
pub struct Receiver {
    rude: Rude,
    /// Lines in requests that were taken, those that were sent twice counted twice.
    taken: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Receiver {
    /// Answers as the closure says for each request and its number, counted from 0.
    ///
    /// # Errors
    /// The socket's.
    pub fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let counted = move |nth: usize, request: &Request| {
            let reply = answer(nth, request);
            let takes = match &reply {
                Reply::Whole(code, _) | Reply::Slow(code, _) => (200..300).contains(code),
                Reply::Lost => true,
                Reply::Cut(_, takes) => *takes,
                Reply::Reset | Reply::Silence => false,
            };
            if takes {
                count.fetch_add(request.body.lines().count(), Ordering::Relaxed);
            }
            reply
        };
        let rude = runtime.block_on(Rude::start(counted))?;
        Ok(Self { rude, taken, _runtime: runtime })
    }

    /// The endpoint to give to the daemon.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/audit", self.rude.address)
    }

    /// Lines that were taken so far, those that were sent twice counted twice.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until so many lines were taken, or `patience` is over; says how many there are.
    #[must_use]
    pub fn wait_for(&self, lines: usize, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        while self.taken() < lines && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.taken()
    }

    /// What was taken, each idempotency key once, in order: one record a line.
    #[must_use]
    pub fn text(&self) -> String {
        self.rude.taken().into_iter().map(|request| request.body).collect()
    }

    /// The same, read.
    ///
    /// # Errors
    /// See [`Stream::read`].
    pub fn stream(&self) -> anyhow::Result<Stream> {
        Stream::read(self.text().lines().map(str::as_bytes))
    }
}
