//! Ways to move bytes that need more than a call of the C library.
#![expect(unsafe_code, reason = "every way to call the kernel with a socket is the point of it")]

use std::{
    io::{self, Error, Write as _},
    net::TcpStream,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr::null_mut,
};

/// Three messages, received or sent by one call. The sum of what moved, or -1.
///
/// # Safety
/// At `at` are `len` bytes, to be written if it receives.
pub unsafe fn three_messages(fd: RawFd, at: *mut u8, len: usize, receive: bool) -> isize {
    let third = len / 3;
    let mut segments = [(0, third), (third, third), (2 * third, len - 2 * third)]
        .map(|(from, len)| libc::iovec { iov_base: at.wrapping_add(from).cast(), iov_len: len });
    let mut messages = segments.each_mut().map(|segment| {
        // SAFETY: plain data, for which zero is a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (segment, 1);
        message
    });
    let to = messages.as_mut_ptr();
    // SAFETY: the caller upholds it; all structs live through the calls.
    let moved = unsafe {
        if receive { libc::recvmmsg(fd, to, 3, libc::MSG_WAITALL, null_mut()) } else { libc::sendmmsg(fd, to, 3, 0) }
    };
    if moved == 3 { messages.iter().map(|message| message.msg_len as isize).sum() } else { -1 }
}

/// `struct tcp_zerocopy_receive` (`include/uapi/linux/tcp.h`), as far as it is used here.
#[repr(C)]
struct ZeroCopyReceive {
    address: u64,
    length: u32,
    skip_hint: u32,
    in_queue: u32,
    error: i32,
    copy_address: u64,
    copy_length: i32,
    flags: u32,
}

const TCP_ZEROCOPY_RECEIVE: libc::c_int = 35;
const PAGE: usize = 4096;

/// Takes bytes out of the socket by `getsockopt`: whole pages are mapped, what is less than one is copied.
pub fn receive_by_option(stream: &TcpStream, left: usize) -> isize {
    let (fd, region) = (stream.as_raw_fd(), left.next_multiple_of(PAGE));
    let mut copied = [0_u8; PAGE - 1];
    let room = i32::try_from(copied.len()).unwrap_or(0);
    // All of it, so that it comes as it was sent.
    let mut queued: libc::c_int = 0;
    while usize::try_from(queued).unwrap_or(0) < left {
        std::thread::sleep(std::time::Duration::from_millis(1));
        // SAFETY: the kernel writes an int.
        if unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut queued) } != 0 {
            return -1;
        }
    }
    // SAFETY: new memory, and an option that is written as far as its length says.
    unsafe {
        let at = libc::mmap(null_mut(), region, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        if at == libc::MAP_FAILED {
            return -1;
        }
        let mut option = ZeroCopyReceive {
            address: at.addr() as u64,
            length: u32::try_from(region).unwrap_or(0),
            skip_hint: 0,
            in_queue: 0,
            error: 0,
            copy_address: copied.as_mut_ptr().addr() as u64,
            copy_length: room,
            flags: 0,
        };
        let mut len = libc::socklen_t::try_from(size_of_val(&option)).unwrap_or(0);
        let result =
            libc::getsockopt(fd, libc::IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, (&raw mut option).cast(), &raw mut len);
        libc::munmap(at, region);
        // An old kernel does not know of copies, and leaves the words as they are.
        let copied = if option.copy_length < room { option.copy_length } else { 0 };
        if result == 0 { option.length as isize + copied as isize } else { -1 }
    }
}

/// Sends whole pages of a pipe: such as the receiver can map.
pub fn send_pages(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors, which nobody else has.
    let (from, mut to) = unsafe {
        if libc::pipe(ends.as_mut_ptr()) != 0 {
            return Err(Error::last_os_error());
        }
        (OwnedFd::from_raw_fd(ends[0]), std::fs::File::from(OwnedFd::from_raw_fd(ends[1])))
    };
    to.write_all(bytes)?;
    let mut left = bytes.len();
    while left > 0 {
        // SAFETY: both are open.
        let moved = unsafe { libc::splice(from.as_raw_fd(), null_mut(), stream.as_raw_fd(), null_mut(), left, 0) };
        left -= usize::try_from(moved).map_err(|_| Error::last_os_error())?;
    }
    Ok(())
}
