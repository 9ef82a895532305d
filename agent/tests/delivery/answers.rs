//! Every row of the table of answers.

use crate::support::{Scene, deliver, endpoint, numbers, one_batch, orders, taken, until};
use s3auditd::config::endpoint::Endpoint;
use s3auditd::config::token::{Secret, TokenSource};
use s3auditd::deliver::stats::DeliveryState;
use s3auditd::ledger::DropCause;
use s3auditd_tests::webhook::rude::{Reply, Rude, answer, status};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

fn splunk(status: u16, code: u64) -> Reply {
    answer(status, "", &format!("{{\"text\":\"Whatever\",\"code\":{code}}}"))
}

#[tokio::test]
async fn whatever_does_not_refuse_a_record_brings_the_same_batch_again() {
    let busy = [408, 425, 429, 500, 502, 503, 504].map(status);
    let busy = busy.into_iter().chain([8, 9, 18, 19, 20, 23].map(|code| splunk(503, code)));
    let wrong = [301, 302, 307, 401, 403, 404, 405, 410, 415, 501].map(status);
    let wrong = wrong.into_iter().chain([1, 2, 3, 4, 7, 10, 11, 14, 16].map(|code| splunk(400, code)));
    let script: Vec<_> = busy.chain(wrong).collect();
    let tries = script.len();
    let hook = Rude::start(move |nth, _| script.get(nth).cloned().unwrap_or_else(|| status(200))).await.unwrap();
    let scene = deliver(endpoint(hook.address), 8).await;
    scene.assert(8, &[]);
    assert!(hook.seen().len() == tries + 1 && one_batch(&hook.seen()));
    let status = scene.status();
    assert_eq!((status.batches, status.retries, status.splits, status.state), (1, tries as u64, 0, DeliveryState::Ok));
    assert_eq!(status.last_error.as_deref(), Some("HTTP 400, Splunk code 16"));
}

#[tokio::test]
async fn a_wish_to_wait_is_obeyed_up_to_its_cap() {
    let hook = Rude::start(|nth, _| match nth {
        0 => answer(429, "Retry-After: 3600\r\n", ""),
        1 => answer(503, "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT\r\n", ""),
        2 => answer(429, "Retry-After: soon\r\n", ""),
        _ => status(200),
    })
    .await
    .unwrap();
    deliver(endpoint(hook.address), 8).await.assert(8, &[]);
    assert!(hook.seen().len() == 4 && one_batch(&hook.seen()));
}

#[tokio::test]
async fn a_413_halves_the_batch_until_it_fits_and_drops_what_never_does() {
    let hook = Rude::start(|_, request| {
        let numbers = numbers(request);
        status(if numbers.len() > 2 || numbers.contains(&7) { 413 } else { 200 })
    })
    .await
    .unwrap();
    let scene = deliver(endpoint(hook.address), 8).await;
    scene.assert(7, &[(DropCause::TooLarge, 1)]);
    let seen: Vec<_> = hook.seen().iter().map(numbers).collect();
    let expected: [&[usize]; 9] =
        [&[0, 1, 2, 3, 4, 5, 6, 7], &[0, 1, 2, 3], &[0, 1], &[2, 3], &[4, 5, 6, 7], &[4, 5], &[6, 7], &[6], &[7]];
    assert_eq!(seen, expected);
    let keys: BTreeSet<_> = hook.seen().iter().map(|request| request.key().to_owned()).collect();
    assert_eq!(keys.len(), 9, "every part has a key of its own");
    assert_eq!(scene.status().splits, 4);
}

#[tokio::test]
async fn a_refused_record_is_found_and_all_others_are_delivered_in_order() {
    let refusals = [status(400), status(422)].into_iter().chain([5, 6, 12, 13, 15].map(|code| splunk(400, code)));
    for refusal in refusals {
        let hook =
            Rude::start(move |_, request| if numbers(request).contains(&5) { refusal.clone() } else { status(200) })
                .await
                .unwrap();
        let scene = deliver(endpoint(hook.address), 12).await;
        scene.assert(11, &[(DropCause::Poison, 1)]);
        assert_eq!(taken(&hook), (0..12).filter(|number| *number != 5).collect::<Vec<_>>());
        assert_eq!(scene.status().state, DeliveryState::Ok);
        let told = scene.spool.given_up();
        assert_eq!((told[0].cause, told[0].first, told[0].last, told[0].records), (DropCause::Poison, 5, 5, 1));
        assert_eq!((told[0].instance_id.as_str(), told[0].reader.as_deref()), ("instance", Some("default")));
    }
}

#[tokio::test]
async fn a_split_part_keeps_its_own_key_on_its_own_retries() {
    let hook = Rude::start(|nth, _| status([413, 500, 503, 200, 429, 200][nth])).await.unwrap();
    deliver(endpoint(hook.address), 2).await.assert(2, &[]);
    let seen = hook.seen();
    assert!(one_batch(&seen[1..4]) && one_batch(&seen[4..6]));
    assert!(seen[0].key() != seen[1].key() && seen[1].key() != seen[4].key());
}

#[tokio::test]
async fn a_401_holds_everything_until_the_token_file_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Splunk old\n").unwrap();
    let path = file.path().to_owned();
    let hook = Rude::start(move |nth, request| {
        if nth == 3 {
            std::fs::write(&path, "Splunk new\n").unwrap();
        }
        let good = request.header("Authorization") == Some("Splunk new");
        status(if good { 200 } else { [401, 403][nth % 2] })
    })
    .await
    .unwrap();
    let token = TokenSource::File(file.path().to_owned());
    let scene = deliver(Endpoint { token, ..endpoint(hook.address) }, 5).await;
    scene.assert(5, &[]);
    let seen = hook.seen();
    assert!(seen.len() == 5 && one_batch(&seen));
    let tokens: Vec<_> = seen.iter().map(|request| request.header("Authorization").unwrap()).collect();
    assert_eq!(tokens, ["Splunk old", "Splunk old", "Splunk old", "Splunk old", "Splunk new"]);
    assert_eq!(scene.status().retries, 4);
}

#[tokio::test]
async fn a_token_file_that_goes_away_leaves_the_old_token_and_drops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "Splunk one").unwrap();
    let remove = path.clone();
    let hook = Rude::start(move |nth, _| {
        if nth == 0 {
            std::fs::remove_file(&remove).unwrap();
        }
        status(if nth < 3 { 401 } else { 200 })
    })
    .await
    .unwrap();
    deliver(Endpoint { token: TokenSource::File(path), ..endpoint(hook.address) }, 1).await.assert(1, &[]);
    assert!(hook.seen().iter().all(|request| request.header("Authorization") == Some("Splunk one")));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_holds_everything() {
    let other = Rude::start(|_, _| status(200)).await.unwrap();
    let location = format!("Location: http://{}/\r\n", other.address);
    let hook = Rude::start(move |nth, _| if nth < 3 { answer(302, &location, "") } else { status(200) }).await.unwrap();
    let token = TokenSource::Given(Secret::new("Bearer x"));
    deliver(Endpoint { token, ..endpoint(hook.address) }, 5).await.assert(5, &[]);
    assert!(hook.seen().len() == 4 && one_batch(&hook.seen()));
    assert_eq!(other.connections(), 0, "the token went nowhere else");
}

/// The sixteen that could have been bad records are given up; then it is plain that the records are not what is wrong.
#[tokio::test]
async fn a_webhook_that_refuses_everything_costs_sixteen_records_and_no_more() {
    let hook = Rude::start(|_, _| status(400)).await.unwrap();
    let scene = Scene::new(40);
    let (_orders, ordered) = watch::channel(orders(endpoint(hook.address)));
    let (stop, stopped) = watch::channel(false);
    let delivery = tokio::spawn(scene.worker(ordered, stopped).run(Duration::from_millis(20)));
    let last = || hook.seen().last().map(numbers);
    until(|| last() == Some(vec![16])).await;
    let refused = hook.seen().len();
    until(|| hook.seen().len() > refused + 5).await;
    assert_eq!(scene.status().state, DeliveryState::Held);
    stop.send(true).unwrap();
    let ended = delivery.await.unwrap();
    let books = scene.books();
    assert_eq!((books.dropped.of(DropCause::Poison).records, ended.undelivered.records), (16, 8));
    assert_eq!((books.waiting.records, scene.spool.waiting("default").records), (24, 24));
    assert!(one_batch(&hook.seen()[refused..]), "the seventeenth is tried again and again");
}
