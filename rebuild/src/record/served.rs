//! Who served: what a cgroup's path says of the process in it. Kernel side and samples know only the cgroup's id; whoever
//! can look at the node tells the path that belongs to it.

use std::collections::{BTreeMap, VecDeque};

/// A cgroup by its path, and what the path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The path below the mount of cgroup v2, `/system.slice/minio.service` for example.
    pub cgroup: String,
    /// The innermost systemd unit of the path: a service or a scope.
    pub unit: Option<String>,
    /// The innermost container of the path: its id of 64 hexadecimal digits.
    pub container: Option<String>,
}

impl Served {
    /// Reads a path. Container engines and systemd write the id alone (`/docker/ID`), or between other words
    /// (`docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`,
    /// `kubepods-burstable-podUID.slice:cri-containerd:ID`).
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let mut components = path.rsplit('/').filter(|component| !component.is_empty());
        let unit = components.clone().find(|component| is_unit(component)).map(str::to_owned);
        let container = components.find_map(container).map(str::to_owned);
        Self { cgroup: path.to_owned(), unit, container }
    }
}

/// systemd.unit(5): a process is directly in a service or a scope; slices only hold those.
fn is_unit(component: &str) -> bool {
    [".service", ".scope"].iter().any(|suffix| component.strip_suffix(suffix).is_some_and(|name| !name.is_empty()))
}

fn container(component: &str) -> Option<&str> {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    component.split(|letter: char| !letter.is_ascii_alphanumeric()).find(is_id)
}

/// Cgroups by their id (cgroup v2, never used again while the node is up). At its limit the one that was told first goes;
/// records of it have the id alone until it is told again.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    known: BTreeMap<u64, Served>,
    told: VecDeque<u64>,
    times_told: u64,
}

impl Cgroups {
    /// Most that are known at once.
    pub const LIMIT: usize = 4096;

    /// Whether this one is known.
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    /// From now on records of this id say so.
    pub fn tell(&mut self, id: u64, served: Served) {
        self.times_told += 1;
        if self.known.insert(id, served).is_none() {
            self.told.push_back(id);
        }
        if self.told.len() > Self::LIMIT
            && let Some(first) = self.told.pop_front()
        {
            self.known.remove(&first);
        }
    }

    /// As long as it stays the same, so does all that is known.
    pub(super) fn times_told(&self) -> u64 {
        self.times_told
    }

    pub(super) fn of(&self, id: u64) -> Option<&Served> {
        self.known.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4c01db0b339c4d8b5a5e6f5a3b6d1c0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c";

    #[test]
    fn paths_as_they_are_found_on_nodes() {
        let pod = "kubepods-burstable-pod1b2c3d4e_5f60_7182_93a4_b5c6d7e8f901";
        let cases = [
            ("/", None, false),
            ("/system.slice", None, false),
            ("/system.slice/minio.service", Some("minio.service"), false),
            ("/system.slice/minio.service/worker", Some("minio.service"), false),
            ("/system.slice/system-minio.slice/minio@1.service", Some("minio@1.service"), false),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), false),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/s3.service", Some("s3.service"), false),
            ("/system.slice/docker-ID.scope", Some("docker-ID.scope"), true),
            ("/docker/ID", None, true),
            ("/machine.slice/libpod-ID.scope/container", Some("libpod-ID.scope"), true),
            ("/kubepods.slice/POD.slice/cri-containerd-ID.scope", Some("cri-containerd-ID.scope"), true),
            ("/kubepods.slice/POD.slice/crio-ID.scope", Some("crio-ID.scope"), true),
            ("/kubepods/burstable/pod1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901/ID", None, true),
            ("/system.slice/containerd.service/POD.slice:cri-containerd:ID", Some("containerd.service"), true),
            ("/docker/ID/system.slice/gateway.service", Some("gateway.service"), true),
            ("/docker/IDff", None, false),
            ("/.service/.scope", None, false),
        ];
        for (path, unit, has_container) in cases {
            let real = |text: &str| text.replace("ID", ID).replace("POD", pod);
            let served = Served::of_path(&real(path));
            assert_eq!(served.cgroup, real(path));
            assert_eq!(served.unit, unit.map(real), "{path}");
            assert_eq!(served.container.as_deref(), has_container.then_some(ID), "{path}");
        }
    }

    #[test]
    fn the_first_told_goes_at_the_limit() {
        let mut cgroups = Cgroups::default();
        for id in 0..=Cgroups::LIMIT as u64 {
            cgroups.tell(id, Served::default());
            cgroups.tell(id, Served::of_path("/again"));
        }
        assert!(!cgroups.knows(0) && cgroups.knows(1) && cgroups.knows(Cgroups::LIMIT as u64));
        assert_eq!(cgroups.known.len(), Cgroups::LIMIT);
        assert_eq!(cgroups.of(7).map(|served| served.cgroup.as_str()), Some("/again"));
    }
}
