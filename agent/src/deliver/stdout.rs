//! Records to standard output, one JSON a line, flushed per batch.

use bytes::Bytes;
use std::io::Write;

/// A writer that may block (a pipe whose reader is slow), kept off the runtime's threads.
///
/// Any error is final: part of a batch may have been written, so a second try could tear a line in two.
pub struct Stdout {
    writer: Option<Box<dyn Write + Send>>,
}

impl Stdout {
    /// Writes there.
    #[must_use]
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { writer: Some(writer) }
    }

    /// Writes and flushes. After an error, or when this future was dropped, every further write fails.
    ///
    /// # Errors
    /// What the writer says; `BrokenPipe` if its reader is gone.
    pub async fn write(&mut self, body: Bytes) -> std::io::Result<()> {
        let mut writer = self.writer.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let written = tokio::task::spawn_blocking(move || {
            writer.write_all(&body)?;
            writer.flush()?;
            Ok::<_, std::io::Error>(writer)
        });
        self.writer = Some(written.await.map_err(std::io::Error::other)??);
        Ok(())
    }
}
