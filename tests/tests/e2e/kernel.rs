//! The whole, small enough to be run on every kernel with every backend.

use crate::Scenario;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::s3s;
use s3auditd_tests::world::World;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("kernel::a_gateway_is_audited_and_the_ledger_balances", audited)]
}

fn audited() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    let calls = Light::of(&world.gateway)?.round("any-kernel")?;
    let after = world.settle(calls.len())?;
    let whole = expect::same(&calls, &after.records).and_then(|()| after.status.whole());
    let missed = after.status.missed_runs();
    if whole.is_ok() || missed == 0 {
        return whole;
    }
    // A call that the kernel did not tell of is a loss, counted; what is recorded as complete must be true all the same.
    eprintln!("noted: the kernel skipped {missed} runs, and records are missing or partial");
    for record in after.records.iter().filter(|record| record.completion() == Some("complete")) {
        let told = calls.iter().any(|call| expect::differences(call, record).is_empty());
        anyhow::ensure!(told, "no call explains {record}");
    }
    after.status.ring_agrees()?;
    after.status.balanced()
}
