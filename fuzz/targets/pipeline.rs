//! Any sequence of samples: assembler, HTTP, records, and what a recording makes of it.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let mut maker = s3auditd_fuzz::maker(*choice);
    for exchange in s3auditd_fuzz::run(&s3auditd_fuzz::samples(data)) {
        s3auditd_fuzz::record(&mut maker, &exchange);
    }
});
