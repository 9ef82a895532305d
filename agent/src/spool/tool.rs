//! `s3auditd spool`: looks into a spool from outside, beside a running daemon too. It writes nothing there.

use super::database::{Database, FILE, Fault};
use super::known::Known;
use super::{Frame, GivenUp, SpoolStatus, place};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why a spool cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is none.
    #[error("no spool in {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("spool-dir {}: {problem}", dir.display())]
    Read {
        /// Which.
        dir: PathBuf,
        /// What the database says.
        problem: String,
    },
    /// There is no reader of this name.
    #[error("the spool has no reader {0:?}")]
    NoReader(String),
    /// The output does not take it.
    #[error("output: {0}")]
    Write(#[from] std::io::Error),
}

/// What `inspect` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// As the daemon would say it; cursors may be a second behind, and `limit` is not known here.
    pub status: SpoolStatus,
    /// Runs that wait to be announced.
    pub given_up: Vec<GivenUp>,
    /// Frames whose head is damaged now and that the daemon has not met yet.
    pub damaged_heads: u64,
}

/// What `export` wrote and what it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Frames.
    pub frames: u64,
    /// Records.
    pub records: u64,
    /// Frames that are damaged.
    pub corrupt_frames: u64,
}

/// Looks at the spool of this directory.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn inspect(dir: &Path) -> Result<Inspection, ToolError> {
    let (_, known, damaged_heads) = open(dir)?;
    let mut status = known.status();
    status.disk_bytes = place::total_bytes(dir);
    status.free_bytes = place::free_bytes(dir);
    Ok(Inspection { status, given_up: known.state.given_up, damaged_heads })
}

/// Writes the records that wait for this reader, or all that are kept, byte for byte, one a line. Each frame is read by
/// itself, so a slow output does not hold up the daemon; frames that are deleted meanwhile are left out.
///
/// # Errors
/// There is no spool or no such reader, or the output does not take it.
pub fn export(dir: &Path, reader: Option<&str>, to: &mut dyn Write) -> Result<Exported, ToolError> {
    let (database, known, damaged_heads) = open(dir)?;
    let after = match reader {
        Some(name) => known.state.cursor(name).ok_or_else(|| ToolError::NoReader(name.to_owned()))?,
        None => 0,
    };
    let mut exported = Exported { corrupt_frames: damaged_heads, ..Exported::default() };
    for number in known.index.keys().copied().filter(|number| *number > after) {
        let frame = match database.row(number) {
            Ok(None) => continue,
            Ok(Some(row)) => row.frame(number),
            Err(Fault::Corrupt(_)) => None,
            Err(fault) => return Err(failed(dir, &fault)),
        };
        let Some(Frame { lines, .. }) = frame else {
            exported.corrupt_frames += 1;
            continue;
        };
        for line in &lines {
            to.write_all(line)?;
            to.write_all(b"\n")?;
        }
        exported.frames += 1;
        exported.records += lines.len() as u64;
    }
    to.flush()?;
    Ok(exported)
}

fn open(dir: &Path) -> Result<(Database, Known, u64), ToolError> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Err(ToolError::Missing(dir.to_owned()));
    }
    let database = Database::open_read_only(&path).map_err(|fault| failed(dir, &fault))?;
    let contents = database.contents().map_err(|fault| failed(dir, &fault))?;
    let mut known = Known { state: contents.state.clone().unwrap_or_default(), ..Known::default() };
    let damaged = contents.heads.values().filter(|head| head.is_none()).count() as u64;
    for (number, head) in contents.heads {
        if let Some(head) = head.filter(|_| number > known.state.gone) {
            known.insert(number, head.info());
        }
    }
    Ok((database, known, damaged))
}

fn failed(dir: &Path, fault: &Fault) -> ToolError {
    ToolError::Read { dir: dir.to_owned(), problem: fault.to_string() }
}

/// The inspection for people.
#[must_use]
pub fn render(inspection: &Inspection) -> String {
    let Inspection { status, given_up, damaged_heads } = inspection;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(out, "{name:<12}{text}");
    };
    line("kept", format!("{} frames, {} records, {} bytes", status.frames, status.kept.records, status.kept.bytes));
    line("disk", format!("{} bytes used, {} bytes free", status.disk_bytes, status.free_bytes));
    line("oldest", time(status.oldest_ns));
    line("newest", time(status.newest_ns));
    line("corrupt", format!("{} frames since the spool was made, {damaged_heads} found now", status.corrupt_frames));
    for (name, reader) in &status.readers {
        let (cursor, waiting) = (reader.cursor, reader.waiting);
        let waits = format!("{} frames, {} records, {} bytes wait", reader.frames, waiting.records, waiting.bytes);
        line("reader", format!("{name}: settled up to frame {cursor}; {waits}"));
    }
    for run in given_up {
        let GivenUp { id, cause, reader, instance_id, first, last, records, .. } = run;
        let reader = reader.as_deref().unwrap_or("nobody");
        let range = if instance_id.is_empty() {
            "an unknown number of records".to_owned()
        } else {
            format!("{records} records, {first} to {last} of {instance_id}")
        };
        line("given up", format!("{id}: {}, {range}, reader {reader}", cause.name()));
    }
    out
}

fn time(time_ns: Option<u64>) -> String {
    let Some(time_ns) = time_ns else { return "none".to_owned() };
    let since = std::time::Duration::from_nanos(time_ns);
    // Dates beyond what HTTP can say cannot be shown by it.
    std::time::UNIX_EPOCH
        .checked_add(since)
        .filter(|_| since.as_secs() < 253_402_300_800)
        .map_or_else(|| format!("{time_ns} ns"), httpdate::fmt_http_date)
}
