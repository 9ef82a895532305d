//! `s3auditd webhook`: changes the running daemon's webhook, as WEKA's command line does for its cluster.
//!
//! Over a Unix socket that only root (or whoever runs the daemon) may use: one JSON line each way. The daemon side only
//! carries requests to the supervisor ([`crate::daemon`]), which owns the endpoints, and its answer back.

pub mod managed;

use crate::config::token::Secret;
use managed::Webhook;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Send records there from now on, and after restarts.
    Enable {
        /// Where to.
        webhook: Webhook,
        /// Try it first; a webhook that does not answer is not enabled.
        verify: bool,
    },
    /// Send nothing to the webhook; records wait in the spool.
    Disable,
    /// Say how the webhook stands.
    Show,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done; in words.
    Done(String),
    /// Not done; why.
    Refused(String),
}

/// A request with the way back for its reply.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; the asker may be gone.
    pub answer: oneshot::Sender<Reply>,
}

/// The socket cannot be had, or nobody answers at it.
#[derive(Debug, thiserror::Error)]
#[error("control-socket: {}: {problem}", path.display())]
pub struct ControlError {
    path: PathBuf,
    problem: String,
}

impl ControlError {
    fn new(path: &Path, problem: impl ToString) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// More than any request: an endless line must not fill the memory.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// From accept to the last byte of the request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// To try a webhook may take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Requests that wait for the supervisor.
const BACKLOG: usize = 8;

/// The daemon's end; the socket's file goes with it.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens. A file that is left of a daemon that is gone is replaced.
    ///
    /// # Errors
    /// Another daemon listens there, or the file cannot be made.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |error: io::Error| ControlError::new(path, error);
        if UnixStream::connect(path).await.is_ok() {
            return Err(ControlError::new(path, "another daemon listens there"));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Whoever comes in before this line is turned away by `is_allowed`.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The way requests come to the supervisor.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
        mpsc::channel(BACKLOG)
    }

    /// Serves, one asker at a time, until it is dropped.
    pub async fn serve(self, asked: mpsc::Sender<Asked>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // What an asker does to its own connection is its own affair.
                    let _gone = answer(stream, &asked).await;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next daemon replaces what cannot be removed.
        let _left = std::fs::remove_file(&self.path);
    }
}

fn is_allowed(stream: &UnixStream) -> bool {
    let ours = std::os::unix::fs::MetadataExt::uid;
    let own = std::fs::metadata("/proc/self").map(|metadata| ours(&metadata)).unwrap_or_default();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn answer(stream: UnixStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
    let allowed = is_allowed(&stream);
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut bounded = (&mut stream).take(MAX_LINE_BYTES);
    tokio::time::timeout(READ_TIMEOUT, bounded.read_line(&mut line)).await??;
    let reply = if allowed { settle(&line, asked).await } else { Reply::Refused("only root may ask".to_owned()) };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    stream.get_mut().write_all(&text).await
}

async fn settle(line: &str, asked: &mpsc::Sender<Asked>) -> Reply {
    let gone = || Reply::Refused("the daemon is stopping".to_owned());
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        // Without the error's text: it may hold a piece of the token.
        Err(_) => return Reply::Refused("not understood; are daemon and command of one version?".to_owned()),
    };
    let (answer, reply) = oneshot::channel();
    if asked.send(Asked { request, answer }).await.is_err() {
        return gone();
    }
    reply.await.unwrap_or_else(|_| gone())
}

/// Asks the daemon that listens there.
///
/// # Errors
/// Nobody does, or what answers is something else.
pub async fn ask(path: &Path, request: &Request) -> Result<Reply, ControlError> {
    let failed = |error: io::Error| ControlError::new(path, format!("no daemon answers: {error}"));
    let mut line = serde_json::to_vec(request).map_err(|error| ControlError::new(path, error))?;
    line.push(b'\n');
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(&line).await?;
        let mut reply = String::new();
        BufReader::new(stream).take(MAX_LINE_BYTES).read_line(&mut reply).await?;
        Ok(reply)
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let reply = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(late).flatten().map_err(failed)?;
    serde_json::from_str(&reply).map_err(|_| ControlError::new(path, "no daemon answers as ours does"))
}

/// A token on its way over the socket and into the daemon's own file: the only places where it is written.
pub(crate) fn reveal<S: serde::Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::reveal).serialize(serializer)
}

#[cfg(test)]
mod tests;
