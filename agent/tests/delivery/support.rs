//! A spool with records, an endpoint, a worker between them, and what can be asserted of the end.

use bytes::Bytes;
use s3auditd::config::endpoint::{Endpoint, Filter, Hec, Tls};
use s3auditd::config::token::TokenSource;
use s3auditd::config::{Access, Compression, Format, Order, Proxy};
use s3auditd::deliver::dead_letter::DeadLetter;
use s3auditd::deliver::stats::{DeliveryStats, DeliveryStatus};
use s3auditd::deliver::webhook::Webhook;
use s3auditd::deliver::worker::Worker;
use s3auditd::deliver::{Ended, Orders};
use s3auditd::ledger::{Count, DropCause, EndpointBooks, Ledger};
use s3auditd::spool::{Appended, Mark, Spool};
use s3auditd_tests::webhook::rude::{Request, Rude};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Records in a frame.
pub(crate) const FRAME: usize = 8;

/// Longer than any test: the time to drain never decides, unless a test wants it to.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// NDJSON, with waits so short that only their order matters.
pub(crate) fn endpoint(address: impl Display) -> Endpoint {
    Endpoint {
        name: "default".to_owned(),
        url: format!("http://{address}/hook?a=b").parse().unwrap(),
        token: TokenSource::None,
        format: Format::Ndjson,
        hec: Hec { index: None, source: None, sourcetype: None, host: None, acknowledged_within: None },
        compression: Compression::None,
        tls: Tls::default(),
        proxy: Proxy::Off,
        requests_in_flight: 1,
        keep_order: Order::Connection,
        filter: Filter { buckets: vec![], operations: vec![], outcomes: vec![], access: Access::All },
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(3),
    }
}

/// An operation's record, as far as delivery looks at it. Three records of a connection, then the next one's.
pub(crate) fn record(number: usize) -> Bytes {
    let connection = number / 3 % 5;
    let text = format!(
        "{{\"api\":{{\"bucket\":\"b{}\"}},\"n\":{number},\"s3auditd\":{{\"connection\":\"{connection}\"}}}}",
        number % 2
    );
    text.into()
}

pub(crate) fn numbers(request: &Request) -> Vec<usize> {
    let number =
        |line: &str| -> usize { line.split_once("\"n\":").unwrap().1.split_once(',').unwrap().0.parse().unwrap() };
    request.lines().into_iter().map(number).collect()
}

/// Everything that was taken, each key once, in order.
pub(crate) fn taken(hook: &Rude) -> Vec<usize> {
    hook.taken().iter().flat_map(numbers).collect()
}

/// Whether every request carries the same key and the same body: a batch and its retries.
pub(crate) fn one_batch(seen: &[Request]) -> bool {
    seen.iter().all(|request| request.key() == seen[0].key() && request.body == seen[0].body)
}

/// These records as one frame; its key is the same each time.
pub(crate) fn append(spool: &Spool, numbers: &[usize]) {
    let lines = numbers.iter().map(|number| record(*number)).collect();
    let key = uuid::Builder::from_unix_timestamp_millis(numbers[0] as u64, &[0; 10]).into_uuid();
    let mark = Mark {
        instance_id: "instance".to_owned(),
        boot_id: "boot".to_owned(),
        sequence: numbers[numbers.len() - 1] as u64,
        time_ns: 0,
        chain: None,
        stopped: false,
    };
    assert!(matches!(spool.append(lines, key, mark, &[]), Appended::Stored { .. }));
}

pub(crate) struct Scene {
    pub(crate) spool: Spool,
    pub(crate) ledger: Ledger,
    pub(crate) stats: Arc<DeliveryStats>,
    pub(crate) dead_letter: Option<DeadLetter>,
}

impl Scene {
    /// So many records in the spool.
    pub(crate) fn new(records: usize) -> Self {
        let spool = Spool::memory(1 << 30, &["default".to_owned()]);
        let numbers: Vec<_> = (0..records).collect();
        for frame in numbers.chunks(FRAME) {
            append(&spool, frame);
        }
        let ledger = Ledger::default();
        ledger.begin("default", spool.waiting("default"));
        Self { spool, ledger, stats: Arc::default(), dead_letter: None }
    }

    pub(crate) fn worker(&self, orders: watch::Receiver<Orders>, stop: watch::Receiver<bool>) -> Worker {
        let (spool, ledger, stats) = (self.spool.clone(), self.ledger.clone(), Arc::clone(&self.stats));
        Worker::new(spool, ledger, stats, self.dead_letter.clone(), orders, stop)
    }

    /// Delivers all there is.
    pub(crate) async fn deliver(&self, endpoint: Endpoint) -> Ended {
        let (_orders, orders) = watch::channel(orders(endpoint));
        let (_stop, stop) = watch::channel(true);
        self.worker(orders, stop).run(LONG).await
    }

    pub(crate) fn books(&self) -> EndpointBooks {
        let books = self.ledger.books();
        assert!(books.balances(), "{books:?}");
        books.endpoints["default"]
    }

    pub(crate) fn status(&self) -> DeliveryStatus {
        self.stats.status()
    }

    /// Nothing is left anywhere, and this is where everything went.
    pub(crate) fn assert(&self, delivered: u64, dropped: &[(DropCause, u64)]) {
        let books = self.books();
        assert_eq!((books.waiting, books.in_flight), (Count::default(), Count::default()));
        assert_eq!(books.delivered.records, delivered);
        for cause in DropCause::ALL {
            let expected = dropped.iter().find(|(of, _)| of == cause).map_or(0, |(_, count)| *count);
            assert_eq!(books.dropped.of(*cause).records, expected, "{}", cause.name());
        }
        assert_eq!(self.spool.waiting("default"), Count::default(), "the spool knows that all is settled");
        assert_eq!(self.status().in_flight, 0);
        let given_up: u64 = dropped.iter().map(|(_, records)| records).sum();
        let told: u64 = self.spool.given_up().iter().map(|told| told.records).sum();
        assert_eq!(told, given_up, "the stream will tell of each");
    }
}

pub(crate) fn orders(endpoint: Endpoint) -> Orders {
    Orders { webhook: Arc::new(Webhook::open(endpoint).unwrap()), enabled: true }
}

/// Delivers so many records and holds the end against what is expected.
pub(crate) async fn deliver(endpoint: Endpoint, records: usize) -> Scene {
    let scene = Scene::new(records);
    let ended = scene.deliver(endpoint).await;
    assert_eq!((ended.undelivered, ended.cause), (Count::default(), DropCause::Shutdown));
    scene
}

/// Waits until it is so; how long does not matter.
pub(crate) async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
