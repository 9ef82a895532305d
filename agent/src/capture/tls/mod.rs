//! Plaintext of the gateway's TLS: finds its library, puts probes there, says what was found.
//!
//! The thread that looks who listens also looks into the files of who serves the watched ports; that may take a while.
//! Capture's thread attaches and detaches. A probe belongs to a file on disk: every process that runs it is covered, whenever it started.

mod before;
mod boringssl;
mod code;
mod exclude;
mod flow;
mod gnutls;
mod go;
mod inside;
mod library;
mod openssl;
mod others;
mod raised;
mod served;
mod symbols;

use super::{attach::AsPod, grace::monotonic_ns, lookout::News, status::TlsStatus};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use before::{Before, Call, Unread};
use exclude::{Exclude, SWITCHED_OFF};
use library::{Library, Probes, Programs};
use object::read::ReadCache;
use s3auditd_common::settings::TlsFile;
use served::{FileId, Served, Serving};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long the probes stay in a file that nobody serves from: a gateway that is restarted is covered from its first
/// connection on.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The kernel side has room for so many files at once; beyond it they are named as not covered.
const MAX_FILES: usize = 256;
/// How often it is looked which probes are needed no longer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the kernel side knows of files, by their numbers.
type Files = HashMap<MapData, u32, AsPod<TlsFile>>;

/// What a file was found to be.
#[derive(Clone, Debug)]
struct Found {
    processes: Vec<Served>,
    /// Kept open: what is attached to is what was looked into.
    file: Arc<File>,
    /// Err: it has none that is known; or why it is not understood.
    library: Result<Library, String>,
}

/// See the module.
pub struct Tls {
    /// What the last look that showed a change has found.
    news: News<BTreeMap<FileId, Found>>,
    files: Files,
    /// Every file that is served from, with what became of it.
    covered: BTreeMap<FileId, Covered>,
    next_number: u32,
    programs: Programs,
    exclude: Exclude,
    watched: Watched,
    /// Connections that were not read, in all.
    unread: u64,
    looked: Instant,
}

/// Whose connections are meant.
pub(super) struct Watched {
    pub ports: Vec<u16>,
    /// Whether connections are known by numbers of our own, and not by the kernel's cookies.
    pub own_numbers: bool,
}

struct Covered {
    found: Found,
    /// Those of its processes that are left out.
    excluded: BTreeSet<u32>,
    probes: Result<Probes, String>,
    before: Before,
    /// Nobody serves from it any more.
    left: Option<Instant>,
}

impl Tls {
    /// Loads the programs and covers who has these listening sockets now. The finder is for the thread that looks on.
    pub fn start(
        ebpf: &mut Ebpf,
        files: Files,
        sockets: BTreeSet<u64>,
        exclude: &[String],
        watched: Watched,
    ) -> (Self, Finder) {
        let programs = Programs::load(ebpf, go::PROGRAMS.into_iter().chain(openssl::PROGRAMS).chain(gnutls::PROGRAMS));
        for (program, reason) in programs.refused() {
            warn!(program, reason, "the kernel does not take this program: TLS that needs it is not read");
        }
        if let Err(reason) = openssl::follow_threads(ebpf) {
            warn!(%reason, "the kernel does not take what OpenSSL needs: its TLS is not read");
        }
        let mut finder = Finder::default();
        let news = finder.news.clone();
        let (covered, exclude) = (BTreeMap::new(), Exclude::new(exclude));
        let looked = Instant::now();
        let mut tls = Self { news, files, covered, next_number: 0, programs, exclude, watched, unread: 0, looked };
        finder.look(sockets);
        tls.keep_up(ebpf);
        (tls, finder)
    }

    /// Attaches and detaches what the last look calls for. Cheap if that is nothing.
    pub fn keep_up(&mut self, ebpf: &mut Ebpf) {
        if let Some(news) = self.news.take() {
            self.cover(ebpf, news);
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.follow_ties(ebpf);
        }
    }

    /// How many connections of TLS have not been read so far.
    pub fn heed_unread(&mut self, connections: u64) {
        self.unread = connections;
    }

    /// Takes out the probes that connections from before no longer need; puts them in again where others do.
    fn follow_ties(&mut self, ebpf: &mut Ebpf) {
        for Covered { found, probes, before, .. } in self.covered.values_mut() {
            let (Ok(probes), Ok(library)) = (probes, &found.library) else { continue };
            let file = self.files.get(&probes.number, 0).ok().map(|file| file.0);
            match before.look(ebpf, file, self.unread) {
                Call::Nothing => {}
                Call::TakeOut => {
                    probes.detach_tie(ebpf);
                    if !probes.has_ties() {
                        *before = Before::Over(Unread::now(file, self.unread));
                        info!(processes = ?names(found), "no connection from before is left that is not tied: reads are probed no longer");
                    }
                }
                Call::PutIn => {
                    let attached = self.programs.attach_ties(ebpf, &found.file, library, probes);
                    info!(processes = ?names(found), ?attached, "connections are not tied by handshakes: reads are probed for good");
                    // What is tied from now on was not seen whole.
                    if let Some(file) = file {
                        let ready = TlsFile { ready_ns: monotonic_ns(), ..file };
                        let _not_there = self.files.insert(probes.number, AsPod(ready), 0);
                    }
                }
            }
        }
    }

    /// Each process that serves a watched port.
    pub fn status(&self) -> Vec<TlsStatus> {
        let all: Vec<_> = self.covered.values().flat_map(|covered| self.status_of(covered)).collect();
        // Of a process with a library of its own file: that its program has none says nothing.
        let has_library = |pid| all.iter().any(|one: &TlsStatus| one.pid == pid && !one.library.is_empty());
        all.iter().filter(|one| !one.library.is_empty() || !has_library(one.pid)).cloned().collect()
    }

    fn status_of(&self, Covered { found, probes, excluded, .. }: &Covered) -> Vec<TlsStatus> {
        let (library, version) =
            found.library.as_ref().map_or(("", ""), |library| (library.name, library.version.as_str()));
        let connections = probes.as_ref().map_or(0, |probes| self.files.get(&probes.number, 0).map_or(0, |f| f.0.tied));
        let of_process = |process: &Served| TlsStatus {
            pid: process.pid,
            comm: process.comm.clone(),
            library: library.to_owned(),
            version: version.to_owned(),
            probes: probes.as_ref().map_or(0, Probes::len),
            connections,
            problem: match probes {
                _ if excluded.contains(&process.pid) => SWITCHED_OFF.to_owned(),
                Ok(_) => String::new(),
                Err(why) => why.clone(),
            },
        };
        found.processes.iter().map(of_process).collect()
    }

    fn cover(&mut self, ebpf: &mut Ebpf, mut found: BTreeMap<FileId, Found>) {
        for (id, covered) in std::mem::take(&mut self.covered) {
            match found.remove(&id) {
                Some(still) => {
                    let excluded = self.exclude.of(&still.processes);
                    let is_off = matches!(&covered.probes, Err(why) if why == SWITCHED_OFF);
                    if is_off == (excluded.len() == still.processes.len()) {
                        self.covered.insert(id, Covered { found: still, excluded, left: None, ..covered });
                    } else {
                        // As if it were new: one who is not left out has come, or the last such one has gone.
                        found.insert(id, still);
                        take_out(&mut self.files, ebpf, covered.probes);
                    }
                }
                None if covered.probes.is_err() => {}
                None => {
                    let left = covered.left.or_else(|| Some(Instant::now()));
                    let found = Found { processes: Vec::new(), ..covered.found };
                    let excluded = BTreeSet::new();
                    self.covered.insert(id, Covered { found, excluded, left, ..covered });
                }
            }
        }
        self.uncover_what_was_left(ebpf);
        let with_library = found.values().filter(|found| found.library.is_ok()).flat_map(|found| &found.processes);
        let read: BTreeSet<_> = with_library.map(|process| process.pid).collect();
        for (id, found) in found {
            let excluded = self.exclude.of(&found.processes);
            let is_off = excluded.len() == found.processes.len();
            let probes = if is_off { Err(SWITCHED_OFF.to_owned()) } else { self.attach(ebpf, &found) };
            let (probes, before) = match probes {
                Ok((probes, before)) => (Ok(probes), before),
                Err(why) => (Err(why), Before::ForGood),
            };
            match &probes {
                Ok(probes) => {
                    info!(processes = ?names(&found), probes = probes.len(), "TLS is read as plaintext")
                }
                // Whose library is another file.
                Err(_) if found.processes.iter().all(|process| read.contains(&process.pid)) => {}
                Err(reason) => info!(processes = ?names(&found), %reason, "TLS of these processes would not be read"),
            }
            self.covered.insert(id, Covered { found, excluded, probes, before, left: None });
        }
        let excluded = self.covered.values().flat_map(|covered| covered.excluded.iter().copied()).collect();
        self.exclude.tell(ebpf, excluded);
    }

    fn attach(&mut self, ebpf: &mut Ebpf, found: &Found) -> Result<(Probes, Before), String> {
        let library = found.library.as_ref().map_err(Clone::clone)?;
        if self.covered.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
        if openssl::is_tied_by_use(library) {
            openssl::switch_on(ebpf)?;
        }
        self.next_number = self.next_number.wrapping_add(1);
        let mut probes = self.programs.attach(ebpf, &found.file, library, self.next_number)?;
        let before = self.attach_ties(ebpf, found, library, &mut probes);
        // From here on every byte of plaintext is seen.
        let ready = AsPod(TlsFile { ready_ns: monotonic_ns(), places: library.places, ..TlsFile::default() });
        if let Err(error) = self.files.insert(probes.number, ready, 0) {
            probes.detach(ebpf);
            return Err(error.to_string());
        }
        Ok((probes, before))
    }

    /// The probes for connections from before, if there are any.
    fn attach_ties(&self, ebpf: &mut Ebpf, found: &Found, library: &Library, probes: &mut Probes) -> Before {
        if library.ties.is_empty() {
            return Before::ForGood;
        }
        let processes = found.processes.iter().map(|process| process.pid);
        let before = Before::now(processes, &self.watched.ports, self.watched.own_numbers);
        if before.is_none() {
            return Before::Over(Unread::now(None, self.unread));
        }
        if let Err(reason) = self.programs.attach_ties(ebpf, &found.file, library, probes) {
            warn!(reason, "connections from before are not read");
        }
        before
    }

    fn uncover_what_was_left(&mut self, ebpf: &mut Ebpf) {
        let is_over = |covered: &Covered| covered.left.is_some_and(|left| left.elapsed() > KEPT_FOR);
        for (_, covered) in self.covered.extract_if(.., |_, covered| is_over(covered)) {
            take_out(&mut self.files, ebpf, covered.probes);
        }
    }
}

/// Takes a file's probes out, if it has any.
fn take_out(files: &mut Files, ebpf: &mut Ebpf, probes: Result<Probes, String>) {
    if let Ok(probes) = probes {
        // It may be that nobody has put it there.
        let _ = files.remove(&probes.number);
        probes.detach(ebpf);
    }
}

fn names(found: &Found) -> Vec<String> {
    found.processes.iter().map(|process| format!("{}[{}]", process.comm, process.pid)).collect()
}

/// Looks into the files of who serves.
#[derive(Default)]
pub struct Finder {
    serving: Serving,
    /// What is served from now: a file is looked into once.
    known: BTreeMap<FileId, Found>,
    news: News<BTreeMap<FileId, Found>>,
}

impl Finder {
    /// Tells what has changed about who has these listening sockets (inodes).
    pub fn look(&mut self, sockets: BTreeSet<u64>) {
        let Some(served) = self.serving.look(sockets) else { return };
        let mut before = std::mem::take(&mut self.known);
        for process in served {
            let id = process.file;
            if let Some(known) = self.known.get_mut(&id) {
                known.processes.push(process);
            } else if let Some(mut known) = before.remove(&id) {
                known.processes = vec![process];
                self.known.insert(id, known);
            } else if let Some(found) = look_into(process) {
                self.known.insert(id, found);
            }
        }
        self.news.put(self.known.clone());
    }
}

/// None: the process has gone, or the file is no library after all.
fn look_into(process: Served) -> Option<Found> {
    let file = File::open(&process.path).ok()?;
    let metadata = file.metadata().ok()?;
    if (FileId { device: metadata.dev(), inode: metadata.ino() }) != process.file {
        return None;
    }
    let cache = ReadCache::new(file.try_clone().ok()?);
    let elf = symbols::Elf::parse(&cache);
    let library = match elf.as_ref().map_or(Ok(None), |elf| library_in(elf, &file, &process)) {
        Ok(Some(library)) => Ok(library),
        Ok(None) if process.is_library => return None,
        Ok(None) => Err(others::named(elf.as_ref())),
        Err(why) => Err(why),
    };
    Some(Found { processes: vec![process], file: Arc::new(file), library })
}

fn library_in(elf: &symbols::Elf<'_>, file: &File, process: &Served) -> Result<Option<Library>, String> {
    if let Some(go) = go::find(elf)? {
        return Ok(Some(go.into()));
    }
    // Before OpenSSL, some of whose names it has where it is not stripped.
    if !process.is_library
        && let Some(boringssl) = boringssl::find(elf, file)?
    {
        return Ok(Some(boringssl));
    }
    let openssl = openssl::find(elf, file, process)?;
    if openssl.is_some() { Ok(openssl) } else { gnutls::find(elf) }
}
