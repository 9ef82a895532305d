//! Typed reads of kernel structures at offsets that the agent resolved from BTF.

use crate::maps::{CONSTANTS, OFFSETS};
use aya_ebpf::helpers::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
    generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
};
use core::{
    ffi::c_void,
    ptr::{addr_of, read_volatile},
};
use s3auditd_common::{
    sample::SampleHeader,
    settings::{Constants, Offsets},
};

/// The resolved offsets. Volatile, because the compiler must not fold the zeroes that the object file holds.
#[inline(always)]
pub fn offset(field: impl Fn(&Offsets) -> &u32) -> usize {
    // SAFETY: `OFFSETS` is a plain static; the field reference is valid.
    unsafe { read_volatile(field(&*addr_of!(OFFSETS))) as usize }
}

/// See [`offset`].
#[inline(always)]
pub fn constant(field: impl Fn(&Constants) -> &u32) -> u32 {
    // SAFETY: as in `offset`.
    unsafe { read_volatile(field(&*addr_of!(CONSTANTS))) }
}

/// A pointer that the verifier knows as one into a kernel structure: fields are read directly, and a fault reads zero.
#[derive(Clone, Copy)]
pub struct KernelPointer(*const u8);

impl KernelPointer {
    /// The field at that offset.
    ///
    /// # Safety
    /// `T` must be the field's type. (The verifier checks that the pointer is what it claims to be and that the access
    /// stays inside the structure.)
    #[inline(always)]
    pub unsafe fn read<T: Copy>(self, field: impl Fn(&Offsets) -> &u32) -> T {
        // SAFETY: the caller names the type; the verifier checks the rest.
        unsafe { read_volatile(self.0.add(offset(field)).cast()) }
    }

    /// The address, for comparison.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }
}

/// Reads untyped kernel memory; zero where it cannot be read.
///
/// # Safety
/// `T` must be valid for any bytes.
#[inline(always)]
pub unsafe fn read_kernel<T: Copy + Default>(address: u64) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}

/// TCP states (`include/net/tcp_states.h`).
pub mod state {
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const SYN_RECV: i32 = 3;
    pub const FIN_WAIT1: i32 = 4;
    pub const CLOSE: i32 = 7;
    pub const CLOSE_WAIT: i32 = 8;
    pub const LAST_ACK: i32 = 9;
    pub const LISTEN: i32 = 10;
}

const AF_INET6: u16 = 10;

/// A `struct sock *` of a typed tracepoint.
#[derive(Clone, Copy)]
pub struct Sock(KernelPointer);

/// The same socket, known to be TCP.
#[derive(Clone, Copy)]
pub struct TcpSock {
    sock: KernelPointer,
    tcp: KernelPointer,
}

impl Sock {
    /// # Safety
    /// `pointer` is the `struct sock *` argument of a typed tracepoint.
    #[inline(always)]
    pub unsafe fn new(pointer: *const c_void) -> Self {
        Self(KernelPointer(pointer.cast()))
    }

    /// Local port, host order; 0 once the port was released, which is before the last byte may have been read.
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // SAFETY: `skc_num` is a u16.
        unsafe { self.0.read(|o| &o.sk_num) }
    }

    /// None: not a TCP socket.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the pointer is a trusted `struct sock *`.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.0 as *mut c_void) };
        if tcp.is_null() { None } else { Some(TcpSock { sock: self.0, tcp: KernelPointer(tcp as *const u8) }) }
    }

    /// The socket cookie.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the pointer is a trusted `struct sock *`.
        unsafe { bpf_get_socket_cookie(self.0.0 as *mut c_void) }
    }

    /// Whether that untyped address is this socket.
    #[inline(always)]
    pub fn is_at(self, address: u64) -> bool {
        self.0.address() == address
    }
}

impl TcpSock {
    /// Local port, host order; outlives the release of the port.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        // SAFETY: `inet_sport` is a big-endian u16.
        u16::from_be(unsafe { self.tcp.read(|o| &o.inet_sport) })
    }

    /// Next byte that the application will receive. A FIN takes a sequence number too, and a receive that consumes it
    /// moves `copied_seq` past it: that one is taken off, so that the result counts bytes only.
    #[inline(always)]
    pub fn received_to(self) -> u32 {
        // SAFETY: the fields are u32, u32 and unsigned long.
        let (copied, next, flags): (u32, u32, u64) = unsafe {
            (self.tcp.read(|o| &o.tcp_copied_seq), self.tcp.read(|o| &o.tcp_rcv_nxt), self.sock.read(|o| &o.sk_flags))
        };
        let fin_arrived = (flags >> (constant(|c| &c.sock_done_bit) & 63)) & 1 == 1;
        if fin_arrived && copied == next { copied.wrapping_sub(1) } else { copied }
    }

    /// Next byte that the application will send. After a close `write_seq` counts the FIN too.
    #[inline(always)]
    pub fn sent_to(self) -> u32 {
        // SAFETY: `write_seq` is a u32.
        unsafe { self.tcp.read(|o| &o.tcp_write_seq) }
    }

    /// Whether an upper-layer protocol (kTLS) sits on the socket.
    #[inline(always)]
    pub fn has_upper_layer(self) -> bool {
        // SAFETY: `icsk_ulp_ops` is a pointer.
        unsafe { self.tcp.read::<u64>(|o| &o.icsk_ulp_ops) != 0 }
    }

    /// Pending error.
    #[inline(always)]
    pub fn error(self) -> i32 {
        // SAFETY: `sk_err` is an int.
        unsafe { self.sock.read(|o| &o.sk_err) }
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: `skc_net.net` is a pointer to a `struct net`, whose `ns.inum` is a u32.
        unsafe { read_kernel(self.sock.read::<u64>(|o| &o.sk_net) + offset(|o| &o.net_inum) as u64) }
    }

    /// Family, addresses and the remote port, straight into a header.
    #[inline(always)]
    pub fn write_endpoints(self, header: &mut SampleHeader) {
        // SAFETY: family and port are u16, IPv4 addresses are 4 bytes, IPv6 addresses are two u64.
        unsafe {
            let family: u16 = self.sock.read(|o| &o.sk_family);
            header.family = family as u8;
            header.remote_port = u16::from_be(self.sock.read(|o| &o.sk_dport));
            let (local, remote) = (&raw mut header.local_addr, &raw mut header.remote_addr);
            if family == AF_INET6 {
                local.cast::<[u64; 2]>().write_unaligned(self.sock.read(|o| &o.sk_v6_rcv_saddr));
                remote.cast::<[u64; 2]>().write_unaligned(self.sock.read(|o| &o.sk_v6_daddr));
            } else {
                *local = [0; 16];
                *remote = [0; 16];
                local.cast::<u32>().write_unaligned(self.sock.read(|o| &o.sk_rcv_saddr));
                remote.cast::<u32>().write_unaligned(self.sock.read(|o| &o.sk_daddr));
            }
        }
    }
}

/// The current task and the user registers saved when it entered the kernel.
#[derive(Clone, Copy)]
pub struct Task {
    task: KernelPointer,
    registers: KernelPointer,
}

/// `PF_*` of a task that does not run on behalf of its own system call: kernel thread, user worker, io_uring worker
/// (`include/linux/sched.h`).
const FOREIGN_FLAGS: u32 = 0x0020_0000 | 0x4000 | 0x10;
/// `__USER_CS` on x86-64: any other code segment is a 32-bit caller.
const USER_CODE_SEGMENT: u16 = 0x33;
/// `S_IFMT`.
const FILE_TYPE: u16 = 0xf000;
/// `S_IFSOCK`.
const SOCKET: u16 = 0xc000;

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: both helpers return typed pointers that are valid while the program runs.
        unsafe {
            let task = bpf_get_current_task_btf();
            Self {
                task: KernelPointer(task as *const u8),
                registers: KernelPointer(bpf_task_pt_regs(task) as *const u8),
            }
        }
    }

    /// Number of the system call (x86-64).
    #[inline(always)]
    pub fn system_call(self) -> u64 {
        // SAFETY: `orig_ax` is a u64.
        unsafe { self.registers.read(|o| &o.regs_orig_ax) }
    }

    /// The first three arguments of the system call.
    #[inline(always)]
    pub fn arguments(self) -> [u64; 3] {
        // SAFETY: registers are u64.
        unsafe {
            [
                self.registers.read(|o| &o.regs_di),
                self.registers.read(|o| &o.regs_si),
                self.registers.read(|o| &o.regs_dx),
            ]
        }
    }

    /// Whether the saved registers are not those of a 64-bit system call of this task's own.
    #[inline(always)]
    pub fn is_foreign(self) -> bool {
        // SAFETY: flags are a u32, the code segment is a u16 (or the low half of a wider field).
        unsafe {
            self.task.read::<u32>(|o| &o.task_flags) & FOREIGN_FLAGS != 0
                || self.registers.read::<u16>(|o| &o.regs_cs) != USER_CODE_SEGMENT
        }
    }

    /// Whether the task has ever used io_uring: then its deferred work may run inside any other system call.
    #[inline(always)]
    pub fn uses_io_uring(self) -> bool {
        // SAFETY: the field is a pointer.
        unsafe { self.task.read::<u64>(|o| &o.task_io_uring) != 0 }
    }

    /// Whether that descriptor of the task is that socket.
    #[inline(always)]
    pub fn descriptor_is(self, descriptor: u32, sock: Sock) -> bool {
        // SAFETY: a walk along pointers of the kernel's own types; whatever cannot be read is zero and fails the test.
        unsafe {
            let files: u64 = self.task.read(|o| &o.task_files);
            let table: u64 = read_kernel(files + offset(|o| &o.files_fdt) as u64);
            let array: u64 = read_kernel(table + offset(|o| &o.fdt_fd) as u64);
            let file: u64 = read_kernel(array + 8 * u64::from(descriptor));
            let inode: u64 = read_kernel(file + offset(|o| &o.file_inode) as u64);
            let mode: u16 = read_kernel(inode + offset(|o| &o.inode_mode) as u64);
            if mode & FILE_TYPE != SOCKET {
                return false;
            }
            let socket: u64 = read_kernel(file + offset(|o| &o.file_private_data) as u64);
            sock.is_at(read_kernel(socket + offset(|o| &o.socket_sk) as u64))
        }
    }
}
