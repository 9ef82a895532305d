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
    /// Calls of which the entry found no room for its note: nothing is known of them at their return (`kprobe` only).
    NotesRefused = 13, "notes_refused";
    /// Calls that were over when the thread's next one, or its end, found their notes: the kernel did not run the program
    /// at their return (`kprobe` only).
    MissedReturns = 14, "missed_returns";
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
    /// Changes of a connection's state.
    StateChanged = 7,
    /// Ends of sockets.
    Destroyed = 8,
    /// As `StateChanged`, in an interrupt that came while that one ran (docs/decisions/0006-programs-alone.md).
    StateChangedInside = 9,
    /// As `Destroyed`, likewise.
    DestroyedInside = 10,
    /// Changes that `StateChanged` was not run for.
    StateChangedSecond = 11,
    /// Ends, likewise.
    DestroyedSecond = 12,
    /// Changes that neither of the two was run for.
    StateChangedThird = 13,
    /// Ends, likewise.
    DestroyedThird = 14,
    /// Ends of threads.
    ThreadEnded = 15,
}

/// How many programs there are.
pub const PROGRAMS: u32 = 16;

/// How many programs may be attached for one event, where the kernel skips one that is preempted on the same CPU
/// (docs/decisions/0006-programs-alone.md). Each leaves alone what one before it has done.
pub const CHANCES: u32 = 3;

/// How many programs, the first ones, copy payload if each event has that many chances.
#[must_use]
pub const fn copying_programs(chances: u32) -> u32 {
    if chances > 1 { Program::SentThird as u32 + 1 } else { Program::PagesSent as u32 + 1 }
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
        !matches!(
            self,
            Self::Received
                | Self::Sent
                | Self::PagesSent
                | Self::StateChanged
                | Self::Destroyed
                | Self::StateChangedInside
                | Self::DestroyedInside
                | Self::ThreadEnded
        )
    }

    /// Whether a program, as a number, tells of received bytes.
    #[must_use]
    pub const fn receives(program: u32) -> bool {
        matches!(program, 0 | 3 | 5)
    }

    /// Whether it tells of bytes at all, and runs in the task that moved them.
    #[must_use]
    pub const fn copies(program: u32) -> bool {
        program < copying_programs(CHANCES)
    }
}

/// How many slots the array has.
pub const COUNTER_SLOTS: u32 = PROGRAMS * KernelCounter::BANK;

/// Where a [`Program`] counts.
#[must_use]
pub const fn counter_slot(program: u32, counter: KernelCounter) -> u32 {
    program * KernelCounter::BANK + counter as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_know_what_they_do() {
        use Program::{Destroyed, PagesSent, Received, ReceivedSecond, ReceivedThird, Sent, SentSecond, SentThird};
        for program in [Received, ReceivedSecond, ReceivedThird] {
            assert!(Program::receives(program as u32) && Program::copies(program as u32));
        }
        for program in [Sent, SentSecond, SentThird, PagesSent] {
            assert!(!Program::receives(program as u32) && Program::copies(program as u32));
        }
        assert!(!Program::copies(Program::StateChanged as u32) && !Program::copies(Destroyed as u32));
        for chance in 0..CHANCES {
            assert_eq!(Program::received(chance).is_further_chance(), chance > 0);
            assert_eq!(Program::sent(chance).is_further_chance(), chance > 0);
        }
        assert_eq!(PROGRAMS, Program::ThreadEnded as u32 + 1);
        assert!(Program::copies(copying_programs(1) - 1) && copying_programs(1) < copying_programs(CHANCES));
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
