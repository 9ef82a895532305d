//! `run --record FILE`: scrubbed samples into a file, beside everything else and never in its way.
//!
//! The audit thread scrubs and hands blocks of whole frames to a thread that writes. When that is too slow, samples are
//! left out and counted: a replay sees a hole, as it would live.

use s3auditd_rebuild::{
    pipeline::Moved,
    record::Clock,
    redact::Redaction,
    replay::{
        recording::{End, Frame, preamble},
        scrub::Scrubber,
    },
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};
use tracing::{error, info, warn};

/// A block goes to the writer when it is longer than this, and at the end of each turn.
const BLOCK_BYTES: usize = 256 * 1024;
/// So many blocks may wait for the disk.
const WAITING_BLOCKS: usize = 256;
/// Kept free for the last frame.
const END_BYTES: u64 = 64;

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    scrubber: Scrubber,
    max_bytes: u64,
    /// None: the limit was reached, or all is over.
    writer: Option<Writer>,
    block: Vec<u8>,
    samples_in_block: u64,
    clock: Clock,
    /// Handed to the writer.
    bytes: u64,
    samples: u64,
    dropped_samples: u64,
    full: bool,
    failed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Writer {
    blocks: SyncSender<Vec<u8>>,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// Makes the file, which must not be there yet, readable by its owner alone. It gets at most `max_bytes`.
    ///
    /// # Errors
    /// The file cannot be made, or no thread started.
    pub fn start(path: &Path, max_bytes: u64, redaction: Redaction) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&preamble())?;
        let failed = Arc::new(AtomicBool::new(false));
        let (blocks, to_write) = sync_channel::<Vec<u8>>(WAITING_BLOCKS);
        let (of_thread, named) = (Arc::clone(&failed), path.to_owned());
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            for block in to_write {
                if let Err(error) = write(&mut file, &block) {
                    error!(%error, file = %named.display(), "the recording cannot be written: it ends here");
                    of_thread.store(true, Ordering::Relaxed);
                    return;
                }
            }
        })?;
        info!(file = %path.display(), max_bytes, "recording scrubbed samples");
        Ok(Self {
            path: path.to_owned(),
            scrubber: Scrubber::new(redaction),
            max_bytes,
            writer: Some(Writer { blocks, thread }),
            block: Vec::new(),
            samples_in_block: 0,
            clock: Clock::default(),
            bytes: preamble().len() as u64,
            samples: 0,
            dropped_samples: 0,
            full: false,
            failed,
        })
    }

    /// Takes what the pipeline took.
    pub fn take(&mut self, moved: Moved) {
        if self.writer.is_none() {
            return;
        }
        self.scrubber.take(moved);
        self.collect();
    }

    /// Everything older than `drained_until_ns` has been taken.
    pub fn turn(&mut self, clock: Clock, drained_until_ns: u64) {
        if self.writer.is_none() {
            return;
        }
        if self.clock != clock {
            self.clock = clock;
            Frame::Clock { wall_minus_monotonic_ns: clock.wall_minus_monotonic_ns }.write(&mut self.block);
        }
        let until_ns = self.scrubber.settled(drained_until_ns);
        self.collect();
        Frame::Drained { until_ns }.write(&mut self.block);
        if self.samples_in_block > 0 {
            self.hand_over();
        } else {
            // Nothing happened: the next turn says the same.
            self.block.clear();
            self.clock = Clock::default();
        }
    }

    /// The agent stops: waits until everything is in the file.
    pub fn stop(&mut self, now_ns: u64) {
        self.collect();
        self.end(End::Stopped, now_ns);
    }

    /// For status and metrics.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64)> {
        let own = [
            ("recorded_samples", self.samples),
            ("recorded_bytes", self.bytes),
            ("recording_dropped_samples", self.dropped_samples),
            ("recording_withheld_bytes", self.scrubber.dark_bytes()),
            ("recording_full", u64::from(self.full)),
            ("recording_failed", u64::from(self.failed.load(Ordering::Relaxed))),
        ];
        own.into_iter().map(|(name, value)| (name.to_owned(), value))
    }

    fn collect(&mut self) {
        while let Some(sample) = self.scrubber.next_sample() {
            Frame::Sample(sample).write(&mut self.block);
            self.samples_in_block += 1;
            if self.block.len() >= BLOCK_BYTES {
                self.hand_over();
            }
        }
    }

    /// One block of whole frames to the writer, unless the file or the way there is full.
    fn hand_over(&mut self) {
        let block = std::mem::take(&mut self.block);
        let samples = std::mem::take(&mut self.samples_in_block);
        let length = block.len() as u64;
        let Some(writer) = &self.writer else { return };
        if self.bytes + length + END_BYTES > self.max_bytes {
            self.full = true;
            self.dropped_samples += samples;
            warn!(file = %self.path.display(), max_bytes = self.max_bytes, "the recording is full: it ends here, auditing goes on");
            self.end(End::Full, 0);
            return;
        }
        match writer.blocks.try_send(block) {
            Ok(()) => {
                self.bytes += length;
                self.samples += samples;
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped_samples += samples,
        }
    }

    fn end(&mut self, end: End, now_ns: u64) {
        if end == End::Stopped && self.samples_in_block > 0 {
            self.hand_over();
        }
        let Some(Writer { blocks, thread }) = self.writer.take() else { return };
        let mut last = Vec::new();
        Frame::End { end, now_ns }.write(&mut last);
        self.bytes += last.len() as u64;
        if end == End::Full {
            // The audit thread does not wait: if the writer is behind, the file just ends.
            let _behind = blocks.try_send(last);
            return;
        }
        let _gone = blocks.send(last);
        drop(blocks);
        let _panicked = thread.join();
        info!(file = %self.path.display(), samples = self.samples, bytes = self.bytes, "recording ended");
    }
}

fn write(file: &mut File, block: &[u8]) -> io::Result<()> {
    file.write_all(block)
}
