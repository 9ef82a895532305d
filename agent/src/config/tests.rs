//! Every message is asserted whole: they are the interface for whoever made the mistake.

use super::keys::KEYS;
use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    layers.add_file(Path::new("/etc/a.toml"), text)?;
    layers.build()
}

fn file_error(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

fn load_all(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Loaded, ConfigError> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    load(&FileChoice::Given(path.path().to_owned()), flags, &variables(environment))
}

fn flag_error(flags: Flags) -> String {
    load(&FileChoice::Skip, flags, &variables(&[])).unwrap_err().to_string()
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = "queue-records = 5\nbatch-records = 6\ndrain-seconds = 7\n";
    let environment = [("S3AUDITD_BATCH_RECORDS", "60"), ("S3AUDITD_DRAIN_SECONDS", "70")];
    let flags = Flags { drain_seconds: Some("700".to_owned()), ..Flags::default() };
    let config = load_all(file, &environment, flags).unwrap().config;
    assert_eq!(
        (config.queue_records, config.batch_records, config.drain_seconds, config.ring_flush_ms),
        (5, 60, 700, 50)
    );
}

#[test]
fn the_defaults_are_valid_and_need_only_ports() {
    let config = load(&FileChoice::Skip, Flags::default(), &variables(&[])).unwrap().config;
    assert_eq!(config.metrics_listen, Some("127.0.0.1:9466".parse().unwrap()));
    assert_eq!(config.trusted_proxies, ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!((config.ring_bytes, config.queue_bytes, config.dialect), (4 << 20, 256 << 20, Dialect::Weka));
    assert_eq!((config.audit_classes.as_slice(), config.token()), ([].as_slice(), TokenSource::None));
    let missing =
        "listen: no port given; --listen 9000, S3AUDITD_LISTEN, or listen = [9000] in the file says which to watch";
    assert_eq!(config.check_run().unwrap_err().to_string(), missing);
}

#[test]
fn lists_come_as_arrays_and_with_commas() {
    let config =
        from_file("listen = [9001, 9000, 9001]\ndomain = \"S3.Example.com., b\"\naudit-classes = ['health']").unwrap();
    assert_eq!((config.listen, config.domain), (vec![9000, 9001], vec!["s3.example.com".to_owned(), "b".to_owned()]));
    assert_eq!(config.audit_classes, [AuditClass::Health]);
}

#[test]
fn errors_of_the_file_name_its_line() {
    for (text, message) in [
        ("listen = [", "/etc/a.toml:1: unclosed array, expected `]`"),
        ("\n\nqueue-recrods = 1", "/etc/a.toml:3: queue-recrods: no such key; is queue-records meant?"),
        ("colour-of-the-house = 1", "/etc/a.toml:1: colour-of-the-house: no such key"),
        ("[webhook]\nurl = 1", "/etc/a.toml:1: webhook: no such key"),
        ("\nlisten = [0]", "/etc/a.toml:2: listen: must be ports from 1 to 65535, not \"0\""),
        ("listen = 9000.5", "/etc/a.toml:1: listen: must be a text, a number, or a list of them"),
        ("queue-records = [1]", "/etc/a.toml:1: queue-records: must be one value, not a list"),
        (
            "queue-records = \"many\"",
            "/etc/a.toml:1: queue-records: must be a number from 1 to 100000000, not \"many\"",
        ),
        ("max-head-bytes = \"2MiB\"", "/etc/a.toml:1: max-head-bytes: must be a size from 4KiB to 1MiB, not \"2MiB\""),
        ("ring-bytes = \"3MiB\"", "/etc/a.toml:1: ring-bytes: must be a power of two from 8KiB to 1GiB, not \"3MiB\""),
        ("dialect = \"ceph\"", "/etc/a.toml:1: dialect: must be one of weka, minio, aws, not \"ceph\""),
        ("endpoint = \"splunk:8088\"", "/etc/a.toml:1: endpoint: must be an http or https URL, not \"splunk:8088\""),
        (
            "endpoint = \"https://u:p@splunk\"",
            "/etc/a.toml:1: endpoint: must not carry credentials; they belong into auth-token-file",
        ),
        (
            "metrics-listen = \"9466\"",
            "/etc/a.toml:1: metrics-listen: must be an address such as 127.0.0.1:9466, or \"off\", not \"9466\"",
        ),
        (
            "trusted-proxies = [\"10.0.0.0/33\"]",
            "/etc/a.toml:1: trusted-proxies: must be networks such as 10.0.0.0/8 or addresses, not \"10.0.0.0/33\"",
        ),
        ("server-ip = \"node\"", "/etc/a.toml:1: server-ip: must be an IP address, not \"node\""),
        (
            "auth-token = \"a\"\nauth-token-file = \"/t\"",
            "/etc/a.toml:2: auth-token-file: must not stand beside auth-token",
        ),
    ] {
        assert_eq!(file_error(text), message, "{text}");
    }
}

#[test]
fn errors_of_flags_and_variables_name_them() {
    let flags = Flags { batch_bytes: Some("1".to_owned()), ..Flags::default() };
    assert_eq!(flag_error(flags), "--batch-bytes: must be a size from 1KiB to 1GiB, not \"1\"");
    let flags = Flags { ring_watermark_bytes: Some("3MiB".to_owned()), ..Flags::default() };
    assert_eq!(flag_error(flags), "--ring-watermark-bytes: must be at most half of ring-bytes");
    let error = load_all("", &[("S3AUDITD_LISTEN", "http")], Flags::default()).unwrap_err();
    assert_eq!(error.to_string(), "S3AUDITD_LISTEN: must be ports from 1 to 65535, not \"http\"");
    let missing = FileChoice::Given(PathBuf::from("/nowhere/a.toml"));
    let error = load(&missing, Flags::default(), &variables(&[])).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/a.toml: No such file or directory (os error 2)");
}

#[test]
fn a_token_shows_nowhere() {
    let loaded = load_all("auth-token = \"Splunk s3cret\"", &[], Flags::default()).unwrap();
    assert!(!format!("{:?} {}", loaded.config, loaded.effective).contains("s3cret"));
    assert!(loaded.effective.contains("# auth-token = (redacted), "));
    assert_eq!(loaded.config.token().read().unwrap().unwrap(), "Splunk s3cret");
    let error = load_all("auth-token = \"s3\\ncret\"", &[], Flags::default()).unwrap_err().to_string();
    assert!(
        error.ends_with(":1: auth-token: must be one line of printable characters, as an HTTP header carries them")
    );
}

#[test]
fn the_stronger_way_to_give_a_token_wins() {
    let flags = Flags { auth_token: Some("Bearer x".to_owned()), ..Flags::default() };
    let config = load_all("auth-token-file = \"/t\"", &[], flags).unwrap().config;
    assert_eq!(config.token(), TokenSource::Given(Secret::new("Bearer x")));
    let environment = [("S3AUDITD_AUTH_TOKEN_FILE", "/t")];
    let config = load_all("auth-token = \"Bearer x\"", &environment, Flags::default()).unwrap().config;
    assert_eq!(config.token(), TokenSource::File(PathBuf::from("/t")));
}

#[test]
fn variables_that_mean_nothing_are_told_and_rust_log_is_the_last_resort() {
    let environment = [("S3AUDITD_PORT", "tcp://10.0.0.1:1"), ("RUST_LOG", "debug"), ("S3AUDITD_CONFIG", "")];
    let loaded = load_all("", &environment, Flags::default()).unwrap();
    assert_eq!(loaded.warnings, ["S3AUDITD_PORT: no such variable; ignored"]);
    assert_eq!(loaded.config.log, "debug");
    assert_eq!(load_all("log = 'warn'", &environment, Flags::default()).unwrap().config.log, "warn");
}

#[test]
fn what_validate_shows_is_a_file_with_the_same_meaning() {
    let text = "listen = [9000]\ncluster-name = \"a \\\"b\\\", c\"\nrelease = \"4.4\"\nredact-names = [\"X-Key\"]\n";
    let loaded = load_all(text, &[], Flags::default()).unwrap();
    assert_eq!(from_file(&loaded.effective).unwrap(), loaded.config);
}

#[test]
fn the_documentation_has_every_key_with_its_default() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configure.md")).unwrap();
    for key in KEYS {
        let default = if key.default.is_empty() { "not set" } else { key.default };
        let row = format!("| `{}` | `{}` | {default} |", key.name(), key.variable());
        assert!(page.contains(&row), "docs/configure.md lacks a row that begins with: {row}");
    }
}

#[test]
fn the_example_file_is_valid() {
    let text = include_str!("../../../deploy/s3auditd.toml");
    assert!(from_file(text).unwrap().check_run().is_ok());
    let uncommented: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    assert_eq!(
        file_error(&uncommented).split_once(": ").unwrap().1,
        "auth-token-file: must not stand beside auth-token"
    );
}

#[test]
fn endpoints_come_from_the_flat_keys_and_from_tables() {
    let config = from_file(
        "endpoint = 'https://splunk:8088/services/collector/raw'\nauth-token = 'Splunk t'\nhec-ack = 'on'\n\
         filter-access = 'write'\n[endpoints.siem]\nendpoint = 'http://siem/in'\ncompression = 'zstd'\n\
         [endpoints.b-2]\nendpoint = 'http://h:1/services/collector'\nfilter-buckets = ['a', 'b']",
    )
    .unwrap();
    let names: Vec<_> = config.endpoints.iter().map(|endpoint| (endpoint.name.as_str(), endpoint.format)).collect();
    assert_eq!(names, [("default", Format::HecRaw), ("b-2", Format::HecEvent), ("siem", Format::Ndjson)]);
    let [default, b, siem] = config.endpoints.as_slice() else { panic!("{names:?}") };
    assert_eq!(default.hec.acknowledged_within, Some(std::time::Duration::from_secs(120)));
    assert_eq!((default.filter.access, &default.token), (Access::Write, &TokenSource::Given(Secret::new("Splunk t"))));
    // Nothing is inherited from the flat keys, the token least of all.
    assert_eq!((&siem.token, siem.compression, siem.filter.is_open()), (&TokenSource::None, Compression::Zstd, true));
    assert_eq!(
        (b.filter.buckets.as_slice(), b.hec.acknowledged_within),
        (["a", "b"].map(str::to_owned).as_slice(), None)
    );
}

#[test]
fn errors_of_endpoints_name_their_table() {
    for (text, message) in [
        ("[endpoints]\nsiem = 1", "/etc/a.toml:2: endpoints: must be tables, as in [endpoints.siem]"),
        ("endpoints = 1", "/etc/a.toml:1: endpoints: must be tables, as in [endpoints.siem]"),
        (
            "[endpoints.default]\nendpoint = 'http://h/'",
            "/etc/a.toml:1: endpoints.default: the name must be letters, digits, - and _, at most 64, and not \"default\"",
        ),
        ("\n[endpoints.a]\ncompression = 'none'", "/etc/a.toml:2: endpoints.a.endpoint: must be set"),
        ("[endpoints.a]\nurl = 'http://h/'", "/etc/a.toml:2: endpoints.a.url: no such key"),
        (
            "[endpoints.a]\nendpoint = 'http://h/'\ncompresion = 'gzip'",
            "/etc/a.toml:3: endpoints.a.compresion: no such key; is compression meant?",
        ),
        ("[endpoints.a]\nlisten = 1", "/etc/a.toml:2: endpoints.a.listen: no such key"),
        (
            "[endpoints.a]\nendpoint = 'http://h/'\nhec-ack = 'maybe'",
            "/etc/a.toml:3: endpoints.a.hec-ack: must be on or off, not \"maybe\"",
        ),
        (
            "[endpoints.a]\nendpoint = 'http://h/'\nclient-key-file = 'k'",
            "/etc/a.toml:3: endpoints.a.client-key-file: must come with client-cert-file",
        ),
        ("retry-first-ms = 600000", "/etc/a.toml:1: retry-first-ms: must be at most retry-most-ms"),
    ] {
        assert_eq!(file_error(text), message, "{text}");
    }
}

#[test]
fn a_webhook_that_was_enabled_wins_over_the_flat_keys() {
    let config =
        from_file("endpoint = 'http://old/'\nauth-token-file = '/old'\n[endpoints.b]\nendpoint = 'http://b/'").unwrap();
    let webhook = |endpoint: &str, token: Option<&str>| Webhook {
        endpoint: endpoint.to_owned(),
        auth_token: token.map(Secret::new),
        auth_token_file: None,
        format: None,
    };
    let set = config.with_webhook(&webhook("http://new/", Some("t"))).unwrap();
    let seen: Vec<_> = set.endpoints.iter().map(|endpoint| (endpoint.name.as_str(), endpoint.url.as_str())).collect();
    assert_eq!(seen, [("default", "http://new/"), ("b", "http://b/")]);
    assert_eq!(set.endpoints[0].token, TokenSource::Given(Secret::new("t")));
    assert_eq!(
        config.with_webhook(&webhook("new", None)).unwrap_err(),
        "endpoint: must be a URL such as https://splunk:8088/services/collector/raw, not \"new\""
    );
    assert_eq!(config.with_webhook(&webhook("http://h/", Some("\n"))).unwrap_err(), "auth-token: must not be empty");
}
