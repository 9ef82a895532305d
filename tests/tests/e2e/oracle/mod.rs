//! MinIO's own audit and ours, of the same traffic: every entry of theirs has our record, equal field by field but for
//! differences that a rule explains. `docs/oracle.md` says of each rule which side is right, and why.

mod compare;
mod rules;

use crate::Scenario;
use anyhow::Context as _;
use compare::{Comparison, compare};
use s3auditd_tests::client::{mc, script::Script};
use s3auditd_tests::gateway::minio;
use s3auditd_tests::need::Need;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::needing("oracle::minios_own_audit", &[Need::Minio, Need::Mc, Need::Python, Need::Curl], minios_audit),
        Scenario::new("oracle::each_rule_is_documented", each_rule_is_documented),
    ]
}

/// Every class, so that nothing that MinIO may audit is left out.
const FLAGS: &[&str] =
    &["--dialect", "minio", "--audit-classes", "health,metrics,admin,console,internode,preflight,unknown"];

fn minios_audit() -> anyhow::Result<()> {
    let oracle = Webhook::start()?;
    let world = World::around(minio::start_audited(&oracle.url())?, FLAGS)?;
    for script in [Script::Operations, Script::Boto3, Script::Awscli, Script::Curl] {
        script.round(&world.gateway)?;
    }
    mc::round(&world.gateway)?;
    wait_until_quiet(&oracle);
    let theirs = oracle.records();
    let rubbish = oracle.rubbish();
    anyhow::ensure!(rubbish.is_empty(), "MinIO told its webhook what is no JSON: {rubbish:?}");
    let after = world.settle(theirs.len())?;
    after.status.whole().with_context(|| after.ended.stderr.clone())?;
    if let Some(folder) = std::env::var_os("S3AUDITD_ORACLE_DUMP") {
        // For a look at what differs.
        let folder = std::path::PathBuf::from(folder);
        for (name, records) in [("theirs.jsonl", &theirs), ("ours.jsonl", &after.records)] {
            let lines: Vec<_> = records.iter().map(ToString::to_string).collect();
            std::fs::write(folder.join(name), lines.join("\n"))?;
        }
    }
    let comparison = compare(&theirs, &after.records);
    eprintln!("{comparison}");
    check(&comparison)
}

fn check(comparison: &Comparison<'_>) -> anyhow::Result<()> {
    anyhow::ensure!(comparison.missing.is_empty(), "entries without a record of ours: {:#?}", comparison.missing);
    anyhow::ensure!(comparison.doubled.is_empty(), "second entries of one request: {:#?}", comparison.doubled);
    let unexplained: Vec<_> = comparison.unexplained.iter().take(20).map(ToString::to_string).collect();
    anyhow::ensure!(
        unexplained.is_empty(),
        "{} unexplained differences, the first of them:\n{}",
        comparison.unexplained.len(),
        unexplained.join("\n"),
    );
    let surplus: Vec<_> = comparison.odd_surplus.iter().take(5).map(ToString::to_string).collect();
    anyhow::ensure!(surplus.is_empty(), "records of ours that MinIO does not have, for no known reason: {surplus:#?}");
    let idle = comparison.idle_rules();
    anyhow::ensure!(idle.is_empty(), "rules that explain nothing any more: {idle:?}");
    let (entries, names) = (comparison.joined, comparison.names.len());
    anyhow::ensure!(entries >= 600 && names >= 80, "only {entries} entries of {names} operations were compared");
    Ok(())
}

/// MinIO tells its webhook when it finds the time, and not in order.
fn wait_until_quiet(webhook: &Webhook) {
    let deadline = Instant::now() + PATIENCE;
    let mut told = 0;
    while Instant::now() < deadline {
        let now = webhook.wait_for(told + 1, Duration::from_secs(2));
        if now == told {
            return;
        }
        told = now;
    }
}

fn each_rule_is_documented() -> anyhow::Result<()> {
    let page = include_str!("../../../../docs/oracle.md");
    for name in rules::RULES.iter().map(|rule| rule.name).chain(rules::SURPLUS.iter().map(|reason| reason.name)) {
        anyhow::ensure!(page.contains(&format!("| `{name}` |")), "docs/oracle.md has no row for {name}");
    }
    Ok(())
}
