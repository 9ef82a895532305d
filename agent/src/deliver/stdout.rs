//! Records from the spool to standard output, one JSON a line, flushed per frame.

use super::Ended;
use super::carry::{changed, stopped};
use super::stats::{DeliveryState, DeliveryStats};
use crate::ledger::{Count, DropCause, Ledger};
use crate::spool::{Frame, Spool};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A reader of the spool that writes.
///
/// The writer may block (a pipe whose reader is slow), so it is kept off the runtime's threads. Any error of it is final:
/// part of a frame may have been written, and a second try could tear a line in two.
pub struct Stdout {
    /// Its name in spool and ledger.
    pub name: String,
    /// Where records go.
    pub writer: Box<dyn Write + Send>,
    /// Where they come from.
    pub spool: Spool,
    /// The books.
    pub ledger: Ledger,
    /// Tells the world.
    pub stats: Arc<DeliveryStats>,
}

impl Stdout {
    /// Writes until `stop` turns true (or its sender goes away) and the spool has nothing more, `drain` has passed since
    /// then, or the writer fails. What is not written by then stays in the spool; of the frame that failed nobody knows.
    pub async fn run(self, mut stop: watch::Receiver<bool>, drain: Duration) -> Ended {
        let mut in_flight = Count::default();
        let (name, ledger) = (self.name.clone(), self.ledger.clone());
        let mut signal = stop.clone();
        let drained = async {
            stopped(&mut signal).await;
            tokio::time::sleep(drain).await;
        };
        let cause = tokio::select! {
            cause = self.work(&mut stop, &mut in_flight) => cause,
            () = drained => DropCause::Shutdown,
        };
        ledger.put_back(&name, in_flight);
        Ended { undelivered: in_flight, cause }
    }

    async fn work(self, stop: &mut watch::Receiver<bool>, in_flight: &mut Count) -> DropCause {
        let Self { name, mut writer, spool, ledger, stats } = self;
        let mut newest = spool.watch();
        let mut read = spool.cursor(&name);
        loop {
            newest.mark_unchanged();
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            let frame = match blocking({
                let (spool, name) = (spool.clone(), name.clone());
                move || spool.next(&name, read)
            })
            .await
            {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be used; tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Some(frame) = frame else {
                if stopping {
                    return DropCause::Shutdown;
                }
                tokio::select! {
                    () = changed(&mut newest) => {}
                    () = stopped(stop) => {}
                }
                continue;
            };
            *in_flight = Count::of(&frame.lines);
            ledger.taken(&name, *in_flight);
            let (spool_then, name_then) = (spool.clone(), name.clone());
            let written = blocking(move || {
                let written = write(&mut *writer, &frame);
                let settled = written.map(|()| spool_then.settle(&name_then, frame.number));
                (writer, frame.number, settled)
            });
            let (back, number, settled) = written.await;
            writer = back;
            match settled {
                Ok(settled) => {
                    if let Err(error) = settled {
                        tracing::error!(%error, "the spool cannot be used; what was written may be written again");
                    }
                    read = number;
                    ledger.delivered(&name, std::mem::take(in_flight));
                    stats.delivered();
                }
                Err(error) => {
                    tracing::error!(%error, "cannot write to standard output");
                    stats.failed(DeliveryState::Held, format!("standard output: {error}"));
                    return DropCause::StdoutClosed;
                }
            }
        }
    }
}

/// In one piece, so that the writer is called once for each frame.
fn write(writer: &mut dyn Write, frame: &Frame) -> std::io::Result<()> {
    let mut text = Vec::with_capacity(frame.lines.iter().map(|line| line.len() + 1).sum());
    for line in &frame.lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    writer.write_all(&text)?;
    writer.flush()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
