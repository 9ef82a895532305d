//! Processes whose TLS is not to be read, as configured (`tls-exclude`).
//!
//! A probe belongs to a file, which several processes may run. A file that only such processes serve from has none; where
//! others do too, the kernel side is told which processes to leave out.

use super::Served;
use crate::capture::attach::chain;
use aya::{Ebpf, maps::HashMap};
use std::{collections::BTreeSet, fs};
use tracing::warn;

/// What `status` says of them.
pub(super) const SWITCHED_OFF: &str = "switched off (tls-exclude)";

/// See the module.
#[derive(Default)]
pub(super) struct Exclude {
    names: Vec<String>,
    /// What the kernel side knows.
    told: BTreeSet<u32>,
}

impl Exclude {
    pub fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), told: BTreeSet::new() }
    }

    /// Those of these processes that are left out.
    pub fn of(&self, processes: &[Served]) -> BTreeSet<u32> {
        if self.names.is_empty() {
            return BTreeSet::new();
        }
        let excluded = |process: &&Served| {
            let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
            self.names.iter().any(|name| is_named(name, &process.comm, &cgroups))
        };
        processes.iter().filter(excluded).map(|process| process.pid).collect()
    }

    /// Tells the kernel side: these, and no others.
    pub fn tell(&mut self, ebpf: &mut Ebpf, now: BTreeSet<u32>) {
        if now == self.told {
            return;
        }
        let told = |ebpf: &mut Ebpf| {
            let map = ebpf.map_mut("TLS_EXCLUDED").ok_or("the object has no map TLS_EXCLUDED")?;
            let mut map = HashMap::<_, u32, u32>::try_from(map).map_err(|error| chain(&error))?;
            for gone in self.told.difference(&now) {
                // It may be that there was no room for it.
                let _ = map.remove(gone);
            }
            now.difference(&self.told).try_for_each(|pid| map.insert(pid, 1, 0).map_err(|error| chain(&error)))
        };
        if let Err(reason) = told(ebpf) {
            warn!(%reason, "TLS of processes that are to be left out may be read");
        }
        self.told = now;
    }
}

/// Whether that is the process's name, or one of a cgroup that it is in; what ends with `*` only begins so.
fn is_named(pattern: &str, comm: &str, cgroups: &str) -> bool {
    let is = |name: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    // `0::/system.slice/minio.service` (cgroups(7)).
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    is(comm) || paths.flat_map(|path| path.split('/')).any(|name| !name.is_empty() && is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_or_by_a_cgroup_on_the_way() {
        let cgroups = "12:memory:/kubepods/pod1\n0::/system.slice/minio.service\n";
        for pattern in ["minio", "min*", "minio.service", "system.slice", "kube*", "pod1"] {
            assert!(is_named(pattern, "minio", cgroups), "{pattern}");
        }
        for pattern in ["mini", "service", "nginx*", "/system.slice", "12", "memory"] {
            assert!(!is_named(pattern, "minio", cgroups), "{pattern}");
        }
    }
}
