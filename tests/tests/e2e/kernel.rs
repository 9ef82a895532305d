//! The whole, small enough to be run on every kernel with every backend.

use crate::Scenario;
use anyhow::Context as _;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{Gateway, front::Front, s3s};
use s3auditd_tests::need::Need;
use s3auditd_tests::world::{After, World};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("kernel::a_gateway_is_audited_and_the_ledger_balances", || audited(s3s::start()?).map(drop)),
        Scenario {
            name: "kernel::a_gateway_behind_openssl_is_audited_and_the_ledger_balances".to_owned(),
            needs: vec![Need::Nginx],
            run: Box::new(behind_openssl),
        },
    ]
}

fn behind_openssl() -> anyhow::Result<()> {
    let after = audited(Front::Nginx.start_before(s3s::start()?)?)?;
    let (read, untied) = (after.status.rebuild("tls_connections_read"), after.status.kernel("plaintext_untied"));
    anyhow::ensure!(read > 0 && untied == 0, "{read} connections are read, {untied} pieces have none");
    for record in &after.records {
        let tls = record.0.pointer("/s3auditd/tls/version").with_context(|| format!("no TLS is named: {record}"))?;
        anyhow::ensure!(tls == "TLSv1.3", "{record}");
    }
    Ok(())
}

fn audited(gateway: Gateway) -> anyhow::Result<After> {
    let world = World::around(gateway, &[])?;
    let calls = Light::of(&world.gateway)?.round("any-kernel")?;
    let after = world.settle(calls.len())?;
    let whole = expect::same(&calls, &after.records).and_then(|()| after.status.whole());
    let missed = after.status.missed_runs();
    if whole.is_ok() || missed == 0 {
        return whole.map(|()| after);
    }
    // A call that the kernel did not tell of is a loss, counted; what is recorded as complete must be true all the same.
    eprintln!("noted: the kernel skipped {missed} runs, and records are missing or partial");
    for record in after.records.iter().filter(|record| record.completion() == Some("complete")) {
        let told = calls.iter().any(|call| expect::differences(call, record).is_empty());
        anyhow::ensure!(told, "no call explains {record}");
    }
    after.status.ring_agrees()?;
    after.status.balanced()?;
    Ok(after)
}
