//! A running worker: stopping, switching off and on, another endpoint.

use crate::support::{LONG, Scene, append, endpoint, numbers, orders, record, taken, until};
use s3auditd::config::endpoint::Endpoint;
use s3auditd::config::token::{Secret, TokenSource};
use s3auditd::deliver::Orders;
use s3auditd::deliver::stats::DeliveryState;
use s3auditd::ledger::Count;
use s3auditd_tests::webhook::rude::{Rude, status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_is_left_when_the_time_to_drain_has_passed_stays_in_the_spool() {
    for code in [503, 401, 302, 404] {
        let hook = Rude::start(move |nth, _| status(if nth == 0 { 200 } else { code })).await.unwrap();
        let scene = Scene::new(20);
        let (_orders, ordered) = watch::channel(orders(endpoint(hook.address)));
        let (stop, stopped) = watch::channel(false);
        let delivery = tokio::spawn(scene.worker(ordered, stopped).run(Duration::from_millis(30)));
        until(|| hook.seen().len() > 2).await;
        assert_eq!((scene.books().in_flight.records, scene.books().waiting.records), (8, 4));
        stop.send(true).unwrap();
        assert_eq!(delivery.await.unwrap().undelivered.records, 8);
        let books = scene.books();
        assert_eq!((books.delivered.records, books.in_flight.records, books.waiting.records), (8, 0, 12));
        assert_eq!((scene.spool.waiting("default").records, scene.status().in_flight), (12, 0));
    }
}

#[tokio::test]
async fn the_signal_to_stop_ends_every_wait_and_what_can_be_delivered_is() {
    let hook = Rude::start(|nth, _| status(if nth == 0 { 503 } else { 200 })).await.unwrap();
    let scene = Scene::new(20);
    let slow = Endpoint { retry_first: HOUR, retry_most: HOUR, ..endpoint(hook.address) };
    let (_orders, ordered) = watch::channel(orders(slow));
    let (stop, stopped) = watch::channel(false);
    let delivery = tokio::spawn(scene.worker(ordered, stopped).run(LONG));
    until(|| scene.status().state == DeliveryState::Retrying).await;
    stop.send(true).unwrap();
    delivery.await.unwrap();
    scene.assert(20, &[]);
}

#[tokio::test]
async fn frames_are_sent_as_they_come() {
    let hook = Rude::start(|_, _| status(200)).await.unwrap();
    let scene = Scene::new(0);
    let (_orders, ordered) = watch::channel(orders(endpoint(hook.address)));
    let (stop, stopped) = watch::channel(false);
    let delivery = tokio::spawn(scene.worker(ordered, stopped).run(LONG));
    for nth in 0..20 {
        let count = Count::line(&record(nth));
        scene.ledger.queued(count);
        scene.ledger.writing(count);
        scene.ledger.stored(count);
        append(&scene.spool, &[nth]);
        if nth % 3 == 0 {
            until(|| hook.seen().len() > nth).await;
        }
    }
    stop.send(true).unwrap();
    delivery.await.unwrap();
    scene.assert(20, &[]);
    assert_eq!(taken(&hook), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn another_endpoint_ends_the_wait_and_gets_what_waited() {
    let old = Rude::start(|_, _| status(404)).await.unwrap();
    let new = Rude::start(|_, _| status(200)).await.unwrap();
    let scene = Scene::new(40);
    let slow = Endpoint { retry_first: HOUR, retry_most: HOUR, ..endpoint(old.address) };
    let (order, ordered) = watch::channel(orders(slow));
    let (_stop, stop) = watch::channel(true);
    let delivery = tokio::spawn(scene.worker(ordered, stop).run(LONG));
    until(|| scene.status().state == DeliveryState::Held).await;
    let token = TokenSource::Given(Secret::new("Bearer new"));
    // Another shape as well: it takes effect when the frame that is on its way has arrived.
    order.send(orders(Endpoint { token, requests_in_flight: 4, ..endpoint(new.address) })).unwrap();
    delivery.await.unwrap();
    scene.assert(40, &[]);
    assert_eq!((old.seen().len(), new.seen()[0].key()), (1, old.seen()[0].key()), "the same batch, to another place");
    assert_eq!(numbers(&new.seen()[0]), (0..8).collect::<Vec<_>>());
    assert!(new.seen().len() > 5, "later frames went in parts");
    assert!(new.seen().iter().all(|request| request.header("Authorization") == Some("Bearer new")));
}

#[tokio::test]
async fn switched_off_nothing_is_sent_and_nothing_is_lost() {
    let hook = Rude::start(|_, _| status(200)).await.unwrap();
    let scene = Scene::new(20);
    let on = orders(endpoint(hook.address));
    let off = Orders { webhook: Arc::clone(&on.webhook), enabled: false };
    let (order, ordered) = watch::channel(off.clone());
    let (stop, stopped) = watch::channel(false);
    let delivery = tokio::spawn(scene.worker(ordered.clone(), stopped.clone()).run(LONG));
    until(|| scene.status().state == DeliveryState::Disabled).await;
    order.send(on.clone()).unwrap();
    until(|| hook.seen().len() == 3 && scene.books().delivered.records == 20).await;
    assert_eq!(scene.status().state, DeliveryState::Ok);

    order.send(off).unwrap();
    until(|| scene.status().state == DeliveryState::Disabled).await;
    append(&scene.spool, &[20]);
    stop.send(true).unwrap();
    let ended = delivery.await.unwrap();
    assert_eq!((ended.undelivered.records, hook.seen().len()), (0, 3));
    assert_eq!(scene.spool.waiting("default").records, 1);
}
