//! The dead-letter file: records that a webhook refuses for good, one JSON a line, with why and by whom.
//!
//! `{"refused":{"time":..,"endpoint":..,"status":..,"code":..},"record":{..}}`. A line is on the disk before its record
//! counts as settled. The file is opened anew for each: it may be moved away or emptied while the daemon runs, and its
//! limit counts what is in it at that moment. All endpoints share one.

use serde::Serialize;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Clone, Debug)]
pub struct DeadLetter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    most_bytes: u64,
    /// One line at a time.
    writing: Mutex<()>,
}

/// Why a record is not in the file.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// It would grow beyond its limit.
    #[error("dead-letter-file {} is full (dead-letter-bytes); empty it or move it away", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("dead-letter-file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who refused a record, and how.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refused<'a> {
    /// RFC 3339, UTC.
    pub(super) time: String,
    pub(super) endpoint: &'a str,
    /// HTTP.
    pub(super) status: u16,
    /// Splunk's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u64>,
}

impl DeadLetter {
    /// Makes the file, and the directory it is in, if they are not there: what is wrong with them is found at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: impl Into<PathBuf>, most_bytes: u64) -> Result<Self, DeadLetterError> {
        let path = path.into();
        open(&path).map_err(|source| DeadLetterError::Io { path: path.clone(), source })?;
        Ok(Self(Arc::new(Shared { path, most_bytes, writing: Mutex::default() })))
    }

    /// Puts a record in. It is on the disk when this returns. Blocks.
    pub(super) fn put(&self, refused: &Refused, record: &[u8]) -> Result<(), DeadLetterError> {
        let Shared { path, most_bytes, writing } = &*self.0;
        let io = |source| DeadLetterError::Io { path: path.clone(), source };
        let mut line = OPENING.to_vec();
        serde_json::to_writer(&mut line, refused).map_err(|error| io(error.into()))?;
        line.extend_from_slice(b",\"record\":");
        line.extend_from_slice(record);
        line.extend_from_slice(b"}\n");

        let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = open(path).map_err(io)?;
        let mut before = whole_lines(&file).map_err(io)?;
        if before < file.metadata().map_err(io)?.len() {
            // Somebody else's unfinished line stays, on its own.
            line.insert(0, b'\n');
            before = file.metadata().map_err(io)?.len();
        }
        if before.saturating_add(line.len() as u64) > *most_bytes {
            return Err(DeadLetterError::Full { path: path.clone() });
        }
        let written = file.write_all(&line).and_then(|()| file.sync_all());
        written.map_err(|source| {
            // A torn line would spoil the next one; if this fails too, `whole_lines` finds it.
            let _torn = file.set_len(before);
            io(source)
        })
    }
}

/// How every line begins.
const OPENING: &[u8] = b"{\"refused\":";

/// For appending; for root alone, also if somebody made it otherwise. A symbolic link is not followed.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(file) => {
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            return Ok(file);
        }
        Err(error) => return Err(error),
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = options.create(true).open(path)?;
    // The name has to be on the disk as well.
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// Takes away the torn line that a crash may have left at the end, if it is one of ours, and returns how long the whole
/// lines are.
fn whole_lines(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(block.len());
        let Some(part) = block.get_mut(..size) else { break };
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    let torn = usize::try_from(length - end).unwrap_or(usize::MAX).min(OPENING.len());
    let (mut begins, expected) = (vec![0; torn], OPENING.get(..torn).unwrap_or_default());
    file.read_exact_at(&mut begins, end)?;
    if torn > 0 && begins == expected {
        file.set_len(end)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Refused<'static> {
        Refused { time: "2025-03-21T06:37:27Z".to_owned(), endpoint: "a\"b", status: 400, code: Some(6) }
    }

    const LINE: &str = "{\"refused\":{\"time\":\"2025-03-21T06:37:27Z\",\"endpoint\":\"a\\\"b\",\"status\":400,\"code\":6},\
                        \"record\":{\"n\":1}}\n";

    #[test]
    fn every_line_is_whole_private_and_within_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/dead.ndjson");
        let file = DeadLetter::open(&path, 2 * LINE.len() as u64 + 10).unwrap();
        file.put(&refused(), b"{\"n\":1}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), LINE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // A crash in the middle of a line.
        std::fs::write(&path, format!("{LINE}{{\"refu")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        file.put(&refused(), b"{\"n\":1}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{LINE}{LINE}"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(file.put(&refused(), b"{\"n\":1}"), Err(DeadLetterError::Full { .. })));
        // Not ours: it stays.
        std::fs::write(&path, "a note").unwrap();
        file.put(&refused(), b"{\"n\":1}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("a note\n{LINE}"));
        // Moved away: there is room again.
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        file.put(&refused(), b"{\"n\":1}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), LINE);
    }

    #[test]
    fn what_is_wrong_with_the_path_is_found_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(DeadLetter::open(directory.path(), 1000), Err(DeadLetterError::Io { .. })));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(matches!(DeadLetter::open(link, 1000), Err(DeadLetterError::Io { .. })), "no link is followed");
    }
}
