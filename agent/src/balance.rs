//! Whether the ledger balances: every account that must equal another one, from one snapshot.

use crate::capture::status::CaptureStatus;
use crate::ledger::Books;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Two sides that must be equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equation {
    /// What it says.
    pub name: String,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
}

impl Equation {
    fn new(name: impl Into<String>, left: u64, right: impl IntoIterator<Item = u64>) -> Self {
        Self { name: name.into(), left, right: right.into_iter().fold(0, u64::saturating_add) }
    }

    /// Whether it holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.left == self.right
    }
}

/// Every equation. `rebuild` has the counters of rebuild and of the stream, published together.
#[must_use]
pub fn equations(capture: &CaptureStatus, rebuild: &BTreeMap<String, u64>, books: &Books) -> Vec<Equation> {
    let count = |name: &str| rebuild.get(name).copied().unwrap_or_default();
    let mut all = Vec::new();
    for cpu in &capture.cpus {
        // What is in the ring was emitted and not read; more read than emitted would be an error.
        let in_ring = cpu.emitted.saturating_sub(cpu.read);
        all.push(Equation::new(
            format!("cpu {}: emitted = read + in the ring", cpu.cpu),
            cpu.emitted,
            [cpu.read, in_ring],
        ));
    }
    for direction in ["received", "sent"] {
        let of = |disposition: &str| count(&format!("{direction}_{disposition}_bytes"));
        let name = format!("bytes {direction}: moved by sequence number = seen + skipped + unseen + lost + dropped");
        all.push(Equation::new(name, of("moved"), ["seen", "skipped", "unseen", "lost", "dropped"].map(of)));
    }
    all.push(Equation::new("connections out of balance = 0", count("connections_out_of_balance"), []));
    let exchanges = [count("exchanges_ended"), count("exchanges_open")];
    all.push(Equation::new("exchanges: begun = ended + open", count("exchanges_begun"), exchanges));
    let not_audited = rebuild.iter().filter(|(name, _)| name.starts_with("not_audited_")).map(|(_, count)| *count);
    let ended = [count("records_operation"), count("records_refused")].into_iter().chain(not_audited);
    let name = "exchanges ended = operation records + refused by the queue + not audited";
    all.push(Equation::new(name, count("exchanges_ended"), ended));

    let made = [books.queued, books.writing, books.stored, books.dropped.total()].map(|count| count.records);
    all.push(Equation::new("records: made = queued + writing + stored + dropped", books.made.records, made));
    for (name, endpoint) in &books.endpoints {
        let there =
            [endpoint.waiting, endpoint.in_flight, endpoint.delivered, endpoint.filtered, endpoint.dropped.total()];
        let name = format!("endpoint {name}: in the spool = waiting + in flight + delivered + filtered + dropped");
        let offered = endpoint.inherited.plus(endpoint.offered).records;
        all.push(Equation::new(name, offered, there.map(|count| count.records)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::status::CpuStatus;
    use crate::ledger::{Count, Ledger};

    #[test]
    fn a_difference_anywhere_shows() {
        let capture = CaptureStatus {
            cpus: vec![CpuStatus { emitted: 5, read: 3, ..CpuStatus::default() }],
            ..CaptureStatus::default()
        };
        let ledger = Ledger::default();
        ledger.begin("default", Count::default());
        ledger.queued(Count { records: 4, bytes: 40 });
        let pairs = [
            ("exchanges_begun", 6),
            ("exchanges_ended", 5),
            ("exchanges_open", 1),
            ("records_operation", 2),
            ("records_refused", 1),
            ("not_audited_health", 2),
            ("received_moved_bytes", 10),
            ("received_seen_bytes", 7),
            ("received_lost_bytes", 3),
        ];
        let rebuild: BTreeMap<_, _> = pairs.map(|(name, count)| (name.to_owned(), count)).into();
        let all = equations(&capture, &rebuild, &ledger.books());
        assert!(all.iter().all(Equation::holds), "{all:?}");
        assert_eq!(all.len(), 8);

        for name in pairs.map(|(name, _)| name).into_iter().chain(["connections_out_of_balance"]) {
            let mut wrong = rebuild.clone();
            *wrong.entry(name.to_owned()).or_default() += 1;
            let all = equations(&capture, &wrong, &ledger.books());
            assert!(!all.iter().all(Equation::holds), "{name} may be anything");
        }
        let wrong = CaptureStatus { cpus: vec![CpuStatus { emitted: 3, read: 5, ..CpuStatus::default() }], ..capture };
        assert!(!equations(&wrong, &rebuild, &ledger.books()).iter().all(Equation::holds));
        ledger.writing(Count { records: 5, bytes: 0 });
        assert!(!equations(&CaptureStatus::default(), &rebuild, &ledger.books()).iter().all(Equation::holds));
    }
}
