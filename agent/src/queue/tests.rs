use super::*;
use proptest::prelude::*;

const SOON: BatchLimits = BatchLimits { records: 3, bytes: 1000, delay: Duration::ZERO };

fn small() -> (Producer, Consumer, Ledger) {
    let ledger = Ledger::default();
    let (producer, consumer) = queue(Limits { records: 3, bytes: 10 }, ledger.clone());
    (producer, consumer, ledger)
}

fn entry(text: impl Into<Bytes>) -> Entry {
    Entry { line: text.into(), sequence: 0, time_ns: 0, announces: Vec::new(), last: false }
}

fn lines(batch: Vec<Entry>) -> Vec<Bytes> {
    batch.into_iter().map(|entry| entry.line).collect()
}

fn count(records: u64, bytes: u64) -> Count {
    Count { records, bytes }
}

#[test]
fn a_full_queue_says_so_and_books_what_is_refused() {
    let (producer, mut consumer, ledger) = small();
    producer.push(entry("aaaa"));
    assert!(producer.room().is_any());
    producer.push(entry("bbbbbbb"));
    assert!(!producer.room().is_any(), "11 bytes wait");
    assert_eq!(producer.refuse(), DropCause::QueueFull);
    consumer.take(SOON);
    for _ in 0..3 {
        assert!(producer.room().is_any());
        producer.push(entry(""));
    }
    assert!(!producer.room().is_any(), "3 records wait");
    producer.push(entry("one that has to be said"));
    let books = ledger.books();
    assert_eq!((books.made, books.queued, books.dropped.queue_full), (count(7, 34), count(4, 23), count(1, 0)));
    assert!(books.balances());
}

#[test]
fn a_batch_ends_at_its_limits_and_a_long_record_goes_alone() {
    let (producer, mut consumer) = queue(Limits { records: 10, bytes: 100 }, Ledger::default());
    for text in ["a", "b", "long long long", "c", "d", "e"] {
        producer.push(entry(text));
    }
    let limits = BatchLimits { records: 2, bytes: 8, delay: Duration::ZERO };
    let mut batches = Vec::new();
    while let Some(batch) = consumer.take(limits) {
        batches.push(lines(batch));
    }
    let expected = [vec!["a", "b"], vec!["long long long"], vec!["c", "d"], vec!["e"]];
    assert_eq!(batches, expected.map(|batch| batch.into_iter().map(Bytes::from).collect::<Vec<_>>()));
}

#[tokio::test]
async fn the_end_comes_after_the_last_record() {
    let (producer, mut consumer, _) = small();
    producer.push(entry("a"));
    drop(producer);
    let patient = BatchLimits { delay: Duration::from_secs(3600), ..SOON };
    assert_eq!(consumer.next_batch(patient).await.map(lines), Some(vec![Bytes::from("a")]));
    assert_eq!(consumer.next_batch(patient).await, None);
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_its_delay() {
    let (producer, mut consumer, _) = small();
    let patient = BatchLimits { delay: Duration::from_secs(3600), ..SOON };
    let waiting = tokio::spawn(async move { consumer.next_batch(patient).await });
    for text in ["a", "b", "c"] {
        producer.push(entry(text));
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap().map(lines), Some(["a", "b", "c"].map(Bytes::from).to_vec()));
}

#[test]
fn after_the_end_everything_is_dropped_for_its_cause() {
    let (producer, mut consumer, ledger) = small();
    for text in ["a", "b", "c"] {
        producer.push(entry(text));
    }
    consumer.take(BatchLimits { records: 1, ..SOON });
    ledger.stored(count(1, 1));
    assert_eq!(consumer.close(DropCause::Shutdown), count(2, 2));
    assert!(!producer.room().is_any());
    producer.push(entry("d"));
    assert_eq!(producer.refuse(), DropCause::Shutdown);
    let books = ledger.books();
    assert_eq!((books.dropped.shutdown, books.dropped.queue_full), (count(4, 3), count(0, 0)));
    assert!(books.balances());
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize),
    Take(usize, u64),
    Store,
    Fail(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6usize).prop_map(Step::Offer),
        (1..4usize, 1..12u64).prop_map(|(records, bytes)| Step::Take(records, bytes)),
        Just(Step::Store),
        (0..DropCause::ALL.len()).prop_map(Step::Fail),
    ]
}

proptest! {
    /// Against a plain list: order, both limits, and a ledger that balances after every step.
    #[test]
    fn it_behaves_like_its_model(steps in proptest::collection::vec(step(), 0..60)) {
        let (producer, mut consumer, ledger) = small();
        let mut model: Vec<Entry> = Vec::new();
        let mut taken: Vec<Vec<Entry>> = Vec::new();
        let mut stored = Count::default();
        for (nth, step) in (0u8..).zip(steps) {
            match step {
                Step::Offer(len) => {
                    let entry = entry(vec![nth; len]);
                    let fits = model.len() < 3 && Entry::count_all(&model).bytes < 10;
                    prop_assert_eq!(producer.room().is_any(), fits);
                    if fits {
                        producer.push(entry.clone());
                        model.push(entry);
                    } else {
                        producer.refuse();
                    }
                }
                Step::Take(records, bytes) => match consumer.take(BatchLimits { records, bytes, ..SOON }) {
                    None => prop_assert!(model.is_empty()),
                    Some(batch) => {
                        let rest = model.split_off(batch.len());
                        prop_assert_eq!(&batch, &model);
                        prop_assert!(batch.len() == 1 || (batch.len() <= records));
                        let size = Entry::count_all(&batch).bytes + batch.len() as u64;
                        prop_assert!(batch.len() == 1 || size <= bytes);
                        model = rest;
                        taken.push(batch);
                    }
                },
                Step::Store => if let Some(batch) = taken.pop() {
                    stored = stored.plus(Entry::count_all(&batch));
                    ledger.stored(Entry::count_all(&batch));
                },
                Step::Fail(cause) => if let Some(batch) = taken.pop() {
                    ledger.not_stored(DropCause::ALL[cause], Entry::count_all(&batch));
                },
            }
            let books = ledger.books();
            prop_assert!(books.balances());
            prop_assert_eq!(books.queued, Entry::count_all(&model));
            prop_assert_eq!(books.writing, Entry::count_all(&taken.concat()));
            prop_assert_eq!(books.stored, stored);
        }
    }
}
