//! Which cgroup an id stands for: asked of the process that was seen in it, while it is there.
//!
//! The id of a cgroup v2 is the inode number of its directory (`kernfs_node.id`, since Linux 5.5 on 64-bit systems). So the
//! path that `/proc/PID/cgroup` shows is believed only if the directory there has that number: a process that has moved
//! since, or a path as another cgroup namespace writes it, names nothing.

use s3auditd_rebuild::record::served::{Cgroups, Served};
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Asks each id once, or once more for every further process that is seen in it while nobody could be asked.
#[derive(Debug)]
pub struct CgroupNames {
    /// None: there is no cgroup v2 here, so no id means anything.
    mount: Option<PathBuf>,
    /// Ids that could not be resolved, with the process that was asked in vain.
    in_vain: BTreeMap<u64, u32>,
}

impl CgroupNames {
    /// Finds where cgroup v2 is mounted.
    #[must_use]
    pub fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { mount: mount(&mounts), in_vain: BTreeMap::new() }
    }

    /// Where cgroup v2 is mounted.
    #[must_use]
    pub fn mount(&self) -> Option<&Path> {
        self.mount.as_deref()
    }

    /// Tells `cgroups` what this id is, if it is new and the process can still say. Cheap for an id that was seen before.
    pub fn meet(&mut self, id: u64, tgid: u32, cgroups: &mut Cgroups) {
        if id == 0 || tgid == 0 || cgroups.knows(id) || self.in_vain.get(&id) == Some(&tgid) {
            return;
        }
        let Some(mount) = &self.mount else { return };
        match resolve(mount, id, tgid) {
            Some(path) => {
                self.in_vain.remove(&id);
                cgroups.tell(id, Served::of_path(&path));
            }
            None => {
                // They are few; should they not be, all may be asked again.
                if self.in_vain.len() >= Cgroups::LIMIT {
                    self.in_vain.clear();
                }
                self.in_vain.insert(id, tgid);
            }
        }
    }
}

impl Default for CgroupNames {
    fn default() -> Self {
        Self::new()
    }
}

fn resolve(mount: &Path, id: u64, tgid: u32) -> Option<String> {
    let shown = std::fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?;
    let path = unified(&shown)?;
    let directory = std::fs::metadata(mount.join(path.trim_start_matches('/'))).ok()?;
    (directory.ino() == id).then(|| path.to_owned())
}

/// The path in the v2 hierarchy: the line `0::PATH` (cgroups(7)).
fn unified(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The first mount of cgroup v2, as `/proc/PID/mountinfo` has it: `id parent device root MOUNT options ... - TYPE ...`.
fn mount(mountinfo: &str) -> Option<PathBuf> {
    let is_v2 = |line: &&str| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("cgroup2 "));
    mountinfo.lines().find(is_v2)?.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_and_the_path_are_found() {
        let mounts = "29 28 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      30 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 29 0:28 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount(""), None);
        assert_eq!(unified("4:memory:/a\n0::/system.slice/a b.service\n"), Some("/system.slice/a b.service"));
        assert_eq!(unified("4:memory:/a\n"), None);
    }

    #[test]
    fn only_the_cgroup_that_the_process_is_in_is_told() {
        let mut names = CgroupNames::new();
        let Some(mount) = names.mount().map(Path::to_owned) else { return };
        let shown = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = mount.join(unified(&shown).unwrap().trim_start_matches('/'));
        let (id, pid) = (std::fs::metadata(own).unwrap().ino(), std::process::id());
        let mut cgroups = Cgroups::default();
        names.meet(id + 1, pid, &mut cgroups);
        names.meet(0, pid, &mut cgroups);
        names.meet(id, u32::MAX, &mut cgroups);
        assert!(!cgroups.knows(id + 1) && !cgroups.knows(0) && !cgroups.knows(id));
        names.meet(id, pid, &mut cgroups);
        assert!(cgroups.knows(id));
    }
}
