//! Nothing is lost in silence: whatever is missing at the webhook is named by the stream itself, and the ledger balances.

mod control;
mod crash;
mod disk;
mod endpoints;
mod outage;
mod ring;
mod spool;

use crate::Scenario;
use s3auditd_tests::daemon::{Daemon, Status};
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("silence::200_000_operations_through_an_outage_of_half_of_them", outage::half),
        Scenario::new("silence::killed_50_times_under_load", crash::fifty_times),
        Scenario::new("silence::a_ring_of_two_pages", ring::two_pages),
        Scenario::new("silence::a_full_disk", disk::full),
        Scenario::new("silence::each_endpoint_has_its_own_place_and_filter", endpoints::two),
        Scenario::new("silence::the_spool_by_hand", spool::by_hand),
        Scenario::new("silence::the_webhook_command", control::webhook),
        Scenario::new("silence::sighup_takes_a_good_configuration_and_keeps_the_old_one", control::sighup),
    ]
}

/// How long hundreds of thousands of records may take to arrive, in a dev build under load.
const LONG: Duration = Duration::from_secs(240);

/// Until nothing waits for the endpoint any more; the last status.
fn settled(daemon: &Daemon, endpoint: &str) -> anyhow::Result<Status> {
    let quiet = |status: &Status| {
        let on_the_way = status.endpoint(endpoint, "waiting") + status.endpoint(endpoint, "in_flight");
        let queued = status.count(&["records", "queued", "records"]) + status.count(&["records", "writing", "records"]);
        on_the_way + queued == 0 && status.ring("emitted") == status.ring("read")
    };
    let status = daemon.status_when(LONG, quiet)?;
    anyhow::ensure!(quiet(&status), "records are still on their way: {}", status.0);
    Ok(status)
}
