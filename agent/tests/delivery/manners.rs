//! Webhooks whose sockets misbehave.

use crate::support::{LONG, Scene, deliver, endpoint, one_batch, orders, taken, until};
use s3auditd::config::endpoint::Endpoint;
use s3auditd_tests::webhook::rude::{Reply, Rude, answer, closed_port, status};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::test]
async fn a_refused_connection_is_tried_until_somebody_listens() {
    let address = closed_port().await.unwrap();
    let scene = Scene::new(5);
    let (_orders, ordered) = watch::channel(orders(endpoint(address)));
    let (_stop, stop) = watch::channel(true);
    let delivery = tokio::spawn(scene.worker(ordered, stop).run(LONG));
    until(|| scene.status().retries > 3).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let hook = Rude::with(listener, |_, _| status(200), |_| false, None).unwrap();
    delivery.await.unwrap();
    scene.assert(5, &[]);
    assert_eq!(hook.seen().len(), 1);
    assert!(!scene.status().last_error.unwrap().contains("hook"), "the URL is not told");
}

#[tokio::test]
async fn no_answer_in_time_is_no_answer() {
    let hook = Rude::start(|nth, _| if nth < 2 { Reply::Silence } else { status(200) }).await.unwrap();
    let patience = Duration::from_millis(50);
    let scene = deliver(Endpoint { request_timeout: patience, ..endpoint(hook.address) }, 5).await;
    scene.assert(5, &[]);
    assert!(hook.seen().len() >= 3 && one_batch(&hook.seen()));
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_one() {
    let hook = Rude::start(|_, _| match answer(200, "X-Padding: something to be slow with\r\n", "a body") {
        Reply::Whole(code, text) => Reply::Slow(code, text),
        other => other,
    })
    .await
    .unwrap();
    deliver(endpoint(hook.address), 20).await.assert(20, &[]);
    assert_eq!(hook.seen().len(), 3);
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_request_takes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = Rude::with(listener, |_, _| status(200), |connection| connection < 3, None).unwrap();
    let scene = deliver(endpoint(hook.address), 16).await;
    scene.assert(16, &[]);
    assert_eq!((hook.connections(), hook.seen().len(), scene.status().retries), (4, 2, 3));
}

#[tokio::test]
async fn a_lost_reply_brings_the_same_batch_under_the_same_key() {
    let hook = Rude::start(|nth, _| [Reply::Lost, Reply::Reset, status(200), Reply::Lost, status(200)][nth].clone())
        .await
        .unwrap();
    deliver(endpoint(hook.address), 16).await.assert(16, &[]);
    let seen = hook.seen();
    assert!(seen.len() == 5 && one_batch(&seen[..3]) && one_batch(&seen[3..]));
    assert_eq!(seen.iter().filter(|request| request.taken).count(), 4, "two were taken twice");
    assert_eq!(taken(&hook), (0..16).collect::<Vec<_>>(), "by the key each is taken once");
}

#[tokio::test]
async fn a_reply_cut_in_its_head_is_no_reply_and_one_cut_in_its_body_is() {
    let hook = Rude::start(|nth, _| {
        let cut = ["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"][nth];
        Reply::Cut(cut, true)
    })
    .await
    .unwrap();
    deliver(endpoint(hook.address), 5).await.assert(5, &[]);
    assert!(hook.seen().len() == 3 && one_batch(&hook.seen()));
}

#[tokio::test]
async fn an_endless_reply_is_not_read_to_its_end() {
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let hook = Rude::start(move |nth, _| answer(if nth == 0 { 500 } else { 200 }, "", &long)).await.unwrap();
    deliver(endpoint(hook.address), 5).await.assert(5, &[]);
    assert_eq!(hook.seen().len(), 2);
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    let hook =
        Rude::start(|nth, _| if nth < 2 { Reply::Cut("220 mail.example.com ESMTP\r\n", false) } else { status(204) })
            .await
            .unwrap();
    deliver(endpoint(hook.address), 5).await.assert(5, &[]);
    assert!(hook.seen().len() == 3 && one_batch(&hook.seen()));
}
