//! Delivery against a webhook on a real socket that misbehaves. Counts and keys are asserted, times never.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is the report of its failure")]

use bytes::Bytes;
use s3auditd::config::token::{Secret, TokenSource};
use s3auditd::deliver::policy::Backoff;
use s3auditd::deliver::stats::{DeliveryState, DeliveryStats};
use s3auditd::deliver::stdout::Stdout;
use s3auditd::deliver::webhook::{Timeouts, Webhook};
use s3auditd::deliver::{self, Ended, Settings, Sink};
use s3auditd::queue::{BatchLimits, Consumer, DropCause, Ledger, LedgerView, Limits, Producer, queue};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    lines: Vec<String>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    fn key(&self) -> &str {
        self.header("Idempotency-Key").unwrap()
    }
}

/// What the webhook sends back.
enum Reply {
    /// This, and the connection stays.
    Keep(String),
    /// This, and the connection ends.
    Close(&'static str),
}

fn status(code: u16) -> Reply {
    answer(code, "", "")
}

fn answer(code: u16, headers: &str, body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {code} Whatever\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// A webhook whose answers a closure makes from the request and its number, counted from 0.
struct Hook {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Hook {
    async fn start(answer: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn on(listener: TcpListener, answer: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let hook = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&hook.seen);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&answer)));
            }
        });
        hook
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(usize, &Seen) -> Reply>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(buffer.drain(..head_end).collect()).unwrap();
        let mut request = Seen { head, lines: Vec::new() };
        let length: usize = request.header("Content-Length").unwrap().parse().unwrap();
        while buffer.len() < length {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
        assert!(body.ends_with('\n'));
        request.lines = body.lines().map(str::to_owned).collect();
        let nth = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match answer(nth, &request) {
            Reply::Keep(text) => stream.write_all(text.as_bytes()).await.ok()?,
            Reply::Close(text) => return stream.write_all(text.as_bytes()).await.ok(),
        }
    }
}

/// Waits so short that only their order matters; the webhook's wishes are capped as well.
const QUICK: Settings = Settings {
    batch: BatchLimits { records: 8, bytes: 4096, delay: Duration::ZERO },
    backoff: Backoff {
        first: Duration::from_millis(1),
        most: Duration::from_millis(5),
        most_retry_after: Duration::from_millis(5),
    },
    drain: Duration::from_secs(60),
};

fn webhook(address: SocketAddr, token: TokenSource) -> Sink {
    let timeouts = Timeouts { connect: Duration::from_secs(10), request: Duration::from_secs(10) };
    Sink::Webhook(Webhook::new(format!("http://{address}/hook?a=b").parse().unwrap(), token, timeouts).unwrap())
}

fn filled(records: usize) -> (Producer, Consumer, LedgerView) {
    let (producer, consumer) = queue(Limits { records: 1000, bytes: 1 << 20 });
    for nth in 0..records {
        assert!(producer.push(Bytes::from(format!("{{\"n\":{nth}}}"))));
    }
    let view = producer.view();
    (producer, consumer, view)
}

struct End {
    ended: Ended,
    ledger: Ledger,
    stats: Arc<DeliveryStats>,
}

/// Delivers so many records to the end.
async fn deliver(sink: Sink, records: usize) -> End {
    let (producer, consumer, view) = filled(records);
    drop(producer);
    let (_go_on, stop) = watch::channel(false);
    let stats = Arc::new(DeliveryStats::default());
    let ended = deliver::run(sink, QUICK, consumer, Arc::clone(&stats), stop).await;
    End { ended, ledger: view.ledger(), stats }
}

impl End {
    /// Everything is accounted for, and this is how.
    fn assert(&self, delivered: u64, dropped: &[(DropCause, u64)]) {
        assert!(self.ledger.balances(), "{:?}", self.ledger);
        assert_eq!((self.ledger.queued.records, self.ledger.in_flight.records), (0, 0));
        assert_eq!(self.ledger.delivered.records, delivered);
        for cause in DropCause::ALL {
            let expected = dropped.iter().find(|(of, _)| of == cause).map_or(0, |(_, count)| *count);
            assert_eq!(self.ledger.dropped.of(*cause).records, expected, "{}", cause.name());
        }
    }
}

/// Whether every request carries the same key and the same lines: a batch and its retries.
fn one_batch(seen: &[Seen]) -> bool {
    seen.iter().all(|request| request.key() == seen[0].key() && request.lines == seen[0].lines)
}

fn numbers(seen: &Seen) -> Vec<usize> {
    let number = |line: &String| line.trim_start_matches("{\"n\":").trim_end_matches('}').parse().unwrap();
    seen.lines.iter().map(number).collect()
}

#[tokio::test]
async fn a_request_carries_what_the_receiver_needs() {
    let hook = Hook::start(|_, _| status(200)).await;
    let end = deliver(webhook(hook.address, TokenSource::Given(Secret::new("Splunk 0-1"))), 10).await;
    end.assert(10, &[]);
    assert_eq!(end.ended.undelivered.records, 0);
    let seen = hook.seen();
    assert_eq!(seen.iter().map(numbers).collect::<Vec<_>>(), [(0..8).collect::<Vec<_>>(), vec![8, 9]]);
    assert!(seen[0].head.starts_with("POST /hook?a=b HTTP/1.1\r\n"));
    assert_eq!(seen[0].header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(seen[0].header("Authorization"), Some("Splunk 0-1"));
    assert_eq!(seen[0].header("User-Agent"), Some(concat!("s3auditd/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen[0].key().parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    assert_ne!(seen[0].key(), seen[1].key());
    let status = end.stats.status();
    assert_eq!((status.batches, status.retries, status.state), (2, 0, DeliveryState::Ok));
    assert!(status.last_success.is_some());
}

#[tokio::test]
async fn after_a_500_the_same_batch_comes_again() {
    let hook = Hook::start(|nth, _| status(if nth < 3 { 500 } else { 200 })).await;
    let end = deliver(webhook(hook.address, TokenSource::None), 5).await;
    end.assert(5, &[]);
    let seen = hook.seen();
    assert!(seen.len() == 4 && one_batch(&seen));
    assert_eq!(seen[0].header("Authorization"), None);
    let status = end.stats.status();
    assert_eq!((status.batches, status.retries, status.last_error.as_deref()), (1, 3, Some("HTTP 500")));
}

#[tokio::test]
async fn after_a_429_with_retry_after_the_same_batch_comes_again() {
    let hook = Hook::start(|nth, _| match nth {
        0 => answer(429, "Retry-After: 3600\r\n", ""),
        1 => answer(503, "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT\r\n", "{\"text\":\"Server is busy\",\"code\":9}"),
        _ => status(200),
    })
    .await;
    let end = deliver(webhook(hook.address, TokenSource::None), 5).await;
    end.assert(5, &[]);
    assert!(hook.seen().len() == 3 && one_batch(&hook.seen()));
    assert_eq!(end.stats.status().last_error.as_deref(), Some("HTTP 503, Splunk code 9"));
}

#[tokio::test]
async fn a_413_halves_the_batch_until_it_fits_and_drops_what_never_does() {
    let hook = Hook::start(|_, seen| {
        let too_large = seen.lines.len() > 2 || numbers(seen) == [7];
        let with_seven = numbers(seen).contains(&7);
        status(if too_large || with_seven { 413 } else { 200 })
    })
    .await;
    let end = deliver(webhook(hook.address, TokenSource::None), 8).await;
    end.assert(7, &[(DropCause::TooLarge, 1)]);
    let seen: Vec<_> = hook.seen().iter().map(numbers).collect();
    let expected: [&[usize]; 9] =
        [&[0, 1, 2, 3, 4, 5, 6, 7], &[0, 1, 2, 3], &[0, 1], &[2, 3], &[4, 5, 6, 7], &[4, 5], &[6, 7], &[6], &[7]];
    assert_eq!(seen, expected);
    let keys: std::collections::BTreeSet<_> = hook.seen().iter().map(|seen| seen.key().to_owned()).collect();
    assert_eq!(keys.len(), 9, "every part has a key of its own");
    assert_eq!(end.stats.status().splits, 4);
}

#[tokio::test]
async fn a_400_finds_the_poison_record_and_delivers_all_others_in_order() {
    let hook = Hook::start(|_, seen| status(if numbers(seen).contains(&5) { 400 } else { 200 })).await;
    let end = deliver(webhook(hook.address, TokenSource::None), 12).await;
    end.assert(11, &[(DropCause::Poison, 1)]);
    let arrived: Vec<_> = hook.seen().iter().map(numbers).filter(|batch| !batch.contains(&5)).flatten().collect();
    assert_eq!(arrived, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]);
    assert_eq!(end.stats.status().state, DeliveryState::Ok);
}

#[tokio::test]
async fn a_split_part_keeps_its_own_key_on_its_own_retries() {
    let hook = Hook::start(|nth, _| status([413, 500, 503, 200, 429, 200][nth])).await;
    deliver(webhook(hook.address, TokenSource::None), 2).await.assert(2, &[]);
    let seen = hook.seen();
    assert!(one_batch(&seen[1..4]) && one_batch(&seen[4..6]));
    assert!(seen[0].key() != seen[1].key() && seen[1].key() != seen[4].key());
}

#[tokio::test]
async fn a_401_holds_everything_until_the_token_file_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Splunk old\n").unwrap();
    let path = file.path().to_owned();
    let hook = Hook::start(move |nth, seen| {
        if nth == 3 {
            std::fs::write(&path, "Splunk new\n").unwrap();
        }
        let good = seen.header("Authorization") == Some("Splunk new");
        status(if good { 200 } else { [401, 403][nth % 2] })
    })
    .await;
    let end = deliver(webhook(hook.address, TokenSource::File(file.path().to_owned())), 5).await;
    end.assert(5, &[]);
    let seen = hook.seen();
    assert!(seen.len() == 5 && one_batch(&seen));
    let tokens: Vec<_> = seen.iter().map(|seen| seen.header("Authorization").unwrap()).collect();
    assert_eq!(tokens, ["Splunk old", "Splunk old", "Splunk old", "Splunk old", "Splunk new"]);
    assert_eq!(end.stats.status().retries, 4);
}

#[tokio::test]
async fn a_token_file_that_goes_away_leaves_the_old_token_and_drops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "Splunk one").unwrap();
    let remove = path.clone();
    let hook = Hook::start(move |nth, _| {
        if nth == 0 {
            std::fs::remove_file(&remove).unwrap();
        }
        status(if nth < 3 { 401 } else { 200 })
    })
    .await;
    deliver(webhook(hook.address, TokenSource::File(path)), 1).await.assert(1, &[]);
    assert!(hook.seen().iter().all(|seen| seen.header("Authorization") == Some("Splunk one")));
}

#[tokio::test]
async fn a_refused_connection_is_tried_until_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let delivery = tokio::spawn(deliver(webhook(address, TokenSource::None), 5));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let hook = Hook::on(TcpListener::bind(address).await.unwrap(), |_, _| status(200));
    let end = delivery.await.unwrap();
    end.assert(5, &[]);
    assert_eq!(hook.seen().len(), 1);
    let status = end.stats.status();
    assert!(status.retries > 0 && !status.last_error.unwrap().contains("hook"), "the URL is not told");
}

#[tokio::test]
async fn a_reply_cut_in_its_head_is_no_reply_and_one_cut_in_its_body_is() {
    let hook = Hook::start(|nth, _| {
        Reply::Close(["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"][nth])
    })
    .await;
    deliver(webhook(hook.address, TokenSource::None), 5).await.assert(5, &[]);
    assert!(hook.seen().len() == 3 && one_batch(&hook.seen()));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_holds_everything() {
    let other = Hook::start(|_, _| status(200)).await;
    let location = format!("Location: http://{}/\r\n", other.address);
    let hook = Hook::start(move |nth, _| if nth < 3 { answer(302, &location, "") } else { status(200) }).await;
    let end = deliver(webhook(hook.address, TokenSource::Given(Secret::new("Bearer x"))), 5).await;
    end.assert(5, &[]);
    assert!(hook.seen().len() == 4 && one_batch(&hook.seen()));
    assert_eq!(other.seen().len(), 0, "the token went nowhere else");
}

#[tokio::test]
async fn what_is_left_when_the_time_to_drain_has_passed_is_dropped_and_counted() {
    for code in [503, 401, 302, 404] {
        let hook = Hook::start(move |_, _| status(code)).await;
        let (producer, consumer, view) = filled(20);
        let (stop, stopped) = watch::channel(false);
        let stats = Arc::new(DeliveryStats::default());
        let settings = Settings { drain: Duration::from_millis(50), ..QUICK };
        let sink = webhook(hook.address, TokenSource::None);
        let delivery = tokio::spawn(deliver::run(sink, settings, consumer, Arc::clone(&stats), stopped));
        while hook.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((view.ledger().in_flight.records, view.ledger().queued.records), (8, 12));
        stop.send(true).unwrap();
        let ended = delivery.await.unwrap();
        assert_eq!((ended.undelivered.records, ended.cause), (20, DropCause::Shutdown));
        assert!(!producer.push(Bytes::from_static(b"late")), "after the end nothing is taken");
        End { ended, ledger: view.ledger(), stats }.assert(0, &[(DropCause::Shutdown, 21)]);
    }
}

#[tokio::test]
async fn the_signal_to_stop_ends_every_wait_and_what_can_be_delivered_is() {
    let hook = Hook::start(|nth, _| status(if nth == 0 { 503 } else { 200 })).await;
    let (producer, consumer, view) = filled(20);
    let (stop, stopped) = watch::channel(false);
    let hour = Duration::from_secs(3600);
    let backoff = Backoff { first: hour, most: hour, most_retry_after: hour };
    let batch = BatchLimits { records: 15, delay: hour, ..QUICK.batch };
    let settings = Settings { backoff, batch, ..QUICK };
    let stats = Arc::new(DeliveryStats::default());
    let sink = webhook(hook.address, TokenSource::None);
    let delivery = tokio::spawn(deliver::run(sink, settings, consumer, Arc::clone(&stats), stopped));
    while stats.status().state != DeliveryState::Retrying {
        tokio::task::yield_now().await;
    }
    stop.send(true).unwrap();
    drop(producer);
    let ended = delivery.await.unwrap();
    End { ended, ledger: view.ledger(), stats }.assert(20, &[]);
}

/// Takes some writes, then says that its reader is gone.
struct Pipe {
    written: Arc<Mutex<Vec<u8>>>,
    writes: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn standard_output_gets_a_line_a_record_until_its_reader_leaves() {
    let written = Arc::new(Mutex::default());
    let pipe = Pipe { written: Arc::clone(&written), writes: 1 };
    let end = deliver(Sink::Stdout(Stdout::new(Box::new(pipe))), 20).await;
    end.assert(8, &[(DropCause::StdoutClosed, 12)]);
    assert_eq!((end.ended.undelivered.records, end.ended.cause), (12, DropCause::StdoutClosed));
    let expected: String = (0..8).map(|nth| format!("{{\"n\":{nth}}}\n")).collect();
    assert_eq!(*written.lock().unwrap(), expected.as_bytes());
}

/// A producer that is faster than the webhook, and a webhook that fails in every way: nothing is lost but what is counted,
/// nothing comes out of order, nothing is accepted twice.
#[tokio::test]
async fn every_record_is_accounted_for_whatever_the_webhook_does() {
    let poison = |number: &usize| number % 97 == 3;
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let accept = Arc::clone(&accepted);
    let hook = Hook::start(move |nth, seen| match nth * 7 % 11 {
        0 => status(500),
        1 => Reply::Close(""),
        2 => answer(429, "Retry-After: 1\r\n", ""),
        3 => status(401),
        4 => status(302),
        5 if seen.lines.len() > 1 => status(413),
        _ if numbers(seen).iter().any(poison) => status(400),
        _ => {
            accept.lock().unwrap().extend(numbers(seen));
            status(200)
        }
    })
    .await;
    let (producer, consumer) = queue(Limits { records: 50, bytes: 1 << 20 });
    let view = producer.view();
    let (_go_on, stop) = watch::channel(false);
    let stats = Arc::new(DeliveryStats::default());
    let sink = webhook(hook.address, TokenSource::None);
    let delivery = tokio::spawn(deliver::run(sink, QUICK, consumer, Arc::clone(&stats), stop));
    let mut taken = Vec::new();
    for nth in 0..1000 {
        if producer.push(Bytes::from(format!("{{\"n\":{nth}}}"))) {
            taken.push(nth);
        }
        assert!(view.ledger().balances());
        // The first hundred come at once, so that the queue is full whatever the machine.
        if nth > 100 && nth % 30 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(producer);
    let ended = delivery.await.unwrap();
    let expected: Vec<_> = taken.iter().filter(|number| !poison(number)).copied().collect();
    let poisoned = (taken.len() - expected.len()) as u64;
    let full = 1000 - taken.len() as u64;
    let dropped = [(DropCause::Poison, poisoned), (DropCause::QueueFull, full)];
    End { ended, ledger: view.ledger(), stats }.assert(expected.len() as u64, &dropped);
    assert!(poisoned > 0 && full > 0, "the test is worth nothing without both");
    assert_eq!(*accepted.lock().unwrap(), expected);
}
