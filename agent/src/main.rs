use s3auditd::capture::{Capture, CaptureSettings};
fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut c = match Capture::start(CaptureSettings {
        ports: vec![port],
        ring_bytes: 4 << 20,
        ring_watermark_bytes: 65536,
        max_connections: 65536,
    }) {
        Ok(c) => c,
        Err(e) => {
            println!("ERR {e}");
            std::process::exit(1)
        }
    };
    println!("READY");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(secs);
    while std::time::Instant::now() < end {
        c.wait(std::time::Duration::from_millis(50));
        c.drain(|s| {
            let h = &s.header;
            let p = &s.payload[..s.payload.len().min(40)];
            println!(
                "{:?} {:?} {:?} {}<-{} seq={} other={} len={} copied={} lost={} tgid={} comm={:?} {:?}",
                s.kind,
                s.unseen,
                s.role,
                s.local(),
                s.remote(),
                h.seq,
                h.other_seq,
                h.len,
                h.copied,
                h.lost,
                h.tgid,
                String::from_utf8_lossy(&h.comm),
                String::from_utf8_lossy(p)
            );
        });
    }
    println!("{:#?}", c.status());
}
