//! From the queue into the spool: every batch becomes one frame, and what the spool gives up is passed on to be said.

use crate::ledger::{DropCause, Ledger};
use crate::notices::{Notice, Notices};
use crate::queue::{BatchLimits, Consumer, Entry};
use crate::spool::{Appended, GivenUp, Mark, Refused, Spool};
use crate::stream::chain::Sealed;
use crate::stream::gaps::RecordLoss;
use s3auditd_rebuild::record::event::{SequenceRange, Stage};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinError;
use uuid::Uuid;

/// How often is looked for what the spool has given up.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two attempts to put something into a spool in memory that is full.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// See the module.
pub struct Writer {
    /// Where records go.
    pub spool: Spool,
    /// Where each step is booked.
    pub ledger: Ledger,
    /// To the audit thread.
    pub notices: Notices,
    /// May change while it runs.
    pub limits: watch::Receiver<BatchLimits>,
    /// What numbers the records.
    pub instance_id: String,
    /// See `stream::boot_id`.
    pub boot_id: String,
}

impl Writer {
    /// Writes until the queue's producer is gone and the queue is empty, or until `stop` has been true for the time to
    /// drain. What is left then is dropped as [`DropCause::Shutdown`].
    pub async fn run(self, mut consumer: Consumer, stop: watch::Receiver<bool>, drain: Duration) {
        let told = tokio::spawn(tell(self.spool.clone(), self.notices.clone()));
        let mut stopped = stop.clone();
        let drained = async {
            let _gone = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            () = self.write(&mut consumer, stop) => {}
            () = drained => {}
        }
        consumer.close(DropCause::Shutdown);
        // Writing was cancelled between two frames, or while it waited for room: what it held is booked as on its way.
        self.ledger.not_stored(DropCause::Shutdown, self.ledger.books().writing);
        told.abort();
    }

    /// `hurry` turning true: batches do not wait until they are full any more.
    async fn write(&self, consumer: &mut Consumer, mut hurry: watch::Receiver<bool>) {
        loop {
            let limits = *self.limits.borrow();
            let at_once = BatchLimits { delay: Duration::ZERO, ..limits };
            let hurried = *hurry.borrow();
            let batch = if hurried {
                consumer.next_batch(at_once).await
            } else {
                tokio::select! {
                    batch = consumer.next_batch(limits) => batch,
                    _changed = hurry.wait_for(|hurry| *hurry) => consumer.next_batch(at_once).await,
                }
            };
            let Some(batch) = batch else { return };
            self.store(batch).await;
        }
    }

    async fn store(&self, batch: Vec<Entry>) {
        let count = Entry::count_all(&batch);
        let Some(last) = batch.last() else { return };
        let (first, records) = (batch.first().map_or(last.sequence, |first| first.sequence), count.records);
        let mark = Mark {
            instance_id: self.instance_id.clone(),
            boot_id: self.boot_id.clone(),
            sequence: last.sequence,
            time_ns: last.time_ns,
            chain: Sealed::chain_of(&last.line).map(|hash| hash.bytes()),
            stopped: last.last,
        };
        let announces: Vec<_> = batch.iter().flat_map(|entry| entry.announces.iter().copied()).collect();
        let lines: Arc<[_]> = batch.into_iter().map(|entry| entry.line).collect();
        let key = Uuid::now_v7();
        loop {
            let (spool, lines, mark, announces) = (self.spool.clone(), Arc::clone(&lines), mark.clone(), announces.clone());
            let append = move || spool.append(lines.to_vec(), key, mark, &announces);
            match whole(tokio::task::spawn_blocking(append).await) {
                Appended::Stored { dropped, .. } => {
                    self.ledger.stored(count);
                    for (endpoint, count) in dropped {
                        self.ledger.dropped_waiting(&endpoint, DropCause::SpoolFull, count);
                    }
                    return;
                }
                // Memory: the queue is what bounds it, so wait for room; the queue fills meanwhile, and says so.
                Appended::Refused(Refused::Full) if !self.spool.is_durable() => tokio::time::sleep(FULL_WAIT).await,
                Appended::Refused(why) => {
                    let cause = match why {
                        Refused::Full => DropCause::SpoolFull,
                        Refused::NoSpace => DropCause::NoSpace,
                        Refused::Io => DropCause::SpoolFailed,
                    };
                    self.ledger.not_stored(cause, count);
                    let sequences = vec![SequenceRange { first, last: mark.sequence, ..SequenceRange::default() }];
                    self.notices.put(Notice::Lost { loss: loss(cause, None, records, sequences), noted: None });
                    return;
                }
            }
        }
    }
}

/// Passes on what the spool has given up, each run once.
async fn tell(spool: Spool, notices: Notices) {
    let mut told = 0;
    loop {
        let hand_out = spool.clone();
        let given_up = whole(tokio::task::spawn_blocking(move || hand_out.hand_out()).await);
        for given_up in given_up {
            if given_up.id > told {
                told = given_up.id;
                notices.put(Notice::Lost { noted: Some(given_up.id), loss: of_spool(given_up) });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn of_spool(given_up: GivenUp) -> RecordLoss {
    let GivenUp { cause, reader, instance_id, first, last, records, .. } = given_up;
    let in_range = last.saturating_sub(first).saturating_add(1);
    let range = SequenceRange {
        instance_id: Some(instance_id),
        first,
        last,
        count: (in_range != records).then_some(records),
        previous: None,
    };
    loss(cause, reader.as_deref(), records, vec![range])
}

/// Which of the records told of operations is not known any more: none of them, or all.
fn loss(cause: DropCause, endpoint: Option<&str>, records: u64, sequences: Vec<SequenceRange>) -> RecordLoss {
    let now_ns = crate::capture::monotonic_ns();
    RecordLoss {
        stage: match cause.stage() {
            "delivery" => Stage::Delivery,
            "queue" => Stage::Queue,
            _ => Stage::Spool,
        },
        cause: cause.name(),
        endpoint: endpoint.map(Arc::from),
        records,
        operations_min: 0,
        operations_max: Some(records),
        sequences,
        first_ns: now_ns,
        last_ns: now_ns,
    }
}

/// A task that panicked takes this one along: what it held cannot be accounted for any more.
fn whole<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(ended) => ended,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
