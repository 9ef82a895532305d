//! The spool by hand: looked into, exported, and delivered without a daemon.

use super::LONG;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::{self, Daemon};
use s3auditd_tests::expect;
use s3auditd_tests::gateway::s3s;
use s3auditd_tests::webhook::Webhook;

pub(super) fn by_hand() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let webhook = Webhook::start()?;
    webhook.answer(hyper::StatusCode::SERVICE_UNAVAILABLE);
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (spool, exported) = (place("spool"), place("exported.ndjson"));
    let flags = ["--spool-dir", spool.as_str(), "--chain", "on", "--drain-seconds", "1"];
    let daemon = Daemon::start(&[gateway.port()], Some(&webhook.url()), &flags)?;
    let calls = Light::of(&gateway)?.round("by-hand")?;
    let busy = daemon::run(&["spool", "drain", "--spool-dir", &spool, "--endpoint", &webhook.url()])?;
    anyhow::ensure!(
        busy.status.code() == Some(2) && busy.stderr.contains("in use"),
        "{}\n{}",
        busy.status,
        busy.stderr
    );
    let kept = calls.len() as u64;
    let waits =
        daemon.status_when(LONG, |s| s.endpoint("default", "waiting") + s.endpoint("default", "in_flight") >= kept)?;
    waits.balanced()?;
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "what is in the spool is safe: {}\n{}", ended.status, ended.stderr);
    anyhow::ensure!(webhook.records().is_empty(), "the webhook was away, and has records");

    let inspected = daemon::run(&["spool", "inspect", "--spool-dir", &spool])?;
    anyhow::ensure!(inspected.status.success() && inspected.stdout.contains("default"), "{}", inspected.stdout);
    let export = daemon::run(&["spool", "export", "--spool-dir", &spool, "--output", &exported])?;
    anyhow::ensure!(export.status.success(), "{}", export.stderr);
    let verified = daemon::run(&["verify", &exported])?;
    anyhow::ensure!(verified.status.success(), "{}\n{}", verified.stdout, verified.stderr);

    webhook.answer(hyper::StatusCode::OK);
    let letters = place("letters");
    let places = ["--spool-dir", spool.as_str(), "--dead-letter-file", letters.as_str()];
    let drained = daemon::run(&[&["spool", "drain", "--endpoint", &webhook.url()][..], &places].concat())?;
    anyhow::ensure!(
        drained.status.success() && drained.stdout.contains(" 0 left"),
        "{}\n{}",
        drained.stdout,
        drained.stderr
    );
    expect::same(&calls, &webhook.records())?;
    let lines: usize = std::fs::read_to_string(&exported)?.lines().count();
    anyhow::ensure!(webhook.records().len() == lines, "{lines} exported, {} delivered", webhook.records().len());
    Ok(())
}
