//! Plaintext of the gateway's TLS: finds its library, puts probes there, says what was found.
//!
//! The thread that looks who listens also looks into the files of who serves the watched ports; that may take a while.
//! Capture's thread attaches and detaches. A probe belongs to a file on disk: every process that runs it is covered, whenever it started.

mod go;
mod served;
mod symbols;

use super::{attach::AsPod, grace::monotonic_ns, lookout::News, status::TlsStatus};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        UProbe,
        uprobe::{UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use go::GoTls;
use object::read::ReadCache;
use s3auditd_common::settings::TlsFile;
use served::{FileId, Served, Serving};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long the probes stay in a file that nobody serves from: a gateway that is restarted is covered from its first
/// connection on.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The kernel side has room for so many files at once; beyond it they are named as not covered.
const MAX_FILES: usize = 256;

const RECEIVED: &str = "go_tls_received";
const SENT: &str = "go_tls_sent";

/// What a file was found to be.
#[derive(Clone, Debug)]
struct Found {
    processes: Vec<Served>,
    /// Kept open: what is attached to is what was looked into.
    file: Arc<File>,
    library: Library,
}

#[derive(Clone, Debug)]
enum Library {
    Go(GoTls),
    /// None that is known; or why it is not understood.
    Unknown(String),
}

/// See the module.
pub struct Tls {
    /// What the last look that showed a change has found.
    news: News<BTreeMap<FileId, Found>>,
    files: HashMap<MapData, u32, AsPod<TlsFile>>,
    /// Every file that is served from, with what became of it.
    covered: BTreeMap<FileId, Covered>,
    next_number: u32,
    /// Why the kernel takes no probes at all.
    refused: Option<String>,
}

struct Covered {
    found: Found,
    probes: Result<Probes, String>,
    /// Nobody serves from it any more.
    left: Option<Instant>,
}

struct Probes {
    /// What the kernel side knows the file by.
    number: u32,
    links: Vec<(&'static str, UProbeLinkId)>,
}

impl Tls {
    /// Loads the programs and covers who has these listening sockets now. The finder is for the thread that looks on.
    pub fn start(
        ebpf: &mut Ebpf,
        files: HashMap<MapData, u32, AsPod<TlsFile>>,
        sockets: BTreeSet<u64>,
    ) -> (Self, Finder) {
        let refused = load(ebpf).err();
        if let Some(reason) = &refused {
            warn!(%reason, "the kernel takes no probes in the gateway's code: TLS is not read");
        }
        let mut finder = Finder::default();
        let news = finder.news.clone();
        let mut tls = Self { news, files, covered: BTreeMap::new(), next_number: 0, refused };
        finder.look(sockets);
        tls.keep_up(ebpf);
        (tls, finder)
    }

    /// Attaches and detaches what the last look calls for. Cheap if that is nothing.
    pub fn keep_up(&mut self, ebpf: &mut Ebpf) {
        if let Some(news) = self.news.take() {
            self.cover(ebpf, news);
        }
    }

    /// Each process that serves a watched port.
    pub fn status(&self) -> Vec<TlsStatus> {
        self.covered.values().flat_map(|covered| self.status_of(covered)).collect()
    }

    fn status_of(&self, Covered { found, probes, .. }: &Covered) -> Vec<TlsStatus> {
        let (library, version) = match &found.library {
            Library::Go(go) => ("go crypto/tls", go.version.as_str()),
            Library::Unknown(_) => ("", ""),
        };
        let connections = probes.as_ref().map_or(0, |probes| self.files.get(&probes.number, 0).map_or(0, |f| f.0.tied));
        let of_process = |process: &Served| TlsStatus {
            pid: process.pid,
            comm: process.comm.clone(),
            library: library.to_owned(),
            version: version.to_owned(),
            probes: probes.as_ref().map_or(0, |probes| probes.links.len()),
            connections,
            problem: probes.as_ref().err().cloned().unwrap_or_default(),
        };
        found.processes.iter().map(of_process).collect()
    }

    fn cover(&mut self, ebpf: &mut Ebpf, mut found: BTreeMap<FileId, Found>) {
        for (id, covered) in std::mem::take(&mut self.covered) {
            match found.remove(&id) {
                Some(still) => drop(self.covered.insert(id, Covered { found: still, left: None, ..covered })),
                None if covered.probes.is_err() => {}
                None => {
                    let left = covered.left.or_else(|| Some(Instant::now()));
                    let found = Found { processes: Vec::new(), ..covered.found };
                    self.covered.insert(id, Covered { found, left, ..covered });
                }
            }
        }
        self.uncover_what_was_left(ebpf);
        for (id, found) in found {
            let probes = self.attach(ebpf, &found);
            match &probes {
                Ok(probes) => {
                    info!(processes = ?names(&found), probes = probes.links.len(), "TLS is read as plaintext")
                }
                Err(reason) => info!(processes = ?names(&found), %reason, "TLS of these processes would not be read"),
            }
            self.covered.insert(id, Covered { found, probes, left: None });
        }
    }

    fn attach(&mut self, ebpf: &mut Ebpf, found: &Found) -> Result<Probes, String> {
        let go = match &found.library {
            Library::Go(go) => go,
            Library::Unknown(why) => return Err(why.clone()),
        };
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if self.covered.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
        self.next_number = self.next_number.wrapping_add(1);
        let mut probes = Probes { number: self.next_number, links: Vec::new() };
        // By descriptor: the very file that was looked into, whatever has become of its name and its process.
        let path = format!("/proc/self/fd/{}", found.file.as_raw_fd());
        let attached = [(RECEIVED, go.received, go.conn_slot), (SENT, go.sent, 0)].into_iter().try_for_each(
            |(program, offset, own)| {
                let told = u64::from(probes.number) << 32 | u64::from(own);
                let point = UProbeAttachPoint { location: offset.into(), cookie: Some(told) };
                let link = uprobe(ebpf, program)?
                    .attach(point, &path, UProbeScope::AllProcesses)
                    .map_err(|error| super::attach::chain(&error))?;
                probes.links.push((program, link));
                Ok(())
            },
        );
        // From here on every byte of plaintext is seen.
        let ready = AsPod(TlsFile { ready_ns: monotonic_ns(), tied: 0 });
        let told =
            attached.and_then(|()| self.files.insert(probes.number, ready, 0).map_err(|error| error.to_string()));
        match told {
            Ok(()) => Ok(probes),
            Err(why) => {
                detach(ebpf, probes);
                Err(why)
            }
        }
    }

    fn uncover_what_was_left(&mut self, ebpf: &mut Ebpf) {
        let is_over = |covered: &Covered| covered.left.is_some_and(|left| left.elapsed() > KEPT_FOR);
        for (_, covered) in self.covered.extract_if(.., |_, covered| is_over(covered)) {
            if let Ok(probes) = covered.probes {
                // It may be that nobody has put it there.
                let _ = self.files.remove(&probes.number);
                detach(ebpf, probes);
            }
        }
    }
}

fn load(ebpf: &mut Ebpf) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the probes read x86-64 registers".to_owned());
    }
    for program in [RECEIVED, SENT] {
        uprobe(ebpf, program)?.load().map_err(|error| super::attach::chain(&error))?;
    }
    Ok(())
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|error| super::attach::chain(&error))
}

fn detach(ebpf: &mut Ebpf, probes: Probes) {
    for (program, link) in probes.links {
        let detached = uprobe(ebpf, program)
            .and_then(|program| program.detach(link).map_err(|error| super::attach::chain(&error)));
        if let Err(reason) = detached {
            warn!(program, %reason, "a probe could not be taken out");
        }
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

/// None: the process has gone.
fn look_into(process: Served) -> Option<Found> {
    let file = File::open(served::executable(process.pid)).ok()?;
    let metadata = file.metadata().ok()?;
    if (FileId { device: metadata.dev(), inode: metadata.ino() }) != process.file {
        return None;
    }
    let cache = ReadCache::new(file.try_clone().ok()?);
    let library = match symbols::Elf::parse(&cache).map(|elf| go::find(&elf)) {
        Some(Ok(Some(go))) => Library::Go(go),
        Some(Ok(None)) | None => Library::Unknown("no TLS library that is known".to_owned()),
        Some(Err(why)) => Library::Unknown(why),
    };
    Some(Found { processes: vec![process], file: Arc::new(file), library })
}
