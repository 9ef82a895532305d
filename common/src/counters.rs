//! The kernel side's own counters: a per-CPU array, one slot a variant.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// A slot of the per-CPU counter array. Adding one here gives it a slot, a name and a place in `status`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum KernelCounter { $($(#[doc = $doc])+ $variant = $value,)+ }

        impl KernelCounter {
            /// Every counter, in slot order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

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
    /// Times that every scratch buffer of this CPU was busy.
    ScratchBusy = 7, "scratch_busy";
    /// User buffers that could not be read.
    Faults = 8, "faults";
    /// Calls whose registers the io_uring guard rejected.
    GuardRejects = 9, "guard_rejects";
    /// Calls on watched ports by sockets that the gateway had connected itself.
    NotAccepted = 10, "not_accepted";
    /// Bytes that moved on watched connections without being seen, for whatever cause but a skip window.
    UnseenBytes = 11, "unseen_bytes";
}

/// How many slots the array has.
pub const KERNEL_COUNTERS: u32 = KernelCounter::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

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
