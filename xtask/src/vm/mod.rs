//! `cargo xtask test --vm`: scenarios of the end-to-end suite on Debian's kernels, each with each backend, in QEMU.
//!
//! A guest boots a real kernel into the very binaries that were built for this machine, runs the scenarios of
//! [`BACKENDS`] with one backend after the other and powers off. A backend that a kernel should offer and does not is a
//! failure, and so is the opposite.

pub(crate) mod apt;
mod guest;
mod initramfs;
mod kernel;
mod qemu;
mod table;

use crate::process::{built, cargo, output, succeed, target};
use anyhow::{Context as _, bail, ensure};
use guest::{Guest, Outcome, Run, Verdict};
use kernel::Kernel;
use qemu::Qemu;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One of the daemon's backends, and what is run with it.
struct Backend {
    name: &'static str,
    /// The series from which on Debian's kernels offer it.
    since: &'static str,
    /// Besides [`ALWAYS`].
    scenarios: &'static [&'static str],
}

/// Run with every backend: every way to receive and send, byte for byte; and a gateway, from its sockets to the webhook.
const ALWAYS: &[&str] =
    &["capture::each_way_to_receive_and_send_is_byte_exact", "kernel::a_gateway_is_audited_and_the_ledger_balances"];

/// All scenarios need no foreign program. What does not depend on the backend is run with one of them.
const BACKENDS: &[Backend] = &[
    Backend {
        name: "socket-tracepoints",
        since: "6.12",
        scenarios: &[
            "capture::each_way_is_byte_exact_over_ipv6",
            "capture::many_connections_on_all_cpus_are_byte_exact",
            "unseen::io_uring_never_shows_another_calls_buffer",
        ],
    },
    Backend { name: "fexit", since: "5.10", scenarios: &["unseen::io_uring_never_shows_another_calls_buffer"] },
    Backend { name: "kprobe", since: "5.10", scenarios: &["unseen::a_body_that_goes_out_by_sendfile"] },
    Backend { name: "syscall", since: "5.10", scenarios: &["wire::a_connection_opened_before_the_daemon"] },
];

/// What of the matrix.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Only the end-to-end scenarios that can run in a guest, on other kernels than this machine's
    #[arg(long)]
    pub(crate) vm: bool,
    /// Only these series of kernels
    #[arg(long, value_delimiter = ',', requires = "vm", value_name = "SERIES,...")]
    kernel: Vec<String>,
    /// Only these backends
    #[arg(long, value_delimiter = ',', requires = "vm", value_name = "NAME,...")]
    backend: Vec<String>,
    /// How many guests at the same time
    #[arg(long, requires = "vm", default_value_t = 2)]
    guests: usize,
}

/// A backend on a kernel, and what came of it.
struct Cell {
    kernel: Kernel,
    /// As the guest told it.
    release: String,
    backend: &'static Backend,
    expected: bool,
    scenarios: usize,
    run: Run,
    console: PathBuf,
    /// Why the guest could do nothing.
    broken: Option<String>,
}

/// All guests run, whatever becomes of the others; then the table, and an error if any cell is not as expected.
pub(crate) fn run(args: &Args, filter: Option<&str>) -> anyhow::Result<()> {
    let started = Instant::now();
    let wanted: Vec<_> = kernel::ALL.iter().filter(|series| chosen(&args.kernel, series.name)).collect();
    let known = kernel::ALL.map(|series| series.name).join(", ");
    ensure!(!wanted.is_empty(), "no such kernel; there are: {known}");
    let names: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
    let backends: Vec<_> = BACKENDS.iter().filter(|backend| chosen(&args.backend, backend.name)).collect();
    ensure!(!backends.is_empty(), "no such backend; there are: {}", names.join(", "));
    let plan: Vec<_> = backends.into_iter().map(|backend| (backend, backend.chosen_scenarios(filter))).collect();
    ensure!(plan.iter().any(|(_, scenarios)| !scenarios.is_empty()), "no scenario for guests has that in its name");

    let qemu = Qemu::fetch()?;
    let kernels = kernel::fetch(&wanted)?;
    eprintln!("vm: QEMU {}, kernels {}", qemu.version, versions(&kernels));
    let folder = target()?.join("vm");
    fs::create_dir_all(&folder)?;
    let initramfs = folder.join(format!("initramfs-{}.cpio", std::process::id()));
    succeed(cargo().args(["build", "--quiet", "--bins"]))?;
    let programs = [("init", built("guest_init", false)?), ("s3auditd", built("s3auditd", false)?), ("e2e", suite()?)];
    let programs = programs.each_ref().map(|(name, program)| (*name, program.as_path()));
    // A line for each backend.
    let lines: Vec<_> =
        plan.iter().map(|(backend, names)| [&[backend.name], names.as_slice()].concat().join(" ")).collect();
    initramfs::write(&initramfs, &programs, ("scenarios", &lines.join("\n")))?;
    let ready = started.elapsed();

    let queue: Mutex<VecDeque<_>> = Mutex::new(kernels.iter().collect());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.guests.max(1))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(kernel) = next else { return anyhow::Ok(()) };
                        let outcome = Guest { qemu: &qemu, kernel, initramfs: &initramfs, folder: &folder }.run()?;
                        let took = outcome.took.as_secs();
                        let again =
                            if outcome.retried { ", QEMU ended before user space and was started again" } else { "" };
                        eprintln!("test: vm: {} has ended ({took} s{again})", kernel.version);
                        let cells = cells(kernel, &outcome, &plan);
                        cells.iter().for_each(Cell::tell);
                        done.lock().unwrap_or_else(PoisonError::into_inner).extend(cells);
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a guest's thread panicked"))?)
    })?;
    fs::remove_file(&initramfs)?;
    let mut cells = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    cells.sort_by_key(|cell| (position(cell.kernel.series), names.iter().position(|name| *name == cell.backend.name)));

    let table = table::markdown(&cells);
    let place = folder.join("table.md");
    fs::write(&place, &table)?;
    eprintln!("\n{table}\nvm: the table is in {}", place.display());
    let wrong: Vec<_> = cells.iter().filter_map(Cell::problem).collect();
    if !wrong.is_empty() {
        bail!("{} of {} cells are not as expected:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    }
    let total = started.elapsed().as_secs();
    let (guests, cells, ready) = (kernels.len(), cells.len(), ready.as_secs());
    eprintln!("test: vm: {guests} guests, {cells} cells as expected in {total} s, {ready} s of it to build and fetch");
    Ok(())
}

impl Backend {
    fn chosen_scenarios(&self, filter: Option<&str>) -> Vec<&'static str> {
        let all = ALWAYS.iter().chain(self.scenarios).copied();
        all.filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect()
    }
}

fn cells(kernel: &Kernel, outcome: &Outcome, plan: &[(&'static Backend, Vec<&'static str>)]) -> Vec<Cell> {
    let Outcome { told, console, .. } = outcome;
    let cell = |(backend, scenarios): &(&'static Backend, Vec<_>)| Cell {
        kernel: kernel.clone(),
        release: told.kernel.clone().unwrap_or_else(|| kernel.version.clone()),
        backend,
        expected: position(kernel.series) >= position(backend.since),
        scenarios: scenarios.len(),
        run: told.runs.iter().find(|run| run.backend == backend.name).cloned().unwrap_or_default(),
        console: console.clone(),
        broken: told.broken.clone(),
    };
    plan.iter().map(cell).collect()
}

fn chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == name)
}

fn versions(kernels: &[Kernel]) -> String {
    kernels.iter().map(|kernel| kernel.version.as_str()).collect::<Vec<_>>().join(", ")
}

fn position(series: &str) -> Option<usize> {
    kernel::ALL.iter().position(|known| known.name == series)
}

/// Builds the end-to-end suite; the same that runs on this machine.
fn suite() -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    let build = ["test", "--quiet", "--test", "e2e", "--no-run", "--message-format", "json"];
    let said = output(cargo().args(build)).context("building the end-to-end suite")?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    // The binaries of its package are built, and named, too.
    let mut suites = messages.filter(|message| message.target.name == "e2e").filter_map(|message| message.executable);
    suites.next().context("cargo names no executable of the suite")
}

impl Cell {
    fn tell(&self) {
        let result = self.problem().unwrap_or_else(|| self.result());
        eprintln!("test: vm: {} {}: {result} ({} s)", self.kernel.version, self.backend.name, self.run.seconds());
    }

    /// In words for the table.
    fn result(&self) -> String {
        match &self.run.verdict {
            Some(Verdict::Ran { passed, failed: 0 }) => format!("{passed} passed"),
            Some(Verdict::Ran { passed, failed }) => format!("**{failed} FAILED**, {passed} passed"),
            Some(Verdict::Refused(_)) => "refused".to_owned(),
            Some(Verdict::Broken(why)) => format!("**{why}**"),
            None => format!("**no verdict{}**", self.broken.as_ref().map(|why| format!(": {why}")).unwrap_or_default()),
        }
    }

    /// What is not as it should be.
    fn problem(&self) -> Option<String> {
        let what = match (&self.run.verdict, self.expected) {
            (Some(Verdict::Ran { passed, failed: 0 }), true) if *passed == self.scenarios => return None,
            (Some(Verdict::Refused(_)), false) => return None,
            (Some(Verdict::Ran { .. }), false) => "it runs where it was not expected to".to_owned(),
            (Some(Verdict::Refused(why)), true) => format!("it should run there: {why}"),
            (Some(Verdict::Ran { .. } | Verdict::Broken(_)) | None, _) => self.result(),
        };
        let place = self.console.display();
        Some(format!("{} {}: {what} (console: {place})", self.kernel.version, self.backend.name))
    }
}
