//! What a request carries.

use crate::support::{deliver, endpoint, numbers, taken};
use s3auditd::config::endpoint::Endpoint;
use s3auditd::config::token::{Secret, TokenSource};
use s3auditd::config::{Access, Compression, Proxy};
use s3auditd::deliver::stats::DeliveryState;
use s3auditd::deliver::webhook::Webhook;
use s3auditd_tests::webhook::rude::{Rude, answer, status};

#[tokio::test]
async fn a_request_carries_what_the_receiver_needs() {
    let hook = Rude::start(|_, _| status(200)).await.unwrap();
    let token = TokenSource::Given(Secret::new("Splunk 0-1"));
    let scene = deliver(Endpoint { token, ..endpoint(hook.address) }, 10).await;
    scene.assert(10, &[]);
    let seen = hook.seen();
    assert_eq!(seen.iter().map(numbers).collect::<Vec<_>>(), [(0..8).collect::<Vec<_>>(), vec![8, 9]]);
    assert!(seen[0].body.ends_with("}\n"));
    assert_eq!(seen[0].line(), "POST /hook?a=b");
    assert_eq!(seen[0].header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(seen[0].header("Content-Encoding"), None);
    assert_eq!(seen[0].header("X-Splunk-Request-Channel"), None);
    assert_eq!(seen[0].header("Authorization"), Some("Splunk 0-1"));
    assert_eq!(seen[0].header("User-Agent"), Some(concat!("s3auditd/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen[0].key().parse::<uuid::Uuid>().unwrap().get_version_num(), 7, "a whole frame has the frame's key");
    assert_ne!(seen[0].key(), seen[1].key());
    assert_eq!(hook.connections(), 1, "the connection is kept");
    let status = scene.status();
    assert_eq!((status.batches, status.retries, status.state), (2, 0, DeliveryState::Ok));
    assert!(status.last_success.is_some());
}

#[tokio::test]
async fn packed_bodies_arrive_as_the_same_lines() {
    for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let hook = Rude::start(|nth, _| status(if nth == 0 { 503 } else { 200 })).await.unwrap();
        deliver(Endpoint { compression, ..endpoint(hook.address) }, 20).await.assert(20, &[]);
        assert_eq!(taken(&hook), (0..20).collect::<Vec<_>>());
        assert!(hook.seen().iter().all(|request| request.header("Content-Encoding") == Some(name)));
    }
}

#[tokio::test]
async fn what_the_filter_keeps_back_is_counted_and_never_sent() {
    let hook = Rude::start(|_, _| status(200)).await.unwrap();
    let mut only = endpoint(hook.address);
    only.filter.buckets = vec!["b1".to_owned()];
    let scene = deliver(only.clone(), 20).await;
    assert_eq!((scene.books().filtered.records, scene.books().delivered.records), (10, 10));
    scene.assert(10, &[]);
    assert_eq!(taken(&hook), (0..20).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    assert_eq!(hook.seen()[0].key().parse::<uuid::Uuid>().unwrap().get_version_num(), 8, "a part has its own key");

    only.filter.access = Access::Read;
    let scene = deliver(only, 20).await;
    assert_eq!((scene.books().filtered.records, hook.seen().len()), (20, 3), "frames without a record are not sent");
}

#[tokio::test]
async fn a_proxy_gets_the_whole_url() {
    let proxy = Rude::start(|_, _| status(200)).await.unwrap();
    let to = Proxy::Url(format!("http://{}", proxy.address).parse().unwrap());
    deliver(Endpoint { proxy: to, ..endpoint("splunk.invalid:8088") }, 8).await.assert(8, &[]);
    assert_eq!(proxy.seen()[0].line(), "POST http://splunk.invalid:8088/hook?a=b");
}

#[tokio::test]
async fn to_verify_says_what_was_proven_and_sends_no_record() {
    let hook = Rude::start(|nth, _| match nth {
        0 => status(405),
        1 => status(401),
        2 => answer(302, "Location: http://127.0.0.1:1/\r\n", ""),
        _ => status(503),
    })
    .await
    .unwrap();
    let webhook = Webhook::open(endpoint(hook.address)).unwrap();
    let said = "HTTP 405 to OPTIONS: it is there; only records show whether it takes the token and the path";
    assert_eq!(webhook.verify().await.unwrap(), said);
    for why in ["HTTP 401: it refuses the token", "HTTP 302: it redirects", "HTTP 503: it is there, but not able"] {
        let error = webhook.verify().await.unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
    assert!(hook.seen().iter().all(|request| request.line() == "OPTIONS /hook?a=b" && request.body.is_empty()));
    drop(hook);
    assert!(webhook.verify().await.unwrap_err().contains("error sending request"));
}
