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
    let missed = after.status.missed_runs();
    if missed == 0 {
        expect::same(&calls, &after.records)?;
        return after.status.whole();
    }
    // A call that the kernel did not tell of is a loss, counted; what is recorded must be true all the same.
    eprintln!("noted: the kernel skipped {missed} runs");
    expect::none_wrong(&calls, &after.records)?;
    after.status.ring_agrees()?;
    after.status.balanced()
}
