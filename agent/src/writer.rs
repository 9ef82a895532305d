//! From the queue into the spool: every batch becomes one frame, and what the spool gives up is passed on to be said.

use crate::ledger::{Count, DropCause, Ledger};
use crate::notices::{Notice, Notices};
use crate::queue::{BatchLimits, Consumer, Entry};
use crate::spool::{Appended, GivenUp, Mark, RefusedCause, Spool};
use crate::stream::chain::Sealed;
use crate::stream::gaps::RecordLoss;
use crate::task::whole;
use s3auditd_rebuild::record::event::{SequenceRange, Stage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

/// Not more often is looked for what the spool has given up: runs that belong together are one by then.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And at least so often, should it have been found where nobody is told.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);

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
    /// Held while something is put into the spool, so that an endpoint which begins knows what waits for it.
    pub appending: Arc<Mutex<()>>,
    /// Every record of this instance below this number is in the spool, or was told as lost.
    pub kept_below: Arc<AtomicU64>,
    /// May change while it runs.
    pub limits: watch::Receiver<BatchLimits>,
    /// What numbers the records.
    pub instance_id: String,
    /// See `stream::boot_id`.
    pub boot_id: String,
    /// The last run that the spool had given up before it was opened: those are in nobody's book.
    pub given_up_before: u64,
}

impl Writer {
    /// Writes until the queue's producer is gone and the queue is empty, or until `stop` has been true for the time to
    /// drain. What is left then is dropped as [`DropCause::Shutdown`].
    pub async fn run(self, mut consumer: Consumer, stop: watch::Receiver<bool>, drain: Duration) {
        let told =
            tokio::spawn(tell(self.spool.clone(), self.ledger.clone(), self.notices.clone(), self.given_up_before));
        let mut stopped = stop.clone();
        let drained = async {
            turned(&mut stopped).await;
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
            // Not in the condition itself: its lock must not be held over the wait.
            let hurried = *hurry.borrow();
            let batch = if hurried {
                consumer.next_batch(at_once).await
            } else {
                tokio::select! {
                    batch = consumer.next_batch(limits) => batch,
                    () = turned(&mut hurry) => continue,
                }
            };
            let Some(batch) = batch else { return };
            self.store(batch).await;
        }
    }

    async fn store(&self, batch: Vec<Entry>) {
        let count = Entry::count_all(&batch);
        let [first, ..] = batch.as_slice() else { return };
        let Some(last) = batch.last() else { return };
        let (first, end, records) = (first.sequence, last.sequence, count.records);
        let mark = Mark {
            instance_id: self.instance_id.clone(),
            boot_id: self.boot_id.clone(),
            sequence: last.sequence,
            time_ns: last.time_ns,
            chain: Sealed::chain_of(&last.line).map(|hash| hash.as_str().to_owned()),
            stopped: last.last,
        };
        let announces: Vec<_> = batch.iter().flat_map(|entry| entry.announces.iter().copied()).collect();
        let lines: Arc<[_]> = batch.into_iter().map(|entry| entry.line).collect();
        let key = Uuid::now_v7();
        loop {
            let (spool, lines, mark, said) = (self.spool.clone(), Arc::clone(&lines), mark.clone(), announces.clone());
            let append = move || spool.append(lines.to_vec(), key, mark, &said);
            let appended = {
                let _alone = self.appending.lock().await;
                self.ledger.stored(count);
                let appended = whole(tokio::task::spawn_blocking(append).await);
                if let Appended::Refused(_) = appended {
                    self.ledger.withdrawn(count);
                }
                appended
            };
            match appended {
                Appended::Stored { dropped, .. } => {
                    self.kept_below.store(end.saturating_add(1), Ordering::Release);
                    for (endpoint, count) in dropped {
                        self.ledger.dropped_waiting(&endpoint, DropCause::SpoolFull, count);
                    }
                    return;
                }
                // Memory: the queue is what bounds it, so wait for room; the queue fills meanwhile, and says so.
                Appended::Refused(RefusedCause::Full) if !self.spool.is_durable() => {
                    tokio::time::sleep(FULL_WAIT).await
                }
                Appended::Refused(why) => {
                    let cause = match why {
                        RefusedCause::Full | RefusedCause::TooLarge => DropCause::SpoolFull,
                        RefusedCause::NoSpace => DropCause::NoSpace,
                        RefusedCause::Io => DropCause::SpoolFailed,
                    };
                    self.ledger.not_stored(cause, count);
                    let sequences = vec![SequenceRange { first, last: end, ..SequenceRange::default() }];
                    let loss = loss(cause, None, records, sequences);
                    self.notices.put(Notice::NotKept { loss, first, last: end, unsaid: announces });
                    return;
                }
            }
        }
    }
}

/// Returns once it is true, or has no sender any more.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _gone = flag.wait_for(|flag| *flag).await;
}

/// Passes on what the spool has given up, each run once.
async fn tell(spool: Spool, ledger: Ledger, notices: Notices, before: u64) {
    let (mut told, mut more) = (0, spool.watch_given_up());
    loop {
        more.mark_unchanged();
        let hand_out = spool.clone();
        let given_up = whole(tokio::task::spawn_blocking(move || hand_out.given_up()).await);
        for given_up in given_up {
            if given_up.id > told {
                told = given_up.id;
                // All others were booked by whoever gave them up; damage is found by the spool itself.
                if let (DropCause::Corrupt, Some(reader), true) = (given_up.cause, &given_up.reader, told > before) {
                    let count = Count { records: given_up.records, bytes: given_up.bytes };
                    ledger.dropped_waiting(reader, DropCause::Corrupt, count);
                }
                notices.put(Notice::Lost { noted: Some(given_up.id), loss: of_spool(given_up) });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        // The spool is held here, so it does not go away; if time is over, that is a reason to look as well.
        let _look = tokio::time::timeout(LOOK_AT_LEAST_EVERY, more.changed()).await;
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
