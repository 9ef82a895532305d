//! Splunk's HTTP Event Collector: formats, doors, acknowledgements.

use crate::support::{LONG, Scene, deliver, endpoint, one_batch, orders, record, until};
use s3auditd::config::endpoint::{Endpoint, Hec};
use s3auditd::config::token::{Secret, TokenSource};
use s3auditd::config::{Format, Order};
use s3auditd::deliver::stats::DeliveryState;
use s3auditd::deliver::webhook::Webhook;
use s3auditd_tests::webhook::rude::{Request, Rude, status};
use s3auditd_tests::webhook::splunk::{Acks, Splunk, events};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const TOKEN: &str = "Splunk 11111111-2222-3333-4444-555555555555";

async fn serve(splunk: &Arc<Splunk>) -> Rude {
    let splunk = Arc::clone(splunk);
    Rude::start(move |_, request| splunk.answer(request)).await.unwrap()
}

fn hec(hook: &Rude, format: Format, acknowledged_within: Option<Duration>) -> Endpoint {
    let text = |text: &str| Some(text.to_owned());
    Endpoint {
        url: format!("http://{}", hook.address).parse().unwrap(),
        token: TokenSource::Given(Secret::new(TOKEN)),
        format,
        hec: Hec {
            index: text("audit"),
            source: text("s3auditd"),
            sourcetype: text("s3auditd:json"),
            host: None,
            acknowledged_within,
        },
        ..endpoint(hook.address)
    }
}

fn posts(hook: &Rude, door: &str) -> Vec<Request> {
    let line = format!("POST /services/collector{door}");
    hook.seen().into_iter().filter(|request| request.line().starts_with(&line)).collect()
}

#[tokio::test]
async fn events_come_in_envelopes_and_raw_events_with_their_metadata_in_the_query() {
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::Off));
    let hook = serve(&splunk).await;
    deliver(hec(&hook, Format::HecEvent, None), 8).await.assert(8, &[]);
    let envelopes = events(&hook.seen()[0]).unwrap();
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let first = json!({
        "host": node.trim(), "source": "s3auditd", "sourcetype": "s3auditd:json", "index": "audit",
        "event": serde_json::from_slice::<serde_json::Value>(&record(0)).unwrap(),
    });
    assert_eq!((envelopes.len(), &envelopes[0]), (8, &first));

    let hook = serve(&splunk).await;
    deliver(hec(&hook, Format::HecRaw, None), 8).await.assert(8, &[]);
    let line = format!(
        "POST /services/collector/raw?host={}&source=s3auditd&sourcetype=s3auditd%3Ajson&index=audit",
        node.trim()
    );
    assert_eq!((hook.seen()[0].line(), hook.seen()[0].lines().len()), (line.as_str(), 8));
    assert!(hook.seen()[0].header("X-Splunk-Request-Channel").is_some());
}

#[tokio::test]
async fn a_batch_is_delivered_when_it_is_acknowledged_and_not_before() {
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::After(usize::MAX)));
    let hook = serve(&splunk).await;
    let scene = Scene::new(24);
    let endpoint = Endpoint { requests_in_flight: 2, ..hec(&hook, Format::HecEvent, Some(LONG)) };
    let endpoint = Endpoint { keep_order: Order::None, ..endpoint };
    let (_orders, ordered) = watch::channel(orders(endpoint));
    let (_stop, stop) = watch::channel(true);
    let delivery = tokio::spawn(scene.worker(ordered, stop).run(LONG));
    // One question for both that wait.
    let both = |asked: &Request| ["{\"acks\":[0,1]}", "{\"acks\":[1,0]}"].contains(&asked.body.as_str());
    until(|| posts(&hook, "/ack").iter().any(both)).await;
    assert_eq!((scene.books().delivered.records, posts(&hook, "/event").len()), (0, 2), "no more than may wait");
    assert_eq!((scene.status().in_flight, scene.status().state), (2, DeliveryState::Ok));
    splunk.set_acks(Acks::After(2));
    delivery.await.unwrap();
    scene.assert(24, &[]);
    assert_eq!((posts(&hook, "/event").len(), scene.status().ack_timeouts), (3, 0));
    let channel = posts(&hook, "/event")[0].header("X-Splunk-Request-Channel").unwrap().to_owned();
    assert!(posts(&hook, "/ack").iter().all(|asked| asked.line().ends_with(&format!("?channel={channel}"))));
}

#[tokio::test]
async fn without_an_acknowledgement_in_time_the_same_batch_is_sent_again() {
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::NeverFirst(2)));
    let hook = serve(&splunk).await;
    let scene = deliver(hec(&hook, Format::HecEvent, Some(Duration::from_millis(100))), 8).await;
    scene.assert(8, &[]);
    let sent = posts(&hook, "/event");
    assert!(sent.len() >= 3 && one_batch(&sent));
    assert_eq!(scene.status().ack_timeouts, sent.len() as u64 - 1);
    assert_eq!(scene.status().batches, 1);
}

#[tokio::test]
async fn a_token_without_acknowledgements_holds_before_anything_is_sent() {
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::Off));
    let hook = serve(&splunk).await;
    let scene = Scene::new(8);
    let (_orders, ordered) = watch::channel(orders(hec(&hook, Format::HecEvent, Some(LONG))));
    let (_stop, stop) = watch::channel(true);
    let delivery = tokio::spawn(scene.worker(ordered, stop).run(LONG));
    until(|| scene.status().retries > 3).await;
    assert_eq!((scene.status().state, posts(&hook, "/event").len()), (DeliveryState::Held, 0));
    splunk.set_acks(Acks::After(1));
    delivery.await.unwrap();
    scene.assert(8, &[]);
    assert_eq!(posts(&hook, "/event").len(), 1);
}

#[tokio::test]
async fn codes_decide_what_the_status_leaves_open() {
    let script = [(503, 9), (400, 7), (403, 1), (503, 23), (500, 8), (400, 16)];
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::Off).script(&script));
    let hook = serve(&splunk).await;
    let scene = deliver(hec(&hook, Format::HecRaw, None), 8).await;
    scene.assert(8, &[]);
    assert!(hook.seen().len() == 7 && one_batch(&hook.seen()));
}

#[tokio::test]
async fn to_verify_asks_for_its_health() {
    let splunk = Arc::new(Splunk::new(TOKEN, Acks::Off));
    let hook = serve(&splunk).await;
    let webhook = |endpoint| Webhook::open(endpoint).unwrap();
    let good = hec(&hook, Format::HecRaw, None);
    let said = webhook(good.clone()).verify().await.unwrap();
    assert_eq!(said, "HTTP 200, Splunk code 17: Splunk is there and healthy");
    let bad = Endpoint { token: TokenSource::Given(Secret::new("Splunk x")), ..good.clone() };
    assert_eq!(webhook(bad).verify().await.unwrap_err(), "HTTP 403, Splunk code 4: it refuses the token");
    assert!(hook.seen().iter().all(|request| request.line() == "GET /services/collector/health"));
    let other = Rude::start(|_, _| status(404)).await.unwrap();
    let wrong = Endpoint { url: format!("http://{}/", other.address).parse().unwrap(), ..good };
    assert!(webhook(wrong).verify().await.is_err());
}
