//! What may change while it runs: by `s3auditd webhook`, and by SIGHUP.

use super::settled;
use anyhow::Context as _;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::{self, Daemon};
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{free_port, local, s3s};
use s3auditd_tests::record::Record;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::PATIENCE;

const TOKEN: &str = "Splunk 22222222-3333-4444-5555-666666666666";

pub(super) fn webhook() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let (first, second) = (Webhook::start()?, Webhook::start()?);
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (socket, spool) = (place("control.sock"), place("spool"));
    let flags = ["--control-socket", &socket, "--spool-dir", &spool, "--retry-most-ms", "500"];
    let daemon = Daemon::start(&[gateway.port()], Some(&first.url()), &flags)?;
    let command = |words: &[&str]| daemon::run(&[words, &["--control-socket", &socket]].concat());
    let client = Light::of(&gateway)?;

    let mut calls = client.round("first")?;
    let came = first.wait_for(calls.len(), PATIENCE);
    anyhow::ensure!(came == calls.len(), "{} calls, {came} records", calls.len());
    let shown = command(&["webhook", "show"])?;
    anyhow::ensure!(shown.stdout.contains(&first.url()) && shown.stdout.contains("state: ok"), "{}", shown.stdout);

    let nobody = format!("http://{}/", local(free_port()?));
    let refused = command(&["webhook", "enable", "--endpoint", &nobody, "--verify"])?;
    anyhow::ensure!(refused.status.code() == Some(2), "{}\n{}", refused.status, refused.stderr);
    anyhow::ensure!(
        refused.stderr.contains("not enabled") && refused.stderr.lines().count() == 1,
        "{}",
        refused.stderr
    );

    let disabled = command(&["webhook", "disable"])?;
    anyhow::ensure!(disabled.status.success(), "{}", disabled.stderr);
    let while_disabled = client.round("disabled")?;
    let waits = daemon.status_when(PATIENCE, |s| s.endpoint("default", "waiting") >= while_disabled.len() as u64)?;
    anyhow::ensure!(waits.endpoint("default", "waiting") >= while_disabled.len() as u64, "{}", waits.0);
    let before = first.records().len();

    let enabled = command(&["webhook", "enable", "--endpoint", &second.url(), "--auth-token", TOKEN])?;
    anyhow::ensure!(enabled.status.success() && enabled.stdout.contains(&second.url()), "{}", enabled.stderr);
    let came = second.wait_for(while_disabled.len(), PATIENCE);
    anyhow::ensure!(came == while_disabled.len(), "{} calls, {came} records", while_disabled.len());
    anyhow::ensure!(first.records().len() == before, "the webhook that was disabled got records");
    let token = second.deliveries().iter().all(|delivery| delivery.authorization.as_deref() == Some(TOKEN));
    anyhow::ensure!(token, "{:?}", second.deliveries());
    settled(&daemon, "default")?.whole()?;
    let said = daemon.stop()?;
    anyhow::ensure!(said.status.success(), "{}\n{}", said.status, said.stderr);
    anyhow::ensure!(!said.stderr.contains("22222222"), "the daemon told its token: {}", said.stderr);

    // It outlives a restart, with the configuration as it was.
    let daemon = Daemon::start(&[gateway.port()], Some(&first.url()), &flags)?;
    let third = client.round("after-a-restart")?;
    let after = while_disabled.len() + third.len();
    let came = second.wait_for(after, PATIENCE);
    anyhow::ensure!(came == after, "{after} calls, {came} records");
    daemon.stop()?;
    calls.extend(while_disabled);
    calls.extend(third);
    let records = [first.records(), second.records()].concat();
    expect::same(&calls, &records)?;
    let said = configurations(&records);
    let expected = [("webhook enable", false, 0), ("webhook disable", true, 1), ("webhook enable", true, 2)]
        .map(|(a, b, c)| (a.to_owned(), b, c));
    anyhow::ensure!(said == expected, "the stream says {said:?}");
    anyhow::ensure!(!format!("{records:?}").contains("22222222"), "the token is in the stream");
    Ok(())
}

/// Source, accepted, number of changes of each configuration record.
fn configurations(records: &[Record]) -> Vec<(String, bool, usize)> {
    let own = |record: &Record| record.0.pointer("/s3auditd/configuration").cloned();
    let said = records.iter().filter_map(own).map(|said| {
        let source = said.get("source").and_then(|source| source.as_str()).unwrap_or_default().to_owned();
        let accepted = said.get("accepted").and_then(serde_json::Value::as_bool).unwrap_or_default();
        (source, accepted, said.get("changes").and_then(|changes| changes.as_array()).map_or(0, Vec::len))
    });
    said.collect()
}

pub(super) fn sighup() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let (first, second) = (Webhook::start()?, Webhook::start()?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("s3auditd.toml");
    let write = |text: &str| std::fs::write(&file, text).context("the configuration");
    write(&format!("endpoint = {:?}\n", first.url()))?;
    let spool = folder.path().join("spool");
    let flags = ["--config", &*file.to_string_lossy(), "--spool-dir", &*spool.to_string_lossy()];
    let daemon = Daemon::start(&[gateway.port()], None, &flags)?;
    let client = Light::of(&gateway)?;
    let one = client.round("one")?;
    let came = first.wait_for(one.len(), PATIENCE);
    anyhow::ensure!(came == one.len(), "{} calls, {came} records", one.len());

    write("endpoint = 5\n")?;
    daemon.hang_up()?;
    let said =
        daemon.stderr_when(PATIENCE, |said| said.contains("the old one stays") && said.contains("s3auditd.toml:1"));
    anyhow::ensure!(said, "{}", daemon.stderr());
    write(&format!("endpoint = {:?}\ndialect = \"aws\"\nring-bytes = \"8MiB\"\n", second.url()))?;
    daemon.hang_up()?;
    let said = daemon.stderr_when(PATIENCE, |said| said.contains("takes effect with the next start"));
    anyhow::ensure!(said, "{}", daemon.stderr());
    let two = client.round("two")?;
    let came = second.wait_for(two.len(), PATIENCE);
    anyhow::ensure!(came == two.len(), "{} calls, {came} records", two.len());
    settled(&daemon, "default")?.whole()?;
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);

    let names: Vec<_> = second.records().iter().filter_map(|r| r.api_name().map(str::to_owned)).collect();
    anyhow::ensure!(names.contains(&"UploadPart".to_owned()), "not AWS's names: {names:?}");
    let said = configurations(&[first.records(), second.records()].concat());
    let expected = [("sighup".to_owned(), false, 0), ("sighup".to_owned(), true, 3)];
    anyhow::ensure!(said == expected, "the stream says {said:?}");
    Ok(())
}
