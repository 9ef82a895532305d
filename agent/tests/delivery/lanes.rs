//! Several requests at once.

use crate::support::{Scene, deliver, endpoint, numbers, taken};
use s3auditd::config::Order;
use s3auditd::config::endpoint::Endpoint;
use s3auditd::ledger::DropCause;
use s3auditd_tests::webhook::rude::{Reply, Rude, status};
use std::collections::BTreeMap;
use std::time::Duration;

/// By connection, in the order in which they were taken.
pub(crate) fn by_connection(taken: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut connections = BTreeMap::<_, Vec<_>>::new();
    for number in taken {
        connections.entry(number / 3 % 5).or_default().push(*number);
    }
    connections
}

#[tokio::test]
async fn the_records_of_a_connection_stay_in_order_whatever_happens_to_their_requests() {
    let hook = Rude::start(|nth, request| match nth * 7 % 11 {
        0 => status(500),
        // What would be refused is not taken, whatever becomes of the reply.
        1 if !numbers(request).contains(&31) => Reply::Lost,
        2 => Reply::Reset,
        3 => status(429),
        _ if numbers(request).contains(&31) => status(400),
        _ => status(200),
    })
    .await
    .unwrap();
    let scene = deliver(Endpoint { requests_in_flight: 4, ..endpoint(hook.address) }, 200).await;
    scene.assert(199, &[(DropCause::Poison, 1)]);
    let mut taken = taken(&hook);
    assert!(by_connection(&taken).values().all(|numbers| numbers.is_sorted()));
    taken.sort_unstable();
    assert_eq!(taken, (0..200).filter(|number| *number != 31).collect::<Vec<_>>());
    for request in hook.seen() {
        let same = hook.seen().into_iter().filter(|other| other.key() == request.key());
        assert!(same.into_iter().all(|other| other.body == request.body), "a key names one set of records");
    }
}

/// One request gets no answer until three others have come: only possible if they are on their way at once.
#[tokio::test]
async fn requests_are_on_their_way_at_once_without_any_order() {
    let hook = Rude::start(|nth, _| if nth == 0 { Reply::Silence } else { status(200) }).await.unwrap();
    let free = Endpoint {
        requests_in_flight: 4,
        keep_order: Order::None,
        request_timeout: Duration::from_secs(2),
        ..endpoint(hook.address)
    };
    deliver(free, 48).await.assert(48, &[]);
    let seen = hook.seen();
    let again = seen.iter().rposition(|request| request.key() == seen[0].key()).unwrap();
    assert!(again >= 4, "others went past the one that got no answer: {again}");
    let mut taken = taken(&hook);
    taken.sort_unstable();
    assert_eq!(taken, (0..48).collect::<Vec<_>>());
    assert!(seen.iter().all(|request| numbers(request).len() == 8), "frames stay whole");
}

#[tokio::test]
async fn what_is_sent_again_after_a_restart_has_the_same_keys() {
    let hook = Rude::start(|_, _| status(200)).await.unwrap();
    let four = Endpoint { requests_in_flight: 4, ..endpoint(hook.address) };
    deliver(four.clone(), 40).await.assert(40, &[]);
    let before = hook.taken().len();
    // The same frames, as if nothing of them had been settled.
    Scene::new(40).deliver(four).await;
    assert_eq!((hook.seen().len(), hook.taken().len()), (2 * before, before), "all of it was known already");
}
