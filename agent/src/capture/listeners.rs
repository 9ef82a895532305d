//! Who listens now: looked up by a thread of its own, slowly, so that neither the rings nor an idle node pay for it.

use super::sockets::{self, Listening};
use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often the agent's own network namespace is looked at: that reads two small tables.
const HERE_EVERY: Duration = Duration::from_secs(1);
/// How often the others are: that looks at every process.
const ELSEWHERE_EVERY: Duration = Duration::from_secs(10);

/// The ports that something listens on, in any network namespace, as of the last look.
pub struct Listeners {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    stop: Condvar,
}

#[derive(Default)]
struct Seen {
    here: Listening,
    elsewhere: Listening,
    stop: bool,
}

impl Listeners {
    /// Takes the first look and starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start() -> std::io::Result<Self> {
        let (here, elsewhere) = (sockets::listening_here(), sockets::listening_elsewhere());
        let shared = Arc::new(Shared { seen: Mutex::new(Seen { here, elsewhere, stop: false }), stop: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("listeners".to_owned()).spawn(move || of_thread.run())?;
        Ok(Self { shared })
    }

    /// Every port that was seen at the last look.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.here.keys().chain(seen.elsewhere.keys()).copied().collect()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.stop.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut elsewhere_seen = Instant::now();
        loop {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.stop.wait_timeout_while(seen, HERE_EVERY, |seen| !seen.stop);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stop {
                return;
            }
            // Without the lock: status must not wait for a look at thousands of processes.
            let here = sockets::listening_here();
            let elsewhere = (elsewhere_seen.elapsed() >= ELSEWHERE_EVERY).then(|| {
                elsewhere_seen = Instant::now();
                sockets::listening_elsewhere()
            });
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.here = here;
            if let Some(elsewhere) = elsewhere {
                seen.elsewhere = elsewhere;
            }
        }
    }
}
