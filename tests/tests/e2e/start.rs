//! Starting and stopping: what is said, and with which exit code.

use crate::Scenario;
use anyhow::Context as _;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::{self, Daemon};
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{free_port, local, s3s};
use s3auditd_tests::need::{self, Need};
use s3auditd_tests::webhook::Webhook;
use s3auditd_tests::world::{PATIENCE, World};
use serde_json::Value;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("start::bad_input_is_one_clear_line_and_exit_code_2", bad_input),
        Scenario::needing("start::a_missing_capability_or_btf_is_one_clear_line", &[Need::Namespaces], lacking),
        Scenario::needing("start::doctor_names_what_is_there_and_what_is_missing", &[Need::Namespaces], doctor),
        Scenario::new("start::a_metrics_address_that_is_taken_is_exit_code_5", address_taken),
        Scenario::new("start::status_without_a_daemon_is_exit_code_6", no_daemon),
        Scenario::new("start::a_port_that_nobody_listens_on_is_waited_for", port_without_listener),
        Scenario::new("start::without_an_endpoint_records_go_to_stdout", stdout),
        Scenario::new("start::sigterm_drains", sigterm_drains),
        Scenario::new("start::the_thread_of_the_rings_goes_ahead_unless_told_not_to", ahead),
    ]
}

fn ahead() -> anyhow::Result<()> {
    for (flags, steps) in [(&[][..], 5), (&["--ring-priority", "off"][..], 0)] {
        let daemon = Daemon::start(&[free_port()?], None, flags)?;
        // A thread has its name, and its place, once it has begun to run.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let threads = threads(&daemon)?;
            let usual = threads.iter().find(|(name, _)| name == "s3auditd").context("no main thread")?.1;
            let placed = |(name, nice): &(String, i32)| *nice == if name == "audit" { usual - steps } else { usual };
            if threads.iter().any(|(name, _)| name == "audit") && threads.iter().all(placed) {
                break;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{flags:?}: {threads:?}, the rings' thread not {steps} steps ahead"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Nice values of the daemon's threads, by their names.
fn threads(daemon: &Daemon) -> anyhow::Result<Vec<(String, i32)>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        // One may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).context("no name")?;
        // Field 19 of proc_pid_stat(5), the 17th behind the name.
        let nice = rest.split_whitespace().nth(16).context("no nice value")?.parse()?;
        threads.push((name.to_owned(), nice));
    }
    Ok(threads)
}

fn bad_input() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        path.into_os_string().into_string().ok().context("a path that is no UTF-8")
    };
    let misspelt = file("misspelt.toml", "lisen = [9000]\n")?;
    let broken = file("broken.toml", "listen = [9000\n")?;
    let absent = folder.path().join("absent.toml");
    let absent = absent.to_str().context("a path that is no UTF-8")?;
    // What is given, and a word that the complaint has to hold.
    let cases: [(&[&str], &str); 7] = [
        (&["--config", &misspelt], "lisen"),
        (&["--config", &broken], "broken.toml"),
        (&["--config", absent], "absent.toml"),
        (&["--listen", "9000", "--endpoint", "not a url"], "endpoint"),
        (&["--listen", "9000", "--endpoint", "ftp://127.0.0.1/"], "endpoint"),
        (&["--listen", "0"], "listen"),
        (&["--listen", "9000", "--endpoint", "http://127.0.0.1:1/", "--auth-token-file", absent], "absent.toml"),
    ];
    for (flags, word) in cases {
        // No address that another daemon on this machine may hold.
        let arguments: Vec<_> = ["run", "--metrics-listen", "off"].iter().chain(flags).copied().collect();
        let ended = daemon::run(&arguments)?;
        let said = ended.stderr.trim_end();
        let shown = format!("`s3auditd {}`: {}\n{said}", arguments.join(" "), ended.status);
        anyhow::ensure!(ended.status.code() == Some(2), "not exit code 2: {shown}");
        anyhow::ensure!(said.contains(word) && said.lines().count() == 1, "not one line about {word:?}: {shown}");
    }
    Ok(())
}

/// Takes every capability from what it runs.
const WITHOUT_CAPABILITIES: [&str; 4] = ["--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"];

/// The daemon behind a command that takes something from it first.
fn lacking() -> anyhow::Result<()> {
    let cases: [(&str, &[&str], i32, &str); 2] = [
        ("setpriv", &WITHOUT_CAPABILITIES, 3, "CAP_BPF"),
        (
            "unshare",
            &["--mount", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\""],
            4,
            "/sys/kernel/btf/vmlinux",
        ),
    ];
    let folder = open_folder()?;
    let binary = binary_in(folder.path())?;
    for (program, before, code, word) in cases {
        let mut command = Command::new(program);
        command.args(before).arg(&binary).args(["run", "--listen", "9000", "--metrics-listen", "off"]);
        daemon::without_our_variables(&mut command);
        let ended = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let shown = format!("{command:?}: {}\n{said}", ended.status);
        anyhow::ensure!(ended.status.code() == Some(code), "not exit code {code}: {shown}");
        anyhow::ensure!(
            said.contains(word) && said.trim_end().lines().count() == 1,
            "not one line about {word:?}: {shown}"
        );
    }
    Ok(())
}

fn open_folder() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?)
}

/// A copy that anybody may run: the build's folders may be root's alone.
fn binary_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let binary = folder.join("s3auditd");
    std::fs::copy(
        need::tool("S3AUDITD_BIN").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?,
        &binary,
    )?;
    Ok(binary)
}

fn doctor() -> anyhow::Result<()> {
    let (gateway, webhook) = (s3s::start()?, Webhook::start()?);
    let (port, url) = (gateway.port().to_string(), webhook.url());
    let arguments = ["doctor", "--listen", &port, "--endpoint", &url, "--metrics-listen", "off", "--json", "--webhook"];
    let ended = daemon::run(&arguments)?;
    anyhow::ensure!(ended.status.success(), "{}\n{}\n{}", ended.status, ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout)?;
    let verdict = |name: &str| {
        let mut checks = report.get("checks").and_then(Value::as_array).into_iter().flatten();
        let check = checks.find(|check| check.get("name").is_some_and(|found| found == name));
        check.and_then(|check| check.get("verdict")?.as_str()).unwrap_or("not there").to_owned()
    };
    for name in ["BTF", "CAP_BPF", "CAP_PERFMON", "perf rings", &format!("port {port}"), "webhook default"] {
        anyhow::ensure!(verdict(name) == "ok", "{name} is {}\n{report:#}", verdict(name));
    }
    anyhow::ensure!(report.get("works") == Some(&true.into()), "{report:#}");
    anyhow::ensure!(webhook.records().is_empty(), "the webhook got something to keep");

    let folder = open_folder()?;
    let mut command = Command::new("setpriv");
    command.args(WITHOUT_CAPABILITIES).arg(binary_in(folder.path())?).args(["doctor", "--listen", &port]);
    daemon::without_our_variables(&mut command);
    let ended = command.stdin(Stdio::null()).output()?;
    let (table, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let shown = format!("{}\n{table}\n{said}", ended.status);
    anyhow::ensure!(ended.status.code() == Some(3), "not exit code 3: {shown}");
    anyhow::ensure!(said.contains("CAP_BPF") && said.trim_end().lines().count() == 1, "not one line: {shown}");
    anyhow::ensure!(
        table.lines().any(|line| line.starts_with("missing CAP_BPF")),
        "the table has no such line: {shown}"
    );
    Ok(())
}

fn address_taken() -> anyhow::Result<()> {
    let taken = TcpListener::bind(local(0))?;
    let address = taken.local_addr()?.to_string();
    let ended = daemon::run(&["run", "--listen", "9000", "--metrics-listen", &address])?;
    anyhow::ensure!(ended.status.code() == Some(5), "{}\n{}", ended.status, ended.stderr);
    anyhow::ensure!(ended.stderr.contains(&address), "it does not name {address}:\n{}", ended.stderr);
    Ok(())
}

fn no_daemon() -> anyhow::Result<()> {
    let address = local(free_port()?).to_string();
    let ended = daemon::run(&["status", "--metrics-listen", &address])?;
    anyhow::ensure!(ended.status.code() == Some(6), "{}\n{}", ended.status, ended.stderr);
    anyhow::ensure!(ended.stderr.contains(&address), "it does not name {address}:\n{}", ended.stderr);
    Ok(())
}

fn port_without_listener() -> anyhow::Result<()> {
    let port = free_port()?;
    let webhook = Webhook::start()?;
    let daemon = Daemon::start(&[port], Some(&webhook.url()), &[])?;
    let status = daemon.status_when(PATIENCE, |status| status.listening(port) == Some(false))?;
    anyhow::ensure!(status.listening(port) == Some(false), "nobody listens, and status says {}", status.0);
    let named = daemon.stderr_when(PATIENCE, |said| said.contains(&format!("port={port}")));
    anyhow::ensure!(named, "the log does not say that {port} has no listener:\n{}", daemon.stderr());

    let gateway = s3s::start_at(local(port))?;
    let calls = Light::of(&gateway)?.round("late-gateway")?;
    let status = daemon.status_when(PATIENCE, |status| status.listening(port) == Some(true))?;
    anyhow::ensure!(status.listening(port) == Some(true), "a gateway listens, and status says {}", status.0);
    World { gateway, webhook, daemon }.expect(&calls)?;
    Ok(())
}

fn stdout() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let daemon = Daemon::start(&[gateway.port()], None, &[])?;
    let calls = Light::of(&gateway)?.round("to-stdout")?;
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "the daemon ended with {}\n{}", ended.status, ended.stderr);
    expect::same(&calls, &ended.records()?)
}

/// Records that wait for their batch to fill are sent at the end, and those whose bytes wait in a ring are made first.
fn sigterm_drains() -> anyhow::Result<()> {
    let gateway = s3s::start()?;
    let flags = ["--batch-delay-ms", "60000", "--ring-flush-ms", "5000"];
    let World { gateway, webhook, daemon } = World::around(gateway, &flags)?;
    let calls = Light::of(&gateway)?.round("until-the-end")?;
    let before = webhook.records().len();
    anyhow::ensure!(before == 0, "{before} records came before their batch was due: nothing is left to drain");
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "the daemon ended with {}\n{}", ended.status, ended.stderr);
    expect::same(&calls, &webhook.records())
}
