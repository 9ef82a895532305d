//! The kernel side's own counters: a per-CPU array with a bank for each program, one slot a counter.
//!
//! A bank a program, because BPF for Rust has no atomic addition and a program can be interrupted, on its CPU, by any
//! other program but never by itself (the kernel skips it then, and says so in `recursion_misses`). So no addition is
//! ever lost, and the ledger can be exact.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// A slot of the per-CPU counter array. Adding one here gives it a slot, a name and a place in `status`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum KernelCounter { $($(#[doc = $doc])+ $variant = $value,)+ }

        impl KernelCounter {
            /// Every counter, in slot order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// How many there are: the size of a bank.
            const BANK: u32 = {
                let mut slots = 0;
                $({
                    let _ = Self::$variant;
                    slots += 1;
                })+
                slots
            };

            /// The name that metrics and `status` use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Samples put into the ring.
    Emitted = 0, "emitted";
    /// Bytes put into the ring, headers included.
    EmittedBytes = 1, "emitted_bytes";
    /// Samples lost because the ring of this CPU was full.
    LostRingFull = 2, "ring_full";
    /// Samples lost because the ring refused them for another reason (no reader on this CPU).
    LostRingRefused = 3, "ring_refused";
    /// Calls inside a skip window: no sample was owed.
    SkippedCalls = 4, "skipped_calls";
    /// Bytes inside skip windows.
    SkippedBytes = 5, "skipped_bytes";
    /// Connections whose state found no room in the table: captured, but without run budget, role and own loss count.
    TableFull = 6, "table_full";
    /// User buffers that could not be read.
    Faults = 7, "faults";
    /// Calls whose registers the io_uring guard rejected.
    GuardRejects = 8, "guard_rejects";
    /// Calls on watched ports by sockets that the gateway had connected itself.
    NotAccepted = 9, "not_accepted";
    /// Bytes that moved on watched connections without being seen, for whatever cause but a skip window.
    UnseenBytes = 10, "unseen_bytes";
    /// Received bytes of the samples that the ring did not take, whether they would have come along or not; the ends of
    /// skip windows apart.
    LostReceivedBytes = 11, "lost_received_bytes";
    /// The same of bytes sent.
    LostSentBytes = 12, "lost_sent_bytes";
    /// Calls of which the entry found no room for its note: nothing is known of them at their return (`kprobe`, OpenSSL).
    NotesRefused = 13, "notes_refused";
    /// Calls that were over when the thread's next one, or its end, found their notes: the kernel did not run the program
    /// at their return (`kprobe` only).
    MissedReturns = 14, "missed_returns";
    /// Bytes of a socket that were not looked at, because the plaintext of the TLS on it is read where the gateway has it.
    CiphertextBytes = 15, "ciphertext_bytes";
    /// Calls of a TLS library whose connection is not known for sure, or is none of ours: nothing is said of their bytes.
    PlaintextUntied = 16, "plaintext_untied";
    /// Calls of a TLS library on a watched connection that found every buffer of their CPU in use: their plaintext is a hole.
    PlaintextNoBuffer = 17, "plaintext_no_buffer";
}

/// A kernel program, as the owner of a bank of counters and of a scratch buffer on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Program {
    /// Receives.
    Received = 0,
    /// Sends.
    Sent = 1,
    /// Sends of whole pages, which before 6.5 have a function of their own.
    PagesSent = 2,
    /// Receives that the kernel did not run `Received` for ([`CHANCES`]).
    ReceivedSecond = 3,
    /// Sends, likewise.
    SentSecond = 4,
    /// Receives that neither of the two was run for.
    ReceivedThird = 5,
    /// Sends, likewise.
    SentThird = 6,
    /// Plaintext of a TLS library, in either direction. Its programs can be preempted by each other and by themselves, so
    /// each claims one of these for as long as it runs.
    Plaintext0 = 7,
    /// See `Plaintext0`.
    Plaintext1 = 8,
    /// See `Plaintext0`.
    Plaintext2 = 9,
    /// See `Plaintext0`.
    Plaintext3 = 10,
    /// Changes of a connection's state.
    StateChanged = 11,
    /// Ends of sockets.
    Destroyed = 12,
    /// As `StateChanged`, in an interrupt that came while that one ran (docs/decisions/0006-programs-alone.md).
    StateChangedInside = 13,
    /// As `Destroyed`, likewise.
    DestroyedInside = 14,
    /// Changes that `StateChanged` was not run for.
    StateChangedSecond = 15,
    /// Ends, likewise.
    DestroyedSecond = 16,
    /// Changes that neither of the two was run for.
    StateChangedThird = 17,
    /// Ends, likewise.
    DestroyedThird = 18,
    /// Ends of threads.
    ThreadEnded = 19,
}

/// How many programs there are.
pub const PROGRAMS: u32 = 20;

/// What programs claim that have found no [`Program::Plaintext0`] free, to count that, by atomic additions.
pub const UNCLAIMED: u32 = PROGRAMS;

/// How many programs may be attached for one event, where the kernel skips one that is preempted on the same CPU
/// (docs/decisions/0006-programs-alone.md). Each leaves alone what one before it has done.
pub const CHANCES: u32 = 3;

/// How many programs copy payload from calls on sockets, if each event has that many chances.
const fn socket_programs(chances: u32) -> u32 {
    if chances > 1 { Program::SentThird as u32 + 1 } else { Program::PagesSent as u32 + 1 }
}

/// How many programs copy payload, each with a buffer on each CPU: those of sockets with that many chances for each event,
/// and those of plaintext if it is read.
#[must_use]
pub const fn copying_programs(chances: u32, tls: bool) -> u32 {
    let plaintext = if tls { Program::Plaintext3 as u32 - Program::Plaintext0 as u32 + 1 } else { 0 };
    socket_programs(chances) + plaintext
}

impl Program {
    /// The one for receives, of that chance: 0 is the first.
    #[must_use]
    pub const fn received(chance: u32) -> Self {
        match chance {
            0 => Self::Received,
            1 => Self::ReceivedSecond,
            _ => Self::ReceivedThird,
        }
    }

    /// The one for sends.
    #[must_use]
    pub const fn sent(chance: u32) -> Self {
        match chance {
            0 => Self::Sent,
            1 => Self::SentSecond,
            _ => Self::SentThird,
        }
    }

    /// Whether another one may have done its work before.
    #[must_use]
    pub const fn is_further_chance(self) -> bool {
        matches!(
            self,
            Self::ReceivedSecond
                | Self::SentSecond
                | Self::ReceivedThird
                | Self::SentThird
                | Self::StateChangedSecond
                | Self::DestroyedSecond
                | Self::StateChangedThird
                | Self::DestroyedThird
        )
    }

    /// Whether it tells of bytes, and runs in the task that moved them.
    #[must_use]
    pub const fn copies(self) -> bool {
        (self as u32) < Self::StateChanged as u32
    }

    /// Of one that copies: which of its CPU's [`copying_programs`] buffers it has.
    #[must_use]
    pub const fn buffer(self, chances: u32) -> u32 {
        match (self as u32).checked_sub(Self::Plaintext0 as u32) {
            Some(plaintext) => socket_programs(chances) + plaintext,
            None => self as u32,
        }
    }
}

/// How many slots the array has.
pub const COUNTER_SLOTS: u32 = (PROGRAMS + 1) * KernelCounter::BANK;

/// Where a [`Program`] counts.
#[must_use]
pub const fn counter_slot(program: u32, counter: KernelCounter) -> u32 {
    program * KernelCounter::BANK + counter as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Program::*, *};

    const PLAINTEXT: [Program; 4] = [Plaintext0, Plaintext1, Plaintext2, Plaintext3];

    #[test]
    fn programs_know_what_they_do() {
        for program in [Received, ReceivedSecond, ReceivedThird, Sent, SentSecond, SentThird, PagesSent] {
            assert!(program.copies(), "{program:?}");
        }
        assert!(PLAINTEXT.iter().all(|program| program.copies() && !program.is_further_chance()));
        assert!(!StateChanged.copies() && !Destroyed.copies() && !ThreadEnded.copies());
        for chance in 0..CHANCES {
            assert_eq!(Program::received(chance).is_further_chance(), chance > 0);
            assert_eq!(Program::sent(chance).is_further_chance(), chance > 0);
        }
        assert!(StateChangedSecond.is_further_chance() && DestroyedThird.is_further_chance());
        assert!(!StateChanged.is_further_chance() && !DestroyedInside.is_further_chance());
        assert_eq!(PROGRAMS, ThreadEnded as u32 + 1);
        assert!(counter_slot(UNCLAIMED, KernelCounter::Emitted) >= counter_slot(PROGRAMS, KernelCounter::Emitted));
        assert!(counter_slot(UNCLAIMED, KernelCounter::PlaintextNoBuffer) < COUNTER_SLOTS);
    }

    #[test]
    fn each_program_that_copies_has_a_buffer_of_its_own() {
        for chances in [1, CHANCES] {
            let of_event = (0..chances).flat_map(|chance| [Program::received(chance), Program::sent(chance)]);
            let sockets = of_event.chain([PagesSent]);
            for tls in [false, true] {
                let plaintext = if tls { &PLAINTEXT[..] } else { &[] };
                let mut buffers: std::vec::Vec<_> =
                    sockets.clone().chain(plaintext.iter().copied()).map(|program| program.buffer(chances)).collect();
                buffers.sort_unstable();
                assert!(buffers.iter().copied().eq(0..copying_programs(chances, tls)), "{buffers:?}");
            }
        }
    }

    #[test]
    fn slots_are_dense_and_names_differ() {
        for (slot, counter) in (0u32..).zip(KernelCounter::ALL) {
            assert_eq!(*counter as u32, slot);
        }
        for (i, a) in KernelCounter::ALL.iter().enumerate() {
            assert!(KernelCounter::ALL.iter().skip(i + 1).all(|b| a.name() != b.name()));
        }
    }
}
