//! One endpoint's delivery: frames from the spool in order, batches to the webhook, what is settled back to the spool.
//!
//! ```text
//! spool -> frame -> plan (filter, lanes) -> lane: batch, batch, ... -> carry -> delivered | split | refused -> settled
//! ```
//!
//! A lane is a queue of batches of which so many may be on their way. With one request at a time there is one lane. With
//! more and `keep_order = connection` each has a lane of its own, in which the records of a gateway connection stay in
//! order; with `keep_order = none` all requests serve one lane. The spool's cursor follows the oldest frame that is not
//! wholly settled, so what is sent again after a crash is bounded by how far is read ahead.

use super::batch::Batch;
use super::carry::{Carrier, Fate, Refusal, changed, stopped};
use super::dead_letter::{DeadLetter, Refused};
use super::plan::{Plan, plan};
use super::policy::Guard;
use super::stats::DeliveryStats;
use super::{Ended, Orders};
use crate::config::Order;
use crate::config::endpoint::Endpoint;
use crate::ledger::{Count, DropCause, Ledger};
use crate::spool::{Frame, GivenUp, Spool, SpoolError};
use crate::task::whole;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// See the module.
pub struct Worker {
    name: Arc<str>,
    spool: Spool,
    ledger: Ledger,
    stats: Arc<DeliveryStats>,
    dead_letter: Option<DeadLetter>,
    carrier: Carrier,
    orders: watch::Receiver<Orders>,
    stop: watch::Receiver<bool>,

    shape: Shape,
    lanes: Vec<Lane>,
    /// Taken and not wholly settled, oldest first.
    open: VecDeque<Open>,
    /// The last frame that was read.
    read: u64,
    /// Up to here everything is settled, and up to here the spool knows.
    settled: u64,
    told: u64,

    reading: JoinSet<Result<Option<(Frame, Plan)>, SpoolError>>,
    requests: JoinSet<(usize, Batch, Fate)>,
    /// Refused, and buried one at a time: in the order in which the webhook refused them.
    refused: VecDeque<(Batch, Refusal)>,
    burying: JoinSet<(Batch, DropCause)>,
    settling: JoinSet<Result<u64, SpoolError>>,
    refusals_logged: Option<Instant>,
}

/// How requests may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    lanes: usize,
    /// Requests of one lane on their way at once.
    each: usize,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Batch>,
    on_their_way: usize,
}

struct Open {
    number: u64,
    left: Count,
}

/// At most one log line about refused records in this time.
const LOG_REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Between two attempts to reach the spool.
const SPOOL_WAIT: Duration = Duration::from_secs(1);

impl Shape {
    fn of(endpoint: &Endpoint) -> Self {
        let requests = endpoint.requests_in_flight.max(1);
        match endpoint.keep_order {
            Order::Connection => Self { lanes: requests, each: 1 },
            Order::None => Self { lanes: 1, each: requests },
        }
    }

    /// Frames that may be open: enough that no request waits for another's frame to end, and few enough that a restart
    /// sends little twice.
    fn read_ahead(self) -> usize {
        2 * self.lanes * self.each - 1
    }
}

impl Worker {
    /// A worker that reads from the endpoint's cursor in the spool on. The endpoint's name must not change with the orders.
    #[must_use]
    pub fn new(
        spool: Spool,
        ledger: Ledger,
        stats: Arc<DeliveryStats>,
        dead_letter: Option<DeadLetter>,
        orders: watch::Receiver<Orders>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (name, shape): (Arc<str>, _) = {
            let orders = orders.borrow();
            stats.enabled(orders.enabled);
            let endpoint = orders.webhook.endpoint();
            (endpoint.name.as_str().into(), Shape::of(endpoint))
        };
        let carrier = Carrier {
            endpoint: Arc::clone(&name),
            stats: Arc::clone(&stats),
            guard: Arc::new(Guard::default()),
            orders: orders.clone(),
            stop: stop.clone(),
        };
        let cursor = spool.cursor(&name);
        Self {
            name,
            spool,
            ledger,
            stats,
            dead_letter,
            carrier,
            orders,
            stop,
            shape,
            lanes: lanes(shape),
            open: VecDeque::new(),
            read: cursor,
            settled: cursor,
            told: cursor,
            reading: JoinSet::new(),
            requests: JoinSet::new(),
            refused: VecDeque::new(),
            burying: JoinSet::new(),
            settling: JoinSet::new(),
            refusals_logged: None,
        }
    }

    /// Delivers until `stop` turns true (or its sender goes away) and the spool has nothing more for this endpoint, or
    /// `drain` has passed since then. What is not settled by then stays in the spool.
    ///
    /// So on shutdown: flush everything into the spool, set `stop`, await this. A worker that is switched off ends at once.
    pub async fn run(mut self, drain: Duration) -> Ended {
        let mut stop = self.stop.clone();
        let drained = async {
            stopped(&mut stop).await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = drained => {}
        }
        self.end().await
    }

    async fn work(&mut self) {
        let (mut stop, mut orders, mut newest) = (self.stop.clone(), self.orders.clone(), self.spool.watch());
        // Whether there may be a frame that was not read yet.
        let mut more = true;
        let mut stopping = false;
        loop {
            self.reshape();
            if more && self.may_read() {
                newest.mark_unchanged();
                self.start_reading(Duration::ZERO);
            }
            self.start_requests();
            self.start_settling();
            let enabled = orders.borrow().enabled;
            if stopping && (!enabled || (!more && self.open.is_empty())) {
                return;
            }
            // Every branch only takes a result, so none loses anything when another is faster.
            tokio::select! {
                Some(read) = self.reading.join_next() => match whole(read) {
                    Ok(Some((frame, plan))) => self.take(frame, plan),
                    Ok(None) => more = false,
                    Err(error) => {
                        self.spool_failed(&error);
                        self.start_reading(SPOOL_WAIT);
                    }
                },
                Some(request) = self.requests.join_next() => self.carried(whole(request)),
                Some(buried) = self.burying.join_next() => self.buried(whole(buried)),
                Some(settled) = self.settling.join_next() => self.settled(whole(settled)),
                () = changed(&mut newest), if !more => more = true,
                () = changed(&mut orders) => self.reordered(orders.borrow_and_update().enabled),
                () = stopped(&mut stop), if !stopping => {
                    stopping = true;
                    // What came just before the signal counts as well.
                    more = true;
                }
            }
        }
    }

    /// Other orders: what was refused so far says nothing of them.
    fn reordered(&self, enabled: bool) {
        self.carrier.guard.reset();
        self.stats.enabled(enabled);
        tracing::info!(endpoint = &*self.name, enabled, "delivery has new orders");
    }

    /// Lanes can be laid anew only when they are empty, or connections would overtake themselves.
    fn reshape(&mut self) {
        let shape = Shape::of(self.orders.borrow().webhook.endpoint());
        if shape != self.shape && self.open.is_empty() && self.reading.is_empty() {
            self.shape = shape;
            self.lanes = lanes(shape);
        }
    }

    fn may_read(&self) -> bool {
        let orders = self.orders.borrow();
        let fits = Shape::of(orders.webhook.endpoint()) == self.shape;
        fits && orders.enabled && self.reading.is_empty() && self.open.len() < self.shape.read_ahead()
    }

    fn start_reading(&mut self, wait: Duration) {
        let (spool, name, after) = (self.spool.clone(), Arc::clone(&self.name), self.read);
        let filter = self.orders.borrow().webhook.endpoint().filter.clone();
        let lanes = self.shape.lanes;
        self.reading.spawn(async move {
            tokio::time::sleep(wait).await;
            let read = move || {
                let frame = spool.next(&name, after)?;
                Ok(frame.map(|frame| {
                    let plan = plan(&frame.lines, &filter, lanes);
                    (frame, plan)
                }))
            };
            whole(tokio::task::spawn_blocking(read).await)
        });
    }

    fn take(&mut self, frame: Frame, plan: Plan) {
        let count = Count::of(&frame.lines);
        self.ledger.taken(&self.name, count);
        self.ledger.filtered(&self.name, plan.filtered);
        self.read = frame.number;
        self.open.push_back(Open { number: frame.number, left: count.minus(plan.filtered) });
        let frame = Arc::new(frame);
        for (lane, lines) in plan.lanes {
            if let Some(lane) = self.lanes.get_mut(lane).filter(|_| !lines.is_empty()) {
                lane.waiting.push_back(Batch::new(Arc::clone(&frame), lines, &self.name));
            }
        }
        self.close_settled();
    }

    fn start_requests(&mut self) {
        for (nth, lane) in self.lanes.iter_mut().enumerate() {
            while lane.on_their_way < self.shape.each {
                let Some(batch) = lane.waiting.pop_front() else { break };
                lane.on_their_way += 1;
                let carrier = self.carrier.clone();
                self.requests.spawn(async move {
                    let (batch, fate) = carrier.carry(batch).await;
                    (nth, batch, fate)
                });
            }
        }
    }

    fn carried(&mut self, (nth, batch, fate): (usize, Batch, Fate)) {
        let Some(lane) = self.lanes.get_mut(nth) else { return };
        lane.on_their_way -= 1;
        match fate {
            Fate::Delivered => {
                let count = batch.count();
                self.ledger.delivered(&self.name, count);
                self.close(batch.frame().number, count);
            }
            Fate::Split => {
                let [first, second] = batch.halves(&self.name);
                lane.waiting.push_front(second);
                lane.waiting.push_front(first);
            }
            Fate::Refused(refusal) => {
                self.refused.push_back((batch, refusal));
                self.start_burying();
            }
        }
    }

    /// Into the dead-letter file, and noted for the stream; both are on the disk before the record counts as settled.
    fn start_burying(&mut self) {
        if !self.burying.is_empty() {
            return;
        }
        let Some((batch, refusal)) = self.refused.pop_front() else { return };
        let (spool, name, dead_letter) = (self.spool.clone(), Arc::clone(&self.name), self.dead_letter.clone());
        let log = self.refusals_logged.is_none_or(|last| last.elapsed() >= LOG_REFUSALS_EVERY);
        if log {
            self.refusals_logged = Some(Instant::now());
        }
        self.burying.spawn_blocking(move || {
            let cause = put_away(&name, dead_letter.as_ref(), &batch, refusal);
            if log {
                let Refusal { status, code, .. } = refusal;
                let cause = cause.name();
                tracing::warn!(endpoint = &*name, status, code, cause, "the webhook refuses a record; counted");
            }
            let sequence = batch.first_sequence();
            let given_up = GivenUp {
                id: 0,
                cause,
                reader: Some(name.to_string()),
                instance_id: batch.frame().instance_id.to_string(),
                first: sequence,
                last: sequence,
                records: 1,
                bytes: batch.count().bytes,
            };
            if let Err(error) = spool.give_up(&given_up) {
                tracing::error!(endpoint = &*name, %error, sequence, "the stream will not tell of a refused record");
            }
            (batch, cause)
        });
    }

    fn buried(&mut self, (batch, cause): (Batch, DropCause)) {
        let count = batch.count();
        self.ledger.dropped(&self.name, cause, count);
        self.close(batch.frame().number, count);
        self.start_burying();
    }

    /// So much of a frame is settled.
    fn close(&mut self, number: u64, count: Count) {
        if let Some(open) = self.open.iter_mut().find(|open| open.number == number) {
            open.left = open.left.minus(count);
        }
        self.close_settled();
    }

    fn close_settled(&mut self) {
        while let Some(open) = self.open.pop_front_if(|open| open.left.records == 0) {
            self.settled = open.number;
        }
    }

    /// One at a time: while the disk works, further frames may end, and are then told together.
    fn start_settling(&mut self) {
        if self.told < self.settled && self.settling.is_empty() {
            let (spool, name, number) = (self.spool.clone(), Arc::clone(&self.name), self.settled);
            self.settling.spawn_blocking(move || spool.settle(&name, number).map(|()| number));
        }
    }

    fn settled(&mut self, settled: Result<u64, SpoolError>) {
        match settled {
            Ok(number) => self.told = number,
            Err(error) => {
                self.spool_failed(&error);
                // The same again after a while; what is settled meanwhile waits as well.
                let told = self.told;
                self.settling.spawn(async move {
                    tokio::time::sleep(SPOOL_WAIT).await;
                    Ok(told)
                });
            }
        }
    }

    fn spool_failed(&self, error: &SpoolError) {
        tracing::error!(endpoint = &*self.name, %error, "the spool cannot be used; tried again");
    }

    async fn end(mut self) -> Ended {
        // What has ended in the meantime counts; what is on its way is given up, and nobody knows whether it arrived.
        self.requests.abort_all();
        while let Some(request) = self.requests.join_next().await {
            if !request.as_ref().is_err_and(JoinError::is_cancelled) {
                self.carried(whole(request));
            }
        }
        while let Some(buried) = self.burying.join_next().await {
            self.buried(whole(buried));
        }
        while let Some(settled) = self.settling.join_next().await {
            if let Ok(number) = whole(settled) {
                self.told = number;
            }
        }
        self.start_settling();
        while let Some(settled) = self.settling.join_next().await {
            if let Err(error) = whole(settled) {
                tracing::error!(endpoint = &*self.name, %error, "what was delivered last may be delivered again");
            }
        }
        let undelivered = self.open.iter().fold(Count::default(), |sum, open| sum.plus(open.left));
        self.ledger.put_back(&self.name, undelivered);
        Ended { undelivered, cause: DropCause::Shutdown }
    }
}

fn lanes(shape: Shape) -> Vec<Lane> {
    (0..shape.lanes).map(|_| Lane::default()).collect()
}

fn put_away(name: &str, file: Option<&DeadLetter>, batch: &Batch, refusal: Refusal) -> DropCause {
    let (Some(file), Some(record)) = (file, batch.lines().next()) else { return refusal.cause };
    let Refusal { cause, status, code } = refusal;
    let refused = Refused { time: jiff::Timestamp::now().to_string(), endpoint: name, status, code };
    match file.put(&refused, record) {
        Ok(()) => DropCause::DeadLettered,
        Err(error) => {
            tracing::error!(endpoint = name, %error, "a refused record is lost");
            cause
        }
    }
}
