//! Recordings: scrubbed samples in a binary file.
//!
//! ```text
//! file:   "S3AUDREC", version (u32), size of a sample header (u32), frames
//! frame:  length of what follows (u32), kind (u8), body
//! kinds:  1 clock: wall time minus CLOCK_MONOTONIC in nanoseconds (i128)
//!         2 sample: a `SampleHeader`, then its payload
//!         3 drained: every sample of what happened before this time (u64 nanoseconds) stands before this frame
//!         4 end: 0 the agent stopped, 1 the file's limit was reached; then a time (u64 nanoseconds)
//! ```
//! Numbers have the byte order of the machine that recorded, as in the ring: on another one the version makes no sense.

use crate::sample::{OwnedSample, Sample, SampleError};
use s3auditd_common::sample::{MAX_PIECE_BYTES, SampleHeader};
use zerocopy::IntoBytes as _;

/// What a recording begins with.
pub const MAGIC: &[u8; 8] = b"S3AUDREC";
/// Changes with the layout of frames or of the sample header.
pub const VERSION: u32 = 1;
/// Length of what stands before the first frame.
pub const PREAMBLE_BYTES: usize = 16;
/// No frame's length field says more.
pub const MAX_FRAME_BYTES: usize = 1 + size_of::<SampleHeader>() + MAX_PIECE_BYTES;

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent stopped.
    Stopped,
    /// The limit of the file was reached; the agent went on.
    Full,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Kind 1.
    Clock {
        /// See `record::Clock`.
        wall_minus_monotonic_ns: i128,
    },
    /// Kind 2.
    Sample(OwnedSample),
    /// Kind 3.
    Drained {
        /// See `Pipeline::advance`.
        until_ns: u64,
    },
    /// Kind 4.
    End {
        /// Why.
        end: End,
        /// See `Pipeline::finish`.
        now_ns: u64,
    },
}

/// Why bytes are no recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// It does not begin with [`MAGIC`].
    #[error("not a recording")]
    Magic,
    /// Another build's, or another byte order.
    #[error("a recording of version {version} with sample headers of {header_bytes} bytes; this s3auditd reads version {VERSION} with {}", size_of::<SampleHeader>())]
    Version {
        /// As found.
        version: u32,
        /// As found.
        header_bytes: u32,
    },
    /// A frame is longer than any can be, or shorter than its kind.
    #[error("a frame of {0} bytes cannot be")]
    Length(usize),
    /// A kind that stands for nothing.
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    /// See [`SampleError`].
    #[error("{0}")]
    Sample(#[from] SampleError),
}

/// What a recording begins with.
#[must_use]
pub fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    let header_bytes = u32::try_from(size_of::<SampleHeader>()).unwrap_or(0);
    let all = MAGIC.iter().copied().chain(VERSION.to_ne_bytes()).chain(header_bytes.to_ne_bytes());
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    bytes
}

/// Checks the first [`PREAMBLE_BYTES`] of a file.
///
/// # Errors
/// See [`RecordingError`].
pub fn check_preamble(bytes: &[u8]) -> Result<(), RecordingError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(RecordingError::Magic)?;
    let (version, rest) = rest.split_first_chunk().ok_or(RecordingError::Magic)?;
    let (header_bytes, _) = rest.split_first_chunk().ok_or(RecordingError::Magic)?;
    let (version, header_bytes) = (u32::from_ne_bytes(*version), u32::from_ne_bytes(*header_bytes));
    if version == VERSION && usize::try_from(header_bytes) == Ok(size_of::<SampleHeader>()) {
        Ok(())
    } else {
        Err(RecordingError::Version { version, header_bytes })
    }
}

impl Frame {
    /// Appends the frame as it stands in the file.
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend([0; 4]);
        match self {
            Self::Clock { wall_minus_monotonic_ns } => {
                out.push(1);
                out.extend(wall_minus_monotonic_ns.to_ne_bytes());
            }
            Self::Sample(sample) => {
                out.push(2);
                out.extend(sample.header.as_bytes());
                out.extend(&sample.payload);
            }
            Self::Drained { until_ns } => {
                out.push(3);
                out.extend(until_ns.to_ne_bytes());
            }
            Self::End { end, now_ns } => {
                out.push(4);
                out.push(u8::from(*end == End::Full));
                out.extend(now_ns.to_ne_bytes());
            }
        }
        let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX).to_ne_bytes();
        out.iter_mut().skip(at).zip(length).for_each(|(to, from)| *to = from);
    }

    /// Reads the frame at the beginning of `bytes`, and says how long it is in the file. `None`: it goes on beyond them.
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, RecordingError> {
        let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_FRAME_BYTES {
            return Err(RecordingError::Length(length));
        }
        let Some((kind, body)) = rest.get(..length).and_then(<[u8]>::split_first) else { return Ok(None) };
        let wrong = RecordingError::Length(length);
        let frame = match kind {
            1 => {
                let wall_minus_monotonic_ns = i128::from_ne_bytes(body.try_into().map_err(|_| wrong)?);
                Self::Clock { wall_minus_monotonic_ns }
            }
            2 => {
                let Sample { header, payload, .. } = Sample::parse(body)?;
                if size_of::<SampleHeader>() + payload.len() != body.len() {
                    return Err(wrong);
                }
                Self::Sample(OwnedSample { header, payload: payload.to_vec() })
            }
            3 => Self::Drained { until_ns: u64::from_ne_bytes(body.try_into().map_err(|_| wrong)?) },
            4 => {
                let (end, now_ns) = body.split_first().ok_or(wrong)?;
                let end = if *end == 0 { End::Stopped } else { End::Full };
                Self::End { end, now_ns: u64::from_ne_bytes(now_ns.try_into().map_err(|_| wrong)?) }
            }
            other => return Err(RecordingError::Kind(*other)),
        };
        Ok(Some((frame, 4 + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    #[test]
    fn frames_come_back_and_a_cut_one_waits() {
        let mut header = SampleHeader::new_zeroed();
        (header.kind, header.len, header.copied) = (1, 3, 3);
        let frames = [
            Frame::Clock { wall_minus_monotonic_ns: -5 },
            Frame::Sample(OwnedSample { header, payload: b"abc".to_vec() }),
            Frame::Drained { until_ns: 7 },
            Frame::End { end: End::Full, now_ns: 9 },
        ];
        for frame in frames {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(Frame::read(&bytes[..cut]), Ok(None));
            }
            let length = bytes.len();
            bytes.push(1);
            assert_eq!(Frame::read(&bytes), Ok(Some((frame, length))));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(check_preamble(&preamble()), Ok(()));
        assert_eq!(check_preamble(b"{\"connection\":1}"), Err(RecordingError::Magic));
        let mut other = preamble();
        other[8] = 9;
        assert_eq!(check_preamble(&other), Err(RecordingError::Version { version: 9, header_bytes: 112 }));
        assert_eq!(Frame::read(&[255, 255, 255, 255]), Err(RecordingError::Length(u32::MAX as usize)));
        assert_eq!(Frame::read(&[1, 0, 0, 0, 9]), Err(RecordingError::Kind(9)));
        assert_eq!(Frame::read(&[2, 0, 0, 0, 3, 9]), Err(RecordingError::Length(2)));
    }
}
