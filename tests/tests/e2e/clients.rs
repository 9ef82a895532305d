//! Every gateway with every client: each call has its record, and every field of it is what the client knows.

use crate::Scenario;
use s3auditd_tests::client::script::Script;
use s3auditd_tests::gateway::{Gateway, minio, moto, s3s};
use s3auditd_tests::need::Need;
use s3auditd_tests::world::World;

type Start = fn() -> anyhow::Result<Gateway>;

/// Names for trials, what is needed, how to start it.
const GATEWAYS: [(&str, Option<Need>, Start); 4] = [
    ("s3s_fs", None, s3s::start),
    ("minio", Some(Need::Minio), minio::start),
    ("moto", Some(Need::Moto), moto::start),
    ("minio_over_tls", Some(Need::Minio), || minio::start_tls(None)),
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (gateway, need, start) in GATEWAYS {
        for script in Script::ALL {
            all.push(Scenario {
                name: format!("clients::{}_on_{gateway}", script.name()),
                needs: need.iter().chain(script.needs()).copied().collect(),
                run: Box::new(move || round(start, script)),
            });
        }
    }
    all
}

fn round(start: Start, script: Script) -> anyhow::Result<()> {
    let world = World::around(start()?, &[])?;
    let calls = script.round(&world.gateway)?;
    anyhow::ensure!(calls.len() >= 15, "a round of {} made only {} calls", script.name(), calls.len());
    world.expect(&calls)?;
    Ok(())
}
