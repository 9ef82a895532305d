//! A gateway that answers as a scenario tells it to: bare sockets, a thread a connection, any oddity.

use super::{Gateway, Running, local};
use anyhow::Context as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A request as this gateway read it.
#[derive(Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// Body bytes that it announced; they are read and dropped before the answer, and so is a body in chunks.
    pub length: u64,
    /// The body comes in chunks.
    pub chunked: bool,
    /// From first byte to last.
    pub received: u64,
}

/// Writes the reply to a request whose body was read; false ends the connection.
type Answer = dyn Fn(&Request, &mut TcpStream) -> bool + Send + Sync;

/// Starts one on a free port, with that answer to each request.
///
/// # Errors
/// The socket's.
pub fn start(answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> anyhow::Result<Gateway> {
    start_late(Duration::ZERO, answer)
}

/// The same, but it lets each connection wait before it first reads: whatever the client sent meanwhile, a FIN
/// included, comes with one receive.
///
/// # Errors
/// The socket's.
pub fn start_late(
    before: Duration,
    answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> anyhow::Result<Gateway> {
    let listener = TcpListener::bind(local(0)).context("a raw gateway's port")?;
    accept(listener, before, Arc::new(answer))
}

/// Starts one that accepts from this listener.
///
/// # Errors
/// The socket's.
pub fn on(
    listener: TcpListener,
    answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> anyhow::Result<Gateway> {
    accept(listener, Duration::ZERO, Arc::new(answer))
}

fn accept(listener: TcpListener, before: Duration, answer: Arc<Answer>) -> anyhow::Result<Gateway> {
    let address = listener.local_addr()?;
    // The listener lives as long as the process of the tests: a handful of idle threads.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                // A client that goes away in the middle is its own business.
                let _ = serve(stream, before, answer.as_ref());
            });
        }
    });
    Ok(Gateway { name: "raw", address, authority: None, running: Running::Threads, behind: None, _folder: None })
}

/// Reads the body, answers 200 with `reply_bytes` bytes, keeps the connection.
///
/// # Errors
/// The socket's.
pub fn answering(reply_bytes: usize) -> anyhow::Result<Gateway> {
    let mut reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {reply_bytes}\r\n\r\n").into_bytes();
    reply.resize(reply.len() + reply_bytes, b'r');
    start(move |_, stream| stream.write_all(&reply).is_ok())
}

fn serve(stream: TcpStream, before: Duration, answer: &Answer) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    std::thread::sleep(before);
    let mut replies = stream.try_clone()?;
    // Large, so that one receive may bring the end of a body together with the next head.
    let mut requests = BufReader::with_capacity(256 * 1024, stream);
    while let Some(request) = read_head(&mut requests)? {
        if request.chunked {
            while drop_chunk(&mut requests)? {}
        }
        std::io::copy(&mut (&mut requests).take(request.length), &mut std::io::sink())?;
        if !answer(&request, &mut replies) {
            break;
        }
    }
    Ok(())
}

/// False: it was the last one.
fn drop_chunk(stream: &mut impl BufRead) -> std::io::Result<bool> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let size = u64::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
    std::io::copy(&mut stream.take(size), &mut std::io::sink())?;
    stream.read_line(&mut line)?;
    Ok(size != 0)
}

/// None at the end of the stream.
fn read_head(stream: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    let mut received = stream.read_line(&mut line)?;
    if received == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line)?;
        received += read;
        if read == 0 || line.trim_end().is_empty() {
            let received = received as u64 + length;
            return Ok(Some(Request { method, target, length, chunked, received }));
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
}
