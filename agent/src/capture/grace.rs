//! From when on every program that ran has ended.
//!
//! A program takes its time stamp, copies, and only then puts the sample into the ring; on a busy or overcommitted
//! machine that can take long. So "drained past T" is not known from the clock. It is known from RCU: programs run
//! inside read-side sections, and `membarrier(MEMBARRIER_CMD_GLOBAL)` returns after a full grace period. Whatever was
//! in a program at T has then left it; one more drain of the rings has it all. No arbitrary time-out, no false loss.
#![expect(unsafe_code, reason = "membarrier and clock_gettime are plain system calls")]

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Where the kernel has no such barrier (nohz_full), time has to do: far longer than any program takes.
const FALLBACK_NS: u64 = 1_000_000_000;
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// CLOCK_MONOTONIC in nanoseconds: the clock of the samples.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC in nanoseconds, now.
#[must_use]
pub fn wall_minus_monotonic_ns() -> i128 {
    i128::from(clock_ns(libc::CLOCK_REALTIME)) - i128::from(monotonic_ns())
}

/// Whether the kernel has the barrier that tells when programs have ended. Without it (nohz_full) time has to do.
#[must_use]
pub fn has_grace_periods() -> bool {
    const MEMBARRIER_CMD_QUERY: libc::c_int = 0;
    // SAFETY: no pointers are passed.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) };
    commands > 0 && commands & libc::c_long::from(MEMBARRIER_CMD_GLOBAL) != 0
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the struct given; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Grace periods on demand, by a thread of their own so that the rings are drained meanwhile.
pub struct Grace {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    passed_ns: AtomicU64,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    again: bool,
    stop: bool,
}

impl Grace {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("grace".to_owned()).spawn(move || of_thread.run())?;
        Ok(Self { shared })
    }

    /// Every program that began before this time has ended. Drain the rings after asking.
    #[must_use]
    pub fn passed_ns(&self) -> u64 {
        self.shared.passed_ns.load(Ordering::Acquire)
    }

    /// Asks for another grace period.
    pub fn request(&self) {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).again = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            while !wanted.again && !wanted.stop {
                wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
            }
            if wanted.stop {
                return;
            }
            wanted.again = false;
            drop(wanted);
            let now = monotonic_ns();
            // SAFETY: no pointers are passed.
            let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
            let passed = if result == 0 { now } else { now.saturating_sub(FALLBACK_NS) };
            self.passed_ns.store(passed, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_grace_period_passes_the_time_of_the_request_or_the_fallback() {
        let grace = Grace::start().unwrap();
        let asked = monotonic_ns();
        // Bounded: each turn asks again, so even the fallback gets there.
        for _ in 0..500 {
            grace.request();
            if grace.passed_ns() >= asked {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no grace period passed");
    }
}
