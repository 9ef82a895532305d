//! Standard output as the way out.

use crate::support::{LONG, Scene, record};
use s3auditd::deliver::stats::DeliveryState;
use s3auditd::deliver::stdout::Stdout;
use s3auditd::ledger::DropCause;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Takes some writes, then says that its reader is gone.
struct Pipe {
    written: Arc<Mutex<Vec<u8>>>,
    writes: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn standard_output_gets_a_line_a_record_until_its_reader_leaves() {
    for (writes, arrive, left) in [(100, 20, 0), (1, 8usize, 8)] {
        let scene = Scene::new(20);
        let written = Arc::default();
        let stdout = Stdout {
            name: "default".to_owned(),
            writer: Box::new(Pipe { written: Arc::clone(&written), writes }),
            spool: scene.spool.clone(),
            ledger: scene.ledger.clone(),
            stats: Arc::clone(&scene.stats),
        };
        let (_stop, stop) = watch::channel(true);
        let ended = stdout.run(stop, LONG).await;
        let (cause, state) = match left {
            0 => (DropCause::Shutdown, DeliveryState::Ok),
            _ => (DropCause::StdoutClosed, DeliveryState::Held),
        };
        assert_eq!((ended.undelivered.records, ended.cause, scene.status().state), (left, cause, state));
        let books = scene.books();
        let (arrived, waiting) = (arrive as u64, 20 - arrive as u64);
        assert_eq!((books.delivered.records, books.waiting.records, books.in_flight.records), (arrived, waiting, 0));
        assert_eq!(scene.spool.waiting("default").records, waiting);
        let expected: Vec<u8> = (0..arrive).flat_map(|nth| [&record(nth)[..], b"\n"].concat()).collect();
        assert_eq!(*written.lock().unwrap(), expected);
    }
}
