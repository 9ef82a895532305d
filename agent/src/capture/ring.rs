//! The perf rings, one a CPU: opened with a byte watermark, read in place.
//!
//! aya 0.14's reader wakes for every event, which halved a busy gateway's throughput; the kernel wakes this one only
//! when a ring holds `watermark` bytes, and the caller's own timer flushes the rest.
#![expect(unsafe_code, reason = "perf_event_open, mmap and the ring's memory protocol have no safe interface")]

use aya::maps::{MapData, MapError};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// `struct perf_event_attr` as far as it is used, of the first published size (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
const PERF_SAMPLE_RAW: u64 = 1 << 10;
/// Bit `watermark` of the attribute flags.
const FLAG_WATERMARK: u64 = 1 << 14;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Offsets of `data_head` and `data_tail` in the control page (`struct perf_event_mmap_page`).
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// What a ring holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The bytes that a program put there, and up to 7 of padding.
    Sample(&'a [u8]),
    /// The kernel's own report of records that did not fit.
    Lost(u64),
    /// Bytes that make no sense; they are given up. Never seen.
    Nonsense(u64),
}

/// One CPU's ring.
pub struct Ring {
    cpu: u32,
    event: OwnedFd,
    memory: Mapping,
    /// Size of the data area: a power of two.
    size: usize,
    /// A record that wraps is put together here.
    wrapped: Vec<u8>,
}

struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned; the only concurrent writer is the kernel, by the ring's protocol.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what mmap gave.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Ring {
    /// Opens a CPU's ring and puts it into the perf event array `events`.
    ///
    /// # Errors
    /// What the kernel answers; `ring_bytes` must be a power of two of at least a page.
    pub fn open(events: &MapData, cpu: u32, ring_bytes: usize, watermark: u32) -> io::Result<Self> {
        let attr = PerfEventAttr {
            kind: PERF_TYPE_SOFTWARE,
            size: u32::try_from(size_of::<PerfEventAttr>()).unwrap_or(0),
            config: PERF_COUNT_SW_BPF_OUTPUT,
            sample_period: 1,
            sample_type: PERF_SAMPLE_RAW,
            flags: FLAG_WATERMARK,
            wakeup_watermark: watermark,
            ..PerfEventAttr::default()
        };
        // SAFETY: the attribute lives through the call; the result is checked.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let len = page_size() + ring_bytes;
        // SAFETY: a new mapping of the event's ring; the result is checked.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        let memory = Mapping { base, len };
        // SAFETY: an open perf event.
        if unsafe { libc::ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        set_map_entry(events, cpu, fd)?;
        Ok(Self { cpu, event, memory, size: ring_bytes, wrapped: Vec::new() })
    }

    /// Which CPU's.
    #[must_use]
    pub const fn cpu(&self) -> u32 {
        self.cpu
    }

    /// How far the kernel has written, and how far we have read.
    fn ends(&self) -> (u64, &AtomicU64) {
        // SAFETY: the control page is mapped, aligned, and both words are written atomically by their sides.
        unsafe {
            let base = self.memory.base.as_ptr();
            let head = AtomicU64::from_ptr(base.add(DATA_HEAD).cast()).load(Ordering::Acquire);
            (head, AtomicU64::from_ptr(base.add(DATA_TAIL).cast()))
        }
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn holds(&self) -> u64 {
        let (head, tail) = self.ends();
        head.saturating_sub(tail.load(Ordering::Relaxed))
    }

    /// Hands over every entry that the ring holds now, in its order, and frees their space.
    pub fn drain(&mut self, mut each: impl FnMut(Entry<'_>)) {
        let mut wrapped = std::mem::take(&mut self.wrapped);
        let (head, tail_word) = self.ends();
        // SAFETY: the data area follows the control page; the kernel does not write between tail and head.
        let data = unsafe { std::slice::from_raw_parts(self.memory.base.as_ptr().add(page_size()), self.size) };
        let mut tail = tail_word.load(Ordering::Relaxed);
        while tail < head {
            let Some((kind, record)) = record_at(data, tail, head, &mut wrapped) else {
                each(Entry::Nonsense(head - tail));
                break;
            };
            tail += record.len() as u64;
            match kind {
                PERF_RECORD_SAMPLE => each(Entry::Sample(raw_data(record))),
                // header, id, lost
                PERF_RECORD_LOST => each(Entry::Lost(u64_at(record, 16).unwrap_or(0))),
                _ => {}
            }
        }
        tail_word.store(head, Ordering::Release);
        self.wrapped = wrapped;
    }
}

/// The record at `tail`, whole; None: the ring's bytes make no sense.
fn record_at<'a>(data: &'a [u8], tail: u64, head: u64, wrapped: &'a mut Vec<u8>) -> Option<(u32, &'a [u8])> {
    let mask = data.len() as u64 - 1;
    let start = usize::try_from(tail & mask).ok()?;
    // Headers are 8 bytes and aligned to 8, so they never wrap.
    let header = data.get(start..start + 8)?;
    let kind = u32::from_ne_bytes(header.get(..4)?.try_into().ok()?);
    let len = usize::from(u16::from_ne_bytes(header.get(6..8)?.try_into().ok()?));
    if len < 8 || len as u64 > head - tail {
        return None;
    }
    if let Some(record) = data.get(start..start + len) {
        return Some((kind, record));
    }
    wrapped.clear();
    wrapped.extend_from_slice(data.get(start..)?);
    wrapped.extend_from_slice(data.get(..len - wrapped.len())?);
    Some((kind, wrapped))
}

/// The raw bytes of a sample record: header, u32 size, bytes.
fn raw_data(record: &[u8]) -> &[u8] {
    let size = record.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    record.get(12..12 + size as usize).unwrap_or_default()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// Waits until a ring has reached its watermark, at most `timeout`.
pub fn wait(rings: &[Ring], timeout: Duration) {
    let mut polled: Vec<libc::pollfd> = rings
        .iter()
        .map(|ring| libc::pollfd { fd: ring.event.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // A signal or an error ends the wait early, which is harmless: the caller drains either way.
    // SAFETY: the array lives through the call and has the length given.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
}

/// Size of a page.
#[must_use]
pub fn page_size() -> usize {
    // SAFETY: no arguments that could be wrong.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Puts the perf event `fd` at index `cpu` of a perf event array: aya offers that only together with its own reader.
fn set_map_entry(map: &MapData, cpu: u32, fd: RawFd) -> io::Result<()> {
    #[repr(C)]
    struct UpdateElement {
        map_fd: u32,
        reserved: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    let map_fd: BorrowedFd<'_> = map.fd().as_fd();
    let attr = UpdateElement {
        map_fd: u32::try_from(map_fd.as_raw_fd()).map_err(io::Error::other)?,
        reserved: 0,
        key: &raw const cpu as u64,
        value: &raw const fd as u64,
        flags: 0,
    };
    // SAFETY: key and value are 4 bytes each, as the map wants, and live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attr, size_of::<UpdateElement>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// aya's error for a map that is not there.
pub(super) fn missing(name: &str) -> MapError {
    MapError::InvalidName { name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(u16::try_from(8 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_record_that_wraps_comes_out_whole() {
        let whole = record(PERF_RECORD_SAMPLE, b"\x0c\0\0\0hello world!padding!"); // 32 bytes
        for start in (0..64_usize).step_by(8) {
            let mut data = vec![0; 64];
            for (i, byte) in whole.iter().enumerate() {
                data[(start + i) % 64] = *byte;
            }
            let (mut scratch, tail) = (Vec::new(), 640 + start as u64);
            let (kind, found) = record_at(&data, tail, tail + 32, &mut scratch).unwrap();
            assert_eq!((kind, raw_data(found)), (PERF_RECORD_SAMPLE, b"hello world!".as_slice()), "start {start}");
        }
    }

    #[test]
    fn nonsense_in_the_ring_is_given_up_and_never_a_panic() {
        let mut scratch = Vec::new();
        assert_eq!(record_at(&[0; 64], 0, 64, &mut scratch), None);
        assert_eq!(record_at(&[0xff; 64], 0, 64, &mut scratch), None);
        assert_eq!(raw_data(&record(PERF_RECORD_SAMPLE, &[0xff; 8])), b"");
        assert_eq!(raw_data(b""), b"");
    }
}
