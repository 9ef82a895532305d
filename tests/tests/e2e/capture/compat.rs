//! 32-bit system calls from this 64-bit program, which x86-64 has.
#![expect(unsafe_code, reason = "every way to call the kernel with a socket is the point of it")]

use std::{
    arch::asm,
    io::{self, Error},
    os::fd::RawFd,
    ptr::null_mut,
};

/// Numbers of 32-bit system calls.
const WRITE_32: u32 = 4;
const GETPID_32: u32 = 20;
const SOCKETCALL_32: u32 = 102;
/// Of `socketcall`.
const SYS_RECV: u32 = 10;
/// Behind the buffer: the arguments of a `socketcall`.
const ARGUMENTS_BYTES: usize = 16;

/// Sends by a 32-bit `write`.
pub fn write_32(fd: RawFd, bytes: &[u8]) -> isize {
    let Ok(memory) = LowMemory::new(bytes.len()) else { return -1 };
    memory.put(0, bytes);
    let fd = fd.cast_unsigned();
    // Number 20 is `writev` to a 64-bit caller, and the register of a first argument there has this socket: the process's
    // number must not be taken for bytes that it sent.
    // SAFETY: no argument is looked at.
    unsafe { call_32(GETPID_32, [fd, 0, 0], fd) };
    // SAFETY: the buffer lives through the call, and is that long.
    unsafe { call_32(WRITE_32, [fd, memory.address(), length(bytes.len())], fd) }
}

/// Receives by a 32-bit `recv`.
pub fn recv_32(fd: RawFd, to: &mut [u8]) -> isize {
    let Ok(memory) = LowMemory::new(to.len()) else { return -1 };
    let fd = fd.cast_unsigned();
    let arguments = [fd, memory.address(), length(to.len()), 0].map(u32::to_ne_bytes).concat();
    let at = memory.len - ARGUMENTS_BYTES;
    memory.put(at, &arguments);
    // SAFETY: buffer and arguments live through the call, and are that long.
    unsafe { call_32(SOCKETCALL_32, [SYS_RECV, memory.address() + length(at), 0], fd) }
}

/// A 32-bit system call from this 64-bit program; negative: failed. `di` is what a 64-bit call has as its first argument.
///
/// # Safety
/// As the call's.
unsafe fn call_32(number: u32, arguments: [u32; 3], di: u32) -> isize {
    let [first, second, third] = arguments.map(u64::from);
    let mut result = u64::from(number);
    // SAFETY: the caller upholds it; the kernel keeps all registers but `rax` and `r8` to `r11`.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inout("rax") result,
            in("rcx") second,
            in("rdx") third,
            in("rdi") u64::from(di),
            in("rsi") 0_u64,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "a 32-bit call has a 32-bit result")]
    let result = result as u32;
    result.cast_signed() as isize
}

/// Memory that a 32-bit pointer reaches.
struct LowMemory {
    at: *mut u8,
    len: usize,
}

impl LowMemory {
    fn new(bytes: usize) -> io::Result<Self> {
        let len = bytes.next_multiple_of(8) + ARGUMENTS_BYTES;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
        // SAFETY: new memory, wherever the kernel has some.
        let at = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self { at: at.cast(), len }) }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "{} bytes at {at} of {}", bytes.len(), self.len);
        // SAFETY: it fits into the mapping, which is this program's alone.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(self.at.add(at), bytes.len()) };
    }

    fn address(&self) -> u32 {
        u32::try_from(self.at.addr()).unwrap_or(0)
    }
}

impl Drop for LowMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping, which nobody uses any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}
