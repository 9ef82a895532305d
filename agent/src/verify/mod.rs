//! `s3auditd verify FILE...`: is a stream of records whole? `docs/verify.md` is the reference.

mod holes;
mod line;
pub mod report;
mod stream;

pub use stream::Verifier;

use crate::stream::chain::PublicKey;
use report::{Place, Report};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

/// A longer line is no record.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// A line that is sent again is known if it is among so many.
pub const WINDOW_LINES: usize = 100_000;

/// How to check.
#[derive(Clone, Debug)]
pub struct Options {
    /// The key that must have signed everything. None: signatures are held against the keys that the stream names.
    pub public_key: Option<PublicKey>,
    /// Gap records that tell of what another endpoint lost explain nothing here.
    pub endpoint: Option<String>,
    /// How many of the last lines are known again.
    pub window: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { public_key: None, endpoint: None, window: WINDOW_LINES }
    }
}

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct VerifyError {
    path: PathBuf,
    source: io::Error,
}

/// Checks the files, one after the other, as one stream; `-` is standard input.
///
/// # Errors
/// A file cannot be read.
pub fn verify(options: Options, files: &[PathBuf]) -> Result<Report, VerifyError> {
    let mut verifier = Verifier::new(options);
    for path in files {
        let failed = |source| VerifyError { path: path.clone(), source };
        let name: Arc<str> = path.display().to_string().into();
        if path.as_os_str() == "-" {
            read(&mut verifier, &name, io::stdin().lock()).map_err(failed)?;
        } else {
            let file = File::open(path).map_err(failed)?;
            read(&mut verifier, &name, BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
        }
    }
    Ok(verifier.finish())
}

fn read(verifier: &mut Verifier, name: &Arc<str>, mut file: impl BufRead) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let at = Place { file: Arc::clone(name), line };
        if bytes.pop_if(|last| *last == b'\n').is_none() && bytes.len() as u64 >= MAX_LINE_BYTES {
            verifier.oversized(at);
            file.skip_until(b'\n')?;
        } else {
            verifier.line(&bytes, at);
        }
    }
    Ok(())
}
