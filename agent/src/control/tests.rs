use super::*;

fn webhook(token: &str) -> Webhook {
    Webhook {
        endpoint: "https://splunk.example.com:8088/".to_owned(),
        auth_token: Some(Secret::new(token)),
        auth_token_file: None,
        format: Some("hec-raw".to_owned()),
    }
}

#[tokio::test]
async fn a_request_comes_through_with_its_token_and_the_reply_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let control = Control::bind(&path).await.unwrap();
    let (sender, mut asked) = Control::channel();
    let server = tokio::spawn(control.serve(sender));
    let request = Request::Enable { webhook: webhook("Splunk abc"), verify: true };
    let supervisor = tokio::spawn(async move {
        let Asked { request, answer } = asked.recv().await.unwrap();
        answer.send(Reply::Done("enabled".to_owned())).unwrap();
        request
    });
    assert_eq!(ask(&path, &request).await.unwrap(), Reply::Done("enabled".to_owned()));
    let arrived = supervisor.await.unwrap();
    assert_eq!(arrived, request);
    assert!(!format!("{arrived:?}").contains("abc"), "the token shows: {arrived:?}");

    let second = Control::bind(&path).await.err().unwrap().to_string();
    assert!(second.ends_with("another daemon listens there"), "{second}");
    // The supervisor is gone.
    assert_eq!(ask(&path, &Request::Show).await.unwrap(), Reply::Refused("the daemon is stopping".to_owned()));
    server.abort();
    let _aborted = server.await;
    assert!(!path.exists(), "the socket's file is left");
    let nobody = ask(&path, &Request::Show).await.unwrap_err().to_string();
    assert!(nobody.contains("no daemon answers"), "{nobody}");
}

#[tokio::test]
async fn the_file_of_a_daemon_that_was_killed_is_replaced_and_only_its_owner_may_use_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _control = Control::bind(&path).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn rubbish_is_refused_without_being_repeated() {
    let (sender, _asked) = Control::channel();
    let reply = settle("{\"command\":\"enable\",\"token\":\"secret\"", &sender).await;
    assert_eq!(reply, Reply::Refused("not understood; are daemon and command of one version?".to_owned()));
}

#[test]
fn what_is_set_outlives_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(managed::Managed::read(directory.path()).unwrap(), managed::Managed::default());
    let set = managed::Managed { disabled: true, webhook: Some(webhook("Splunk \"quoted\"")) };
    set.write(directory.path()).unwrap();
    assert_eq!(managed::Managed::read(directory.path()).unwrap(), set);
    let path = directory.path().join("webhook.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&path, "disabled = true\n[webhook]\nendpoint = 'http://h/'\nauth-token = secret\n").unwrap();
    let error = managed::Managed::read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("webhook.toml") && !error.contains("secret"), "{error}");
}
