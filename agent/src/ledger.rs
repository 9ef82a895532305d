//! What became of every record: one book under one lock, so that every [`Books`] that is read balances exactly.
//!
//! - up to the spool: `made = queued + writing + stored + given up (by cause)`
//! - for each endpoint: `inherited + offered = waiting + in flight + delivered + filtered + given up (by cause)`
//!
//! A step moves a count from one account to another and never changes a sum.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

macro_rules! drop_causes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $field:ident, $stage:literal;)+) => {
        /// Why a record was not delivered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DropCause { $($(#[doc = $doc])+ $variant,)+ }

        impl DropCause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that metrics, `status` and gap records use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }

            /// Where on its way the record was.
            #[must_use]
            pub const fn stage(self) -> &'static str {
                match self { $(Self::$variant => $stage,)+ }
            }
        }

        /// Records given up, by cause.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Dropped { $($(#[doc = $doc])+ pub $field: Count,)+ }

        impl Dropped {
            /// The count of one cause.
            #[must_use]
            pub const fn of(&self, cause: DropCause) -> Count {
                match cause { $(DropCause::$variant => self.$field,)+ }
            }

            const fn of_mut(&mut self, cause: DropCause) -> &mut Count {
                match cause { $(DropCause::$variant => &mut self.$field,)+ }
            }
        }
    };
}

drop_causes! {
    /// The queue was full.
    QueueFull = queue_full, "queue";
    /// Left when the time to drain had passed, or made after that. What was in flight then may have arrived.
    Shutdown = shutdown, "queue";
    /// The spool was full: the oldest records went, or the newest did not come in, as `spool-when-full` says.
    SpoolFull = spool_full, "spool";
    /// The spool's file system had no room.
    NoSpace = no_space, "spool";
    /// The spool's disk refused for another reason.
    SpoolFailed = spool_failed, "spool";
    /// Read back from the spool, a batch was not what had been written.
    Corrupt = corrupt, "spool";
    /// The webhook refuses this very record (400, 422): it stands in the dead-letter file.
    DeadLettered = dead_lettered, "delivery";
    /// The same, and there is no dead-letter file, or no room in it.
    Poison = poison, "delivery";
    /// The webhook says of this single record that it is too large (413), and there is no dead-letter file, or no room in it.
    TooLarge = too_large, "delivery";
    /// The reader of standard output went away.
    StdoutClosed = stdout_closed, "delivery";
    /// The endpoint was taken out of the configuration while records waited for it.
    EndpointRemoved = endpoint_removed, "delivery";
}

/// Records and the bytes of their lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Bytes of their lines, line ends not counted.
    pub bytes: u64,
}

impl Count {
    /// The count of these lines.
    #[must_use]
    pub fn of(lines: &[Bytes]) -> Self {
        lines.iter().fold(Self::default(), |count, line| count.plus(Self::line(line)))
    }

    /// The count of one.
    #[must_use]
    pub fn line(line: &Bytes) -> Self {
        Self { records: 1, bytes: line.len() as u64 }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { records: self.records.saturating_add(other.records), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// From one account to another.
    const fn move_between(self, from: &mut Self, to: &mut Self) {
        *from = from.minus(self);
        *to = to.plus(self);
    }

    /// What is left without the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { records: self.records.saturating_sub(other.records), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// A snapshot; all counts since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Every record that was made.
    pub made: Count,
    /// In the queue.
    pub queued: Count,
    /// On the way into the spool.
    pub writing: Count,
    /// Put into the spool; what becomes of them from there on is each endpoint's account.
    pub stored: Count,
    /// Given up before the spool.
    pub dropped: Dropped,
    /// By name.
    pub endpoints: BTreeMap<String, EndpointBooks>,
}

/// What became of the records in the spool, for one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointBooks {
    /// Waited for it in the spool when the daemon started.
    pub inherited: Count,
    /// Put into the spool since it has been there.
    pub offered: Count,
    /// In the spool.
    pub waiting: Count,
    /// Taken by delivery and not settled yet.
    pub in_flight: Count,
    /// Acknowledged by the webhook, or written to standard output.
    pub delivered: Count,
    /// Not wanted by its filter.
    pub filtered: Count,
    /// Not delivered and never will be.
    pub dropped: Dropped,
}

impl Books {
    /// Whether every record is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        let there = self.queued.plus(self.writing).plus(self.stored);
        self.made == self.dropped.total().plus(there) && self.endpoints.values().all(EndpointBooks::balances)
    }

    /// Given up for this cause, up to the spool and for all endpoints.
    #[must_use]
    pub fn dropped_in_all(&self, cause: DropCause) -> Count {
        self.endpoints.values().fold(self.dropped.of(cause), |sum, endpoint| sum.plus(endpoint.dropped.of(cause)))
    }
}

impl EndpointBooks {
    /// Whether every record is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        let there = self.waiting.plus(self.in_flight).plus(self.delivered).plus(self.filtered);
        self.inherited.plus(self.offered) == self.dropped.total().plus(there)
    }
}

impl Dropped {
    /// For all causes.
    #[must_use]
    pub fn total(&self) -> Count {
        DropCause::ALL.iter().fold(Count::default(), |sum, cause| sum.plus(self.of(*cause)))
    }
}

/// The book itself, shared by everything on a record's way.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Books>>);

impl Ledger {
    /// As it stands now.
    #[must_use]
    pub fn books(&self) -> Books {
        self.change(|books| books.clone())
    }

    /// A record was made and is in the queue.
    pub fn queued(&self, count: Count) {
        self.change(|books| {
            books.made = books.made.plus(count);
            books.queued = books.queued.plus(count);
        });
    }

    /// A record was given up instead of being queued.
    pub fn refused(&self, cause: DropCause, count: Count) {
        self.change(|books| {
            books.made = books.made.plus(count);
            books.dropped.add(cause, count);
        });
    }

    /// Out of the queue, on the way into the spool.
    pub fn writing(&self, count: Count) {
        self.change(|books| {
            count.move_between(&mut books.queued, &mut books.writing);
        });
    }

    /// In the spool, for every endpoint. To be booked before it can be read there: what is taken must have been waiting.
    pub fn stored(&self, count: Count) {
        self.change(|books| {
            count.move_between(&mut books.writing, &mut books.stored);
            for endpoint in books.endpoints.values_mut() {
                endpoint.offered = endpoint.offered.plus(count);
                endpoint.waiting = endpoint.waiting.plus(count);
            }
        });
    }

    /// It was booked as stored, and the spool did not take it: on the way as before.
    pub fn withdrawn(&self, count: Count) {
        self.change(|books| {
            count.move_between(&mut books.stored, &mut books.writing);
            for endpoint in books.endpoints.values_mut() {
                endpoint.offered = endpoint.offered.minus(count);
                endpoint.waiting = endpoint.waiting.minus(count);
            }
        });
    }

    /// The spool did not take it.
    pub fn not_stored(&self, cause: DropCause, count: Count) {
        self.change(|books| {
            count.move_between(&mut books.writing, books.dropped.of_mut(cause));
        });
    }

    /// Left in the queue at the end.
    pub fn left_in_queue(&self, cause: DropCause, count: Count) {
        self.change(|books| {
            count.move_between(&mut books.queued, books.dropped.of_mut(cause));
        });
    }

    /// An endpoint begins, with so much in the spool for it.
    pub fn begin(&self, endpoint: &str, inherited: Count) {
        self.change(|books| {
            let begun = EndpointBooks { inherited, waiting: inherited, ..EndpointBooks::default() };
            books.endpoints.entry(endpoint.to_owned()).or_insert(begun);
        });
    }

    /// Taken out of the spool to be delivered.
    pub fn taken(&self, endpoint: &str, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.waiting, &mut books.in_flight);
        });
    }

    /// Given back to the spool: delivery ends, the spool stays.
    pub fn put_back(&self, endpoint: &str, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.in_flight, &mut books.waiting);
        });
    }

    /// What was taken has arrived.
    pub fn delivered(&self, endpoint: &str, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.in_flight, &mut books.delivered);
        });
    }

    /// What was taken is not wanted.
    pub fn filtered(&self, endpoint: &str, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.in_flight, &mut books.filtered);
        });
    }

    /// What was taken is given up.
    pub fn dropped(&self, endpoint: &str, cause: DropCause, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.in_flight, books.dropped.of_mut(cause));
        });
    }

    /// What waited in the spool is given up.
    pub fn dropped_waiting(&self, endpoint: &str, cause: DropCause, count: Count) {
        self.change_endpoint(endpoint, |books| {
            count.move_between(&mut books.waiting, books.dropped.of_mut(cause));
        });
    }

    /// Nobody serves the endpoint any more: all that waits for it is given up.
    pub fn abandoned(&self, endpoint: &str, cause: DropCause) {
        self.change_endpoint(endpoint, |books| {
            let left = std::mem::take(&mut books.waiting).plus(std::mem::take(&mut books.in_flight));
            books.dropped.add(cause, left);
        });
    }

    fn change_endpoint(&self, endpoint: &str, change: impl FnOnce(&mut EndpointBooks)) {
        self.change(|books| books.endpoints.get_mut(endpoint).map(change));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        // No change can be left half done, so a poisoned lock is as good as another.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Dropped {
    fn add(&mut self, cause: DropCause, count: Count) {
        let dropped = self.of_mut(cause);
        *dropped = dropped.plus(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_always_somewhere() {
        let ledger = Ledger::default();
        let count = |records| Count { records, bytes: 10 * records };
        ledger.begin("default", count(5));
        let check = || assert!(ledger.books().balances(), "{:?}", ledger.books());
        ledger.queued(count(10));
        check();
        ledger.refused(DropCause::QueueFull, count(1));
        ledger.writing(count(9));
        ledger.left_in_queue(DropCause::Shutdown, count(1));
        check();
        ledger.stored(count(8));
        ledger.withdrawn(count(8));
        check();
        ledger.stored(count(7));
        ledger.not_stored(DropCause::NoSpace, count(2));
        check();
        ledger.taken("default", count(9));
        ledger.delivered("default", count(3));
        ledger.filtered("default", count(2));
        ledger.dropped("default", DropCause::DeadLettered, count(1));
        ledger.put_back("default", count(3));
        check();
        ledger.dropped_waiting("default", DropCause::SpoolFull, count(6));
        check();
        let books = ledger.books();
        let endpoint = books.endpoints.get("default").copied().unwrap_or_default();
        assert_eq!((books.made.records, books.stored.records, books.queued.records), (11, 7, 0));
        assert_eq!((endpoint.waiting.records, endpoint.in_flight.records, endpoint.delivered.records), (0, 0, 3));
        assert_eq!(books.dropped_in_all(DropCause::SpoolFull).records, 6);
        ledger.writing(count(1));
        assert!(!ledger.books().balances(), "what was never queued cannot be written");
    }
}
