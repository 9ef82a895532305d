//! Every way in which something can be lost between the kernel and the webhook: one list, of which each entry has a
//! counter from the start, a metric `s3auditd_lost_total{stage, cause}`, and a row in `docs/losses.md`.

use crate::capture::status::CaptureStatus;
use crate::ledger::{Books, DropCause};
use s3auditd_common::counters::KernelCounter;
use s3auditd_rebuild::loss::LossCause;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A way to lose something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Between the socket and the agent.
    Kernel(KernelLoss),
    /// Between samples and records.
    Rebuild(LossCause),
    /// Between records and the webhook.
    Record(DropCause),
}

macro_rules! kernel_losses {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $count:expr;)+) => {
        /// What the kernel side or its rings can lose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum KernelLoss { $($(#[doc = $doc])+ $variant,)+ }

        impl KernelLoss {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            fn count(self, capture: &CaptureStatus) -> u64 {
                match self { $(Self::$variant => { let count: fn(&CaptureStatus) -> u64 = $count; count(capture) })+ }
            }
        }
    };
}

kernel_losses! {
    /// Samples: the ring of a CPU had no room.
    RingFull = "ring_full", |capture| capture.counter(KernelCounter::LostRingFull);
    /// Samples: the ring of a CPU had no reader.
    RingRefused = "ring_refused", |capture| capture.counter(KernelCounter::LostRingRefused);
    /// Samples that were read from the ring and make no sense.
    Undecodable = "undecodable", |capture| capture.cpus.iter().map(|cpu| cpu.undecodable).sum();
    /// Runs of a program that the kernel skipped.
    MissedRun = "missed_runs", |capture| capture.missed_runs.values().sum();
    /// Calls whose return the kernel did not tell of.
    MissedReturn = "missed_returns", |capture| capture.counter(KernelCounter::MissedReturns);
    /// Calls of which there was no room for a note at their entry.
    NoteRefused = "note_refused", |capture| capture.counter(KernelCounter::NotesRefused);
    /// Connections whose state found no room in the kernel's table.
    TableFull = "connection_table_full", |capture| capture.counter(KernelCounter::TableFull);
    /// Calls of the gateway's TLS library that found no buffer free.
    PlaintextNoBuffer = "plaintext_no_buffer", |capture| capture.counter(KernelCounter::PlaintextNoBuffer);
    /// Calls of the gateway's TLS library whose connection is not certain.
    PlaintextUntied = "plaintext_untied", |capture| capture.counter(KernelCounter::PlaintextUntied);
    /// Windows that found no room in the kernel's table.
    WindowRefused = "window_refused", |capture| capture.failed_windows;
}

impl Loss {
    /// Every one, in the order of the data's way.
    pub fn all() -> impl Iterator<Item = Self> {
        let kernel = KernelLoss::ALL.iter().copied().map(Self::Kernel);
        let rebuild = LossCause::ALL.iter().copied().map(Self::Rebuild);
        let records = DropCause::ALL.iter().copied().map(Self::Record);
        kernel.chain(rebuild).chain(records)
    }

    /// Where it happens: `kernel`, `rebuild`, `queue`, `spool` or `delivery`.
    #[must_use]
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Kernel(_) => "kernel",
            Self::Rebuild(_) => "rebuild",
            Self::Record(cause) => cause.stage(),
        }
    }

    /// Its name within the stage.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Kernel(loss) => loss.name(),
            Self::Rebuild(cause) => cause.name(),
            Self::Record(cause) => cause.name(),
        }
    }
}

/// How often a loss happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCount {
    /// See [`Loss::stage`].
    pub stage: String,
    /// See [`Loss::cause`].
    pub cause: String,
    /// Since the daemon started; samples, runs, connections, windows, times or records, as `docs/losses.md` says.
    pub count: u64,
}

/// Every loss with its count, 0 for those that never happened. `rebuild` is by [`LossCause::name`].
#[must_use]
pub fn counts(capture: &CaptureStatus, rebuild: &BTreeMap<String, u64>, books: &Books) -> Vec<LossCount> {
    let count = |loss| match loss {
        Loss::Kernel(loss) => loss.count(capture),
        Loss::Rebuild(cause) => rebuild.get(cause.name()).copied().unwrap_or_default(),
        Loss::Record(cause) => books.dropped_in_all(cause).records,
    };
    Loss::all()
        .map(|loss| LossCount { stage: loss.stage().to_owned(), cause: loss.cause().to_owned(), count: count(loss) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_documentation_has_a_row_for_every_loss_and_no_other() {
        let page = include_str!("../../docs/losses.md");
        let rows: BTreeSet<_> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
                let row = (cells.next()?, cells.next()?);
                assert!(
                    cells.filter(|cell| !cell.is_empty()).count() >= 3,
                    "unit, effect or advice is missing: {line}"
                );
                Some(row)
            })
            .collect();
        let losses: Vec<_> = Loss::all().map(|loss| (loss.stage(), loss.cause())).collect();
        let expected: BTreeSet<_> = losses.iter().copied().collect();
        assert_eq!(expected.len(), losses.len(), "two losses have one name");
        assert_eq!(rows, expected);
    }

    #[test]
    fn every_loss_is_counted_from_the_start() {
        let none = counts(&CaptureStatus::default(), &BTreeMap::new(), &Books::default());
        assert_eq!(none.len(), Loss::all().count());
        assert!(none.iter().all(|loss| loss.count == 0));
        let mut capture = CaptureStatus { failed_windows: 3, ..CaptureStatus::default() };
        capture.missed_runs.insert("sent".to_owned(), 2);
        let of = |loss: &LossCount| (loss.cause.clone(), loss.count);
        let some = counts(&capture, &BTreeMap::from([("evicted".to_owned(), 5)]), &Books::default());
        let some: Vec<_> = some.iter().filter(|loss| loss.count > 0).map(of).collect();
        assert_eq!(some, [("missed_runs", 2), ("window_refused", 3), ("evicted", 5)].map(|(n, c)| (n.to_owned(), c)));
    }
}
