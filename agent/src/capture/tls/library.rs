//! A TLS library as it was found in a file, and its probes.

use crate::capture::attach::chain;
use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use std::{collections::BTreeMap, fs::File, os::fd::AsRawFd as _};
use tracing::warn;

/// A library whose plaintext can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Library {
    /// As `status` calls it.
    pub name: &'static str,
    /// As the file tells it.
    pub version: String,
    /// In the order in which they are attached; where a call has two, the one at its end comes first.
    pub points: Vec<Point>,
    /// Likewise, for connections that were open before: needed until each of them is tied to its object.
    pub ties: Vec<Point>,
    /// Places in its objects, see `settings::openssl::own`.
    pub places: u32,
}

impl Library {
    /// One whose probes all stay.
    pub fn of(name: &'static str, version: String, points: Vec<Point>) -> Self {
        Self { name, version, points, ties: Vec::new(), places: 0 }
    }
}

/// Where a probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// The kernel object's program. Its section says whether it runs at the instruction or at the end of the function that
    /// begins there.
    pub program: &'static str,
    /// In the file.
    pub offset: u64,
    /// A number for the program's own use.
    pub own: u32,
}

/// What is attached to a file.
pub(super) struct Probes {
    /// What the kernel side knows the file by.
    pub number: u32,
    links: Links,
    /// Those of [`Library::ties`]; empty: they are not in.
    ties: Links,
}

type Links = Vec<(&'static str, UProbeLinkId)>;

/// The programs for TLS that the kernel has taken, and why not the others.
#[derive(Debug, Default)]
pub(super) struct Programs(BTreeMap<&'static str, Result<(), String>>);

impl Programs {
    /// Loads each by itself: what the kernel has against one says nothing of another library's.
    pub fn load(ebpf: &mut Ebpf, names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().map(|name| (name, load(ebpf, name))).collect())
    }

    /// Those that the kernel refuses, with its reasons.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().filter_map(|(name, loaded)| Some((*name, loaded.as_ref().err()?.as_str())))
    }

    /// Puts the probes of a library into that file, but for those of [`Library::ties`].
    ///
    /// # Errors
    /// The kernel does not take one of them; then none is in.
    pub fn attach(&self, ebpf: &mut Ebpf, file: &File, library: &Library, number: u32) -> Result<Probes, String> {
        let links = self.put(ebpf, file, &library.points, number)?;
        Ok(Probes { number, links, ties: Vec::new() })
    }

    /// Puts those of [`Library::ties`] in, unless they are.
    ///
    /// # Errors
    /// See [`Self::attach`].
    pub fn attach_ties(
        &self,
        ebpf: &mut Ebpf,
        file: &File,
        library: &Library,
        probes: &mut Probes,
    ) -> Result<(), String> {
        if probes.ties.is_empty() {
            probes.ties = self.put(ebpf, file, &library.ties, probes.number)?;
        }
        Ok(())
    }

    fn put(&self, ebpf: &mut Ebpf, file: &File, points: &[Point], number: u32) -> Result<Links, String> {
        // By descriptor: the very file that was looked into, whatever has become of its name and its process.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut links = Links::new();
        let attached = points.iter().try_for_each(|Point { program, offset, own }| {
            match self.0.get(program) {
                Some(Ok(())) => {}
                Some(Err(why)) => return Err(format!("the kernel refuses {program}: {why}")),
                None => return Err(format!("{program} is not loaded")),
            }
            let told = u64::from(number) << 32 | u64::from(*own);
            let point = UProbeAttachPoint { location: (*offset).into(), cookie: Some(told) };
            let link = uprobe(ebpf, program)?
                .attach(point, &path, UProbeScope::AllProcesses)
                .map_err(|error| chain(&error))?;
            links.push((*program, link));
            Ok(())
        });
        match attached {
            Ok(()) => Ok(links),
            Err(why) => {
                take_out(ebpf, links);
                Err(why)
            }
        }
    }
}

impl Probes {
    pub fn len(&self) -> usize {
        self.links.len() + self.ties.len()
    }

    pub fn has_ties(&self) -> bool {
        !self.ties.is_empty()
    }

    /// Takes one of [`Library::ties`] out, the last one first: an entry before its return. When the return follows, calls that were noted
    /// at the entry have ended, most of them.
    pub fn detach_tie(&mut self, ebpf: &mut Ebpf) {
        take_out(ebpf, self.ties.pop());
    }

    /// Takes them out.
    pub fn detach(self, ebpf: &mut Ebpf) {
        take_out(ebpf, self.links.into_iter().chain(self.ties));
    }
}

fn take_out(ebpf: &mut Ebpf, links: impl IntoIterator<Item = (&'static str, UProbeLinkId)>) {
    for (program, link) in links {
        let detached = uprobe(ebpf, program).and_then(|program| program.detach(link).map_err(|error| chain(&error)));
        if let Err(reason) = detached {
            warn!(program, %reason, "a probe could not be taken out");
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the probes read x86-64 registers".to_owned());
    }
    uprobe(ebpf, name)?.load().map_err(|error| chain(&error))
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|error| chain(&error))
}
