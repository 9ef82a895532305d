//! What the spool tells of the instance before.

use crate::spool::{Mark, Recovered};
use s3auditd_rebuild::record::event::{Moment, PreviousInstance, RecoveryRecord};

/// Where the instance before ended, for the start record.
pub(super) fn previous(recovered: &Recovered) -> Option<PreviousInstance> {
    let Mark { instance_id, sequence, stopped, .. } = recovered.mark.clone()?;
    Some(PreviousInstance { instance_id, last_sequence: sequence, stopped })
}

/// What is to be said if it did not end in order, or if something of what it left cannot be read.
pub(super) fn record(recovered: &Recovered) -> Option<RecoveryRecord> {
    let stopped = recovered.mark.as_ref().is_none_or(|mark| mark.stopped);
    if stopped && recovered.corrupt_frames == 0 && recovered.set_aside.is_none() {
        return None;
    }
    let mark = recovered.mark.as_ref();
    Some(RecoveryRecord {
        instance_id: mark.map(|mark| mark.instance_id.clone()).unwrap_or_default(),
        boot_id: mark.map(|mark| mark.boot_id.clone()),
        last_sequence: mark.map(|mark| mark.sequence),
        last_time: mark.map(|mark| Moment::from_unix_ns(mark.time_ns.into()).to_string()),
        operations_may_be_missing: !stopped || mark.is_none(),
        records_found: recovered.records,
        corrupt_skipped: recovered.corrupt_frames,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovered(stopped: bool) -> Recovered {
        let mark = Mark {
            instance_id: "i-1".to_owned(),
            boot_id: "b-1".to_owned(),
            sequence: 41,
            time_ns: 1_742_539_047_915_000_000,
            chain: None,
            stopped,
        };
        Recovered { mark: Some(mark), records: 7, ..Recovered::default() }
    }

    #[test]
    fn a_kill_is_told_and_an_orderly_stop_is_not() {
        assert_eq!((previous(&Recovered::default()), record(&Recovered::default())), (None, None));
        let stopped = PreviousInstance { instance_id: "i-1".to_owned(), last_sequence: 41, stopped: true };
        assert_eq!((previous(&recovered(true)), record(&recovered(true))), (Some(stopped), None));
        let killed = record(&recovered(false)).unwrap();
        assert_eq!((killed.last_sequence, killed.records_found, killed.operations_may_be_missing), (Some(41), 7, true));
        assert_eq!(killed.last_time.as_deref(), Some("2025-03-21T06:37:27.915000000Z"));
    }

    #[test]
    fn damage_is_told_also_after_an_orderly_stop() {
        let damaged = record(&Recovered { corrupt_frames: 2, ..recovered(true) }).unwrap();
        assert_eq!((damaged.corrupt_skipped, damaged.operations_may_be_missing), (2, false));
        // Set aside whole: not even the mark is known.
        let gone = record(&Recovered { set_aside: Some("spool.db.bad".into()), ..Recovered::default() }).unwrap();
        assert!(gone.operations_may_be_missing);
    }
}
