//! Any documents where records read one: a multi-delete and its reply, and errors behind a status of 200.
#![no_main]
use libfuzzer_sys::fuzz_target;
use s3auditd_rebuild::exchange::BodyStart;
use s3auditd_rebuild::s3::multi_delete::{Limits, MultiDelete};
use s3auditd_rebuild::s3::sts;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let (request, reply) = s3auditd_fuzz::split(data, b"\0");
    let start = |bytes: &[u8]| BodyStart { bytes: bytes.to_vec(), whole: choice & 1 == 0 };
    let limits = Limits { keys: 4, bytes: 100 };
    let deletes = MultiDelete::read(&start(request), &start(reply), limits);
    assert!(deletes.keys.len() <= 4);
    assert!(deletes.keys.iter().map(|key| key.key.len()).sum::<usize>() <= 100);
    let _key = sts::issued_access_key(&start(reply));
    // Whatever a document is, a reply with it becomes a record.
    let samples = [
        format!(
            "POST /b{} HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            if choice & 2 == 0 { "?delete" } else { "/k?uploadId=u" },
            request.len()
        )
        .into_bytes(),
        request.to_vec(),
        format!(
            "HTTP/1.1 {} X\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
            if choice & 4 == 0 { 200 } else { 403 },
            reply.len()
        )
        .into_bytes(),
        reply.to_vec(),
    ];
    let mut stream = vec![4, 255];
    for (index, bytes) in samples.iter().enumerate() {
        for piece in bytes.chunks(1000) {
            stream.extend([u8::from(index >= 2) * 2, 255]);
            stream.extend((piece.len() as u16).to_le_bytes());
            stream.extend(piece);
        }
    }
    let mut maker = s3auditd_fuzz::maker(*choice);
    for exchange in s3auditd_fuzz::run(&s3auditd_fuzz::samples(&stream)) {
        s3auditd_fuzz::record(&mut maker, &exchange);
    }
});
