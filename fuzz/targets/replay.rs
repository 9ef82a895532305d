//! Any file for `s3auditd replay`: a recording, or lines of conversations.
#![no_main]
use libfuzzer_sys::fuzz_target;
use s3auditd_rebuild::replay::conversation::{Line, Reader};
use s3auditd_rebuild::replay::recording::{Frame, MAGIC, PREAMBLE_BYTES, check_preamble};

fuzz_target!(|data: &[u8]| {
    let mut samples = Vec::new();
    if data.starts_with(MAGIC) {
        let Some((preamble, mut rest)) = data.split_at_checked(PREAMBLE_BYTES) else { return };
        if check_preamble(preamble).is_err() {
            return;
        }
        while let Ok(Some((frame, used))) = Frame::read(rest) {
            let mut written = Vec::new();
            frame.write(&mut written);
            // The end's cause is a number of which one bit counts.
            assert!(written == rest[..used] || matches!(frame, Frame::End { .. }));
            rest = &rest[used..];
            if let Frame::Sample(sample) = frame {
                samples.push(sample);
            }
        }
    } else {
        let mut reader = Reader::default();
        let mut bytes = 0;
        for text in data.split(|byte| *byte == b'\n') {
            let Ok(line) = Line::parse(text) else { continue };
            // Long runs are legal, and slow here.
            let runs = text.windows(6).any(|window| window.iter().all(u8::is_ascii_digit));
            if let Some(made) = (!runs).then(|| reader.take(&line).ok()).flatten() {
                bytes += made.iter().map(|sample| sample.payload.len()).sum::<usize>();
                samples.extend(made);
            }
            if bytes > 1 << 20 {
                break;
            }
        }
    }
    s3auditd_fuzz::run(&samples);
});
