//! Delivery against a small model: whatever the webhook does and however often the worker is started anew, each record
//! arrives, or is counted with its cause; by the key each arrives once, and connections stay in order.

use crate::lanes::by_connection;
use crate::support::{FRAME, LONG, Scene, endpoint, numbers, orders, taken};
use proptest::prelude::*;
use s3auditd::config::Order;
use s3auditd::config::endpoint::Endpoint;
use s3auditd::ledger::{DropCause, Ledger};
use s3auditd_tests::webhook::rude::{Reply, Rude, status};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone, Debug)]
struct Case {
    records: usize,
    /// What the requests meet, in turn and over again; it always holds an [`Outcome::Fair`].
    outcomes: Vec<Outcome>,
    poison: BTreeSet<usize>,
    /// A request with more records is too large.
    most_records: usize,
    /// After so many requests the worker is cut off and another one starts.
    restarts: Vec<usize>,
    requests_in_flight: usize,
    keep_order: Order,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// By what is in it.
    Fair,
    Busy,
    Held,
    Lost,
    Reset,
}

fn case() -> impl Strategy<Value = Case> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Fair),
        1 => Just(Outcome::Busy),
        1 => Just(Outcome::Held),
        1 => Just(Outcome::Lost),
        1 => Just(Outcome::Reset),
    ];
    let order = prop_oneof![Just(Order::Connection), Just(Order::None)];
    (
        1usize..100,
        prop::collection::vec(outcome, 0..12),
        prop::collection::btree_set(0usize..100, 0..6),
        1usize..10,
        prop::collection::vec(1usize..15, 0..4),
        1usize..5,
        order,
    )
        .prop_map(|(records, mut outcomes, poison, most_records, restarts, requests_in_flight, keep_order)| {
            outcomes.push(Outcome::Fair);
            let poison = poison.into_iter().filter(|number| *number < records).collect();
            Case { records, outcomes, poison, most_records, restarts, requests_in_flight, keep_order }
        })
}

async fn play(case: Case) {
    let of_hook = case.clone();
    let hook = Rude::start(move |nth, request| {
        let numbers = numbers(request);
        let fair = if numbers.len() > of_hook.most_records {
            413
        } else if numbers.iter().any(|number| of_hook.poison.contains(number)) {
            400
        } else {
            200
        };
        match of_hook.outcomes[nth % of_hook.outcomes.len()] {
            // What would be refused is not taken, whatever becomes of the reply.
            Outcome::Lost if fair == 200 => Reply::Lost,
            Outcome::Fair | Outcome::Lost => status(fair),
            Outcome::Busy => status(503),
            Outcome::Held => status(401),
            Outcome::Reset => Reply::Reset,
        }
    })
    .await
    .unwrap();
    let to = Endpoint {
        requests_in_flight: case.requests_in_flight,
        keep_order: case.keep_order,
        retry_first: Duration::from_micros(50),
        retry_most: Duration::from_micros(100),
        ..endpoint(hook.address)
    };
    let mut scene = Scene::new(case.records);
    let (mut delivered, mut restarts) = (0, case.restarts.iter());
    loop {
        let (_orders, ordered) = watch::channel(orders(to.clone()));
        // Cut off after so many more requests, or left alone to the end.
        let cut_at = restarts.next().map(|more| hook.seen().len() + more);
        let (stop, stopped) = watch::channel(cut_at.is_none());
        let drain = if cut_at.is_some() { Duration::ZERO } else { LONG };
        let mut worker = tokio::spawn(scene.worker(ordered, stopped).run(drain));
        let ended = loop {
            tokio::select! {
                ended = &mut worker => break ended.unwrap(),
                () = tokio::time::sleep(Duration::from_micros(100)) => {}
            }
            assert!(scene.ledger.books().balances(), "{:?}", scene.ledger.books());
            let settled = scene.books().waiting.records + scene.books().in_flight.records == 0;
            if settled || cut_at.is_some_and(|at| hook.seen().len() >= at) {
                stop.send_replace(true);
            }
        };
        let books = scene.books();
        assert_eq!((books.in_flight.records, ended.cause), (0, DropCause::Shutdown));
        delivered += books.delivered.records;
        if cut_at.is_none() {
            break;
        }
        // The daemon starts anew: the books begin with what the spool still has.
        scene.ledger = Ledger::default();
        scene.ledger.begin("default", scene.spool.waiting("default"));
        scene.stats = Arc::default();
    }
    assert_eq!(scene.spool.waiting("default").records, 0);

    let mut arrived = taken(&hook);
    if case.keep_order == Order::Connection {
        assert!(by_connection(&arrived).values().all(|numbers| numbers.is_sorted()), "{arrived:?}");
    }
    if case.requests_in_flight == 1 {
        assert!(arrived.is_sorted(), "{arrived:?}");
    }
    arrived.sort_unstable();
    let expected: Vec<_> = (0..case.records).filter(|number| !case.poison.contains(number)).collect();
    assert_eq!(arrived, expected, "by the key each exactly once");
    assert!(delivered >= expected.len() as u64);
    let told: BTreeSet<u64> = scene.spool.given_up().iter().flat_map(|told| told.first..=told.last).collect();
    let poison = case.poison.iter().map(|number| *number as u64).collect();
    assert_eq!(told, poison, "and the stream tells of the others");
    assert!(hook.seen().iter().all(|request| numbers(request).len() <= FRAME));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_record_arrives_or_is_counted(case in case()) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(play(case));
    }
}
