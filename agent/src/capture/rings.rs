//! The rings of all CPUs that are online, also of those that come online later.
//!
//! A perf event dies with its CPU (`perf_event_exit_cpu` in `kernel/events/core.c`), and stays dead when the CPU comes
//! back. So a ring belongs to one stay of its CPU: what goes offline gives it back, what comes online gets a new one. A CPU
//! that was away between two looks shows by samples that its ring refused since.

use super::{
    AttachError, monotonic_ns,
    ring::{self, Entry, Ring},
};
use aya::maps::MapData;
use s3auditd_rebuild::sample::Sample;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    time::Duration,
};
use tracing::{info, warn};

/// See the module.
pub struct Rings {
    /// The perf event array in which the programs look for their CPU's ring.
    events: MapData,
    ring_bytes: usize,
    watermark: u32,
    open: Vec<Ring>,
    /// Out of the array, with the time since when. A program that began before may still write into them.
    retired: Vec<(Ring, u64)>,
    read: BTreeMap<u32, CpuRead>,
    /// By CPU: how many samples were refused when its ring was last looked at.
    refused: BTreeMap<u32, u64>,
    /// CPUs without a ring of which that was said.
    said: BTreeSet<u32>,
    online: Online,
}

/// What a drain has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Samples.
    pub samples: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the ring that held most.
    pub fullest: u64,
}

/// What was read of one CPU's rings.
#[derive(Clone, Copy, Default)]
pub struct CpuRead {
    pub read: u64,
    pub read_bytes: u64,
    pub undecodable: u64,
    pub reported_lost: u64,
}

impl CpuRead {
    /// Counted each time, said ever more rarely.
    fn not_understood(&mut self, why: &dyn std::fmt::Display) {
        self.undecodable += 1;
        if self.undecodable.is_power_of_two() {
            warn!(total = self.undecodable, "a ring record is no sample: {why}");
        }
    }
}

impl Rings {
    /// One for each CPU that is online now.
    ///
    /// # Errors
    /// A ring could not be opened.
    pub fn open(events: MapData, ring_bytes: usize, watermark: u32) -> Result<Self, AttachError> {
        let mut rings = Self {
            events,
            ring_bytes,
            watermark,
            open: Vec::new(),
            retired: Vec::new(),
            read: BTreeMap::new(),
            refused: BTreeMap::new(),
            said: BTreeSet::new(),
            online: Online::default(),
        };
        let online = rings.online.read().map(<[u32]>::to_vec);
        for cpu in online.map_err(|source| AttachError::System { what: "the list of online CPUs", source })? {
            rings.add(cpu).map_err(|source| AttachError::Ring { cpu, ring_bytes, source })?;
        }
        Ok(rings)
    }

    /// How many CPUs have one.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether other CPUs are online than at the last look, or one of them has no ring.
    pub fn cpus_changed(&mut self) -> bool {
        !self.said.is_empty() || self.online.changed()
    }

    /// Looks which CPUs are online. `counts` are, by CPU, the samples that the rings have refused; `again` gives them anew.
    /// Whether a ring was retired: it goes when a grace period has passed.
    pub fn follow(&mut self, counts: &[u64], mut again: impl FnMut() -> Vec<u64>) -> bool {
        // Should the list not be there for once, it is the next time.
        let Ok(online) = self.online.read() else { return false };
        for ring in std::mem::take(&mut self.open) {
            let cpu = ring.cpu();
            let count = counts.get(cpu as usize).copied().unwrap_or_default();
            // What programs emitted before the first ring was there was refused too, so the first look compares nothing.
            let works = self.refused.insert(cpu, count).is_none_or(|before| before == count);
            if online.contains(&cpu) && works {
                self.open.push(ring);
            } else {
                self.retired.push((ring, u64::MAX));
            }
        }
        let is_without = |cpu: &&u32| self.open.iter().all(|ring| ring.cpu() != **cpu);
        let without: Vec<_> = online.iter().filter(is_without).copied().collect();
        for cpu in without {
            match self.add(cpu) {
                Ok(()) => {
                    self.said.remove(&cpu);
                    let count = again().get(cpu as usize).copied().unwrap_or_default();
                    self.refused.insert(cpu, count);
                    info!(cpu, refused = count, "a CPU has come online, and has a ring now");
                }
                Err(error) if self.said.insert(cpu) => {
                    warn!(cpu, %error, "a CPU has come online, and its ring cannot be opened: its samples are lost");
                }
                Err(_) => {}
            }
        }
        // Only now: a ring is out of the array when its successor is in.
        let now_ns = monotonic_ns();
        let fresh = self.retired.iter_mut().filter(|(_, since_ns)| *since_ns == u64::MAX);
        fresh.map(|(_, since_ns)| *since_ns = now_ns).count() > 0
    }

    /// Hands over every sample that the rings hold now. `passed_ns`: every program that began before had ended when this was
    /// called.
    pub fn drain(&mut self, passed_ns: u64, mut each: impl FnMut(&Sample<'_>)) -> Taken {
        let mut taken = Taken::default();
        for ring in self.open.iter_mut().chain(self.retired.iter_mut().map(|(ring, _)| ring)) {
            let cpu = self.read.entry(ring.cpu()).or_default();
            let (before, before_bytes) = (cpu.read, cpu.read_bytes);
            ring.drain(|entry| match entry {
                Entry::Sample(bytes) => {
                    cpu.read += 1;
                    match Sample::parse(bytes) {
                        Ok(sample) => {
                            cpu.read_bytes += (size_of_val(&sample.header) + sample.payload.len()) as u64;
                            each(&sample);
                        }
                        Err(error) => cpu.not_understood(&error),
                    }
                }
                Entry::Lost(count) => cpu.reported_lost += count,
                Entry::Nonsense(bytes) => cpu.not_understood(&format_args!("{bytes} bytes of a ring make no sense")),
            });
            let bytes = cpu.read_bytes - before_bytes;
            taken.samples += cpu.read - before;
            taken.bytes += bytes;
            taken.fullest = taken.fullest.max(bytes);
        }
        self.retired.retain(|(_, since_ns)| *since_ns >= passed_ns);
        taken
    }

    /// Waits until a ring has reached its watermark, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        ring::wait(&self.open, timeout);
    }

    /// Bytes in the ring that holds most now.
    pub fn fullest(&self) -> u64 {
        self.open.iter().map(Ring::holds).max().unwrap_or_default()
    }

    /// Of a CPU's rings, this one and those before; nothing for one that never had a ring.
    pub fn read(&self, cpu: u32) -> Option<CpuRead> {
        self.read.get(&cpu).copied()
    }

    fn add(&mut self, cpu: u32) -> io::Result<()> {
        self.open.push(Ring::open(&self.events, cpu, self.ring_bytes, self.watermark)?);
        self.read.entry(cpu).or_default();
        Ok(())
    }
}

/// The list of CPUs that are online, as the kernel writes it.
#[derive(Default)]
struct Online {
    /// Kept open: a look is one call.
    file: Option<File>,
    /// As it was read last.
    text: Vec<u8>,
    /// What it says.
    cpus: Vec<u32>,
}

impl Online {
    /// Whether the list is another one than at the last [`Online::read`], or cannot be read.
    fn changed(&mut self) -> bool {
        let mut now = [0; 256];
        let Ok(read) = self.look(&mut now) else { return true };
        now.get(..read) != Some(&self.text) || read == now.len()
    }

    /// The CPUs.
    fn read(&mut self) -> io::Result<&[u32]> {
        if self.changed() || self.cpus.is_empty() {
            let mut now = [0; 256];
            // What is compared later is older than what is returned: no change is missed.
            let read = self.look(&mut now).unwrap_or_default();
            self.text = now.get(..read).unwrap_or_default().to_vec();
            self.cpus.clear();
            self.cpus = aya::util::online_cpus().map_err(|(_, source)| source)?;
        }
        Ok(&self.cpus)
    }

    fn look(&mut self, now: &mut [u8]) -> io::Result<usize> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open("/sys/devices/system/cpu/online")?,
        };
        let read = file.read_at(now, 0)?;
        self.file = Some(file);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_cpus_is_the_same_until_it_changes() {
        let mut online = Online::default();
        assert!(online.changed(), "nothing was read yet");
        assert!(!online.read().unwrap().is_empty());
        assert!(!online.changed());
        online.text.push(b'x');
        assert!(online.changed());
    }
}
