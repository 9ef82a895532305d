//! HTTP/1 over a bare socket, for what no well-behaved client does, and for knowing every byte.

use crate::patience::stretched;
use anyhow::{Context as _, bail};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long one reply may take; tests on two busy cores are slow, but not that slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most of a body that is kept; all of it is counted.
const KEPT_BODY_BYTES: usize = 64 * 1024;

/// One connection to a gateway.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffered: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    const fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

/// A final reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// The head as received, with the interim replies before it.
    pub head: String,
    /// The start of the body, decoded.
    pub body: Vec<u8>,
    /// Everything received for this reply, framing included.
    pub received: u64,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The socket's.
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, stretched(PATIENCE))
            .with_context(|| format!("connecting {address}"))?;
        Self::over(stream)
    }

    /// On a stream that is connected.
    ///
    /// # Errors
    /// The socket's.
    pub fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(stretched(PATIENCE)))?;
        stream.set_write_timeout(Some(stretched(PATIENCE)))?;
        Ok(Self { stream: Stream::Plain(stream), buffered: Vec::new() })
    }

    /// Connects and speaks TLS; the handshake is done with the first bytes sent.
    ///
    /// # Errors
    /// The socket's.
    pub fn open_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        Self::open(address)?.with_tls(address, config)
    }

    /// The same on a connection that is there.
    ///
    /// # Errors
    /// It speaks TLS already, or that is no address to ask a certificate for.
    pub fn with_tls(self, address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let Stream::Plain(socket) = self.stream else { bail!("it speaks TLS already") };
        let session = ClientConnection::new(Arc::clone(config), address.ip().into())?;
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(session, socket))), buffered: Vec::new() })
    }

    /// Our end.
    ///
    /// # Errors
    /// The socket's.
    pub fn local(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stream.socket().local_addr()?)
    }

    /// Sends in one call (as far as the socket takes it).
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let sent = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        sent.context("sending")
    }

    /// Sends a FIN; what comes back is still read.
    ///
    /// # Errors
    /// The socket's.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.socket().shutdown(Shutdown::Write)?)
    }

    /// Sends, then reads the reply.
    ///
    /// # Errors
    /// The socket's, or a reply that is not HTTP.
    pub fn ask(&mut self, request: &[u8]) -> anyhow::Result<Reply> {
        self.send(request)?;
        self.reply(request.starts_with(b"HEAD "))
    }

    /// Reads one final reply; `bodiless` when it answers a HEAD.
    ///
    /// # Errors
    /// The socket's, or a reply that is not HTTP.
    pub fn reply(&mut self, bodiless: bool) -> anyhow::Result<Reply> {
        let mut head = String::new();
        let status = loop {
            let one = self.head()?;
            let status = one.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
            let status = status.with_context(|| format!("no status in {one:?}"))?;
            head.push_str(&one);
            if status >= 200 {
                break status;
            }
        };
        let mut reply = Reply { status, received: head.len() as u64, head, body: Vec::new() };
        if bodiless || matches!(status, 204 | 304) {
            return Ok(reply);
        }
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().with_context(|| format!("content-length {length:?}"))?;
            self.take(length, &mut reply)?;
        } else if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            self.chunks(&mut reply)?;
        } else {
            while !self.buffered.is_empty() || self.fill()? {
                let present = self.buffered.len() as u64;
                self.take(present, &mut reply)?;
            }
        }
        Ok(reply)
    }

    /// One head with its empty line.
    fn head(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffered.drain(..at + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill()? {
                bail!("the connection closed inside a head: {:?}", String::from_utf8_lossy(&self.buffered));
            }
        }
    }

    fn chunks(&mut self, reply: &mut Reply) -> anyhow::Result<()> {
        loop {
            let line = self.line()?;
            reply.received += line.len() as u64;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).with_context(|| format!("chunk size {digits:?}"))?;
            self.take(length, reply)?;
            if length > 0 {
                reply.received += self.line()?.len() as u64;
                continue;
            }
            loop {
                let trailer = self.line()?;
                reply.received += trailer.len() as u64;
                if trailer == "\r\n" {
                    return Ok(());
                }
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.buffered.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffered.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.fill()? {
                bail!("the connection closed inside a chunked body");
            }
        }
    }

    /// Reads `length` content bytes; keeps the first of them.
    fn take(&mut self, length: u64, reply: &mut Reply) -> anyhow::Result<()> {
        let mut owed = length;
        while owed > 0 {
            if self.buffered.is_empty() && !self.fill()? {
                bail!("the connection closed {owed} bytes before the end of the body");
            }
            let piece = usize::try_from(owed).unwrap_or(usize::MAX).min(self.buffered.len());
            let room = KEPT_BODY_BYTES.saturating_sub(reply.body.len());
            reply.body.extend(self.buffered.drain(..piece).take(room));
            owed -= piece as u64;
        }
        reply.received += length;
        Ok(())
    }

    /// More bytes; false at the end of the stream.
    fn fill(&mut self) -> anyhow::Result<bool> {
        let mut piece = vec![0; 64 * 1024];
        let length = match &mut self.stream {
            Stream::Plain(stream) => read(stream, &mut piece),
            Stream::Tls(stream) => read(stream, &mut piece),
        };
        let length = length.context("receiving")?;
        piece.truncate(length);
        self.buffered.append(&mut piece);
        Ok(length > 0)
    }
}

impl Reply {
    /// A header of the final reply.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().rev().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Bytes as they come, asked for again after a signal: the kernel does not do so itself for a socket with a time-out,
/// not even if nobody handles the signal (seen once, in a guest).
///
/// # Errors
/// The stream's.
pub fn read(stream: &mut impl Read, piece: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A GET on a connection of its own; the body.
///
/// # Errors
/// The socket's, or any status but 200.
pub fn fetch(address: SocketAddr, target: &str) -> anyhow::Result<Vec<u8>> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let reply = Connection::open(address)?.ask(request.as_bytes())?;
    anyhow::ensure!(reply.status == 200, "{target} answered {}", reply.status);
    Ok(reply.body)
}

/// A body in the chunked transfer coding, so many bytes a chunk.
#[must_use]
pub fn in_chunks(body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut coded = Vec::new();
    for chunk in body.chunks(chunk_bytes) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(wire: &'static [u8], request: &[u8]) -> Reply {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(wire).unwrap());
        let reply = Connection::open(address).unwrap().ask(request).unwrap();
        server.join().unwrap();
        reply
    }

    #[test]
    fn chunks_and_interim_replies_are_read_and_counted() {
        let wire =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let reply = answered(wire, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!((reply.status, reply.body.as_slice(), reply.received), (200, b"abc".as_slice(), wire.len() as u64));
    }

    #[test]
    #[expect(unsafe_code, reason = "signals have no safe interface")]
    fn a_signal_does_not_end_the_wait_for_a_reply() {
        extern "C" fn ignore(_: libc::c_int) {}
        let handler = ignore as extern "C" fn(libc::c_int);
        // SAFETY: the handler touches nothing.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        // SAFETY: it has no preconditions.
        let reader = unsafe { libc::pthread_self() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(2));
                // SAFETY: the reader's thread joins this one, so it is there.
                assert_eq!(unsafe { libc::pthread_kill(reader, libc::SIGUSR1) }, 0);
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        });
        let reply = Connection::open(address).unwrap().ask(b"GET / HTTP/1.1\r\n\r\n");
        server.join().unwrap();
        assert_eq!(reply.unwrap().status, 204);
    }

    #[test]
    fn a_reply_to_head_has_no_body() {
        let reply = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n");
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
}
