//! A webhook without manners, on a real socket: what comes is answered as a closure says, or not at all.
//!
//! It keeps every request that came whole, and marks those that it took, whether or not the sender was told. So a test can
//! hold what was taken, each idempotency key counted once, against what was sent.

use anyhow::Context as _;
use std::collections::HashSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client's end.
    pub from: SocketAddr,
    /// Request line and headers.
    pub head: String,
    /// Its body, unpacked.
    pub body: String,
    /// Whether its records were taken.
    pub taken: bool,
}

impl Request {
    /// Method and target.
    #[must_use]
    pub fn line(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line)
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    /// The Idempotency-Key; empty if there is none.
    #[must_use]
    pub fn key(&self) -> &str {
        self.header("Idempotency-Key").unwrap_or_default()
    }

    /// The body's lines.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.body.lines().collect()
    }
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This reply; the connection stays. Only a 2xx takes the records.
    Whole(u16, String),
    /// The same, one byte at a time.
    Slow(u16, String),
    /// The records are taken; then the connection is reset before any reply.
    Lost,
    /// The connection is reset before any reply; nothing is taken.
    Reset,
    /// This is sent as it is, and the connection ends in order. `true`: the records are taken.
    Cut(&'static str, bool),
    /// Nothing, until the sender goes away.
    Silence,
}

/// A reply with this status.
#[must_use]
pub fn status(code: u16) -> Reply {
    answer(code, "", "")
}

/// A reply with these headers, each with its line end, and this body.
#[must_use]
pub fn answer(code: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Whole(code, format!("HTTP/1.1 {code} Whatever\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
}

type Answer = dyn Fn(usize, &Request) -> Reply + Send + Sync;
type Cut = dyn Fn(usize) -> bool + Send + Sync;

struct Manners {
    answer: Box<Answer>,
    /// Which connections are reset when a part of the request was read.
    cut: Box<Cut>,
    tls: Option<TlsAcceptor>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    connections: usize,
}

/// See the module. Listens until dropped.
pub struct Rude {
    /// Where it listens.
    pub address: SocketAddr,
    manners: Arc<Manners>,
    serving: JoinHandle<()>,
}

impl Rude {
    /// Answers as the closure says for each request and its number, counted from 0.
    ///
    /// # Errors
    /// The socket's.
    pub async fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> anyhow::Result<Self> {
        Self::with(TcpListener::bind("127.0.0.1:0").await?, answer, |_| false, None)
    }

    /// The same with TLS.
    ///
    /// # Errors
    /// The socket's.
    pub async fn start_tls(
        tls: TlsAcceptor,
        answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::with(TcpListener::bind("127.0.0.1:0").await?, answer, |_| false, Some(tls))
    }

    /// On this socket; `cut` says for each connection, counted from 0, whether it is reset in the middle of its first
    /// request.
    ///
    /// # Errors
    /// The socket's.
    pub fn with(
        listener: TcpListener,
        answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
        cut: impl Fn(usize) -> bool + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let manners = Arc::new(Manners { answer: Box::new(answer), cut: Box::new(cut), tls, seen: Mutex::default() });
        let serving = tokio::spawn(listen(listener, Arc::clone(&manners)));
        Ok(Self { address, manners, serving })
    }

    /// Every request that came whole.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.manners.lock().requests.clone()
    }

    /// How many connections were made, TLS not looked at.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.manners.lock().connections
    }

    /// What was taken, each key once.
    #[must_use]
    pub fn taken(&self) -> Vec<Request> {
        let mut keys = HashSet::new();
        let taken = self.seen().into_iter().filter(|request| request.taken);
        taken.filter(|request| keys.insert(request.key().to_owned())).collect()
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Manners {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(listener: TcpListener, manners: Arc<Manners>) {
    // They end with the listener.
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let manners = Arc::clone(&manners);
        // How a connection breaks is the sender's to notice.
        connections.spawn(async move {
            let nth = {
                let mut seen = manners.lock();
                seen.connections += 1;
                seen.connections - 1
            };
            match manners.tls.clone() {
                None => serve(&mut Socket::Plain(stream), from, nth, &manners).await,
                Some(tls) => {
                    let stream = tls.accept(stream).await?;
                    serve(&mut Socket::Tls(Box::new(stream)), from, nth, &manners).await
                }
            }
        });
    }
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Socket {
    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }

    /// The next close is a reset.
    fn reset(&self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_zero_linger(),
            Self::Tls(stream) => stream.get_ref().0.set_zero_linger(),
        }
    }
}

async fn serve(socket: &mut Socket, from: SocketAddr, connection: usize, manners: &Manners) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    if (manners.cut)(connection) {
        socket.stream().read_buf(&mut buffer).await?;
        return Ok(socket.reset()?);
    }
    while let Some(mut request) = read(socket.stream(), &mut buffer, from).await? {
        let nth = manners.lock().requests.len();
        let reply = (manners.answer)(nth, &request);
        request.taken = match &reply {
            Reply::Whole(code, _) | Reply::Slow(code, _) => (200..300).contains(code),
            Reply::Lost => true,
            Reply::Cut(_, taken) => *taken,
            Reply::Reset | Reply::Silence => false,
        };
        manners.lock().requests.push(request);
        match reply {
            Reply::Whole(_, text) => socket.stream().write_all(text.as_bytes()).await?,
            Reply::Slow(_, text) => {
                for byte in text.as_bytes() {
                    socket.stream().write_all(&[*byte]).await?;
                    socket.stream().flush().await?;
                    tokio::task::yield_now().await;
                }
            }
            Reply::Lost | Reply::Reset => return Ok(socket.reset()?),
            Reply::Cut(text, _) => {
                socket.stream().write_all(text.as_bytes()).await?;
                return Ok(socket.stream().shutdown().await?);
            }
            Reply::Silence => {
                let mut rest = [0; 1];
                // The error is the sender that went away.
                socket.stream().read_exact(&mut rest).await?;
                return Ok(());
            }
        }
        socket.stream().flush().await?;
    }
    Ok(())
}

/// None: the sender is done.
async fn read(stream: &mut dyn Stream, buffer: &mut Vec<u8>, from: SocketAddr) -> anyhow::Result<Option<Request>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect())?;
    let mut request = Request { from, head, body: String::new(), taken: false };
    let length: usize = request.header("Content-Length").map_or(Ok(0), str::parse)?;
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    request.body = unpacked(&body, request.header("Content-Encoding"))?;
    Ok(Some(request))
}

fn unpacked(body: &[u8], encoding: Option<&str>) -> anyhow::Result<String> {
    let mut text = String::new();
    match encoding {
        None => text = String::from_utf8(body.to_vec())?,
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_string(&mut text)?),
        Some("zstd") => drop(zstd::stream::Decoder::new(body)?.read_to_string(&mut text)?),
        Some(other) => anyhow::bail!("no such encoding: {other}"),
    }
    Ok(text)
}

/// A port of 127.0.0.1 at which nobody listens, for as long as nobody else takes it.
///
/// # Errors
/// The socket's.
pub async fn closed_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    listener.local_addr().context("a port")
}
