//! TLS: whom the agent trusts, and who it is.

use crate::support::{LONG, Scene, deliver, endpoint, orders, until};
use s3auditd::config::endpoint::{Endpoint, Tls};
use s3auditd::deliver::webhook::Webhook;
use s3auditd_tests::webhook::authority::Authority;
use s3auditd_tests::webhook::rude::{Rude, status};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn files() -> Files {
    Files(tempfile::tempdir().unwrap())
}

fn https(hook: &Rude, ca_file: &Path, client: Option<(PathBuf, PathBuf)>) -> Endpoint {
    let tls = Tls { ca_file: Some(ca_file.to_owned()), client };
    Endpoint { url: format!("https://{}/", hook.address).parse().unwrap(), tls, ..endpoint(hook.address) }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_and_another_is_not() {
    let (ours, theirs, files) = (Authority::new().unwrap(), Authority::new().unwrap(), files());
    let hook = Rude::start_tls(ours.acceptor(false).unwrap(), |_, _| status(200)).await.unwrap();
    let good = https(&hook, &files.write("ours.pem", &ours.pem()), None);
    let bad = https(&hook, &files.write("theirs.pem", &theirs.pem()), None);
    let scene = Scene::new(8);
    let (order, ordered) = watch::channel(orders(bad));
    let (_stop, stop) = watch::channel(true);
    let delivery = tokio::spawn(scene.worker(ordered, stop).run(LONG));
    until(|| scene.status().retries > 1).await;
    let said = scene.status().last_error.unwrap();
    assert!(said.contains("certificate") && hook.seen().is_empty(), "{said}");
    order.send(orders(good)).unwrap();
    delivery.await.unwrap();
    scene.assert(8, &[]);
}

#[tokio::test]
async fn a_webhook_that_asks_for_a_certificate_gets_ours() {
    let (ours, files) = (Authority::new().unwrap(), files());
    let hook = Rude::start_tls(ours.acceptor(true).unwrap(), |_, _| status(200)).await.unwrap();
    let ca = files.write("ca.pem", &ours.pem());
    let pair = ours.client().unwrap();
    let client = (files.write("client.pem", &pair.certificate), files.write("client.key", &pair.key));
    deliver(https(&hook, &ca, Some(client)), 8).await.assert(8, &[]);
    let without = Webhook::open(https(&hook, &ca, None)).unwrap();
    assert!(without.verify().await.is_err());
    assert_eq!(hook.seen().len(), 1);
}

#[test]
fn what_is_wrong_with_a_file_is_one_line_with_key_and_file() {
    let (ours, files) = (Authority::new().unwrap(), files());
    let (one, other) = (ours.client().unwrap(), ours.client().unwrap());
    let ca = files.write("ca.pem", &ours.pem());
    let certificate = files.write("client.pem", &one.certificate);
    let (key, wrong) = (files.write("client.key", &one.key), files.write("other.key", &other.key));
    let (empty, missing) = (files.write("empty", ""), files.0.path().join("missing"));
    let error = |ca: &Path, client: Option<(&Path, &Path)>| {
        let client = client.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
        let tls = Tls { ca_file: Some(ca.to_owned()), client };
        let text = Webhook::open(Endpoint { tls, ..endpoint("127.0.0.1:1") }).err().map(|error| error.to_string());
        text.map(|text| text.replace(files.0.path().to_str().unwrap(), "/d"))
    };
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(error(&ca, Some((&certificate, &key))), None);
    assert_eq!(error(&missing, None), is("ca-file: cannot read /d/missing: No such file or directory (os error 2)"));
    assert_eq!(error(&empty, None), is("ca-file: /d/empty: holds no certificate in PEM"));
    assert_eq!(error(&ca, Some((&empty, &key))), is("client-cert-file: /d/empty: holds no certificate in PEM"));
    assert_eq!(error(&ca, Some((&certificate, &ca))), is("client-key-file: /d/ca.pem: holds no private key in PEM"));
    assert_eq!(
        error(&ca, Some((&certificate, &wrong))),
        is("client-key-file: /d/other.key: is not the key of client-cert-file /d/client.pem")
    );
}
