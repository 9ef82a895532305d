//! Typed reads of kernel structures at offsets that the agent resolved from BTF.

use crate::{
    maps::{CONSTANTS, NUMBERS, OFFSETS, cpu},
    payload::Source,
};
use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_task_pt_regs,
    generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
};
use core::{
    ffi::c_void,
    num::NonZero,
    ptr::{addr_of, read_volatile},
};
use s3auditd_common::{
    sample::{SampleHeader, Unseen},
    settings::{ABSENT, Constants, Offsets},
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

/// A pointer to a kernel structure. Of a typed one the verifier knows what it points to: fields are read directly, and a
/// fault reads zero. Fields of an untyped one are read through a helper, with the same result.
#[derive(Clone, Copy)]
pub struct KernelPointer {
    at: *const u8,
    /// Known when the program is compiled: only one of the two ways is in it.
    typed: bool,
}

impl KernelPointer {
    #[inline(always)]
    const fn typed(pointer: *const c_void) -> Self {
        Self { at: pointer.cast(), typed: true }
    }

    #[inline(always)]
    const fn untyped(address: u64) -> Self {
        Self { at: address as *const u8, typed: false }
    }

    /// The field at that offset.
    ///
    /// # Safety
    /// `T` must be the field's type. (The verifier checks that a typed pointer is what it claims to be and that the access
    /// stays inside the structure.)
    #[inline(always)]
    pub unsafe fn read<T: Copy + Default>(self, field: impl Fn(&Offsets) -> &u32) -> T {
        // SAFETY: the caller names the type; the verifier or the helper checks the rest.
        unsafe {
            if self.typed {
                read_volatile(self.at.add(offset(field)).cast())
            } else {
                read_kernel(self.address() + offset(field) as u64)
            }
        }
    }

    /// The address, for comparison.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.at as u64
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

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const BPF_NOEXIST: u64 = 1;

/// A `struct sock *`.
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
    /// `pointer` is the `struct sock *` argument of a typed tracepoint or function.
    #[inline(always)]
    pub unsafe fn typed(pointer: *const c_void) -> Self {
        Self(KernelPointer::typed(pointer))
    }

    /// # Safety
    /// At `address` is a `struct sock`.
    #[inline(always)]
    pub unsafe fn untyped(address: u64) -> Self {
        Self(KernelPointer::untyped(address))
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
        if !self.0.typed {
            // SAFETY: both fields are u16.
            let (family, protocol): (u16, u16) =
                unsafe { (self.0.read(|o| &o.sk_family), self.0.read(|o| &o.sk_protocol)) };
            let is_tcp = (family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP;
            return if is_tcp { Some(TcpSock { sock: self.0, tcp: self.0 }) } else { None };
        }
        // SAFETY: the pointer is a trusted `struct sock *`.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.at as *mut c_void) };
        if tcp.is_null() { None } else { Some(TcpSock { sock: self.0, tcp: KernelPointer::typed(tcp.cast()) }) }
    }

    /// What the socket is known by: the kernel's cookie, or a number of our own. None: there is no room for a number.
    #[inline(always)]
    pub fn cookie(self) -> Option<NonZero<u64>> {
        if self.0.typed && constant(|c| &c.own_numbers) == 0 {
            // SAFETY: the pointer is a trusted `struct sock *`.
            return NonZero::new(unsafe { bpf_get_socket_cookie(self.0.at as *mut c_void) });
        }
        let address = self.0.address();
        // SAFETY: a map value; values are never changed in place.
        if let Some(known) = unsafe { NUMBERS.get(address) } {
            return NonZero::new(*known);
        }
        let _exists_or_full = NUMBERS.insert(address, fresh_number(), BPF_NOEXIST);
        // SAFETY: as above.
        unsafe { NUMBERS.get(address) }.and_then(|known| NonZero::new(*known))
    }

    /// The same, if the socket has been seen moving bytes: it is not asked for here, so an untyped pointer will do.
    #[inline(always)]
    pub fn known_cookie(self) -> Option<NonZero<u64>> {
        if constant(|c| &c.own_numbers) == 0 {
            // SAFETY: the cookie is a u64.
            return NonZero::new(unsafe { self.0.read(|o| &o.sk_cookie) });
        }
        // SAFETY: a map value; values are never changed in place.
        unsafe { NUMBERS.get(self.0.address()) }.and_then(|known| NonZero::new(*known))
    }

    /// [`Self::cookie`] of a socket that has just become a connection: a number that its address had before is forgotten.
    #[inline(always)]
    pub fn fresh_cookie(self) -> Option<NonZero<u64>> {
        self.forget();
        self.cookie()
    }

    /// The socket is no more.
    #[inline(always)]
    pub fn forget(self) {
        if constant(|c| &c.own_numbers) != 0 {
            let _none = NUMBERS.remove(self.0.address());
        }
    }

    /// Where it is, to be found again.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0.address()
    }

    /// Whether that untyped address is this socket.
    #[inline(always)]
    pub fn is_at(self, address: u64) -> bool {
        self.0.address() == address
    }
}

/// Never given twice: the time and the CPU. (54 bits of nanoseconds come round after 208 days; then the very same
/// nanosecond would have to be hit on the same CPU.)
#[inline(always)]
fn fresh_number() -> u64 {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // Never zero, and one bit is left for the direction (`window_key`).
    ((now << 10 | u64::from(cpu() & 1023)) & (u64::MAX >> 1)) | 1 << 9
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

    /// Whether something in the kernel stands between the socket and its callers: an upper-layer protocol (kTLS, MPTCP), or
    /// whoever keeps data of its own with the socket (a sockmap, SMC, KCM). No call of the application's sets that.
    #[inline(always)]
    pub fn has_upper_layer(self) -> bool {
        // SAFETY: both are pointers.
        unsafe { self.tcp.read::<u64>(|o| &o.icsk_ulp_ops) != 0 || self.sock.read::<u64>(|o| &o.sk_user_data) != 0 }
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
                // Whole, in four bytes each: zeros first would be a call of `memset`, which goes byte by byte.
                let (from, to) = (self.sock.read(|o| &o.sk_rcv_saddr), self.sock.read(|o| &o.sk_daddr));
                local.cast::<[u32; 4]>().write_unaligned([from, 0, 0, 0]);
                remote.cast::<[u32; 4]>().write_unaligned([to, 0, 0, 0]);
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
/// `TS_COMPAT`: the task is in a 32-bit system call (`arch/x86/include/asm/thread_info.h`).
const COMPAT: u32 = 2;
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
                task: KernelPointer::typed(task.cast()),
                registers: KernelPointer::typed(bpf_task_pt_regs(task) as *const c_void),
            }
        }
    }

    /// With the registers that a hook on system calls is given.
    ///
    /// # Safety
    /// `registers` is the `struct pt_regs *` argument of a typed tracepoint.
    #[inline(always)]
    pub unsafe fn with(registers: *const c_void) -> Self {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        Self { task: KernelPointer::untyped(task), registers: KernelPointer::typed(registers) }
    }

    /// Number of the system call (x86-64).
    #[inline(always)]
    pub fn system_call(self) -> u64 {
        // SAFETY: `orig_ax` is a u64.
        unsafe { self.registers.read(|o| &o.regs_orig_ax) }
    }

    /// The first four arguments of the system call.
    #[inline(always)]
    pub fn arguments(self) -> [u64; 4] {
        // SAFETY: registers are u64.
        unsafe {
            [
                self.registers.read(|o| &o.regs_di),
                self.registers.read(|o| &o.regs_si),
                self.registers.read(|o| &o.regs_dx),
                self.registers.read(|o| &o.regs_r10),
            ]
        }
    }

    /// Whether the saved registers are not those of a 64-bit system call of this task's own.
    #[inline(always)]
    pub fn is_foreign(self) -> bool {
        // SAFETY: flags are a u32.
        unsafe { self.task.read::<u32>(|o| &o.task_flags) & FOREIGN_FLAGS != 0 || self.is_32_bit() }
    }

    /// Whether the system call is a 32-bit one: its number and its arguments mean something else. (Not by the code segment:
    /// a 64-bit process may make such calls too, by `int 0x80`.)
    #[inline(always)]
    pub fn is_32_bit(self) -> bool {
        // SAFETY: the status is a u32.
        unsafe { self.task.read::<u32>(|o| &o.task_status) & COMPAT != 0 }
    }

    /// Whether the task has ever used io_uring: then its deferred work may run inside any other system call.
    #[inline(always)]
    pub fn uses_io_uring(self) -> bool {
        // SAFETY: the field is a pointer.
        exists(|o| &o.task_io_uring) && unsafe { self.task.read::<u64>(|o| &o.task_io_uring) != 0 }
    }

    /// Whether that descriptor of the task is that socket.
    #[inline(always)]
    pub fn descriptor_is(self, descriptor: u32, sock: Sock) -> bool {
        let address = self.sock_of(descriptor);
        address != 0 && sock.is_at(address)
    }

    /// How many descriptors the task's table has room for.
    #[inline(always)]
    pub fn descriptor_room(self) -> u32 {
        // SAFETY: as in `sock_of`; the number is an unsigned int.
        unsafe {
            let files: u64 = self.task.read(|o| &o.task_files);
            let table: u64 = read_kernel(files + offset(|o| &o.files_fdt) as u64);
            read_kernel(table + offset(|o| &o.fdt_max_fds) as u64)
        }
    }

    /// The `struct sock` behind that descriptor of the task; 0 if it is no socket.
    #[inline(always)]
    pub fn sock_of(self, descriptor: u32) -> u64 {
        // SAFETY: a walk along pointers of the kernel's own types; whatever cannot be read is zero and fails the test.
        unsafe {
            let files: u64 = self.task.read(|o| &o.task_files);
            let table: u64 = read_kernel(files + offset(|o| &o.files_fdt) as u64);
            let array: u64 = read_kernel(table + offset(|o| &o.fdt_fd) as u64);
            let file: u64 = read_kernel(array + 8 * u64::from(descriptor));
            let inode: u64 = read_kernel(file + offset(|o| &o.file_inode) as u64);
            let mode: u16 = read_kernel(inode + offset(|o| &o.inode_mode) as u64);
            if mode & FILE_TYPE != SOCKET {
                return 0;
            }
            let socket: u64 = read_kernel(file + offset(|o| &o.file_private_data) as u64);
            read_kernel(socket + offset(|o| &o.socket_sk) as u64)
        }
    }
}

/// [`Task::uses_io_uring`] of the current task, in any program and on any kernel.
#[inline(always)]
pub fn uses_io_uring() -> bool {
    // SAFETY: a helper without arguments; the field is a pointer.
    exists(|o| &o.task_io_uring)
        && unsafe { read_kernel::<u64>(bpf_get_current_task() + offset(|o| &o.task_io_uring) as u64) } != 0
}

#[inline(always)]
fn exists(field: impl Fn(&Offsets) -> &u32) -> bool {
    offset(field) != ABSENT as usize
}

/// A `struct msghdr` with which the kernel moved bytes, after it did.
#[derive(Clone, Copy)]
pub struct Message(KernelPointer);

impl Message {
    /// # Safety
    /// At `address` is a `struct msghdr`.
    #[inline(always)]
    pub unsafe fn at(address: u64) -> Self {
        Self(KernelPointer::untyped(address))
    }

    /// Where the last `moved` bytes went or came from: the iterator stands behind them now. It is the kernel's own, so
    /// this holds whoever called: a system call, an io_uring, a 32-bit process.
    ///
    /// `requested` is what the call was asked for. Unless the iterator went exactly `moved` bytes from there, nothing is
    /// known of where they are.
    #[inline(always)]
    pub fn source(self, requested: u64, moved: u32) -> Source {
        // SAFETY: sizes and pointers are u64; the type is a u8, or the lowest byte of a u32.
        let (kind, used, left): (u8, u64, u64) =
            unsafe { (self.0.read(|o| &o.iter_type), self.0.read(|o| &o.iter_offset), self.0.read(|o| &o.iter_count)) };
        let kind = u32::from(kind) & constant(|c| &c.iter_mask);
        if requested.wrapping_sub(left) != u64::from(moved) {
            Source::nowhere(Unseen::NoBuffer)
        } else if constant(|c| &c.iter_ubuf) != ABSENT && kind == constant(|c| &c.iter_ubuf) {
            // SAFETY: a pointer.
            let buffer: u64 = unsafe { self.0.read(|o| &o.iter_buffer) };
            Source::buffer(buffer.wrapping_add(used).wrapping_sub(u64::from(moved)))
        } else if kind == constant(|c| &c.iter_iovec) {
            // SAFETY: a pointer.
            Source::behind(unsafe { self.0.read(|o| &o.iter_segments) }, used)
        } else {
            // Pages (sendfile, splice), a pipe, kernel memory.
            Source::nowhere(Unseen::NoBuffer)
        }
    }
}
