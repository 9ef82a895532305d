//! Gateways that live otherwise than in this process: in a network namespace and cgroup of their own, killed and started
//! again, or with their listener handed to a child. This binary again is the gateway, and the client beside it.

use crate::Scenario;
use crate::wire::plain_call;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use s3auditd_tests::call::Call;
use s3auditd_tests::client::{light::Light, sign};
use s3auditd_tests::expect;
use s3auditd_tests::gateway::{Gateway, free_port, local, raw, s3s};
use s3auditd_tests::http::Connection;
use s3auditd_tests::need::Need;
use s3auditd_tests::record::Record;
use s3auditd_tests::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let namespaces = [Need::NetworkNamespaces];
    vec![
        Scenario::needing("start::a_gateway_in_a_network_namespace_and_cgroup_of_its_own", &namespaces, elsewhere),
        Scenario::new("start::a_gateway_that_is_restarted_and_handed_over", handed_over),
    ]
}

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// This binary as a gateway or a client, if it was started as that.
pub(crate) fn act_if_asked() {
    let Some(word) = std::env::args().nth(1) else { return };
    let Some((role, address)) = word.split_once('=') else { return };
    let done = match role {
        "s3s" => address.parse().map_err(Into::into).and_then(serve_s3s),
        "client" => address.parse().map_err(Into::into).and_then(be_client),
        "raw" => TcpListener::bind(address).map_err(Into::into).and_then(serve_raw),
        "binder" => bind_for_a_child(address),
        "inherited" => {
            std::io::stdin().as_fd().try_clone_to_owned().map_err(Into::into).and_then(|fd| serve_raw(fd.into()))
        }
        _ => return,
    };
    if let Err(error) = &done {
        eprintln!("{word}: {error:#}");
    }
    std::process::exit(i32::from(done.is_err()));
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(std::io::stdout().flush()?)
}

fn serve_s3s(address: SocketAddr) -> anyhow::Result<()> {
    let gateway = s3s::start_at(address)?;
    say(&gateway.address.to_string())?;
    park()
}

fn be_client(address: SocketAddr) -> anyhow::Result<()> {
    let calls = Light::of(&Gateway::elsewhere(address))?.round("in-a-namespace")?;
    say(&serde_json::to_string(&calls)?)
}

/// Accepts in one thread and serves in others.
fn serve_raw(listener: TcpListener) -> anyhow::Result<()> {
    let gateway = raw::on(listener, |_, stream| stream.write_all(REPLY).is_ok())?;
    say(&gateway.address.to_string())?;
    park()
}

/// Listens, and leaves it to a child to accept.
fn bind_for_a_child(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut child = Command::new(std::env::current_exe()?);
    let child =
        child.arg("inherited=stdin").stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).spawn()?;
    say(&child.id().to_string())?;
    park()
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// A process of ours, killed when dropped.
struct Process {
    child: Child,
    /// The first line that it wrote: it is ready.
    said: String,
}

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = Self { child: child.with_context(|| format!("{command:?}"))?, said: String::new() };
        let stdout = process.child.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut process.said)?;
        anyhow::ensure!(!process.said.is_empty(), "{command:?} ended at its start");
        Ok(process)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn elsewhere() -> anyhow::Result<()> {
    let (binary, port) = (std::env::current_exe()?, free_port()?);
    let address = local(port);
    // Declared first, so that it is removed when the process in it has ended.
    let cgroup = Cgroup::make();
    let up_and_run = ["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
    let gateway = Process::start(Command::new("unshare").args(up_and_run).arg(&binary).arg(format!("s3s={address}")))?;
    let pid = gateway.pid();
    let in_cgroup = cgroup.and_then(|cgroup| cgroup.take(pid).map(|()| cgroup));
    if let Err(why) = &in_cgroup {
        eprintln!("the gateway stays in the cgroup that it was started in: {why:#}");
    }
    let netns =
        |process: &str| -> anyhow::Result<u64> { Ok(std::fs::metadata(format!("/proc/{process}/ns/net"))?.ino()) };
    let (its, ours) = (netns(&pid.to_string())?, netns("self")?);
    anyhow::ensure!(its != ours && TcpStream::connect(address).is_err(), "the gateway is in this namespace");

    let world = World::around(Gateway::elsewhere(address), &[])?;
    let status = world.daemon.status()?;
    anyhow::ensure!(status.listening(port) == Some(true), "it listens in a namespace, and status says {}", status.0);
    let mut client = Command::new("nsenter");
    client.args(["--net", "--target", &pid.to_string()]).arg(&binary).arg(format!("client={address}"));
    let client = client.output()?;
    anyhow::ensure!(client.status.success(), "the client: {}", String::from_utf8_lossy(&client.stderr));
    let calls: Vec<Call> = serde_json::from_slice(&client.stdout)?;
    let comms: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|comm| comm.trim_end().to_owned())
        .collect();

    for record in world.expect(&calls)?.records {
        let own = record.0.get("s3auditd").context("no part of our own")?;
        let at = |pointer: &str| own.pointer(pointer).cloned().unwrap_or_default();
        anyhow::ensure!(at("/process/netns") == its, "netns is not {its}: {record}");
        anyhow::ensure!(at("/process/pid") == pid, "pid is not {pid}: {record}");
        anyhow::ensure!(
            at("/process/comm").as_str().is_some_and(|comm| comms.contains(comm)),
            "not {comms:?}: {record}"
        );
        anyhow::ensure!(at("/server/ip") == "127.0.0.1" && at("/server/port") == port, "not at {address}: {record}");
        anyhow::ensure!(at("/peer/ip") == "127.0.0.1", "the peer is another: {record}");
        if let Ok(cgroup) = &in_cgroup {
            anyhow::ensure!(at("/process/cgroupId") == cgroup.id, "not in {}: {record}", cgroup.id);
            anyhow::ensure!(at("/process/cgroup") == cgroup.shown, "not in {}: {record}", cgroup.shown);
            anyhow::ensure!(at("/process/unit") == cgroup.shown.trim_start_matches('/'), "another unit: {record}");
        }
    }
    Ok(())
}

/// A cgroup below the root of version 2 that looks like a unit of systemd; removed when dropped.
struct Cgroup {
    directory: PathBuf,
    shown: String,
    id: String,
}

impl Cgroup {
    fn make() -> anyhow::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let mount = mount.and_then(|line| line.split(' ').nth(1)).context("no cgroup v2 is mounted")?;
        let name = format!("s3auditd-e2e-{}.service", std::process::id());
        let directory = Path::new(mount).join(&name);
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let id = std::fs::metadata(&directory)?.ino().to_string();
        Ok(Self { directory, shown: format!("/{name}"), id })
    }

    fn take(&self, pid: u32) -> anyhow::Result<()> {
        let procs = self.directory.join("cgroup.procs");
        std::fs::write(&procs, pid.to_string()).with_context(|| procs.display().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed leaves it a moment later.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Killed when dropped: a child of a child.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// What each gateway of the relay answers at least before the next one's turn.
const TURN: usize = 200;

fn handed_over() -> anyhow::Result<()> {
    let (binary, address) = (std::env::current_exe()?, local(free_port()?));
    let first = Process::start(Command::new(&binary).arg(format!("raw={address}")))?;
    let world = World::around(Gateway::elsewhere(address), &[])?;
    let (load, stop) = (Load::default(), AtomicBool::new(false));
    let pids = std::thread::scope(|scope| {
        for client in 0..4 {
            let (load, stop, gateway) = (&load, &stop, &world.gateway);
            scope.spawn(move || load.run(client, gateway, stop));
        }
        let pids = relay(&binary, address, first, &load);
        stop.store(true, Ordering::Release);
        pids
    });
    let (first, binder, heir) = pids?;
    let Answered { calls, unanswered } = load.into_answered()?;
    let after = world.settle(calls.len())?;
    // Of a call without an answer there may be a record: the gateway had it, whole or in part, before it was killed.
    let known = |record: &Record| record.key().is_some_and(|key| !unanswered.contains(key));
    let records: Vec<_> = after.records.into_iter().filter(known).collect();
    expect::same(&calls, &records).with_context(|| after.status.0.to_string())?;
    after.status.ring_agrees()?;
    after.status.balanced()?;
    let pid = |record: &Record| record.0.pointer("/s3auditd/process/pid").and_then(Value::as_u64).unwrap_or_default();
    let served: BTreeSet<u64> = records.iter().map(pid).collect();
    let expected = BTreeSet::from([u64::from(first), u64::from(heir.0.as_raw_nonzero().get().cast_unsigned())]);
    anyhow::ensure!(served == expected, "{expected:?} served, not {binder}; the records say {served:?}");
    Ok(())
}

/// One gateway, killed; one that listens and lets a child accept, killed as well; the child.
fn relay(binary: &Path, address: SocketAddr, first: Process, load: &Load) -> anyhow::Result<(u32, u32, Orphan)> {
    let first_pid = first.pid();
    load.turn()?;
    drop(first);
    let binder = Process::start(Command::new(binary).arg(format!("binder={address}")))?;
    let binder_pid = binder.pid();
    let heir = Orphan(binder.said.trim().parse().ok().and_then(Pid::from_raw).context("no pid of the child")?);
    load.turn()?;
    drop(binder);
    load.turn()?;
    Ok((first_pid, binder_pid, heir))
}

/// What clients did while gateways came and went.
#[derive(Default)]
struct Load {
    answered: std::sync::Mutex<Answered>,
}

#[derive(Default)]
struct Answered {
    calls: Vec<Call>,
    /// Keys of calls that nobody answered in full.
    unanswered: BTreeSet<String>,
}

impl Load {
    fn run(&self, client: usize, gateway: &Gateway, stop: &AtomicBool) {
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let Ok(mut connection) = Connection::open(gateway.address) else {
                // Between two gateways.
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            // Few on each connection, so that there are always new ones.
            for _ in 0..20 {
                number += 1;
                let key = format!("{client}-{number}");
                let request = sign::request(gateway, "GET", &format!("/relay/{key}"), &[], b"");
                let answer = connection.ask(&request).and_then(|reply| {
                    plain_call(Call::new("GetObject", Some("relay"), Some(&key), 0), &connection, &request, &reply)
                });
                let mut answered = self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match answer {
                    Ok(call) => answered.calls.push(call),
                    Err(_) => {
                        answered.unanswered.insert(key);
                        break;
                    }
                }
                drop(answered);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn count(&self) -> usize {
        self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner).calls.len()
    }

    /// Waits until so much more was answered.
    fn turn(&self) -> anyhow::Result<()> {
        let (until, deadline) = (self.count() + TURN, Instant::now() + Duration::from_secs(30));
        while self.count() < until {
            anyhow::ensure!(Instant::now() < deadline, "{} calls were answered, and then no more", self.count());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn into_answered(self) -> anyhow::Result<Answered> {
        self.answered.into_inner().map_err(|_| anyhow::anyhow!("a client panicked"))
    }
}
