//! Recording what is seen, and making the same records of it again.

use crate::Scenario;
use anyhow::Context as _;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon;
use s3auditd_tests::gateway::s3s;
use s3auditd_tests::record::Record;
use s3auditd_tests::world::World;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("record::a_recording_replays_to_the_same_records_and_has_no_secret", record_and_replay)]
}

fn record_and_replay() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("recording");
    let path = file.to_str().context("a path that is no UTF-8")?;
    let world = World::around(s3s::start()?, &["--record", path])?;
    let mut calls = Light::of(&world.gateway)?.round("recorded")?;
    calls.extend(Light::of(&world.gateway)?.round("recorded-again")?);
    let live = world.expect(&calls)?.records;

    let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
    anyhow::ensure!(mode == 0o600, "the recording has mode {mode:o}");
    let bytes = std::fs::read(&file)?;
    // The light client presigns: what follows these names is its signature or a token.
    for name in ["X-Amz-Signature=", "X-Amz-Security-Token="] {
        for (at, _) in bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name.as_bytes()) {
            let value = bytes.get(at + name.len()..).unwrap_or_default();
            anyhow::ensure!(value.first() == Some(&b'*'), "{name} has a value at byte {at} of the recording");
        }
    }

    let replayed = daemon::run(&["replay", path])?;
    anyhow::ensure!(replayed.status.success(), "{}\n{}", replayed.status, replayed.stderr);
    let (live, again) = (comparable(live), comparable(replayed.records()?));
    anyhow::ensure!(live.len() == again.len(), "{} records live, {} replayed", live.len(), again.len());
    for (live, again) in live.iter().zip(&again) {
        anyhow::ensure!(live == again, "live:     {live}\nreplayed: {again}");
    }
    Ok(())
}

/// Without what names the run and what only the node can tell, in the order of time.
fn comparable(records: Vec<Record>) -> Vec<Value> {
    let mut values: Vec<Value> = records.into_iter().map(|record| record.0).collect();
    for value in &mut values {
        if let Some(own) = value.get_mut("s3auditd").and_then(Value::as_object_mut) {
            for name in ["bootId", "eventId", "instanceId", "sequence"] {
                own.remove(name);
            }
            if let Some(process) = own.get_mut("process").and_then(Value::as_object_mut) {
                process.retain(|name, _| !matches!(name.as_str(), "cgroup" | "unit" | "container"));
            }
        }
    }
    let place = |value: &Value| {
        let text = |name: &str| value.pointer(name).map(Value::to_string).unwrap_or_default();
        (text("/s3auditd/connection"), text("/s3auditd/startTime"))
    };
    values.sort_by_key(place);
    values
}
