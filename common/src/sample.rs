//! One sample: what the kernel side says about one piece of one direction of one connection.
//!
//! A record in the perf ring is a [`SampleHeader`] followed by `copied` payload bytes (and, from the ring itself, up
//! to 7 bytes of padding: trust `copied`, never the record's length).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most payload bytes in one sample. A perf sample above 65,515 bytes in all is lost while the helper reports
/// success (measured on 6.18), so pieces stay far below that.
pub const MAX_PIECE_BYTES: usize = 32 * 1024;

/// The most bytes the kernel side copies from one direction while the other direction is silent and user space has
/// said nothing (see [`Window`]). It is what "a head of up to 1 MiB is captured whole" rests on; beyond it bytes are
/// [`Unseen::Withheld`]. One piece more than 1 MiB, so that a head of exactly 1 MiB fits behind a little of what
/// came before it.
pub const RUN_BUDGET_BYTES: u32 = (1024 + 32) * 1024;

const _: () = assert!(RUN_BUDGET_BYTES as usize == 1024 * 1024 + MAX_PIECE_BYTES);

/// Fixed part of every sample, 112 bytes, native endianness.
///
/// TCP sequence numbers are the stream offsets: `seq` is the place of the piece's first byte in its direction,
/// whichever CPU or thread the call ran on. Both are raw 32-bit numbers; user space widens them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHeader {
    /// CLOCK_MONOTONIC nanoseconds when the call returned (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// The kernel's socket cookie: unique for the life of the boot, never reused.
    pub cookie: u64,
    /// cgroup v2 id of the calling task; 0 in lifecycle samples, which run in no task of the gateway's.
    pub cgroup_id: u64,
    /// Where the piece starts in its direction. Lifecycle samples: the next byte to be received (`copied_seq`).
    pub seq: u32,
    /// The other direction's position at that moment: for [`Kind::Received`] the next byte to be sent (`write_seq`),
    /// for [`Kind::Sent`] the next byte to be received, for lifecycle samples `write_seq`. It orders the two
    /// directions exactly, whatever CPU each sample came from.
    pub other_seq: u32,
    /// Bytes of the stream that this sample accounts for.
    pub len: u32,
    /// Payload bytes that follow the header: either `len` or, when the bytes are not seen, 0.
    pub copied: u32,
    /// Samples of this connection that the kernel side could not put into the ring, ever (cumulative, wraps).
    pub lost: u32,
    /// Process (thread group) of the calling task; 0 in lifecycle samples.
    pub tgid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The socket's own port, host order.
    pub local_port: u16,
    /// The peer's port, host order.
    pub remote_port: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`Unseen`]: why `copied` is 0 although `len` is not.
    pub unseen: u8,
    /// [`Role`].
    pub role: u8,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u8,
    /// [`Layer`]: what `seq` and `other_seq` count.
    pub layer: u8,
    /// Explicit padding, zero.
    pub reserved: [u8; 3],
    /// The socket's own address; IPv4 in the first 4 bytes.
    pub local_addr: [u8; 16],
    /// The peer's address; IPv4 in the first 4 bytes.
    pub remote_addr: [u8; 16],
    /// Name of the calling task (`comm`), NUL-padded; empty in lifecycle samples.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<SampleHeader>() == 112);
const _: () = assert!(core::mem::offset_of!(SampleHeader, local_addr) == 64);

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_meta])* $variant = $value,)+ }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
        }

        impl TryFrom<u8> for $name {
            /// The number that stands for nothing.
            type Error = u8;

            fn try_from(value: u8) -> Result<Self, u8> {
                match value { $($value => Ok(Self::$variant),)+ other => Err(other) }
            }
        }
    };
}

wire_enum! {
    /// What happened.
    Kind {
        /// The gateway received bytes: the client's direction.
        Received = 1,
        /// The gateway sent bytes: its reply.
        Sent = 2,
        /// A watched port accepted a connection (SYN_RECV to ESTABLISHED).
        Opened = 3,
        /// The peer's FIN or RST arrived: no more bytes than are already received by the kernel will be received.
        PeerClosed = 4,
        /// The gateway closed its side, in order (FIN) or not (RST: unread bytes, or SO_LINGER 0).
        LocalClosed = 5,
        /// The socket is destroyed: closed on the wire and by the gateway; nothing follows.
        Closed = 6,
    }
}

wire_enum! {
    /// Why the bytes of a sample did not come with it. Every variant but `Seen` and `Skipped` is bytes that moved unseen.
    Unseen {
        /// They did come.
        Seen = 0,
        /// Not wanted: the end of a skip window was reached (or passed) by this call.
        Skipped = 1,
        /// More than [`RUN_BUDGET_BYTES`] in one direction without a turn or a word from user space.
        Withheld = 2,
        /// The system call carries no readable user buffer (sendfile, splice, MSG_TRUNC, sendmmsg, aio ...).
        NoBuffer = 3,
        /// io_uring or another deferred worker moved the bytes: the task's registers belong to another call.
        Deferred = 4,
        /// A kernel thread or a 32-bit caller.
        ForeignCaller = 5,
        /// The user memory could not be read (page not resident, or unmapped meanwhile).
        Fault = 6,
        /// Something in the kernel has the socket (kTLS, MPTCP, a sockmap): its sequence numbers count other bytes than the
        /// caller's. Samples of a connection's opening and closing carry it too.
        UpperLayer = 7,
        /// More buffer segments than the kernel side walks in one call.
        TooManySegments = 8,
    }
}

wire_enum! {
    /// How the connection came about.
    Role {
        /// It was open before the probes were: it may be accepted or connected.
        Unknown = 0,
        /// Accepted from a listener.
        Accepted = 1,
        /// The gateway connected out: never emitted, only remembered.
        Connected = 2,
    }
}

wire_enum! {
    /// Which bytes a sample's sequence numbers count (docs/decisions/0070-plaintext-is-a-stream.md). Once a connection has
    /// one of plaintext, every further sample of it is of plaintext.
    Layer {
        /// Those of the socket: TCP's own numbers.
        Socket = 0,
        /// Plaintext of the TLS on it, from the first byte, which is number 0.
        Plaintext = 1,
        /// The same, but plaintext may have moved before the probes were there: number 0 is the first byte that they saw.
        PlaintextMidway = 2,
    }
}

wire_enum! {
    /// A direction of a connection as the kernel maps know it.
    Direction {
        /// Client to gateway.
        Received = 0,
        /// Gateway to client.
        Sent = 1,
    }
}

/// The key of the window map: cookie and direction in one word (cookies use far fewer than 63 bits).
#[must_use]
pub const fn window_key(cookie: u64, direction: Direction) -> u64 {
    (cookie << 1) | direction as u64
}

/// What user space wants of one direction next; set by the agent, removed by the kernel side once passed.
///
/// `until` is compared as a signed 32-bit distance, so it must stand less than 2 GiB ahead. A longer window goes on by
/// `more_steps` steps: the kernel side moves `until` by itself and tells each step's end, so that user space can widen
/// the sequence numbers and nothing of a body is copied in between.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// The sequence number at which the window, or its first step, ends (exclusive).
    pub until: u32,
    /// [`WindowKind`].
    pub kind: u8,
    /// 1: `until` is a number of plaintext, 0: one of the socket's. One that was meant for the other says nothing.
    pub plaintext: u8,
    /// How many further steps of [`WINDOW_STEP_BYTES`] follow. Only for [`WindowKind::Skip`].
    pub more_steps: u16,
}

/// See [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WindowKind {
    /// Nothing is needed before the end: stay silent; one sample with [`Unseen::Skipped`] tells when a step, or the end, is
    /// reached. A call that straddles the end yields that sample for its part before it, then copies from there on.
    Skip = 1,
    /// Everything up to `until` is needed: the run budget does not apply.
    Want = 2,
}

/// The length of a window's further steps: a quarter of the distance at which the signed comparison turns, so that even
/// with the samples of two steps' ends lost the next one is still placed right.
pub const WINDOW_STEP_BYTES: u32 = 1 << 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_come_back_from_their_numbers_and_nothing_else_does() {
        for kind in Kind::ALL {
            assert_eq!(Kind::try_from(*kind as u8), Ok(*kind));
        }
        for unseen in Unseen::ALL {
            assert_eq!(Unseen::try_from(*unseen as u8), Ok(*unseen));
        }
        assert_eq!(Kind::try_from(0), Err(0));
        assert_eq!(Unseen::try_from(200), Err(200));
        assert_eq!(Role::try_from(3), Err(3));
        assert_eq!(Layer::try_from(2), Ok(Layer::PlaintextMidway));
    }

    #[test]
    fn keys_of_the_two_directions_differ() {
        assert_eq!(window_key(7, Direction::Received), 14);
        assert_eq!(window_key(7, Direction::Sent), 15);
    }
}
