//! Memory that was freed, back to the system.
#![expect(unsafe_code, reason = "malloc_trim has no safe interface")]

/// Gives back what the heap keeps for later: the kernel's types were read from 6 MB of BTF at the start, and a burst leaves its
/// largest queue behind. It takes milliseconds, and whoever allocates meanwhile waits: for times of rest.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers are passed; glibc locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}
