//! What the probes say, byte for byte, against what really crossed the socket, for every way to receive and send.
//!
//! The test runs the capture itself; a server process (this binary again, the capture leaves its own process alone)
//! moves bytes by every system call there is. Both ends derive the same plan from a seed, and every byte of a stream is
//! a function of its offset, so each sample can be checked where it stands.

#[cfg(target_arch = "x86_64")]
mod compat;
mod cpus;
pub(crate) mod layers;
mod notes;
mod odd;
mod plaintext;
mod plan;
mod server;

use crate::Scenario;
use anyhow::{Context as _, anyhow, bail, ensure};
pub(crate) use plan::has_bpf_loop;
use plan::{Plan, Step, Way};
use s3auditd::capture::{Capture, CaptureSettings};
use s3auditd::config::BackendChoice;
use s3auditd_common::{
    counters::KernelCounter,
    sample::{Kind, Unseen},
};
use s3auditd_tests::need::Need;
use s3auditd_tests::patience::stretched;
use std::{
    cell::Cell,
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        Scenario::new("capture::each_way_to_receive_and_send_is_byte_exact", || each_way("127.0.0.1:0")),
        Scenario::needing("capture::each_way_is_byte_exact_over_ipv6", &[Need::Ipv6], || each_way("[::1]:0")),
        Scenario::new("capture::many_connections_on_all_cpus_are_byte_exact", many),
        Scenario::new("capture::threads_that_preempt_each_other_are_byte_exact", preemption),
        Scenario::new("capture::a_sockmap_that_lets_pass_is_named_and_gives_no_byte", layers::sockmap_passes),
        Scenario::new("capture::a_sockmap_that_redirects_is_named_and_gives_no_byte", layers::sockmap_redirects),
        Scenario::needing("capture::kernel_tls_is_named_and_gives_no_byte", &[Need::KernelTls], layers::kernel_tls),
        Scenario::needing(
            "capture::plaintext_of_threads_that_preempt_each_other_is_byte_exact",
            &[Need::GoHttps],
            plaintext::many_threads,
        ),
        Scenario::needing("capture::mptcp_is_named_and_gives_no_byte", &[Need::Mptcp], layers::multipath),
    ];
    // What the others have none of is no scenario of theirs.
    if notes::is_about_this_run() {
        scenarios.extend([
            Scenario::new("capture::calls_without_room_for_a_note_are_counted", notes::no_room),
            Scenario::new("capture::missed_returns_are_counted_and_leave_nothing", notes::missed_returns),
        ]);
    }
    if cpus::is_about_this_run() {
        scenarios.extend([
            Scenario::new("capture::a_cpu_that_comes_online_later_is_captured", cpus::comes_later),
            Scenario::new("capture::a_cpu_that_was_away_is_captured_again", cpus::comes_back),
        ]);
    }
    scenarios
}

/// This binary as the server process, if it was started as that.
pub(crate) fn serve_if_asked() {
    if let Some(address) = std::env::args().nth(1).and_then(|word| word.strip_prefix("serve=").map(str::to_owned))
        && let Err(error) = server::serve(&address)
    {
        eprintln!("server at {address}: {error}");
        std::process::exit(1);
    }
}

fn each_way(bind: &str) -> anyhow::Result<()> {
    run(bind, plan::each_way(), 1)?.check().map(drop)
}

fn many() -> anyhow::Result<()> {
    run("127.0.0.1:0", (0..200).map(Plan::random).collect(), 16)?.check().map(drop)
}

/// Connections at once, each with a thread of the server: so many for a CPU that they have to wait for each other.
const THREADS_A_CPU: usize = 40;
/// And at most, whatever the machine.
const MOST_THREADS: usize = 400;

/// Threads of several classes and priorities, so that one takes the CPU from another wherever it is, in a program too if
/// the kernel lets it. A byte of a buffer that two programs share is a byte of another connection or another place.
fn preemption() -> anyhow::Result<()> {
    let cpus = thread::available_parallelism()?.get();
    let at_once = (cpus * THREADS_A_CPU).min(MOST_THREADS);
    let plans: Vec<_> = (0..2 * at_once as u64).map(Plan::contended).collect();
    let moved: usize = plans.iter().flat_map(|plan| &plan.steps).map(|step| step.len).sum();
    let report = run("127.0.0.1:0", plans, at_once)?;
    let (checked, missed) = (report.check()?, report.missed);
    eprintln!("noted: {at_once} threads on {cpus} CPUs: {checked} of {moved} bytes checked, {missed} calls missed");
    // Where the kernel skips runs it is less than all; a run in which most are skipped shows nothing.
    ensure!(checked >= 1 << 20 && checked >= moved as u64 / 2, "only {checked} of {moved} bytes were there to check");
    Ok(())
}

/// The one that this run is about, if any.
fn backend() -> anyhow::Result<BackendChoice> {
    let Some(name) = s3auditd_tests::backend::forced() else { return Ok(BackendChoice::Auto) };
    let found = BackendChoice::ALL.iter().copied().find(|choice| choice.name() == name);
    found.with_context(|| format!("there is no backend {name}"))
}

/// One sample as it matters here.
struct Seen {
    kind: Kind,
    time_ns: u64,
    unseen: Unseen,
    seq: u32,
    other_seq: u32,
    len: u32,
    lost: u32,
    payload: Vec<u8>,
    from: SocketAddr,
}

/// What was seen, by the client's port and the kernel's name for the connection (a port comes again, a cookie does not),
/// and what really happened there: by port, in order.
struct Report {
    samples: HashMap<u16, HashMap<u64, Vec<Seen>>>,
    plans: HashMap<u16, Vec<Plan>>,
    emitted: u64,
    read: u64,
    /// Samples that a ring did not take.
    lost: u64,
    /// Runs of programs that the kernel skipped: calls of which there is no sample.
    missed: u64,
    backend: String,
}

/// Runs the plans against a server at `bind`, `at_once` at a time, under the capture.
fn run(bind: &str, plans: Vec<Plan>, at_once: usize) -> anyhow::Result<Report> {
    let mut server = Server::start(bind)?;
    let settings = CaptureSettings {
        tls: false,
        tls_exclude: Vec::new(),
        backend: backend()?,
        ports: vec![server.address.port()],
        // Room for everything that a run moves on one CPU: nothing may be lost here.
        ring_bytes: 64 << 20,
        ring_watermark_bytes: 64 << 10,
        max_connections: 4096,
    };
    let mut capture = Capture::start(settings)?;
    let done = Arc::new(AtomicBool::new(false));
    let clients = {
        let (address, done) = (server.address, Arc::clone(&done));
        thread::spawn(move || {
            let result = clients(address, plans, at_once);
            done.store(true, Ordering::Release);
            result
        })
    };
    let mut samples: HashMap<u16, HashMap<u64, Vec<Seen>>> = HashMap::new();
    let closed = Cell::new(0);
    let mut take = |capture: &mut Capture| {
        capture.drain(|sample, _windows| {
            let header = &sample.header;
            closed.set(closed.get() + usize::from(sample.kind == Kind::Closed));
            samples.entry(header.remote_port).or_default().entry(header.cookie).or_default().push(Seen {
                kind: sample.kind,
                time_ns: header.time_ns,
                unseen: sample.unseen,
                seq: header.seq,
                other_seq: header.other_seq,
                len: header.len,
                lost: header.lost,
                payload: sample.payload.to_vec(),
                from: sample.local(),
            });
        })
    };
    let deadline = Instant::now() + stretched(Duration::from_secs(120));
    while !done.load(Ordering::Acquire) && Instant::now() < deadline {
        capture.wait(Duration::from_millis(20));
        take(&mut capture);
    }
    let plans = clients.join().map_err(|_| anyhow!("the clients panicked"))??;
    server.child.kill()?;
    server.child.wait()?;
    // MPTCP closes its connections in a worker, when it finds the time.
    let deadline = Instant::now() + stretched(Duration::from_secs(3));
    let connections: usize = plans.values().map(Vec::len).sum();
    while closed.get() < connections && Instant::now() < deadline {
        capture.wait(Duration::from_millis(20));
        take(&mut capture);
    }
    capture.stop();
    take(&mut capture);
    let status = capture.status();
    let (emitted, read) = status.cpus.iter().fold((0, 0), |sum, cpu| (sum.0 + cpu.emitted, sum.1 + cpu.read));
    let unfollowed = status.counter(KernelCounter::MissedReturns) + status.counter(KernelCounter::NotesRefused);
    let faults = status.counter(KernelCounter::Faults);
    ensure!(faults <= MOST_FAULTS, "{faults} buffers could not be read");
    let missed = unfollowed + faults + status.missed_runs.values().sum::<u64>();
    if missed != 0 {
        let skipped = &status.missed_runs;
        eprintln!(
            "noted: {}: the kernel skipped runs: {skipped:?}; not followed: {unfollowed}; faults: {faults}",
            status.backend
        );
    }
    let lost = [KernelCounter::LostRingFull, KernelCounter::LostRingRefused].map(|cause| status.counter(cause));
    Ok(Report { samples, plans, emitted, read, lost: lost.iter().sum(), missed, backend: status.backend })
}

/// A page that the kernel is moving just then cannot be read: seen once in some ten thousand calls, in guests. The sample says so
/// and it is counted; more than these are no accident.
const MOST_FAULTS: u64 = 2;

/// What is wrong with a connection.
enum Problem {
    /// A call has no sample: right if the kernel did not run the program, and counted that.
    NoSample(String),
    Wrong(String),
}

impl Report {
    /// Every sample right, every stream without a gap but where one is expected, every call seen or unseen as its way says.
    /// How many bytes were held against what they should be.
    fn check(&self) -> anyhow::Result<u64> {
        let (mut wrong, mut without, mut checked) = (Vec::new(), Vec::new(), 0);
        if self.emitted != self.read || self.read == 0 {
            wrong.push(format!("emitted {} and read {}", self.emitted, self.read));
        }
        if self.lost != 0 {
            wrong.push(format!("{} samples lost", self.lost));
        }
        for (port, plans) in &self.plans {
            let mut connections: Vec<_> =
                self.samples.get(port).into_iter().flat_map(HashMap::values).map(Vec::as_slice).collect();
            connections.sort_by_key(|samples| samples.iter().map(|sample| sample.time_ns).min());
            if connections.len() != plans.len() {
                wrong.push(format!("port {port}: {} connections, and {} seen", plans.len(), connections.len()));
                continue;
            }
            for (plan, samples) in plans.iter().zip(connections) {
                checked += check_connection(plan, samples, &self.backend, &mut |problem| match problem {
                    Problem::NoSample(what) => without.push(format!("{plan}: {what}")),
                    Problem::Wrong(what) => wrong.push(format!("{plan}: {what}")),
                });
            }
        }
        if without.len() as u64 > self.missed {
            wrong.push(format!("{} runs were skipped, and without a sample are {}:", self.missed, without.len()));
            wrong.append(&mut without);
        }
        if let Some(first) = without.first() {
            eprintln!("noted: calls without a sample: {}; the first: {first}", without.len());
        }
        wrong.truncate(20);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(checked)
    }
}

/// How many bytes were compared.
fn check_connection(plan: &Plan, samples: &[Seen], backend: &str, problem: &mut impl FnMut(Problem)) -> u64 {
    let Some(opened) = samples.iter().find(|sample| sample.kind == Kind::Opened) else {
        let lost = samples.first().map_or(0, |sample| sample.lost);
        problem(Problem::Wrong(format!("no sample tells that it opened; samples lost before the first: {lost}")));
        return 0;
    };
    let mut checked = 0;
    for (kind, start) in [(Kind::Received, opened.seq), (Kind::Sent, opened.other_seq)] {
        let total: u64 = plan.steps.iter().filter(|step| step.way.kind() == kind).map(|step| step.len as u64).sum();
        let mut covered: Vec<(u64, u64, Unseen)> = Vec::new();
        for sample in samples.iter().filter(|sample| sample.kind == kind) {
            let at = u64::from(sample.seq.wrapping_sub(start));
            covered.push((at, u64::from(sample.len), sample.unseen));
            if sample.lost != 0 {
                problem(Problem::Wrong(format!("{kind:?} at {at}: {} samples lost", sample.lost)));
            }
            checked += sample.payload.len() as u64;
            if sample.unseen == Unseen::Seen && sample.payload != plan.bytes(kind, at, sample.len as usize) {
                problem(Problem::Wrong(format!("{kind:?} at {at}, {} bytes: WRONG BYTES", sample.len)));
            }
            if sample.from.is_ipv6() != plan.ipv6() {
                problem(Problem::Wrong(format!("{kind:?} at {at}: address {}", sample.from)));
            }
        }
        covered.sort_unstable_by_key(|(at, ..)| *at);
        for (at, step) in plan.placed(kind) {
            let place = format!("{kind:?} at {at}, {step:?}");
            check_step(step, at, &covered, step.way.expected(backend), &mut |of_step| {
                problem(match of_step {
                    Problem::NoSample(what) => Problem::NoSample(format!("{place}: {what}")),
                    Problem::Wrong(what) => Problem::Wrong(format!("{place}: {what}")),
                });
            });
        }
        let end = covered.last().map_or(0, |(at, len, _)| at + len);
        if end > total {
            problem(Problem::Wrong(format!("{kind:?}: samples reach to {end} of {total} bytes")));
        }
    }
    if !samples.iter().any(|sample| sample.kind == Kind::Closed) {
        problem(Problem::NoSample("no sample tells that it closed".to_owned()));
    }
    checked
}

/// A step's bytes must be covered without gap or overlap, all of them as is expected; or not at all, if nothing is.
fn check_step(
    step: &Step,
    at: u64,
    covered: &[(u64, u64, Unseen)],
    expected: &[Unseen],
    problem: &mut impl FnMut(Problem),
) {
    let end = at + step.len as u64;
    let mut next = at;
    let mut inside = covered.iter().filter(|(start, len, _)| *start < end && start + len > at).peekable();
    if expected.is_empty() {
        // A gap of exactly these bytes is the truth.
        if inside.peek().is_some() {
            problem(Problem::Wrong("a sample where no hook fires".to_owned()));
        }
        return;
    }
    for (start, len, unseen) in inside {
        if *start > next {
            problem(Problem::NoSample(format!("gap from {next} to {start}")));
        }
        if *start < next && *start >= at {
            problem(Problem::Wrong(format!("overlap at {start}")));
        }
        next = start + len;
        if *unseen == Unseen::Fault && !expected.contains(unseen) {
            problem(Problem::NoSample(format!("a fault at {start}")));
        } else if !expected.contains(unseen) {
            problem(Problem::Wrong(format!("{unseen:?} instead of {expected:?}")));
        }
    }
    if next < end {
        problem(Problem::NoSample(format!("gap from {next} to its end {end}")));
    }
}

/// Runs the client's side of each plan, and if all run at once, none sends before all are connected and waited for; gives the plans by the client's port, in order.
fn clients(address: SocketAddr, plans: Vec<Plan>, at_once: usize) -> anyhow::Result<HashMap<u16, Vec<Plan>>> {
    let together = (plans.len() == at_once).then(|| Arc::new(Barrier::new(at_once)));
    let plans = Arc::new(Mutex::new(plans));
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let (plans, together) = (Arc::clone(&plans), together.clone());
            thread::spawn(move || {
                let mut done = Vec::new();
                loop {
                    let next = plans.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(plan) = next else { return Ok::<_, anyhow::Error>(done) };
                    let plan = plan.over(address);
                    let port = client(address, &plan, together.as_deref()).with_context(|| plan.to_string())?;
                    done.push((Instant::now(), port, plan));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    all.sort_by_key(|(ended, ..)| *ended);
    let mut by_port: HashMap<u16, Vec<Plan>> = HashMap::new();
    for (_, port, plan) in all {
        by_port.entry(port).or_default().push(plan);
    }
    Ok(by_port)
}

fn client(address: SocketAddr, plan: &Plan, together: Option<&Barrier>) -> anyhow::Result<u16> {
    let mut stream = plan.connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(stretched(Duration::from_secs(60))))?;
    let port = stream.local_addr()?.port();
    if let Some(together) = together {
        together.wait();
        // For the server's threads to come to their first receive.
        thread::sleep(stretched(Duration::from_millis(200)));
    }
    let last = plan.steps.len() - 1;
    for (number, (at, step)) in plan.all_placed().enumerate() {
        match step.way.kind() {
            Kind::Sent => {
                let mut bytes = vec![0; step.len];
                stream.read_exact(&mut bytes)?;
                if bytes != plan.bytes(Kind::Sent, at, step.len) {
                    bail!("the server sent other bytes than planned");
                }
            }
            _ => {
                let bytes = plan.bytes(Kind::Received, at, step.len);
                match step.way {
                    Way::ByOption => odd::send_pages(&stream, &bytes)?,
                    _ => stream.write_all(&bytes)?,
                }
                // The server may not have read yet: its next receive then takes these bytes and the FIN at once.
                if number == last {
                    stream.shutdown(Shutdown::Write)?;
                }
                if let Some(layer) = plan.layer().filter(|_| number == 0) {
                    layer.put_on_client(&stream)?;
                }
            }
        }
    }
    // Until the server has closed: then its calls are over.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    Ok(port)
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(bind: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("serve={bind}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already when the run ended well.
        let _gone = self.child.kill();
    }
}
