use super::*;
use crate::capture::status::{CpuStatus, PortStatus};
use crate::ledger::DropCause;
use http_body_util::BodyExt as _;

fn health() -> (Arc<Health>, Ledger, Arc<DeliveryStats>) {
    let ledger = Ledger::default();
    let limit = Count { records: 10, bytes: 100 };
    let spool = Spool::memory(1000, &["default".to_owned()]);
    let health = Health::new("i-1".to_owned(), SystemTime::UNIX_EPOCH, ledger.clone(), limit, spool);
    let delivery = Arc::new(DeliveryStats::default());
    health.show_endpoint("default", Arc::clone(&delivery));
    (Arc::new(health), ledger, delivery)
}

async fn get(health: &Health, path: &str) -> (u16, String) {
    let response = respond(&Method::GET, path, health);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let (health, _ledger, delivery) = health();
    let degraded = |text: &str| (503, format!("{{\"ok\":false,\"degraded\":[\"{text}\"]}}"));
    assert_eq!(get(&health, "/health").await, degraded("capture: not started"));
    health.publish_capture(CaptureStatus::default());
    assert_eq!(get(&health, "/health").await, (200, "{\"ok\":true,\"degraded\":[]}".to_owned()));
    delivery.failed(DeliveryState::Held, "HTTP 401".to_owned());
    assert_eq!(get(&health, "/health").await, degraded("endpoint default: held: HTTP 401"));
}

#[tokio::test]
async fn metrics_tell_every_loss_by_cause() {
    let (health, ledger, _delivery) = health();
    ledger.begin("default", Count { records: 3, bytes: 30 });
    ledger.queued(Count { records: 10, bytes: 20 });
    ledger.refused(DropCause::QueueFull, Count { records: 1, bytes: 0 });
    ledger.writing(Count { records: 4, bytes: 8 });
    ledger.stored(Count { records: 4, bytes: 8 });
    let counters = [("ring_full".to_owned(), 3), ("faults".to_owned(), 4)].into();
    let cpu = CpuStatus { cpu: 1, emitted: 10, read: 9, counters, ..CpuStatus::default() };
    let ports = vec![PortStatus { port: 9000, listening: true }];
    health.publish_capture(CaptureStatus { cpus: vec![cpu], ports, ..CaptureStatus::default() });
    health.publish_rebuild([("exchanges_begun", 7)], [("evicted", 5)]);
    let (status, text) = get(&health, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "s3auditd_up 1",
        "s3auditd_samples_emitted_total{cpu=\"1\"} 10",
        "s3auditd_samples_read_total{cpu=\"1\"} 9",
        "s3auditd_samples_lost_total{cpu=\"1\",cause=\"ring_full\"} 3",
        "s3auditd_kernel_events_total{cpu=\"1\",event=\"faults\"} 4",
        "s3auditd_port_listening{port=\"9000\"} 1",
        "s3auditd_rebuild{counter=\"exchanges_begun\"} 7",
        "s3auditd_records_total 11",
        "s3auditd_queue_records 6",
        "s3auditd_records_dropped_total{cause=\"queue_full\"} 1",
        "s3auditd_endpoint_records_waiting{endpoint=\"default\"} 7",
        "s3auditd_endpoint_records_dropped_total{endpoint=\"default\",cause=\"poison\"} 0",
        "s3auditd_lost_total{stage=\"kernel\",cause=\"ring_full\"} 3",
        "s3auditd_lost_total{stage=\"rebuild\",cause=\"evicted\"} 5",
        "s3auditd_lost_total{stage=\"queue\",cause=\"queue_full\"} 1",
        "s3auditd_lost_total{stage=\"delivery\",cause=\"dead_lettered\"} 0",
        "s3auditd_ledger_imbalances 1",
        "s3auditd_delivery_state{endpoint=\"default\",state=\"ok\"} 1",
        "s3auditd_delivery_last_success_timestamp_seconds{endpoint=\"default\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let page = include_str!("../../../docs/operate.md");
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(|rest| rest.split(' ').next().unwrap())
    {
        assert!(
            page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}_total`")),
            "{name} in operate.md"
        );
    }
}

#[tokio::test]
async fn a_client_gets_the_status_that_the_daemon_has() {
    let (health, _ledger, _delivery) = health();
    health.publish_rebuild([("exchanges_begun", 7)], [("evicted", 5)]);
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::clone(&health), stopped));
    let fetched = crate::status::fetch(address).await.unwrap();
    assert_eq!(Status { now: fetched.now, ..health.status() }, fetched);
    let taken = bind(address).await.unwrap_err().to_string();
    assert_eq!(taken, format!("metrics-listen: cannot listen at {address}: Address already in use (os error 98)"));
    stop.send(true).unwrap();
    server.await.unwrap();
    let gone = crate::status::fetch(address).await.unwrap_err().to_string();
    assert!(gone.starts_with(&format!("no s3auditd answers at {address}: ")), "{gone}");
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out() {
    let (health, _ledger, _delivery) = health();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_go_on, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, health, stopped));
    let mut silent = Vec::new();
    for _ in 1..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(crate::status::fetch(address).await.is_ok());
}

#[test]
fn only_three_pages_and_two_methods() {
    let (health, _ledger, _delivery) = health();
    assert_eq!(respond(&Method::POST, "/status", &health).status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(respond(&Method::GET, "/", &health).status(), StatusCode::NOT_FOUND);
}
