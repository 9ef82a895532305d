//! Secrets planted wherever an exchange can hold one, and not one of them in the record.

use crate::exchanges::{self, settings};
use s3auditd_rebuild::exchange::{BodyStart, Exchange};
use s3auditd_rebuild::record::RecordSettings;
use s3auditd_rebuild::redact::Redaction;
use s3auditd_rebuild::s3::operation::Dialect;

/// A fresh secret with every call, recognisable in whatever a record makes of it.
struct Planter {
    planted: usize,
}

impl Planter {
    fn secret(&mut self) -> String {
        self.planted += 1;
        format!("SECRET{:03}Zq", self.planted)
    }
}

const MARK: &str = "SECRET";

const HEADERS: [&str; 32] = [
    "Authorization",
    "authorization",
    "Proxy-Authorization",
    "X-Forwarded-Authorization",
    "Cookie",
    "X-Amz-Security-Token",
    "x-amz-s3session-token",
    "x-amz-request-token",
    "x-amz-request-route",
    "X-Amz-Server-Side-Encryption-Customer-Key",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-fwd-header-x-amz-server-side-encryption-customer-key",
    "x-amz-mfa",
    "x-amz-bucket-object-lock-token",
    "x-amz-client-token",
    "x-forwarded-client-cert",
    "x-auth-token",
    "X-Storage-Token",
    "X-Vault-Token",
    "x-api-key",
    "Signature",
    "X-Amz-Signature",
    "Token",
    "Password",
    "Set-Cookie",
    "WWW-Authenticate",
    "Policy",
    "SecretKey",
    "LDAPPassword",
    "WebIdentityToken",
    "X-Patient",
    "Access_Token",
];

const PARAMETERS: [&str; 20] = [
    "X-Amz-Signature",
    "x-amz-signature",
    "X-AMZ-SECURITY-TOKEN",
    "X-Amz-S3session-Token",
    "Signature",
    "LDAPPassword",
    "WebIdentityToken",
    "WebIdentityAccessToken",
    "Token",
    "Policy",
    "temp_url_sig",
    "code",
    "access_token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "X%2DAmz%2DSignature",
    "Authorization",
    "X-Amz-Signature%3Dx",
    "SAMLAssertion",
    "x-patient",
];

fn uris(planter: &mut Planter) -> Vec<String> {
    vec![
        format!("https://gw/b/k?X-Amz-Signature={}&x=1", planter.secret()),
        format!("https://user:{}@gw/b/k", planter.secret()),
        format!("https://app/?next=https%3A%2F%2Fgw%2Fk%3FX-Amz-Security-Token%3D{}", planter.secret()),
        format!("https://app/?n=https%253A%252F%252Fgw%252Fk%253FSignature%253D{}%2526z", planter.secret()),
        format!("https://app/#access_token={}", planter.secret()),
        format!("/b/k?Signature=a%26b,c;{}", planter.secret()),
    ]
}

fn assert_clean(settings: RecordSettings, exchange: &Exchange) {
    for dialect in [Dialect::Weka, Dialect::Minio, Dialect::Aws] {
        let line = exchanges::line(RecordSettings { dialect, ..settings.clone() }, exchange);
        if let Some(at) = line.find(MARK) {
            panic!("leaked: {}", &line[at.saturating_sub(120)..(at + 20).min(line.len())]);
        }
    }
}

fn strict() -> RecordSettings {
    RecordSettings {
        redaction: Redaction { extra_names: vec!["X-Patient".to_owned()], only_names: None },
        ..settings()
    }
}

#[test]
fn nothing_planted_is_in_the_record() {
    let mut planter = Planter { planted: 0 };
    let mut query: Vec<String> = PARAMETERS.iter().map(|name| format!("{name}={}", planter.secret())).collect();
    // As a name of its own: `X-Amz-Signature%3DSECRET`.
    query.push(format!("X-Amz-Signature%3D{}", planter.secret()));
    query.push(format!("next=https%3A%2F%2Fgw%2Fk%3FX-Amz-Signature%3D{}", planter.secret()));
    let path = format!("/bucket%3FX-Amz-Signature%3D{}/key%3FX-Amz-Signature%3D{}", planter.secret(), planter.secret());
    let target = format!("http://user:{}@gw{path}?{}", planter.secret(), query.join("&"));
    let mut fields: Vec<(String, String)> = HEADERS.iter().map(|name| ((*name).to_owned(), planter.secret())).collect();
    for scheme in ["AWS4-HMAC-SHA256 Credential=", "AWS ", "Basic ", "Bearer ", "Negotiate "] {
        fields.push(("Authorization".to_owned(), format!("{scheme}{}", planter.secret())));
    }
    fields.push((
        "Authorization".to_owned(),
        format!(
            "AWS4-HMAC-SHA256 Credential=AK/20250321/r/s3/aws4_request,SignedHeaders=host,Signature={}",
            planter.secret()
        ),
    ));
    fields.push(("Authorization".to_owned(), format!("AWS AK:{}", planter.secret())));
    for carrier in
        ["Referer", "X-Original-Uri", "x-amz-copy-source", "User-Agent", "Origin", "x-amz-meta-a", "Host", "Range"]
    {
        fields.extend(uris(&mut planter).into_iter().map(|uri| (carrier.to_owned(), uri)));
    }
    fields.push((format!("Odd X-Amz-Signature={}", planter.secret()), String::new()));
    let request_fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut reply_fields: Vec<(String, String)> =
        HEADERS.iter().map(|name| ((*name).to_owned(), planter.secret())).collect();
    for carrier in ["Location", "Link", "x-amz-request-id", "x-amz-id-2", "ETag", "x-amz-version-id", "Content-Range"] {
        reply_fields.extend(uris(&mut planter).into_iter().map(|uri| (carrier.to_owned(), uri)));
    }
    let error = format!(
        "<Error><Code>SignatureDoesNotMatch</Code><Message>{}</Message><StringToSign>{}</StringToSign></Error>",
        planter.secret(),
        planter.secret()
    );
    for method in ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"] {
        let request = exchanges::request(method, &target, request_fields.clone());
        let reply = reply_fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut exchange = exchanges::exchange(request, exchanges::response(403, reply));
        exchange.request_body = exchanges::body(&planter.secret());
        exchange.response_body = exchanges::body(&error);
        assert_clean(strict(), &exchange);
    }
    let method = format!("GET?Signature={}", planter.secret());
    let odd = exchanges::request(&method, "/b?delete", []);
    assert_clean(strict(), &exchanges::exchange(odd, exchanges::response(200, [])));
    assert!(planter.planted > 150);
}

#[test]
fn an_error_code_that_is_none_is_not_copied() {
    let mut planter = Planter { planted: 0 };
    for code in [format!("{} with words", planter.secret()), planter.secret().repeat(20)] {
        let mut exchange = exchanges::exchange(exchanges::request("GET", "/b/k", []), exchanges::response(403, []));
        exchange.response_body = exchanges::body(&format!("<Error><Code>{code}</Code></Error>"));
        assert_clean(strict(), &exchange);
    }
}

#[test]
fn forms_give_nothing_away() {
    let mut planter = Planter { planted: 0 };
    let sts = format!(
        "Action=AssumeRoleWithLDAPIdentity&LDAPUsername=u&LDAPPassword={}&Token={}",
        planter.secret(),
        planter.secret()
    );
    let reply = format!(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKNEW</AccessKeyId>\
         <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken></Credentials></AssumeRoleResult></AssumeRoleResponse>",
        planter.secret(),
        planter.secret()
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut exchange = exchanges::exchange(exchanges::request("POST", "/", form), exchanges::response(200, []));
    exchange.request_body = exchanges::body(&sts);
    exchange.response_body = exchanges::body(&reply);
    assert_clean(strict(), &exchange);
    let record = exchanges::record(settings(), &exchange);
    assert_eq!(record["api"]["name"], "AssumeRoleWithLDAPIdentity");
    assert_eq!(record["s3auditd"]["issuedAccessKey"], "AKNEW");

    let part =
        |name: &str, value: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let fields: String = ["policy", "x-amz-signature", "signature", "x-amz-security-token", "file"]
        .into_iter()
        .map(|name| part(name, &planter.secret()))
        .collect();
    let upload = [("Content-Type", "multipart/form-data; boundary=x")];
    let mut exchange = exchanges::exchange(exchanges::request("POST", "/b", upload), exchanges::response(204, []));
    let body = format!("{}{}{fields}--x--", part("key", "a/cat.jpg"), part("AWSAccessKeyId", "AK"));
    exchange.request_body = BodyStart { bytes: body.into_bytes(), whole: true };
    assert_clean(strict(), &exchange);
    let record = exchanges::record(settings(), &exchange);
    assert_eq!(record["api"]["object"], "a/cat.jpg");
    assert_eq!(record["s3auditd"]["authType"], "HtmlForm");
}
