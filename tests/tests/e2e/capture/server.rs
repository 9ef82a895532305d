//! The server process: does what a plan says, by the system call that each step names.
#![expect(unsafe_code, reason = "every way to call the kernel with a socket is the point of it")]

#[cfg(target_arch = "x86_64")]
use super::compat;
use super::odd;
use super::plan::{Plan, Priority, SEED_BYTES, Step, Way};
use s3auditd_common::sample::Kind;
use s3auditd_tests::mptcp;
use std::{
    io::{self, Error, Read as _, Seek as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    ptr::{null, null_mut},
};

/// Serves until the process is ended; prints its address first.
///
/// # Errors
/// The listener's.
pub fn serve(bind: &str) -> io::Result<()> {
    let listener = match bind.strip_prefix("mptcp+") {
        Some(address) => mptcp::listener(address.parse().map_err(Error::other)?)?,
        None => TcpListener::bind(bind)?,
    };
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        std::thread::spawn(|| {
            if let Err(error) = stream.and_then(connection) {
                eprintln!("server: {error}");
            }
        });
    }
    Ok(())
}

fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let on: libc::c_int = 1;
    // SAFETY: an int option with its size.
    unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), 4);
    }
    let mut seed = [0; SEED_BYTES];
    stream.read_exact(&mut seed)?;
    let plan = Plan::of_seed(u64::from_le_bytes(seed));
    become_of(plan.priority());
    let _kept = plan.layer().map(|layer| layer.put_on_server(&stream)).transpose()?;
    let last = plan.steps.len() - 1;
    for (number, (at, step)) in plan.all_placed().enumerate().skip(1) {
        if step.way.kind() == Kind::Sent {
            send(&stream, step, &plan.bytes(Kind::Sent, at, step.len))?;
        } else {
            if number == last {
                // So that the FIN has arrived when the bytes are read.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            receive(&stream, step)?;
        }
    }
    Ok(())
}

/// This thread and those that it starts. Where it is not permitted they stay as they are: less is tried then.
fn become_of(priority: Priority) {
    const THIS_THREAD: libc::pid_t = 0;
    let parameters = libc::sched_param { sched_priority: 5 };
    // SAFETY: the parameters live through the call.
    let _where_permitted = unsafe {
        match priority {
            Priority::Usual => 0,
            Priority::Low => libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD.cast_unsigned(), 15),
            Priority::RealTime => libc::sched_setscheduler(THIS_THREAD, libc::SCHED_RR, &raw const parameters),
        }
    };
}

/// The result of a call as a count of bytes.
fn count(result: isize) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Error::last_os_error()),
    }
}

fn receive(stream: &TcpStream, step: &Step) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    let mut left = step.len;
    let mut buffer = vec![0_u8; step.len.max(16)];
    while left > 0 {
        let moved = match step.way {
            Way::ByOption => odd::receive_by_option(stream, left),
            // SAFETY: every buffer is at least as long as the call is told.
            _ => unsafe { receive_once(fd, step.way, &mut buffer, left) },
        };
        left -= count(moved)?;
    }
    Ok(())
}

/// # Safety
/// `buffer` has at least `left` bytes.
unsafe fn receive_once(fd: RawFd, way: Way, buffer: &mut [u8], left: usize) -> isize {
    let to = buffer.as_mut_ptr().cast::<libc::c_void>();
    let mut segments = thirds(to.cast(), left);
    let mut message = header(&mut segments);
    // SAFETY: the caller upholds it; all structs live through the calls.
    unsafe {
        match way {
            Way::Read => libc::read(fd, to, left),
            Way::Bytewise => libc::read(fd, to, 1),
            Way::Readv => libc::readv(fd, segments.as_ptr(), 3),
            Way::Preadv2 => libc::preadv2(fd, segments.as_ptr(), 3, -1, 0),
            Way::Recv => libc::recv(fd, to, left, 0),
            Way::RecvFrom => {
                let mut address: libc::sockaddr_storage = std::mem::zeroed();
                let mut len = size_of_val(&address).try_into().unwrap_or(0);
                libc::recvfrom(fd, to, left, 0, (&raw mut address).cast(), &raw mut len)
            }
            Way::RecvMsg => libc::recvmsg(fd, &raw mut message, 0),
            Way::PeekThenRead => {
                libc::recv(fd, to, left, libc::MSG_PEEK);
                libc::recv(fd, to, left, 0)
            }
            Way::RecvMmsgThree => odd::three_messages(fd, to.cast(), left, true),
            #[cfg(target_arch = "x86_64")]
            Way::Recv32 => compat::recv_32(fd, buffer),
            Way::RecvMmsg => {
                let mut messages = libc::mmsghdr { msg_hdr: message, msg_len: 0 };
                if libc::recvmmsg(fd, &raw mut messages, 1, 0, null_mut()) == 1 {
                    messages.msg_len as isize
                } else {
                    -1
                }
            }
            Way::Truncate => libc::recv(fd, to, left, libc::MSG_TRUNC),
            Way::SpliceFrom => {
                let mut pipe = [0; 2];
                libc::pipe(pipe.as_mut_ptr());
                let moved = libc::splice(fd, null_mut(), pipe[1], null_mut(), left, 0);
                libc::close(pipe[0]);
                libc::close(pipe[1]);
                moved
            }
            _ => unreachable!("not a way to receive"),
        }
    }
}

fn send(stream: &TcpStream, step: &Step, bytes: &[u8]) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    if step.way == Way::OtherThread {
        return std::thread::scope(|scope| {
            scope.spawn(|| (&mut &*stream).write_all(bytes)).join().unwrap_or(Err(io::ErrorKind::Other.into()))
        });
    }
    // The kernel sends from these very pages, later: they must stay as they are, so they are never freed.
    let bytes = if step.way == Way::ZeroCopy { bytes.to_vec().leak() } else { bytes };
    let mut file = tempfile::tempfile()?;
    if step.way == Way::Sendfile {
        file.write_all(bytes)?;
        file.rewind()?;
    }
    stream.set_nonblocking(step.way == Way::NonBlocking)?;
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` lives through the call and is as long as the call is told.
        match count(unsafe { send_once(fd, step.way, rest, file.as_raw_fd()) }) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut polled = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one valid entry.
                unsafe { libc::poll(&raw mut polled, 1, 1000) };
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)
}

/// # Safety
/// `file` is open and stands at the first byte of `rest`.
unsafe fn send_once(fd: RawFd, way: Way, rest: &[u8], file: RawFd) -> isize {
    let from = rest.as_ptr().cast::<libc::c_void>();
    let mut segments = thirds(rest.as_ptr().cast_mut(), rest.len());
    let message = header(&mut segments);
    // SAFETY: the caller upholds it; all structs live through the calls.
    unsafe {
        match way {
            Way::Write | Way::NonBlocking => libc::write(fd, from, rest.len()),
            Way::Writev => libc::writev(fd, segments.as_ptr(), 3),
            Way::WritevMany => {
                let each = rest.len().div_ceil(1000);
                let many: Vec<_> = rest.chunks(each).map(|part| iovec(part.as_ptr().cast_mut(), part.len())).collect();
                libc::writev(fd, many.as_ptr(), many.len().try_into().unwrap_or(0))
            }
            Way::Pwritev2 => libc::pwritev2(fd, segments.as_ptr(), 3, -1, 0),
            Way::Send => libc::send(fd, from, rest.len(), 0),
            Way::SendTo => libc::sendto(fd, from, rest.len(), 0, null(), 0),
            Way::SendMsg => libc::sendmsg(fd, &raw const message, 0),
            Way::ZeroCopy => libc::sendmsg(fd, &raw const message, libc::MSG_ZEROCOPY),
            Way::SendMmsgThree => odd::three_messages(fd, from.cast_mut().cast(), rest.len(), false),
            #[cfg(target_arch = "x86_64")]
            Way::Write32 => compat::write_32(fd, rest),
            Way::SendMmsg => {
                let mut messages = libc::mmsghdr { msg_hdr: message, msg_len: 0 };
                if libc::sendmmsg(fd, &raw mut messages, 1, 0) == 1 { messages.msg_len as isize } else { -1 }
            }
            Way::Sendfile => libc::sendfile(fd, file, null_mut(), rest.len()),
            Way::SpliceTo => {
                let mut pipe = [0; 2];
                libc::pipe(pipe.as_mut_ptr());
                let filled = libc::write(pipe[1], from, rest.len().min(60_000));
                let moved = libc::splice(pipe[0], null_mut(), fd, null_mut(), filled.unsigned_abs(), 0);
                libc::close(pipe[0]);
                libc::close(pipe[1]);
                moved
            }
            _ => unreachable!("not a way to send"),
        }
    }
}

/// The bytes in three segments: a little, nothing, the rest.
fn thirds(from: *mut u8, len: usize) -> [libc::iovec; 3] {
    let first = len.min(10);
    [iovec(from, first), iovec(from, 0), iovec(from.wrapping_add(first), len - first)]
}

fn iovec(from: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: from.cast(), iov_len: len }
}

fn header(segments: &mut [libc::iovec; 3]) -> libc::msghdr {
    // SAFETY: plain data, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = segments.as_mut_ptr();
    message.msg_iovlen = 3;
    message
}
