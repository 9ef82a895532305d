//! Who listens now: looked up by a thread of its own, slowly, so that neither the rings nor an idle node pay for it.

use super::sockets::{self, Listening};
use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often the agent's own network namespace is looked at: that asks two small questions.
const HERE_EVERY: Duration = Duration::from_secs(1);
/// How often the others are, at most: that looks at every process, and for each namespace the kernel goes through its table of
/// connections.
const ELSEWHERE_EVERY: Duration = Duration::from_secs(10);
/// And no more of the time than one part in so many: 50 namespaces take 150 ms, and are looked at every five minutes.
const ELSEWHERE_SHARE: u32 = 2000;

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
        let (mut elsewhere_seen, mut elsewhere_every) = (Instant::now(), ELSEWHERE_EVERY);
        loop {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.stop.wait_timeout_while(seen, HERE_EVERY, |seen| !seen.stop);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stop {
                return;
            }
            // Without the lock: status must not wait for a look at thousands of processes.
            let here = sockets::listening_here();
            let elsewhere = (elsewhere_seen.elapsed() >= elsewhere_every).then(|| {
                let began = Instant::now();
                let elsewhere = sockets::listening_elsewhere();
                elsewhere_seen = Instant::now();
                elsewhere_every = ELSEWHERE_EVERY.max(began.elapsed().saturating_mul(ELSEWHERE_SHARE));
                elsewhere
            });
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.here = here;
            if let Some(elsewhere) = elsewhere {
                seen.elsewhere = elsewhere;
            }
        }
    }
}
