//! A ring record: `Sample::parse`, then the pipeline takes it whatever it says.
#![no_main]
use libfuzzer_sys::fuzz_target;
use s3auditd_rebuild::pipeline::Pipeline;
use s3auditd_rebuild::sample::Sample;

fuzz_target!(|data: &[u8]| {
    if let Ok(sample) = Sample::parse(data) {
        assert!(sample.payload.is_empty() || sample.payload.len() == sample.header.len as usize);
        let _ends = (sample.local(), sample.remote());
        let mut pipeline = Pipeline::new(s3auditd_fuzz::LIMITS);
        pipeline.take(&sample);
        pipeline.finish(u64::MAX);
        assert_eq!(pipeline.buffered_bytes(), 0);
    }
});
