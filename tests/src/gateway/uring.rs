//! A gateway on io_uring whose receive is armed before the data arrives.
//!
//! The kernel then completes it as task work, inside whatever system call the thread makes meanwhile: here `write` to a
//! log file. A probe that trusts the thread's registers at that moment reads the log line instead of the request.

use super::{Gateway, Running, local};
use anyhow::Context as _;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

/// What stands in the log file, and must stand nowhere else.
pub const MARKER: &str = "SECRET-LOG-LINE";
/// The only reply.
pub const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Starts one on a free port; it serves one connection at a time and takes a request for what one receive brings.
///
/// # Errors
/// The socket's or the file's.
pub fn start() -> anyhow::Result<Gateway> {
    let folder = tempfile::tempdir().context("a folder for the log")?;
    let log = File::create(folder.path().join("server.log"))?;
    let listener = TcpListener::bind(local(0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away in the middle is its own business.
            let _ = serve(&stream, &log);
        }
    });
    Ok(Gateway {
        name: "io_uring",
        address,
        authority: None,
        running: Running::Threads,
        behind: None,
        _folder: Some(folder),
    })
}

#[expect(unsafe_code, reason = "io_uring takes pointers, and only whoever submits knows how long they live")]
fn serve(stream: &TcpStream, log: &File) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut ring = IoUring::new(8)?;
    let socket = types::Fd(stream.as_raw_fd());
    let mut buffer = vec![0u8; 4096];
    let room = u32::try_from(buffer.len())?;
    let line = format!("{MARKER} {}\n", "S".repeat(1000));
    let mut log = log;
    loop {
        let receive = opcode::Recv::new(socket, buffer.as_mut_ptr(), room).build();
        // SAFETY: `buffer` and `stream` outlive the operation: the loop below ends only with its completion.
        unsafe { ring.submission().push(&receive) }?;
        ring.submit()?;
        let received = loop {
            if let Some(done) = ring.completion().next() {
                break done.result();
            }
            log.rewind()?;
            log.write_all(line.as_bytes())?;
        };
        if received <= 0 {
            return Ok(());
        }
        let send = opcode::Send::new(socket, REPLY.as_ptr(), u32::try_from(REPLY.len())?).build();
        // SAFETY: `REPLY` is static, and the operation is waited for.
        unsafe { ring.submission().push(&send) }?;
        ring.submit_and_wait(1)?;
        ring.completion().next().context("a send without a completion")?;
    }
}
