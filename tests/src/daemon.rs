//! The daemon under test: a process of its own, known only by its flags, its status page, its exit code and its words.

use crate::backend;
use crate::http::fetch;
use crate::need::tool;
use crate::patience::stretched;
use crate::record::Record;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long it may take until its probes are attached (a dev build under load).
const ATTACH_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to drain and end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon; killed when dropped without [`Daemon::stop`].
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    binary: PathBuf,
    /// Where it serves `/status`.
    pub metrics: SocketAddr,
    stdout: Captured,
    stderr: Captured,
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote there.
    pub stdout: String,
    /// All it wrote there.
    pub stderr: String,
}

impl Ended {
    /// What it wrote to stdout, as records.
    ///
    /// # Errors
    /// A line that is no JSON.
    pub fn records(&self) -> anyhow::Result<Vec<Record>> {
        let lines = self.stdout.lines();
        lines.map(|line| Ok(Record(serde_json::from_str(line).with_context(|| line.to_owned())?))).collect()
    }
}

impl Daemon {
    /// Starts `s3auditd run` and waits until its probes are attached.
    ///
    /// # Errors
    /// It is missing, or ends, or is not attached in time; with what it wrote to stderr.
    pub fn start(ports: &[u16], endpoint: Option<&str>, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_binary(&binary()?, ports, endpoint, flags)
    }

    /// [`Daemon::start`] with a given binary.
    ///
    /// # Errors
    /// See there.
    pub fn start_binary(binary: &Path, ports: &[u16], endpoint: Option<&str>, flags: &[&str]) -> anyhow::Result<Self> {
        let mut daemon = Self::spawn(binary, ports, endpoint, flags)?;
        daemon.wait_attached()?;
        Ok(daemon)
    }

    fn spawn(binary: &Path, ports: &[u16], endpoint: Option<&str>, flags: &[&str]) -> anyhow::Result<Self> {
        let metrics = crate::gateway::local(crate::gateway::free_port()?);
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let mut command = command(binary);
        command.arg("run").args(["--listen", &ports.join(","), "--metrics-listen", &metrics.to_string()]);
        if let Some(endpoint) = endpoint {
            command.args(["--endpoint", endpoint]);
        }
        // Nothing outside the scenario's own folders, unless it says so.
        for place in ["--spool-dir", "--dead-letter-file", "--control-socket"] {
            if !flags.contains(&place) {
                command.args([place, "off"]);
            }
        }
        if let Some(backend) = backend::forced() {
            command.args(["--backend", &backend]);
        }
        let mut child = command.args(flags).spawn().with_context(|| format!("starting {command:?}"))?;
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Ok(Self { child, binary: binary.to_owned(), metrics, stdout, stderr })
    }

    fn wait_attached(&mut self) -> anyhow::Result<()> {
        let patience = stretched(ATTACH_PATIENCE);
        let deadline = Instant::now() + patience;
        loop {
            if self.status().is_ok_and(|status| status.attached()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended at its start: {status}\n{}", self.stderr.text());
            }
            if Instant::now() > deadline {
                bail!("the daemon's probes were not attached after {patience:?}\n{}", self.stderr.text());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says of itself now.
    ///
    /// # Errors
    /// The page does not answer, or is no JSON.
    pub fn status(&self) -> anyhow::Result<Status> {
        let page = fetch(self.metrics, "/status").context("the daemon's status page")?;
        Ok(Status(serde_json::from_slice(&page).context("the daemon's status page")?))
    }

    /// Asks until `good` holds; the last status either way, so that the caller's own check says what is wrong.
    ///
    /// # Errors
    /// The page does not answer.
    pub fn status_when(&self, patience: Duration, good: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
        let deadline = Instant::now() + stretched(patience);
        loop {
            let status = self.status()?;
            if good(&status) || Instant::now() > deadline {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The table that `s3auditd status` prints.
    ///
    /// # Errors
    /// It fails.
    pub fn status_table(&self) -> anyhow::Result<String> {
        let ended = run_binary(&self.binary, &["status", "--metrics-listen", &self.metrics.to_string()])?;
        anyhow::ensure!(ended.status.success(), "`s3auditd status`: {}\n{}", ended.status, ended.stderr);
        Ok(ended.stdout)
    }

    /// What it wrote to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until what it wrote to stderr is `good`; whether it came to be.
    #[must_use]
    pub fn stderr_when(&self, patience: Duration, good: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + stretched(patience);
        loop {
            if good(&self.stderr()) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Errors
    /// It is gone.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).context("SIGHUP to the daemon")
    }

    /// SIGTERM, then waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> anyhow::Result<Ended> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("SIGTERM to the daemon")?;
        let deadline = Instant::now() + stretched(END_PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended { status, stdout: self.stdout.finish(), stderr: self.stderr.finish() });
            }
            if Instant::now() > deadline {
                bail!("the daemon did not end in time after SIGTERM\n{}", self.stderr.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> anyhow::Result<PathBuf> {
    tool("S3AUDITD_BIN").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))
}

fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    without_our_variables(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Each of the daemon's keys is also a variable: what is set for us must not configure it, nor make it warn.
pub fn without_our_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"S3AUDITD_")) {
        command.env_remove(name);
    }
}

/// Runs the binary with these arguments to its end.
///
/// # Errors
/// It is missing, or still runs after [`END_PATIENCE`].
pub fn run(arguments: &[&str]) -> anyhow::Result<Ended> {
    run_binary(&binary()?, arguments)
}

fn run_binary(binary: &Path, arguments: &[&str]) -> anyhow::Result<Ended> {
    let mut child = command(binary).args(arguments).spawn().context("starting s3auditd")?;
    let mut stdout = Captured::of(child.stdout.take());
    let mut stderr = Captured::of(child.stderr.take());
    let deadline = Instant::now() + stretched(END_PATIENCE);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended { status, stdout: stdout.finish(), stderr: stderr.finish() });
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("`s3auditd {}` did not end in time\n{}", arguments.join(" "), stderr.text());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An output stream, read as it comes, so that the daemon never waits for us.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let reader = stream.map(|stream| {
            let text = Arc::clone(&text);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                    text.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To the end of the stream: for a process that is gone.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has left what it had.
            let _ = reader.join();
        }
        self.text()
    }
}

/// The `/status` page.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// Whether the probes run.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.backend().is_some()
    }

    /// By which hooks the probes run.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.text("/capture/backend").filter(|backend| !backend.is_empty())
    }

    /// How often the kernel did not run a program that it should have run.
    #[must_use]
    pub fn missed_runs(&self) -> u64 {
        let programs = self.0.pointer("/capture/missed_runs").and_then(Value::as_object).into_iter().flatten();
        programs.filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// Instructions that the verifier went through, by program; none where the kernel does not count them.
    pub fn verified_instructions(&self) -> impl Iterator<Item = (&str, u64)> {
        let programs =
            self.0.pointer("/capture/verified_instructions").and_then(Value::as_object).into_iter().flatten();
        programs.filter_map(|(program, count)| Some((program.as_str(), count.as_u64()?)))
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }

    fn cpus(&self) -> impl Iterator<Item = &Value> {
        self.0.pointer("/capture/cpus").and_then(Value::as_array).into_iter().flatten()
    }

    /// Of all CPUs: `emitted`, `read`, `read_bytes` ...
    #[must_use]
    pub fn ring(&self, field: &str) -> u64 {
        self.cpus().filter_map(|cpu| cpu.get(field).and_then(Value::as_u64)).sum()
    }

    /// Of all CPUs: a kernel counter by its name.
    #[must_use]
    pub fn kernel(&self, counter: &str) -> u64 {
        self.cpus().filter_map(|cpu| cpu.get("counters")?.get(counter)?.as_u64()).sum()
    }

    /// Samples that the kernel side made and the ring did not take.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.kernel("ring_full") + self.kernel("ring_refused")
    }

    /// A count of the rebuild core.
    #[must_use]
    pub fn rebuild(&self, name: &str) -> u64 {
        self.count(&["rebuild", name])
    }

    /// Any number on the page; 0 when it is not there.
    #[must_use]
    pub fn count(&self, path: &[&str]) -> u64 {
        path.iter().try_fold(&self.0, |value, name| value.get(*name)).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether something listens on the watched port, as far as the daemon knows.
    #[must_use]
    pub fn listening(&self, port: u16) -> Option<bool> {
        let ports = self.0.pointer("/capture/ports")?.as_array()?;
        let entry = ports.iter().find(|entry| entry.get("port").and_then(Value::as_u64) == Some(u64::from(port)))?;
        entry.get("listening")?.as_bool()
    }

    /// Every CPU: what the kernel side put into the ring was read. Holds once the ring is quiet.
    ///
    /// # Errors
    /// The CPU whose ledger is off.
    pub fn ring_agrees(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.cpus().next().is_some(), "the status page lists no CPU: {}", self.0);
        for cpu in self.cpus() {
            let number = |field| cpu.get(field).and_then(Value::as_u64);
            let (emitted, read) = (number("emitted"), number("read"));
            anyhow::ensure!(emitted.is_some() && emitted == read, "emitted is not read: {cpu}");
            anyhow::ensure!(number("undecodable") == Some(0), "samples that cannot be decoded: {cpu}");
        }
        Ok(())
    }

    /// The ledger balances: every account equals its other side.
    ///
    /// # Errors
    /// The equations that do not hold.
    pub fn balanced(&self) -> anyhow::Result<()> {
        let equations = self.0.get("balance").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        anyhow::ensure!(!equations.is_empty(), "the status page has no equations: {}", self.0);
        let wrong: Vec<_> = equations.iter().filter(|equation| equation.get("left") != equation.get("right")).collect();
        anyhow::ensure!(wrong.is_empty(), "the ledger is not balanced: {wrong:?}\n{}", self.0);
        Ok(())
    }

    /// How often something was lost for this cause.
    #[must_use]
    pub fn lost_for(&self, stage: &str, cause: &str) -> u64 {
        let losses = self.0.get("losses").and_then(Value::as_array).into_iter().flatten();
        let of = |loss: &&Value| {
            loss.get("stage").is_some_and(|s| s == stage) && loss.get("cause").is_some_and(|c| c == cause)
        };
        losses.filter(of).filter_map(|loss| loss.get("count")?.as_u64()).sum()
    }

    /// How often something was lost at this stage, for any cause.
    #[must_use]
    pub fn lost_at(&self, stage: &str) -> u64 {
        let losses = self.0.get("losses").and_then(Value::as_array).into_iter().flatten();
        let of = losses.filter(|loss| loss.get("stage").is_some_and(|of| of == stage));
        of.filter_map(|loss| loss.get("count")?.as_u64()).sum()
    }

    /// A record count of an endpoint: `waiting`, `delivered`, ...
    #[must_use]
    pub fn endpoint(&self, name: &str, account: &str) -> u64 {
        self.count(&["records", "endpoints", name, account, "records"])
    }

    /// [`Status::ring_agrees`] and [`Status::balanced`], and nothing was lost.
    ///
    /// # Errors
    /// What is off.
    pub fn whole(&self) -> anyhow::Result<()> {
        self.ring_agrees()?;
        self.balanced()?;
        anyhow::ensure!(self.lost() == 0, "samples were lost: {}", self.0);
        Ok(())
    }
}
