//! The directory of a spool: who may see it, who holds it, how much room its file system has.

use super::SpoolError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Held as long as it lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

/// Makes the directory if it is not there. One that is there must be closed to others, and ours: it is not repaired,
/// because who opened it may have read it.
pub(super) fn prepare(dir: &Path) -> Result<(), SpoolError> {
    let failed = |source| SpoolError::Directory { dir: dir.to_owned(), source };
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        // The process's umask may have taken even more away.
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let about = fs::metadata(dir).map_err(failed)?;
    if !about.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    let mode = about.mode() & 0o7777;
    let own = rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 || about.uid() != own {
        return Err(SpoolError::Open { dir: dir.to_owned(), mode, uid: about.uid(), own });
    }
    Ok(())
}

/// A daemon that is just ending, or a child on its way from fork to exec, may hold the lock for a moment more.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Takes the directory for this process.
pub(super) fn lock(dir: &Path) -> Result<Lock, SpoolError> {
    let failed = |source| SpoolError::Directory { dir: dir.to_owned(), source };
    let mut file = private_file(&dir.join("lock")).map_err(failed)?;
    let mut locked = file.try_lock();
    for _ in 0..LOCK_ATTEMPTS {
        if let Err(TryLockError::WouldBlock) = locked {
            std::thread::sleep(LOCK_WAIT);
            locked = file.try_lock();
        }
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Whoever holds it may be about to write its pid.
            let _unreadable = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(SpoolError::Locked { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // On a full disk the lock holds without its text.
    let _full = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(Lock(file))
}

/// Opens a file for reading and writing that only its owner may see; makes it if it is not there.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// What the file system has left for us, in bytes.
pub(super) fn free_bytes(dir: &Path) -> u64 {
    // Where nobody can tell, writing will.
    rustix::fs::statvfs(dir).map_or(u64::MAX, |about| about.f_bavail.saturating_mul(about.f_frsize))
}

/// The length of a file; 0 if there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// The length of all files of a directory.
pub(super) fn total_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// The path with this behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
