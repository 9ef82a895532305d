//! Two endpoints on one spool: one is away, the other wants only what changes something.

use super::settled;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::s3s;
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::PATIENCE;

pub(super) fn two() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let (all, changes) = (Webhook::start()?, Webhook::start()?);
    all.answer(hyper::StatusCode::SERVICE_UNAVAILABLE);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("s3auditd.toml");
    let text = format!(
        "retry-first-ms = 20\nretry-most-ms = 200\nbatch-delay-ms = 50\n\n\
         [endpoints.changes]\nendpoint = {:?}\nfilter-access = \"write\"\ncompression = \"none\"\n",
        changes.url()
    );
    std::fs::write(&file, text)?;
    let (file, spool) = (file.to_string_lossy(), folder.path().join("spool"));
    let flags = ["--config", &*file, "--spool-dir", &*spool.to_string_lossy()];
    let daemon = Daemon::start(&[gateway.port()], Some(&all.url()), &flags)?;
    let calls = Light::of(&gateway)?.round("two-endpoints")?;
    let reading = |name: &str| name.starts_with("Get") || name.starts_with("Head") || name.starts_with("List");
    let made = calls.iter().filter(|call| !reading(&call.op)).count();
    let came = changes.wait_for(made, PATIENCE);
    anyhow::ensure!(came == made, "{made} calls change something, {came} records came");
    let status = settled(&daemon, "changes")?;
    anyhow::ensure!(all.records().is_empty(), "the webhook that is away has records");
    anyhow::ensure!(
        status.endpoint("default", "waiting") + status.endpoint("default", "in_flight") > 0,
        "{}",
        status.0
    );
    status.balanced()?;
    let seen: Vec<_> = changes.records().iter().filter_map(|r| r.operation().map(str::to_owned)).collect();
    let made = calls.iter().filter(|call| !reading(&call.op)).count();
    anyhow::ensure!(
        seen.len() == made && !seen.iter().any(|name| reading(name)),
        "{made} calls change something: {seen:?}"
    );

    all.answer(hyper::StatusCode::OK);
    let came = all.wait_for(calls.len(), PATIENCE);
    anyhow::ensure!(came == calls.len(), "{} calls, {came} records", calls.len());
    settled(&daemon, "default")?;
    let status = settled(&daemon, "changes")?;
    status.whole()?;
    anyhow::ensure!(status.endpoint("changes", "filtered") == (calls.len() - made) as u64, "{}", status.0);
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);
    s3auditd_tests::expect::same(&calls, &all.records())
}
