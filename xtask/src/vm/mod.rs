//! `cargo xtask test --vm`: scenarios of the end-to-end suite on Debian's kernels, each with each backend, in QEMU.
//!
//! A guest boots a real kernel into the very binaries that were built for this machine, runs the scenarios of
//! [`SCENARIOS`] and powers off. What is expected of which kernel is in [`BACKENDS`]: a backend that a kernel should
//! offer and does not is a failure, and so is the opposite.

mod apt;
mod guest;
mod initramfs;
mod kernel;
mod qemu;
mod table;

use crate::process::{built, cargo, output, succeed, target};
use anyhow::{Context as _, bail, ensure};
use guest::{Guest, Outcome, Verdict};
use kernel::Kernel;
use qemu::Qemu;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Those that need no foreign program, and whose result depends on kernel or backend.
const SCENARIOS: &[&str] = &[
    "capture::each_way_to_receive_and_send_is_byte_exact",
    "capture::each_way_is_byte_exact_over_ipv6",
    "capture::many_connections_on_all_cpus_are_byte_exact",
    "start::without_an_endpoint_records_go_to_stdout",
    "start::sigterm_drains",
    "wire::a_connection_opened_before_the_daemon",
    "wire::heads_sent_byte_by_byte",
    "wire::a_gateway_on_ipv6",
    "wire::the_next_head_right_behind_a_body",
    "wire::a_fin_in_the_same_receive",
    "wire::text_that_is_not_http",
    "unseen::a_body_that_goes_out_by_sendfile",
    "unseen::io_uring_never_shows_another_calls_buffer",
    "load::a_full_connection_table_is_counted_and_said",
    "load::what_a_small_ring_loses_is_counted_and_no_record_is_wrong",
    "secrets::none_leaves_a_gateway_that_echoes_them",
];

/// The daemon's backends, and the series from which on Debian's kernels offer them. `auto` is the daemon's own choice.
const BACKENDS: &[(&str, &str)] = &[("auto", "6.12")];

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

/// One guest's place in the matrix, and what came of it.
struct Cell {
    kernel: Kernel,
    backend: &'static str,
    expected: bool,
    outcome: Outcome,
}

/// All guests run, whatever becomes of the others; then the table, and an error if any cell is not as expected.
pub(crate) fn run(args: &Args, filter: Option<&str>) -> anyhow::Result<()> {
    let started = Instant::now();
    let wanted: Vec<_> = kernel::ALL.iter().filter(|series| chosen(&args.kernel, series.name)).collect();
    let backends: Vec<_> = BACKENDS.iter().filter(|(name, _)| chosen(&args.backend, name)).collect();
    let scenarios: Vec<_> = SCENARIOS.iter().copied().filter(|name| filter.is_none_or(|f| name.contains(f))).collect();
    ensure!(!wanted.is_empty(), "no such kernel; there are: {}", kernel::ALL.map(|series| series.name).join(", "));
    ensure!(!backends.is_empty(), "no such backend; there are: {}", names(BACKENDS));
    ensure!(!scenarios.is_empty(), "no scenario for guests has that in its name");

    let qemu = Qemu::fetch()?;
    let kernels = kernel::fetch(&wanted)?;
    eprintln!("vm: QEMU {}, kernels {}", qemu.version, versions(&kernels));
    let folder = target()?.join("vm");
    fs::create_dir_all(&folder)?;
    let initramfs = folder.join(format!("initramfs-{}.cpio", std::process::id()));
    succeed(cargo().args(["build", "--quiet", "--bins"]))?;
    let programs = [("init", built("guest_init", false)?), ("s3auditd", built("s3auditd", false)?), ("e2e", suite()?)];
    let programs = programs.each_ref().map(|(name, program)| (*name, program.as_path()));
    initramfs::write(&initramfs, &programs, ("scenarios", &scenarios.join("\n")))?;
    let ready = started.elapsed();

    let order = kernels.iter().zip(&wanted);
    let cells = order.flat_map(|(kernel, series)| backends.iter().map(move |backend| (kernel, *series, *backend)));
    let queue: Mutex<VecDeque<_>> = Mutex::new(cells.collect());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.guests.max(1))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((kernel, series, (backend, since))) = next else { return anyhow::Ok(()) };
                        let expected = position(series.name) >= position(since);
                        let guest = Guest { qemu: &qemu, kernel, backend, initramfs: &initramfs, folder: &folder };
                        let outcome = guest.run()?;
                        let cell = Cell { kernel: kernel.clone(), backend, expected, outcome };
                        cell.tell(scenarios.len());
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(cell);
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
    cells.sort_by_key(|cell| {
        (position(cell.kernel.series), BACKENDS.iter().position(|(name, _)| *name == cell.backend))
    });

    let table = table::markdown(&cells, &scenarios);
    let place = folder.join("table.md");
    fs::write(&place, &table)?;
    eprintln!("\n{table}\nvm: the table is in {}", place.display());
    let wrong: Vec<_> = cells.iter().filter_map(|cell| cell.problem(scenarios.len())).collect();
    if !wrong.is_empty() {
        bail!("{} of {} guests are not as expected:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    }
    let total = started.elapsed().as_secs();
    eprintln!(
        "test: vm: {} guests as expected in {total} s, {} s of it to build and fetch",
        cells.len(),
        ready.as_secs()
    );
    Ok(())
}

fn chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == name)
}

fn names(backends: &[(&str, &str)]) -> String {
    backends.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
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
    fn tell(&self, scenarios: usize) {
        let Self { kernel, backend, outcome, .. } = self;
        let result = self.problem(scenarios).unwrap_or_else(|| match &outcome.told.verdict {
            Some(Verdict::Refused(_)) => "not offered, as expected".to_owned(),
            _ => format!("{scenarios} passed"),
        });
        eprintln!("test: vm: {} {backend}: {result} ({} s)", kernel.version, outcome.took.as_secs());
        if outcome.retried {
            eprintln!("vm: {}: QEMU ended before user space and was started again", kernel.version);
        }
    }

    /// What is not as it should be.
    fn problem(&self, scenarios: usize) -> Option<String> {
        let what = match (&self.outcome.told.verdict, self.expected) {
            (Some(Verdict::Ran { passed, failed: 0 }), true) if *passed == scenarios => return None,
            (Some(Verdict::Refused(_)), false) => return None,
            (Some(Verdict::Ran { .. }), false) => "it runs where it was not expected to".to_owned(),
            (Some(Verdict::Ran { passed, failed }), true) => format!("{failed} failed, {passed} of {scenarios} passed"),
            (Some(Verdict::Refused(why)), true) => format!("it should run there: {why}"),
            (Some(Verdict::Broken(why)), _) => why.clone(),
            (None, _) => "no verdict".to_owned(),
        };
        let place = self.outcome.console.display();
        Some(format!("{} {}: {what} (console: {place})", self.kernel.version, self.backend))
    }
}
