//! What is seen, and what cannot be: said at the start, and whenever it changes.

use crate::capture::status::CaptureStatus;
use crate::rebuild::Rebuild;
use s3auditd_rebuild::record::event::{CoverageRecord, CoveredPort};

/// As it stands now.
pub(super) fn of(capture: &CaptureStatus, rebuild: &Rebuild) -> CoverageRecord {
    let ports = capture.ports.iter();
    CoverageRecord {
        backend: capture.backend.clone(),
        backend_reason: capture.backend_reason.clone(),
        ports: ports.map(|port| CoveredPort { port: port.port, listening: port.listening }).collect(),
        open_at_start: capture.open_at_start,
        unseen_connections: rebuild.unseen_connections(),
        missed_runs: capture.missed_runs.values().sum(),
    }
}

/// Whether there is something new to say: a port that was served and is not, or the other way round; a reason why
/// connections are not seen that there was not before, or ten times as many for one. So a storm of them cannot flood the
/// stream: their exact numbers are counters.
pub(super) fn differs(said: &CoverageRecord, now: &CoverageRecord) -> bool {
    let grew = |(reason, count): (&&str, &u64)| {
        said.unseen_connections.get(*reason).is_none_or(|said| *count >= said.saturating_mul(10))
    };
    said.ports != now.ports
        || said.backend != now.backend
        || (said.missed_runs == 0 && now.missed_runs > 0)
        || now.unseen_connections.iter().any(grew)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_told_at_its_first_and_at_every_tenfold() {
        let with = |count| CoverageRecord { unseen_connections: [("tls", count)].into(), ..CoverageRecord::default() };
        let mut said = CoverageRecord::default();
        let mut told = Vec::new();
        for count in 1..=1000 {
            if differs(&said, &with(count)) {
                said = with(count);
                told.push(count);
            }
        }
        assert_eq!(told, [1, 10, 100, 1000]);
        let ports = vec![CoveredPort { port: 9000, listening: true }];
        assert!(differs(&CoverageRecord::default(), &CoverageRecord { ports, ..CoverageRecord::default() }));
    }
}
