//! `cargo xtask test --vm`: scenarios of the end-to-end suite on Debian's kernels, each with each backend, in QEMU.
//!
//! A guest boots a real kernel into the very binaries that were built for this machine, runs the scenarios of
//! [`plan`] with one backend after the other and powers off. A backend that a kernel should offer and does not is a
//! failure, and so is the opposite.

mod cell;
mod golden;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod plan;
mod processor;
mod qemu;
mod table;

use crate::fetch;
use crate::process::{output, succeed, target};
use anyhow::{Context as _, bail, ensure};
use cell::Cell;
use guest::Guest;
use kernel::{Kernel, Series};
use plan::Item;
use processor::Processor;
use qemu::Qemu;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// Where a guest has that server.
const GO_SERVERS: &str = "go-https";
/// And where those of Debian lie, as on a disk.
const SERVERS: &str = "servers";

/// How much is shown of a console that is kept.
const CONSOLE_LINES: usize = 80;

/// What of the matrix.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Only the end-to-end scenarios that can run in a guest, on other kernels than this machine's
    #[arg(long)]
    pub(crate) vm: bool,
    /// Only these series of kernels; `6.12-arm64` runs only when asked for
    #[arg(long, value_delimiter = ',', requires = "vm", value_name = "SERIES,...")]
    kernel: Vec<String>,
    /// Only these backends
    #[arg(long, value_delimiter = ',', requires = "vm", value_name = "NAME,...")]
    backend: Vec<String>,
    /// Only load each backend: no scenario runs
    #[arg(long, requires = "vm")]
    load: bool,
    /// Only load each backend, and write what the verifier went through as the new golden files
    #[arg(long, requires = "vm", conflicts_with = "backend")]
    bless: bool,
    /// How many guests at the same time
    #[arg(long, requires = "vm", default_value_t = 2)]
    guests: usize,
}

/// Brings QEMU and the newest of all kernels into the cache, so that what is missing is said early.
pub(crate) fn fetch() -> anyhow::Result<()> {
    Qemu::fetch(Processor::Amd64)?;
    kernel::fetch(&series(&[]))?;
    Ok(())
}

/// All guests run, whatever becomes of the others; then the table, the verdict in one line, and an error if anything is
/// not as expected.
pub(crate) fn run(args: &Args, filter: Option<&str>) -> anyhow::Result<()> {
    let started = Instant::now();
    let wanted = series(&args.kernel);
    let known = kernel::ALL.map(|series| series.name).join(", ");
    ensure!(!wanted.is_empty(), "no such kernel; there are: {known}");
    let named = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let plan = plan::make(&wanted, &args.backend, if args.load || args.bless { None } else { Some(&named) })?;

    let folder = target()?.join("vm");
    fs::create_dir_all(&folder)?;
    let mut cells = Vec::new();
    let mut ready = 0;
    for processor in [Processor::Amd64, Processor::Arm64] {
        let wanted: Vec<_> = wanted.iter().copied().filter(|series| series.processor == processor).collect();
        if wanted.is_empty() {
            continue;
        }
        let before = started.elapsed().as_secs();
        let machines = Machines::prepare(processor, &wanted, &folder, &plan)?;
        ready += started.elapsed().as_secs() - before;
        let result = machines.run(args.guests, &folder, &plan);
        fs::remove_file(&machines.initramfs)?;
        cells.extend(result?);
    }
    cells.sort_by_key(|cell| plan.iter().position(|item| cell.is_of(item)));

    let table = table::markdown(&cells);
    let place = folder.join("table.md");
    fs::write(&place, &table)?;
    eprintln!("\n{table}\nvm: the table is in {}", place.display());
    let total = started.elapsed().as_secs();
    eprintln!("vm: {} guests in {total} s, {ready} s of it to build and fetch", wanted.len());
    if args.bless {
        golden::bless(&cells)?;
    }
    judge(&cells)
}

/// Says the verdict; an error if anything is not as expected.
fn judge(cells: &[Cell]) -> anyhow::Result<()> {
    let verified = golden::compare(cells)?;
    for what in &verified.noted {
        eprintln!("vm: the verifier, a kernel that the golden file does not know: {what}");
    }
    let mut wrong: Vec<_> = cells.iter().filter_map(Cell::problem).collect();
    wrong.extend(verified.wrong.iter().map(|what| format!("the verifier (--bless if that is right): {what}")));
    let counts = match (verified.wrong.len(), verified.noted.len()) {
        (0, 0) => format!("the verifier's counts on {} kernels as expected", verified.kernels),
        (0, noted) => format!("{noted} of the verifier's counts are of other kernels than the golden ones"),
        (wrong, _) => format!("{wrong} of the verifier's counts differ"),
    };
    let verdict = cell::verdict(cells);
    eprintln!("test vm: {verdict}; {counts}");
    if !wrong.is_empty() {
        bail!("the matrix is not as expected:\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// What guests of one kind of processor need.
struct Machines {
    qemu: Qemu,
    kernels: Vec<Kernel>,
    initramfs: PathBuf,
}

impl Machines {
    /// Fetches and builds it.
    fn prepare(processor: Processor, wanted: &[&'static Series], folder: &Path, plan: &[Item]) -> anyhow::Result<Self> {
        processor.check()?;
        let qemu = Qemu::fetch(processor)?;
        let kernels = kernel::fetch(wanted)?;
        let names: Vec<_> = kernels.iter().map(Kernel::name).collect();
        eprintln!("vm: QEMU {}, kernels {}", qemu.version, names.join(", "));
        let initramfs = folder.join(format!("initramfs-{}{}.cpio", std::process::id(), processor.suffix()));
        // For this machine's processor all of the workspace, as the other tests have built it.
        let build: &[_] = match processor {
            Processor::Amd64 => &["build", "--quiet", "--bins"],
            Processor::Arm64 => {
                let packages = ["--package", "s3auditd", "--package", "s3auditd-tests"];
                &[["build", "--quiet", "--bin", "s3auditd", "--bin", "guest_init"].as_slice(), &packages].concat()
            }
        };
        succeed(&mut processor.cargo(build))?;
        let mut programs = vec![
            ("init".to_owned(), processor.built("guest_init")?),
            ("s3auditd".to_owned(), processor.built("s3auditd")?),
            ("e2e".to_owned(), suite(processor)?),
        ];
        if processor == Processor::Amd64 {
            let server = fetch::static_go_server()?;
            let name = server.file_name().context("a file has a name")?.to_string_lossy();
            programs.push((format!("{GO_SERVERS}/{name}"), server));
            let files = fetch::nginx()?.into_iter().map(|(name, place)| (format!("{SERVERS}/{name}"), place));
            programs.extend(files);
        }
        let programs: Vec<_> = programs.iter().map(|(name, program)| (name.as_str(), program.as_path())).collect();
        let modules: BTreeMap<_, _> = kernels.iter().map(|kernel| (kernel.release(), kernel.modules())).collect();
        initramfs::write(&initramfs, processor, &programs, ("scenarios", &plan::lines(plan)), &modules)?;
        Ok(Self { qemu, kernels, initramfs })
    }

    /// So many at the same time.
    fn run(&self, at_once: usize, folder: &Path, plan: &[Item]) -> anyhow::Result<Vec<Cell>> {
        let Self { qemu, kernels, initramfs } = self;
        // The newest has the most to run: last, it would run alone.
        let queue: Mutex<VecDeque<_>> = Mutex::new(kernels.iter().rev().collect());
        let done = Mutex::new(Vec::new());
        let work = || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(kernel) = next else { return anyhow::Ok(()) };
                let outcome = Guest { qemu, kernel, initramfs, folder }.run()?;
                let again = if outcome.retried { ", QEMU ended before user space and was started again" } else { "" };
                eprintln!("test: vm: {} has ended ({} s{again})", kernel.name(), outcome.took.as_secs());
                let mut cells = cell::of_guest(kernel, &outcome, plan);
                if cells.iter().any(|cell| cell.problem().is_some()) {
                    keep(&mut cells, folder)?;
                }
                cells.iter().for_each(Cell::tell);
                done.lock().unwrap_or_else(PoisonError::into_inner).extend(cells);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a guest's thread panicked"))?)
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts a guest's console where the next run does not overwrite it, and shows its end: the machine may be gone tomorrow.
fn keep(cells: &mut [Cell], folder: &Path) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(first) = cells.first() else { return Ok(()) };
    let kept = folder.join("failed").join(format!("{}-{now}.log", first.kernel.name()));
    fs::create_dir_all(folder.join("failed"))?;
    fs::copy(&first.console, &kept).with_context(|| format!("keeping {}", first.console.display()))?;
    let console = String::from_utf8_lossy(&fs::read(&kept)?).into_owned();
    let lines: Vec<_> = console.lines().collect();
    let end = lines.get(lines.len().saturating_sub(CONSOLE_LINES)..).unwrap_or_default();
    eprintln!("vm: the end of {}:\n{}", kept.display(), end.join("\n"));
    cells.iter_mut().for_each(|cell| cell.console.clone_from(&kept));
    Ok(())
}

/// Those of that name, or of the processor that this machine has.
fn series(only: &[String]) -> Vec<&'static Series> {
    let asked = |series: &&Series| only.iter().any(|only| only == series.name);
    let usual = |series: &&Series| only.is_empty() && series.processor == Processor::Amd64;
    kernel::ALL.iter().filter(|series| usual(series) || asked(series)).collect()
}

/// Builds the end-to-end suite; for this machine's processor the same that runs here.
fn suite(processor: Processor) -> anyhow::Result<PathBuf> {
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
    // What the compiler has against it is said.
    let said = output(processor.cargo(&build).stderr(Stdio::inherit())).context("building the end-to-end suite")?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    // The binaries of its package are built, and named, too.
    let mut suites = messages.filter(|message| message.target.name == "e2e").filter_map(|message| message.executable);
    suites.next().context("cargo names no executable of the suite")
}
