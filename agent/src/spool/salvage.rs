//! A damaged database is set aside, and what can be read of it goes into a new one.

use super::database::{Contents, Database, FILE, Fault};
use super::place::{length, with_suffix};
use crate::config::SpoolSync;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, warn};

/// Databases that were set aside are called so, with the time behind it.
const ASIDE: &str = "corrupt-";

/// The end of their names.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Opens the database and reads its contents; if that fails, sets it aside and does so with a new one.
pub(super) fn open(dir: &Path, sync: SpoolSync, newest: u64) -> Result<(Database, Contents, Option<PathBuf>), Fault> {
    let sound = Database::open(&dir.join(FILE), sync).and_then(|database| {
        database.check()?;
        let contents = database.contents()?;
        Ok((database, contents))
    });
    match sound {
        Ok((database, contents)) => Ok((database, contents, None)),
        Err(fault @ Fault::Corrupt(_)) => {
            let (database, contents, aside) = salvage(dir, sync, newest, &fault)?;
            Ok((database, contents, Some(aside)))
        }
        // Busy, full, or a disk that fails: nothing that a new database would mend.
        Err(fault) => Err(fault),
    }
}

/// Sets the database aside and begins a new one with what can be read. Nobody else has it open. No
/// frame is looked for beyond `newest` unless the way there is sound.
pub(super) fn salvage(
    dir: &Path,
    sync: SpoolSync,
    newest: u64,
    fault: &Fault,
) -> Result<(Database, Contents, PathBuf), Fault> {
    let io = |error: std::io::Error| Fault::Io(error.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let (path, aside) = (dir.join(FILE), dir.join(format!("{ASIDE}{now}.db")));
    error!(problem = %fault, aside = %aside.display(), "the spool is damaged: it is set aside, and what can be read is kept");
    // Only the last one is kept.
    remove_aside(dir).map_err(io)?;
    for suffix in SUFFIXES {
        match fs::rename(with_suffix(&path, suffix), with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    let new = Database::open(&path, sync)?;
    // As read-only it would not replay its journal in every case.
    let old = Database::open(&aside, sync);
    match old.and_then(|old| copy(&old, &new, newest)) {
        Ok(copied) => warn!(frames = copied, "frames were taken out of the damaged spool"),
        Err(problem) => error!(%problem, "nothing more can be read of the damaged spool"),
    }
    let contents = new.contents()?;
    Ok((new, contents, aside))
}

/// Row by row, from both ends, so that a hole in the middle costs only what is in it.
fn copy(old: &Database, new: &Database, newest: u64) -> Result<u64, Fault> {
    if let Ok((_, Some(state))) = old.state() {
        new.whole(|| new.write_state(&state))?;
    }
    let mut copied = 0;
    let highest = walk(old, new, 0, true, &mut copied)?;
    if let Some(highest) = highest {
        // The way up ended early: the way down, then what lies between, one by one.
        let lowest = walk(old, new, highest, false, &mut copied)?.unwrap_or(highest);
        for number in highest.saturating_add(1)..lowest.min(newest.saturating_add(1)) {
            copied += u64::from(copy_one(old, new, number)?);
        }
    }
    Ok(copied)
}

/// Copies in one direction until the end (`None`) or the first step that fails (the last number before it).
fn walk(old: &Database, new: &Database, floor: u64, upward: bool, copied: &mut u64) -> Result<Option<u64>, Fault> {
    let mut at = if upward { floor } else { u64::MAX };
    loop {
        match old.neighbour(at, upward) {
            Ok(Some(number)) if !upward && number <= floor => return Ok(None),
            Ok(Some(number)) if number != at && (number > at) == upward => {
                *copied += u64::from(copy_one(old, new, number)?);
                at = number;
            }
            Ok(None) => return Ok(None),
            // A damaged tree may lead back too, and so round for ever.
            Ok(Some(_)) | Err(_) => return Ok(Some(at)),
        }
    }
}

/// Copies a frame that is whole. Errors are those of the new database only.
fn copy_one(old: &Database, new: &Database, number: u64) -> Result<bool, Fault> {
    let Ok(Some(row)) = old.row(number) else { return Ok(false) };
    if row.clone().frame(number).is_none() {
        return Ok(false);
    }
    if new.row(number)?.is_none() {
        new.whole(|| new.insert(number, &row))?;
    }
    Ok(true)
}

/// What was set aside takes so many bytes.
pub(super) fn aside_bytes(dir: &Path) -> u64 {
    aside(dir).iter().map(|path| length(path)).sum()
}

/// Removes what was set aside.
pub(super) fn remove_aside(dir: &Path) -> std::io::Result<()> {
    aside(dir).iter().try_for_each(fs::remove_file)
}

fn aside(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
    named.map(|entry| entry.path()).collect()
}
