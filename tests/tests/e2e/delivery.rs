//! The way to the webhook.

use crate::Scenario;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{free_port, local, s3s};
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use std::collections::HashSet;
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("delivery::a_webhook_that_is_down_at_the_start", down_at_the_start),
        Scenario::new("delivery::a_webhook_that_refuses_for_a_while", refusing),
        Scenario::new("delivery::the_token_from_a_flag", || token(false)),
        Scenario::new("delivery::the_token_from_a_file", || token(true)),
    ]
}

fn down_at_the_start() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let port = free_port()?;
    let daemon = Daemon::start(&[gateway.port()], Some(&format!("http://{}/audit", local(port))), &[])?;
    let calls = Light::of(&gateway)?.round("nobody-there")?;
    let retried = |status: &s3auditd_tests::daemon::Status| status.count(&["delivery", "default", "retries"]) > 0;
    let status = daemon.status_when(PATIENCE, retried)?;
    anyhow::ensure!(retried(&status), "the webhook is down, and status shows no retry: {}", status.0);

    let webhook = Webhook::start_at(port)?;
    World { gateway, webhook, daemon }.expect(&calls)?;
    Ok(())
}

fn refusing() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    world.webhook.answer(hyper::StatusCode::SERVICE_UNAVAILABLE);
    let calls = Light::of(&world.gateway)?.round("busy")?;
    std::thread::sleep(Duration::from_secs(3));
    let (taken, asked) = (world.webhook.records().len(), world.webhook.deliveries());
    anyhow::ensure!(taken == 0 && !asked.is_empty(), "{taken} records taken, {} deliveries", asked.len());
    let keys: HashSet<_> = asked.iter().map(|delivery| delivery.idempotency_key.clone()).collect();
    anyhow::ensure!(keys.len() == 1 && !keys.contains(&None), "a retry changed its key: {keys:?}");
    world.webhook.answer(hyper::StatusCode::OK);
    world.expect(&calls)?;
    Ok(())
}

fn token(from_file: bool) -> anyhow::Result<()> {
    const TOKEN: &str = "Splunk 11111111-2222-3333-4444-555555555555";
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), format!("{TOKEN}\n"))?;
    let path = file.path().to_string_lossy().into_owned();
    let flags: [&str; 2] = if from_file { ["--auth-token-file", &path] } else { ["--auth-token", TOKEN] };
    let gateway = s3s::start()?;
    let World { gateway, webhook, daemon } = World::around(gateway, &flags)?;
    let calls = Light::of(&gateway)?.round("with-a-token")?;
    let came = webhook.wait_for(calls.len(), PATIENCE);
    anyhow::ensure!(came == calls.len(), "{} calls, {came} records", calls.len());
    let status = daemon.status()?;
    let ended = daemon.stop()?;
    expect::same(&calls, &webhook.records())?;
    for delivery in webhook.deliveries() {
        anyhow::ensure!(delivery.authorization.as_deref() == Some(TOKEN), "sent without the token: {delivery:?}");
        anyhow::ensure!(delivery.idempotency_key.is_some(), "sent without a key: {delivery:?}");
    }
    let connections: HashSet<_> = webhook.deliveries().iter().map(|delivery| delivery.from).collect();
    anyhow::ensure!(connections.len() == 1, "the connection was not kept: {connections:?}");
    let said = format!("{}{}{}", status.0, ended.stdout, ended.stderr);
    anyhow::ensure!(!said.contains("11111111"), "the daemon told its token: {said}");
    Ok(())
}
