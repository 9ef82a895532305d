//! What the agent tells the kernel programs at load time and through maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bitmap of the 65,536 local ports, the first thing that every program looks at.
pub const PORT_WORDS: usize = 65_536 / 64;

/// See [`PORT_WORDS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PortBitmap {
    /// Bit `port % 64` of word `port / 64`.
    pub words: [u64; PORT_WORDS],
}

impl PortBitmap {
    /// The bitmap with exactly these ports.
    #[must_use]
    pub fn of(ports: &[u16]) -> Self {
        let mut words = [0; PORT_WORDS];
        for port in ports {
            if let Some(word) = words.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
        Self { words }
    }
}

/// Where a program calls `bpf_preempt_disable`: not a helper's number, but a mark that the loader replaces.
pub const PREEMPT_DISABLE: usize = 0x5333_0a01;

/// The same for `bpf_preempt_enable`.
pub const PREEMPT_ENABLE: usize = 0x5333_0a02;

/// What the kernel side remembers of one connection, keyed by cookie; written by the kernel side only.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConnectionState {
    /// Samples that the ring did not take.
    pub lost: u32,
    /// [`crate::sample::Role`].
    pub role: u16,
    /// 1 once the gateway closed its side in order: its FIN took a sequence number that is no byte.
    pub fin_sent: u16,
    /// Each direction.
    pub received: Place,
    pub sent: Place,
    /// The first four bytes of what was received last after a turn; 0: not looked at.
    pub request: u32,
    /// The last change of state that was taken care of, for programs of a further chance: old and new in a byte each.
    pub told: u32,
    /// [`crate::sample::Layer`].
    pub layer: u32,
    /// Explicit padding, zero.
    pub reserved: u32,
    /// When it was opened (CLOCK_MONOTONIC nanoseconds); 0: not seen.
    pub opened_ns: u64,
    /// The library's object for the TLS on this connection: an address in the gateway's memory, only compared.
    pub tls_object: u64,
    /// The object whose call the connection's bytes last moved in; 0: none, or it has begun something new.
    pub tls_tied: u64,
    /// Process of that object.
    pub tls_process: u64,
    /// 1 once it was looked whether it begins with a TLS hello.
    pub tls_looked: u64,
    /// The random number in that hello, its first half; 0: none.
    pub tls_random: [u8; 16],
}

/// What a probe in OpenSSL is told: the `own` number of its attach cookie.
pub mod openssl {
    /// The function's result is a length; otherwise it is 1, and the length is where the last argument points to.
    pub const RESULT_IS_LENGTH: u32 = 1;
    /// The last argument is the fifth and not the fourth.
    pub const DONE_IS_FIFTH: u32 = 2;
    /// What moved is in no buffer of the process.
    pub const NO_BUFFER: u32 = 4;
    const ROLE_SHIFT: u32 = 4;
    const RANDOM_SHIFT: u32 = 16;
    /// No place in an object is beyond it.
    pub const PLACES: u32 = 1 << (RANDOM_SHIFT - ROLE_SHIFT);

    /// With places in an object, 0 where they are not known: of the word that is 0 in a client's, and of the random number
    /// in the client's hello.
    #[must_use]
    pub const fn own(flags: u32, role_at: u32, random_at: u32) -> u32 {
        flags | (role_at % PLACES) << ROLE_SHIFT | (random_at % PLACES) << RANDOM_SHIFT
    }

    /// See [`own`].
    #[must_use]
    pub const fn role_at(own: u32) -> u32 {
        own >> ROLE_SHIFT & (PLACES - 1)
    }

    /// See [`own`].
    #[must_use]
    pub const fn random_at(own: u32) -> u32 {
        own >> RANDOM_SHIFT
    }

    const PLACE_BITS: u32 = 10;
    const IN_REGISTER: u32 = 1 << (PLACE_BITS - 1);
    /// No place on the stack is beyond it.
    pub const SLOTS: u32 = IN_REGISTER;

    /// Where a probe inside a function finds the arguments of that function.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum At {
        /// That one of `rbx`, `rbp`, `r12` to `r15`, from 0.
        Register(u32),
        /// So many bytes above the stack pointer.
        Slot(u32),
    }

    impl At {
        const fn packed(self) -> u32 {
            match self {
                Self::Register(number) => IN_REGISTER | (number % IN_REGISTER),
                Self::Slot(bytes) => bytes % SLOTS,
            }
        }
    }

    /// The `own` number of a probe inside a function: where the object is, and of a read where the kind of record that is asked for
    /// is, and whether it is only peeked.
    #[must_use]
    pub const fn inside(object: At, kind: At, peek: At) -> u32 {
        object.packed() | kind.packed() << PLACE_BITS | peek.packed() << (2 * PLACE_BITS)
    }

    /// The first, second or third place, from 0. See [`inside`].
    #[must_use]
    pub const fn place(own: u32, which: u32) -> At {
        let packed = own >> (which * PLACE_BITS) & ((1 << PLACE_BITS) - 1);
        if packed & IN_REGISTER == 0 { At::Slot(packed) } else { At::Register(packed & !IN_REGISTER) }
    }
}

/// What the kernel side remembers of one direction of a connection.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Place {
    /// Bytes copied since the other direction last moved.
    pub run: u32,
    /// Where it stood after the last call that was taken care of, for programs of a further chance.
    pub done: u32,
    /// Plaintext bytes so far.
    pub plaintext: u32,
    /// What it is in the middle of, by what [`crate::head`] made of its bytes: see [`crate::head::inside`].
    pub inside: u32,
    /// Where that ends; of a head, or the line in front of a chunk, where what is to come of it begins.
    pub body_end: u32,
    /// Bytes of it withheld since the last sample, of which none has told yet, and where the other direction stood then.
    pub untold: u32,
    pub untold_other: u32,
    /// Of these, what the next look has to know: [`crate::head::Look::kept`].
    pub kept: u32,
}

/// A file in which TLS is probed, by the number that the agent gave it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TlsFile {
    /// Since when every probe is in place (CLOCK_MONOTONIC nanoseconds): of connections opened later all plaintext is seen.
    pub ready_ns: u64,
    /// Connections whose plaintext was seen there; the kernel side adds.
    pub tied: u64,
    /// Times that a library's server had plaintext there and was tied to no connection; the kernel side adds.
    pub untied: u64,
    /// Places in the library's objects, see [`openssl::own`].
    pub places: u32,
    /// Explicit padding, zero.
    pub reserved: u32,
}

/// What the programs need to know besides offsets; a read-only global like [`Offsets`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Constants {
    /// The agent's own process: its sockets are never captured.
    pub agent_tgid: u32,
    /// Bit of `SOCK_DONE` in a socket's flags: the peer's FIN has arrived (`enum sock_flags`).
    pub sock_done_bit: u32,
    /// 1: sockets are known by numbers of our own, because a program of the backend cannot ask for the kernel's cookie.
    pub own_numbers: u32,
    /// How many programs are attached for one event (`counters::CHANCES`).
    pub chances: u32,
    /// How many buffers each CPU has (`counters::copying_programs`).
    pub buffers: u32,
    /// How many parameters `tcp_recvmsg` has: `sk, msg, len, flags`, then `addr_len` (it is gone in 7.2), and before 5.19
    /// `nonblock` in front of `flags`.
    pub receive_parameters: u32,
    /// Bits of `iov_iter`'s type that tell the type (the lowest one was the direction before 5.14).
    pub iter_mask: u32,
    /// `ITER_IOVEC`.
    pub iter_iovec: u32,
    /// `ITER_UBUF` (since 6.0), or [`ABSENT`].
    pub iter_ubuf: u32,
}

/// The offset of a field, or the value of a constant, that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    (@resolve $resolve:ident $structure:literal [$path:literal $(| $other:literal)*]) => {
        $resolve($structure, $path)$(.or_else(|| $resolve($structure, $other)))*.ok_or(($structure, $path))?
    };
    (@resolve $resolve:ident $structure:literal [$path:literal or absent]) => {
        $resolve($structure, $path).unwrap_or(ABSENT)
    };
    ($($(#[doc = $doc:literal])+ $field:ident : $structure:literal . [$($paths:tt)+],)+) => {
        /// Where the running kernel keeps what the programs read, in bytes, from its BTF (aya-ebpf has no CO-RE for Rust).
        ///
        /// Passed as a read-only global, so that the verifier sees constants. `a | b` are a member's names in different
        /// kernels; `or absent` is one that the programs can do without.
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct Offsets { $($(#[doc = $doc])+ pub $field: u32,)+ }

        impl Offsets {
            /// Fills every field from `resolve(structure, path)`; fails with the first pair that it does not know.
            ///
            /// # Errors
            /// The structure and path that could not be resolved.
            pub fn resolve(
                mut resolve: impl FnMut(&'static str, &'static str) -> Option<u32>,
            ) -> Result<Self, (&'static str, &'static str)> {
                Ok(Self { $($field: offsets!(@resolve resolve $structure [$($paths)+]),)+ })
            }
        }
    };
}

offsets! {
    /// Address family.
    sk_family: "sock".["__sk_common.skc_family"],
    /// Local port, host order.
    sk_num: "sock".["__sk_common.skc_num"],
    /// Remote port, network order.
    sk_dport: "sock".["__sk_common.skc_dport"],
    /// Remote IPv4 address.
    sk_daddr: "sock".["__sk_common.skc_daddr"],
    /// Local IPv4 address.
    sk_rcv_saddr: "sock".["__sk_common.skc_rcv_saddr"],
    /// Remote IPv6 address.
    sk_v6_daddr: "sock".["__sk_common.skc_v6_daddr"],
    /// Local IPv6 address.
    sk_v6_rcv_saddr: "sock".["__sk_common.skc_v6_rcv_saddr"],
    /// TCP state.
    sk_state: "sock".["__sk_common.skc_state"],
    /// Network namespace.
    sk_net: "sock".["__sk_common.skc_net.net"],
    /// The kernel's socket cookie; 0 until somebody has asked for it.
    sk_cookie: "sock".["__sk_common.skc_cookie"],
    /// Flag bits (`enum sock_flags`).
    sk_flags: "sock".["__sk_common.skc_flags"],
    /// What a part of the kernel that took the socket over keeps of it, or null.
    sk_user_data: "sock".["sk_user_data"],
    /// Pending error: set when the peer's RST ends a connection.
    sk_err: "sock".["sk_err"],
    /// Inode number of a network namespace.
    net_inum: "net".["ns.inum"],
    /// Local port, network order; unlike `skc_num` it outlives the release of the port.
    inet_sport: "inet_sock".["inet_sport"],
    /// Upper-layer protocol (kTLS and such), or null.
    icsk_ulp_ops: "inet_connection_sock".["icsk_ulp_ops"],
    /// Next byte that the application will receive.
    tcp_copied_seq: "tcp_sock".["copied_seq"],
    /// Next byte that the peer will send.
    tcp_rcv_nxt: "tcp_sock".["rcv_nxt"],
    /// Next byte that the application will send.
    tcp_write_seq: "tcp_sock".["write_seq"],
    /// Number of the system call. Registers are those of x86-64: elsewhere no backend that reads them is offered.
    regs_orig_ax: "pt_regs".["orig_ax" or absent],
    /// First argument.
    regs_di: "pt_regs".["di" or absent],
    /// Second argument.
    regs_si: "pt_regs".["si" or absent],
    /// Third argument.
    regs_dx: "pt_regs".["dx" or absent],
    /// Status bits of the thread: one tells a 32-bit system call. x86-64 too.
    task_status: "task_struct".["thread_info.status" or absent],
    /// Flags (`PF_*`).
    task_flags: "task_struct".["flags"],
    /// Not null once the task has used io_uring.
    task_io_uring: "task_struct".["io_uring" or absent],
    /// Open files.
    task_files: "task_struct".["files"],
    /// Descriptor table.
    files_fdt: "files_struct".["fdt"],
    /// How many descriptors it has room for.
    fdt_max_fds: "fdtable".["max_fds"],
    /// The table's array of files.
    fdt_fd: "fdtable".["fd"],
    /// A file's own data: the `struct socket` of a socket.
    file_private_data: "file".["private_data"],
    /// A file's inode.
    file_inode: "file".["f_inode"],
    /// An inode's type and mode.
    inode_mode: "inode".["i_mode"],
    /// A socket's `struct sock`.
    socket_sk: "socket".["sk"],
    /// Transport protocol.
    sk_protocol: "sock".["sk_protocol"],
    /// Fourth argument of a system call.
    regs_r10: "pt_regs".["r10" or absent],
    /// What kind of memory a message lies in.
    iter_type: "msghdr".["msg_iter.iter_type" | "msg_iter.type"],
    /// How far the current segment is used up.
    iter_offset: "msghdr".["msg_iter.iov_offset"],
    /// Bytes left.
    iter_count: "msghdr".["msg_iter.count"],
    /// The current one of the segments (an array in kernel memory).
    iter_segments: "msghdr".["msg_iter.__iov" | "msg_iter.iov"],
    /// The one buffer.
    iter_buffer: "msghdr".["msg_iter.ubuf" or absent],
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn bitmap_has_the_ports_asked_for_and_no_other() {
        let bitmap = PortBitmap::of(&[0, 63, 64, 9000, 65_535]);
        let set: u32 = bitmap.words.iter().map(|word| word.count_ones()).sum();
        assert_eq!(set, 5);
        assert_eq!(bitmap.words[9000 / 64] >> (9000 % 64) & 1, 1);
        assert_eq!(bitmap.words[1023] >> 63, 1);
    }

    #[test]
    fn what_a_probe_is_told_comes_apart_again() {
        let told = openssl::own(openssl::NO_BUFFER | openssl::RESULT_IS_LENGTH, 0x38, 0x160);
        assert_eq!((openssl::role_at(told), openssl::random_at(told)), (0x38, 0x160));
        assert_eq!((told & openssl::DONE_IS_FIFTH, told & openssl::NO_BUFFER), (0, openssl::NO_BUFFER));
    }

    #[test]
    fn places_of_arguments_come_apart_again() {
        use openssl::At::{Register, Slot};
        let told = openssl::inside(Slot(0x28), Register(5), Slot(openssl::SLOTS - 1));
        assert_eq!([0, 1, 2].map(|which| openssl::place(told, which)), [Slot(0x28), Register(5), Slot(511)]);
        assert_eq!(openssl::inside(Slot(511), Register(511), Slot(511)) >> 30, 0);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let failed = Offsets::resolve(|structure, _| (structure != "net").then_some(1));
        assert_eq!(failed.unwrap_err().0.to_string(), "net");
        let older = Offsets::resolve(|_, path| (path != "msg_iter.__iov" && path != "io_uring").then_some(1)).unwrap();
        assert_eq!((older.iter_segments, older.task_io_uring), (1, ABSENT));
        let offsets = Offsets::resolve(|_, path| u32::try_from(path.len()).ok()).unwrap();
        assert_eq!(offsets.sk_err, 6);
    }
}
