//! `s3auditd replay FILE...`: records of what was written down before. `docs/replay.md` is the reference.

use crate::config::keys::Config;
use crate::rebuild::{Made, Rebuild};
use s3auditd_rebuild::{
    record::Clock,
    replay::{
        conversation::{Event, Line, LineError, Reader},
        recording::{End, Frame, MAGIC, MAX_FRAME_BYTES, PREAMBLE_BYTES, RecordingError, check_preamble},
    },
    sample::SampleError,
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    path::{Path, PathBuf},
};

/// In place of a run's random id: the same file gives the same records, ids included.
const INSTANCE_ID: &str = "replay";
/// A longer line is none: 64 MiB of bytes, each written as an escape of six.
const MAX_LINE_BYTES: u64 = 400 * 1024 * 1024;

/// Why a replay ended.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a conversation is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: LineError,
    },
    /// A line of a conversation gives no sample: a bug.
    #[error("{}:{line}: {problem}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: SampleError,
    },
    /// A recording is wrong.
    #[error("{}: byte {at}: {problem}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        at: u64,
        /// What is wrong.
        problem: RecordingError,
    },
    /// Records cannot be written.
    #[error("standard output: {0}")]
    Write(io::Error),
}

/// Replays the files one after the other; each line of `records` is a record, each line of `remarks` is for people.
///
/// # Errors
/// The first thing that is wrong; what was read before has been replayed.
pub fn replay(
    config: &Config,
    files: &[PathBuf],
    records: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<(), ReplayError> {
    let mut rebuild = Rebuild::new(config, INSTANCE_ID.to_owned());
    for path in files {
        let mut run = Run { rebuild: &mut rebuild, path, records: &mut *records, made: 0, last_ns: 0 };
        let outcome = run.file();
        // Also what a bad file told before it went bad.
        let ended = run.end();
        let made = run.made;
        if let Some(remark) = outcome? {
            // With standard error gone there is nobody left to tell.
            let _gone = writeln!(remarks, "{}: {remark}", path.display());
        }
        ended?;
        let _gone = writeln!(remarks, "{}: {made} records", path.display());
    }
    records.flush().map_err(ReplayError::Write)
}

/// One file.
struct Run<'a, W> {
    rebuild: &'a mut Rebuild,
    path: &'a Path,
    records: &'a mut W,
    made: u64,
    last_ns: u64,
}

impl<W: Write> Run<'_, W> {
    /// A remark, if there is one to make.
    fn file(&mut self) -> Result<Option<String>, ReplayError> {
        let file = File::open(self.path).map_err(|source| self.unreadable(source))?;
        let mut file = BufReader::with_capacity(2 * MAX_FRAME_BYTES, file);
        let begins = file.fill_buf().map_err(|source| self.unreadable(source))?;
        self.rebuild.set_clock(Clock::default());
        if begins.starts_with(MAGIC) { self.recording(file) } else { self.conversations(file) }
    }

    fn conversations(&mut self, mut file: impl BufRead) -> Result<Option<String>, ReplayError> {
        let mut reader = Reader::default();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let taken = file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
            if taken.map_err(|source| self.unreadable(source))? == 0 {
                break;
            }
            let whole = text.ends_with(b"\n");
            if text.trim_ascii().is_empty() {
                continue;
            }
            let wrong = |problem| ReplayError::Line { path: self.path.to_owned(), line: number, problem };
            let line = match Line::parse(&text) {
                Ok(line) => line,
                Err(LineError::Json(error)) if !whole && error.is_eof() => {
                    return Ok(Some(format!("line {number} is cut off and was left out")));
                }
                Err(problem) => return Err(wrong(problem)),
            };
            let samples = reader.take(&line).map_err(wrong)?;
            for sample in &samples {
                let checked = sample.sample().map_err(|problem| ReplayError::Sample {
                    path: self.path.to_owned(),
                    line: number,
                    problem,
                })?;
                self.last_ns = self.last_ns.max(checked.header.time_ns);
                self.rebuild.take(&checked);
                self.outputs()?;
            }
            if line.event == Some(Event::Closed) && reader.is_idle() {
                self.rebuild.advance(u64::MAX);
                self.outputs()?;
            }
        }
        Ok(None)
    }

    fn recording(&mut self, mut file: impl BufRead) -> Result<Option<String>, ReplayError> {
        let mut at = 0;
        let wrong = |at, problem| ReplayError::Recording { path: self.path.to_owned(), at, problem };
        let mut preamble = Vec::new();
        file.by_ref()
            .take(PREAMBLE_BYTES as u64)
            .read_to_end(&mut preamble)
            .map_err(|source| self.unreadable(source))?;
        check_preamble(&preamble).map_err(|problem| wrong(at, problem))?;
        at += PREAMBLE_BYTES as u64;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let taken = file.by_ref().take(4).read_to_end(&mut bytes);
            if taken.map_err(|source| self.unreadable(source))? == 0 {
                return Ok(Some(
                    "the recording has no end: the agent was killed, or had no room on the disk".to_owned(),
                ));
            }
            let length = bytes.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length));
            // Also of a length that cannot be: `Frame::read` says so.
            let limit = u64::from(length).min(MAX_FRAME_BYTES as u64);
            file.by_ref().take(limit).read_to_end(&mut bytes).map_err(|source| self.unreadable(source))?;
            let frame = Frame::read(&bytes).map_err(|problem| ReplayError::Recording {
                path: self.path.to_owned(),
                at,
                problem,
            })?;
            let Some((frame, used)) = frame else {
                return Ok(Some(format!("byte {at}: the last frame is cut off and was left out")));
            };
            at += used as u64;
            match frame {
                Frame::Clock { wall_minus_monotonic_ns } => self.rebuild.set_clock(Clock { wall_minus_monotonic_ns }),
                Frame::Sample(sample) => {
                    let checked = sample.sample().map_err(|problem| ReplayError::Recording {
                        path: self.path.to_owned(),
                        at,
                        problem: problem.into(),
                    })?;
                    self.last_ns = self.last_ns.max(checked.header.time_ns);
                    self.rebuild.take(&checked);
                }
                Frame::Drained { until_ns } => {
                    self.last_ns = self.last_ns.max(until_ns);
                    self.rebuild.advance(until_ns);
                }
                Frame::End { end: End::Stopped, now_ns } => {
                    self.last_ns = self.last_ns.max(now_ns);
                    return Ok(None);
                }
                Frame::End { end: End::Full, .. } => {
                    return Ok(Some("the recording ends where its limit was reached".to_owned()));
                }
            }
            self.outputs()?;
        }
    }

    /// What is still open comes out as if the agent had stopped.
    fn end(&mut self) -> Result<(), ReplayError> {
        self.rebuild.finish(self.last_ns);
        self.outputs()
    }

    fn outputs(&mut self) -> Result<(), ReplayError> {
        while let Some(made) = self.rebuild.next_made() {
            if let Made::Record(line) = made {
                self.made += 1;
                self.records.write_all(&line.bytes).map_err(ReplayError::Write)?;
                self.records.write_all(b"\n").map_err(ReplayError::Write)?;
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> ReplayError {
        ReplayError::Read { path: self.path.to_owned(), source }
    }
}
