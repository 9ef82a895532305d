//! Who listens now: looked up by a thread of its own, slowly, so that neither the rings nor an idle node pay for it. Whoever
//! else wants to know is told by the same look.

use super::{
    lookout::{Lookout, News},
    sockets::{self, Here, Listener, Listening},
};
use std::{
    collections::BTreeSet,
    io,
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
pub(super) struct Listeners {
    ports: BTreeSet<u16>,
    news: News<BTreeSet<u16>>,
    _thread: Lookout,
}

impl Listeners {
    /// Goes on looking. Each look is also shown to `tell`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(mut look: Look, mut tell: impl FnMut(&Look) + Send + 'static) -> io::Result<Self> {
        let (ports, news) = (look.ports(), News::default());
        let (mut told, to_audit) = (ports.clone(), news.clone());
        let thread = Lookout::start("listeners", HERE_EVERY, move || {
            look.again();
            let ports = look.ports();
            if ports != told {
                to_audit.put(ports.clone());
                told = ports;
            }
            tell(&look);
        })?;
        Ok(Self { ports, news, _thread: thread })
    }

    /// Every port that was seen at the last look.
    pub(super) fn ports(&mut self) -> &BTreeSet<u16> {
        if let Some(ports) = self.news.take() {
            self.ports = ports;
        }
        &self.ports
    }
}

/// What was seen, and when it is time to look again.
pub(super) struct Look {
    own: Here,
    here: Listening,
    elsewhere: Listening,
    elsewhere_seen: Instant,
    elsewhere_every: Duration,
}

impl Look {
    /// Looks everywhere.
    pub(super) fn first() -> Self {
        let mut own = Here::find();
        let (here, elsewhere) = (own.listening(), sockets::listening_elsewhere());
        Self { own, here, elsewhere, elsewhere_seen: Instant::now(), elsewhere_every: ELSEWHERE_EVERY }
    }

    fn again(&mut self) {
        self.here = self.own.listening();
        if self.elsewhere_seen.elapsed() >= self.elsewhere_every {
            let began = Instant::now();
            self.elsewhere = sockets::listening_elsewhere();
            self.elsewhere_seen = Instant::now();
            self.elsewhere_every = ELSEWHERE_EVERY.max(began.elapsed().saturating_mul(ELSEWHERE_SHARE));
        }
    }

    /// The sockets (inodes) that listen on these ports.
    pub(super) fn sockets(&self, watched: &[u16]) -> BTreeSet<u64> {
        let watched = self.all().filter(|(_, listener)| watched.contains(&listener.port));
        watched.map(|(socket, _)| *socket).collect()
    }

    fn ports(&self) -> BTreeSet<u16> {
        self.all().map(|(_, listener)| listener.port).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&u64, &Listener)> {
        self.here.iter().chain(&self.elsewhere)
    }
}
