//! The kernel side's counters, read all at once: one call from Linux 5.13 on, before that one for each slot.
#![expect(unsafe_code, reason = "aya has no look-up of many elements at once")]

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use s3auditd_common::counters::{COUNTER_SLOTS, KernelCounter};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// See the module.
pub(super) struct Counters {
    map: Map,
    possible_cpus: usize,
    /// Whether the kernel reads many elements of a per-CPU array at once; not asked again once it has refused.
    at_once: bool,
}

/// What they were at one moment.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Counts {
    possible_cpus: usize,
    /// Slot by slot, of each a value for every possible CPU.
    values: Vec<u64>,
}

impl Counters {
    /// # Errors
    /// It is no per-CPU array of counters.
    pub(super) fn new(map: Map, possible_cpus: usize) -> Result<Self, MapError> {
        PerCpuArray::<&MapData, u64>::try_from(&map)?;
        Ok(Self { map, possible_cpus, at_once: true })
    }

    /// All of them, now.
    pub(super) fn read(&mut self) -> Counts {
        let possible_cpus = self.possible_cpus;
        if self.at_once {
            if let Some(values) = at_once(&self.map, possible_cpus) {
                return Counts { possible_cpus, values };
            }
            self.at_once = false;
        }
        Counts { possible_cpus, values: one_by_one(&self.map, possible_cpus) }
    }
}

impl Counts {
    /// How many CPUs may ever be there.
    pub(super) fn possible_cpus(&self) -> u32 {
        u32::try_from(self.possible_cpus).unwrap_or(u32::MAX)
    }

    /// Of all programs, and what they share.
    pub(super) fn of(&self, counter: KernelCounter, cpu: u32) -> u64 {
        let bank = KernelCounter::ALL.len() * self.possible_cpus;
        let place = counter as usize * self.possible_cpus + cpu as usize;
        self.values
            .chunks(bank.max(1))
            .filter_map(|bank| bank.get(place))
            .fold(0, |sum, value| sum.wrapping_add(*value))
    }

    /// Samples that the ring of each possible CPU refused.
    pub(super) fn refused_by_cpu(&self) -> Vec<u64> {
        (0..self.possible_cpus()).map(|cpu| self.of(KernelCounter::LostRingRefused, cpu)).collect()
    }
}

/// None: the kernel does not do that.
fn at_once(map: &Map, possible_cpus: usize) -> Option<Vec<u64>> {
    /// `union bpf_attr`, the part for batches.
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    let Map::PerCpuArray(map) = map else { return None };
    let slots = COUNTER_SLOTS as usize;
    let (mut values, mut keys, mut last) = (vec![0u64; slots * possible_cpus], vec![0u32; slots], 0u32);
    let mut batch = Batch {
        in_batch: 0,
        out_batch: &raw mut last as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: COUNTER_SLOTS,
        map_fd: u32::try_from(map.fd().as_fd().as_raw_fd()).ok()?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys of 4 bytes, as many values of 8 bytes for each possible CPU, and one key
    // more; there is room for them, and all of it lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
    // That there are no more elements is an answer, too.
    let answered = result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
    let in_order = keys.iter().zip(0..).all(|(key, slot)| *key == slot);
    (answered && batch.count == COUNTER_SLOTS && in_order).then_some(values)
}

fn one_by_one(map: &Map, possible_cpus: usize) -> Vec<u64> {
    let mut values = vec![0; COUNTER_SLOTS as usize * possible_cpus];
    let Ok(map) = PerCpuArray::<&MapData, u64>::try_from(map) else { return values };
    for (slot, to) in (0..).zip(values.chunks_mut(possible_cpus.max(1))) {
        // A slot that cannot be read counts nothing; that never happens to an array.
        for (to, value) in to.iter_mut().zip(map.get(&slot, 0).iter().flat_map(|values| values.iter())) {
            *to = *value;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_banks_add_up_for_each_cpu() {
        let banks = COUNTER_SLOTS as usize / KernelCounter::ALL.len();
        let refused = KernelCounter::LostRingRefused as usize;
        let mut counts = Counts { possible_cpus: 2, values: vec![0; COUNTER_SLOTS as usize * 2] };
        for bank in 0..banks {
            let slot = bank * KernelCounter::ALL.len() + refused;
            counts.values[slot * 2] = 1;
            counts.values[slot * 2 + 1] = 10;
        }
        let banks = banks as u64;
        assert_eq!(counts.refused_by_cpu(), [banks, banks * 10]);
        assert_eq!(counts.of(KernelCounter::Emitted, 0), 0);
        assert_eq!(counts.of(KernelCounter::LostRingRefused, 2), 0, "a CPU that cannot be");
    }
}
