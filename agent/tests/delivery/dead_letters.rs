//! Records that are refused for good, and the file that keeps them.

use crate::support::{Scene, endpoint, numbers};
use s3auditd::deliver::dead_letter::DeadLetter;
use s3auditd::ledger::DropCause;
use s3auditd_tests::webhook::rude::{Rude, answer, status};
use serde_json::Value;

async fn refusing(records: usize, most_bytes: u64) -> (Scene, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead-letter.ndjson");
    let hook = Rude::start(|_, request| match numbers(request) {
        numbers if numbers.iter().any(|number| number % 10 == 4) => {
            answer(400, "", "{\"text\":\"Invalid data format\",\"code\":6}")
        }
        numbers if numbers.contains(&7) => status(413),
        _ => status(200),
    })
    .await
    .unwrap();
    let mut scene = Scene::new(records);
    scene.dead_letter = Some(DeadLetter::open(&path, most_bytes).unwrap());
    scene.deliver(endpoint(hook.address)).await;
    let lines = std::fs::read_to_string(&path).unwrap();
    (scene, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn a_refused_record_is_kept_with_why_and_by_whom() {
    let (scene, lines) = refusing(20, 1 << 20).await;
    scene.assert(17, &[(DropCause::DeadLettered, 3)]);
    let said: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["record"]["n"].as_u64(), line["refused"]["status"].as_u64(), line["refused"]["code"].as_u64())
        })
        .collect();
    assert_eq!(said, [(Some(4), Some(400), Some(6)), (Some(7), Some(413), None), (Some(14), Some(400), Some(6))]);
    assert_eq!(lines[0]["refused"]["endpoint"], "default");
    assert!(lines[0]["refused"]["time"].as_str().unwrap().ends_with('Z'));
    let told: Vec<_> = scene.spool.given_up().iter().map(|told| (told.first, told.cause)).collect();
    assert_eq!(told, [4, 7, 14].map(|sequence| (sequence, DropCause::DeadLettered)));
}

#[tokio::test]
async fn a_full_file_loses_the_record_and_says_so() {
    let (scene, lines) = refusing(20, 250).await;
    assert_eq!(lines.len(), 1);
    scene.assert(17, &[(DropCause::DeadLettered, 1), (DropCause::TooLarge, 1), (DropCause::Poison, 1)]);
}
