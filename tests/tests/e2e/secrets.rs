//! Secrets wherever an exchange can hold one, live through the daemon; and not one of them in anything that it says:
//! records, standard output, log, status, metrics.

use crate::Scenario;
use anyhow::Context as _;
use s3auditd_tests::client::{script::Script, sign};
use s3auditd_tests::gateway::{Gateway, minio, raw};
use s3auditd_tests::http::{Connection, fetch};
use s3auditd_tests::need::Need;
use s3auditd_tests::world::World;
use std::io::Write as _;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::needing("secrets::none_leaves_minio", &[Need::Minio, Need::Python], on_minio),
        Scenario::new("secrets::none_leaves_a_gateway_that_echoes_them", on_an_echo),
    ]
}

/// A secret is this, then a number, then [`MARK_END`]: in one piece in every encoding.
const MARK: &str = "SECRET";
const MARK_END: &str = "Zq";

/// Not secret: in each request, to know that the search sees what is there.
const BEACON: &str = "beacon-in-the-open";

#[derive(Debug, Default)]
struct Planter {
    planted: usize,
}

impl Planter {
    fn secret(&mut self) -> String {
        self.planted += 1;
        format!("{MARK}{}{MARK_END}", self.planted)
    }
}

const HEADERS: [&str; 22] = [
    "Authorization",
    "Proxy-Authorization",
    "X-Forwarded-Authorization",
    "Cookie",
    "X-Amz-Security-Token",
    "x-amz-s3session-token",
    "X-Amz-Server-Side-Encryption-Customer-Key",
    "X-Amz-Copy-Source-Server-Side-Encryption-Customer-Key",
    "x-amz-mfa",
    "x-amz-bucket-object-lock-token",
    "x-forwarded-client-cert",
    "x-auth-token",
    "x-api-key",
    "Signature",
    "X-Amz-Signature",
    "Token",
    "Password",
    "Set-Cookie",
    "WWW-Authenticate",
    "LDAPPassword",
    // As configured, in another case.
    "X-PATIENT",
    "x-insurance-number",
];

const PARAMETERS: [&str; 16] = [
    "X-Amz-Signature",
    "x-amz-signature",
    "Signature",
    "X-Amz-Security-Token",
    "LDAPPassword",
    "WebIdentityToken",
    "Token",
    "Policy",
    "code",
    "access_token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "X%2DAmz%2DSignature",
    "Authorization",
    "X-Amz-Signature%3Dx",
    "x-patient",
];

const SCHEMES: [&str; 7] = [
    "AWS4-HMAC-SHA256 Credential=AK/20260321/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=",
    "AWS4-HMAC-SHA256 Credential=AK/20260321/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=",
    "AWS4-HMAC-SHA256 Credential=",
    "AWS AK:",
    "AWS ",
    "Basic ",
    "Bearer ",
];

/// URIs that hold a secret each, as pages and proxies pass them on.
fn uris(planter: &mut Planter) -> Vec<String> {
    vec![
        format!("https://gateway/b/k?X-Amz-Signature={}&x=1", planter.secret()),
        format!("https://someone:{}@gateway/b/k", planter.secret()),
        format!("https://page/?next=https%3A%2F%2Fgateway%2Fk%3FX-Amz-Security-Token%3D{}", planter.secret()),
        format!("https://page/?next=https%253A%252F%252Fgateway%252Fk%253FSignature%253D{}%2526z", planter.secret()),
        format!("https://page/#access_token={}", planter.secret()),
    ]
}

/// Requests with a secret in every place, most of them with one only, so that none hides behind another.
fn requests(gateway: &Gateway, planter: &mut Planter) -> Vec<Vec<u8>> {
    let path = format!("/secrets/{BEACON}");
    let mut all = Vec::new();
    for name in HEADERS {
        let header = format!("{name}: {}", planter.secret());
        all.push(sign::request(gateway, "GET", &path, &[&header], b""));
    }
    for scheme in SCHEMES {
        let header = format!("Authorization: {scheme}{}", planter.secret());
        all.push(sign::request(gateway, "GET", &path, &["X-Amz-Date: 20260321T000000Z", &header], b""));
    }
    for name in PARAMETERS {
        let target = format!("{path}?{name}={}", planter.secret());
        all.push(sign::request(gateway, "GET", &target, &[], b""));
    }
    for carrier in ["Referer", "X-Original-Uri", "X-Amz-Copy-Source", "Origin"] {
        for uri in uris(planter) {
            let header = format!("{carrier}: {uri}");
            let method = if carrier == "X-Amz-Copy-Source" { "PUT" } else { "GET" };
            all.push(sign::request(gateway, method, &path, &[&header], b""));
        }
    }
    let absolute = format!("http://someone:{}@{}{path}", planter.secret(), gateway.address);
    all.push(sign::request(gateway, "GET", &absolute, &[], b""));
    // A proxy that leaves a slash too many.
    for before in ["/", "/secrets/"] {
        for uri in uris(planter) {
            all.push(sign::request(gateway, "GET", &format!("{before}{uri}"), &[], b""));
        }
    }
    all.push(sts_form(gateway, planter));
    all.push(upload_form(gateway, planter));
    all
}

fn sts_form(gateway: &Gateway, planter: &mut Planter) -> Vec<u8> {
    let body = format!(
        "Action=AssumeRoleWithLDAPIdentity&Version=2011-06-15&LDAPUsername={BEACON}&LDAPPassword={}&Token={}",
        planter.secret(),
        planter.secret(),
    );
    sign::request(gateway, "POST", "/", &["Content-Type: application/x-www-form-urlencoded"], body.as_bytes())
}

fn upload_form(gateway: &Gateway, planter: &mut Planter) -> Vec<u8> {
    let secret = ["policy", "x-amz-signature", "signature", "x-amz-security-token", "file"];
    let open = [("key", BEACON), ("x-amz-credential", "AK/20260321/us-east-1/s3/aws4_request")];
    let fields = open.map(|(name, value)| (name, value.to_owned())).into_iter();
    let body: String = fields
        .chain(secret.map(|name| (name, planter.secret())))
        .map(|(name, value)| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"))
        .collect();
    let body = format!("{body}--x--\r\n");
    sign::request(gateway, "POST", "/secrets", &["Content-Type: multipart/form-data; boundary=x"], body.as_bytes())
}

fn on_minio() -> anyhow::Result<()> {
    round(minio::start()?, |gateway| {
        let secrets = Script::secrets(gateway)?;
        anyhow::ensure!(secrets.len() >= 40, "boto3 had only {} secrets", secrets.len());
        Ok(secrets)
    })
}

/// Its replies hold secrets too: in headers, and what was asked in the body of an error.
fn on_an_echo() -> anyhow::Result<()> {
    // Numbers that the requests do not come to.
    let mut planter = Planter { planted: 10_000 };
    let mut headers: String = HEADERS.iter().map(|name| format!("{name}: {}\r\n", planter.secret())).collect();
    for carrier in ["Location", "Link", "x-amz-request-id", "x-amz-id-2", "Content-Location"] {
        headers.extend(uris(&mut planter).iter().map(|uri| format!("{carrier}: {uri}\r\n")));
    }
    let (message, key) = (planter.secret(), planter.secret());
    let gateway = raw::start(move |request, stream| {
        let body = format!(
            "<Error><Code>SignatureDoesNotMatch</Code><Message>{message}</Message><StringToSign>{}</StringToSign>\
             <SecretAccessKey>{key}</SecretAccessKey></Error>",
            request.target
        );
        let head = format!("HTTP/1.1 403 Forbidden\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
    })?;
    round(gateway, |_| Ok(Vec::new()))
}

/// Plants, then searches all that the daemon said. `more` makes further requests and tells their secrets.
fn round(gateway: Gateway, more: fn(&Gateway) -> anyhow::Result<Vec<String>>) -> anyhow::Result<()> {
    let mut planter = Planter::default();
    let mut token = tempfile::NamedTempFile::new()?;
    writeln!(token, "Splunk {}", planter.secret())?;
    let token = token.path().to_str().context("a path in UTF-8")?;
    let flags = ["--log", "debug", "--redact-names", "x-patient,X-Insurance-Number", "--auth-token-file", token];
    let world = World::around(gateway, &flags)?;

    let mut secrets = more(&world.gateway)?;
    secrets.push(MARK.to_owned());
    let requests = requests(&world.gateway, &mut planter);
    for request in &requests {
        let reply = Connection::open(world.gateway.address)?.ask(request)?;
        anyhow::ensure!(reply.status >= 200, "no reply: {}", reply.head);
    }
    let came = world.webhook.wait_for(requests.len(), s3auditd_tests::world::PATIENCE);
    anyhow::ensure!(came >= requests.len(), "{} requests, {came} records", requests.len());
    let pages = ["/status", "/metrics", "/health"].map(|page| (page, fetch(world.daemon.metrics, page)));
    let table = world.daemon.status_table()?;

    let after = world.settle(requests.len())?;
    after.status.whole().with_context(|| after.ended.stderr.clone())?;
    let records: Vec<_> = after.records.iter().map(ToString::to_string).collect();
    let mut said = vec![("records", records.join("\n")), ("status table", table)];
    said.push(("standard output", after.ended.stdout));
    said.push(("log", after.ended.stderr));
    for (page, text) in pages {
        said.push((page, String::from_utf8_lossy(&text?).into_owned()));
    }
    for (place, text) in &said {
        eprintln!("searched: {} bytes of {place}", text.len());
        for secret in &secrets {
            if let Some(at) = text.find(secret.as_str()).or_else(|| text.find(&percent_encoded(secret))) {
                let from = text.floor_char_boundary(at.saturating_sub(300));
                let to = text.floor_char_boundary(at + 200);
                anyhow::bail!("a secret is in the {place}: {}", text.get(from..to).unwrap_or_default());
            }
        }
    }
    // The search would have found them.
    let text = said.first().map_or("", |(_, records)| records.as_str());
    let (beacons, cuts) = (text.matches(BEACON).count(), text.matches("*REDACTED*").count());
    anyhow::ensure!(beacons >= 60 && cuts >= 60, "{beacons} beacons and {cuts} cuts in {} records", records.len());
    anyhow::ensure!(planter.planted >= 70, "only {} secrets were planted", planter.planted);
    Ok(())
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
