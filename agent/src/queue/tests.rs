use super::*;
use proptest::prelude::*;

const SOON: BatchLimits = BatchLimits { records: 3, bytes: 1000, delay: Duration::ZERO };

fn small() -> (Producer, Consumer) {
    queue(Limits { records: 3, bytes: 10 })
}

fn line(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn count(records: u64, bytes: u64) -> Count {
    Count { records, bytes }
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_it() {
    let (producer, mut consumer) = small();
    assert!(producer.push(line("aaaa")));
    assert!(producer.push(line("bbbb")));
    assert!(!producer.push(line("ccc")), "11 bytes would wait");
    assert!(producer.push(line("dd")));
    assert!(!producer.push(line("")), "4 records would wait");
    let ledger = producer.view().ledger();
    assert_eq!((ledger.made, ledger.queued, ledger.dropped.queue_full), (count(5, 13), count(3, 10), count(2, 3)));
    assert_eq!(consumer.take(SOON), Some(vec![line("aaaa"), line("bbbb"), line("dd")]));
    assert!(producer.push(line("e")));
    assert!(producer.view().ledger().balances());
}

#[test]
fn a_batch_ends_at_its_limits_and_a_long_record_goes_alone() {
    let (producer, mut consumer) = queue(Limits { records: 10, bytes: 100 });
    for text in ["a", "b", "long long long", "c", "d", "e"] {
        assert!(producer.push(line(text)));
    }
    let limits = BatchLimits { records: 2, bytes: 8, delay: Duration::ZERO };
    let mut batches = Vec::new();
    while let Some(batch) = consumer.take(limits) {
        batches.push(batch);
    }
    let expected = [vec!["a", "b"], vec!["long long long"], vec!["c", "d"], vec!["e"]];
    assert_eq!(batches, expected.map(|batch| batch.into_iter().map(line).collect::<Vec<_>>()));
}

#[tokio::test]
async fn the_end_comes_after_the_last_producer_and_the_last_record() {
    let (producer, mut consumer) = small();
    let second = producer.clone();
    assert!(producer.push(line("a")));
    drop(producer);
    assert!(second.push(line("b")));
    drop(second);
    let patient = BatchLimits { delay: Duration::from_secs(3600), ..SOON };
    assert_eq!(consumer.next_batch(patient).await, Some(vec![line("a"), line("b")]));
    assert_eq!(consumer.next_batch(patient).await, None);
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_its_delay() {
    let (producer, mut consumer) = small();
    let patient = BatchLimits { delay: Duration::from_secs(3600), ..SOON };
    let waiting = tokio::spawn(async move { consumer.next_batch(patient).await });
    for text in ["a", "b", "c"] {
        assert!(producer.push(line(text)));
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap(), Some(vec![line("a"), line("b"), line("c")]));
}

#[test]
fn after_the_end_everything_is_dropped_for_its_cause() {
    let (producer, mut consumer) = small();
    for text in ["a", "b", "c"] {
        assert!(producer.push(line(text)));
    }
    consumer.take(BatchLimits { records: 1, ..SOON });
    assert_eq!(consumer.close(DropCause::Shutdown), count(3, 3));
    assert!(!producer.push(line("d")));
    let ledger = producer.view().ledger();
    assert_eq!((ledger.dropped.shutdown, ledger.dropped.queue_full), (count(4, 4), count(0, 0)));
    assert!(ledger.balances());
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Take(usize, u64),
    Deliver,
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6usize).prop_map(Step::Push),
        (1..4usize, 1..12u64).prop_map(|(records, bytes)| Step::Take(records, bytes)),
        Just(Step::Deliver),
        (0..DropCause::ALL.len()).prop_map(Step::Drop),
    ]
}

proptest! {
    /// Against a plain list: order, both limits, and a ledger that balances after every step.
    #[test]
    fn it_behaves_like_its_model(steps in proptest::collection::vec(step(), 0..60)) {
        let (producer, mut consumer) = small();
        let mut model: Vec<Bytes> = Vec::new();
        let mut taken: Vec<Vec<Bytes>> = Vec::new();
        let mut delivered = Count::default();
        for (nth, step) in (0u8..).zip(steps) {
            match step {
                Step::Push(len) => {
                    let line = Bytes::from(vec![nth; len]);
                    let fits = model.len() < 3 && Count::of(&model).bytes + len as u64 <= 10;
                    prop_assert_eq!(producer.push(line.clone()), fits);
                    model.extend(fits.then_some(line));
                }
                Step::Take(records, bytes) => match consumer.take(BatchLimits { records, bytes, ..SOON }) {
                    None => prop_assert!(model.is_empty()),
                    Some(batch) => {
                        let rest = model.split_off(batch.len());
                        prop_assert_eq!(&batch, &model);
                        prop_assert!(batch.len() == 1 || (batch.len() <= records));
                        let size = Count::of(&batch).bytes + batch.len() as u64;
                        prop_assert!(batch.len() == 1 || size <= bytes);
                        model = rest;
                        taken.push(batch);
                    }
                },
                Step::Deliver => if let Some(batch) = taken.pop() {
                    delivered = delivered.plus(Count::of(&batch));
                    consumer.delivered(Count::of(&batch));
                },
                Step::Drop(cause) => if let Some(batch) = taken.pop() {
                    consumer.dropped(DropCause::ALL[cause], Count::of(&batch));
                },
            }
            let ledger = producer.view().ledger();
            prop_assert!(ledger.balances());
            prop_assert_eq!(ledger.queued, Count::of(&model));
            prop_assert_eq!(ledger.in_flight, Count::of(&taken.concat()));
            prop_assert_eq!(ledger.delivered, delivered);
        }
    }
}
