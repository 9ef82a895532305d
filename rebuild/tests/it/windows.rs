//! Large bodies against a model of the kernel side: they do not cross the ring, and no head is lost for it.

use crate::kernel::{Bytes, Kernel, length};
use crate::support::render;
use s3auditd_common::sample::Direction::{Received, Sent};
use s3auditd_rebuild::exchange::Completion;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const NEXT: &[u8] = b"GET /b/next HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Every exchange complete, with these body lengths.
fn assert_bodies(kernel: &Kernel, bodies: &[(u64, u64)]) {
    let text = render(&kernel.exchanges);
    let found: Vec<_> = kernel.exchanges.iter().map(|one| (one.request_body_bytes, one.response_body_bytes)).collect();
    assert_eq!(found, bodies, "{text}");
    for one in &kernel.exchanges {
        assert_eq!(one.completion, Completion::Complete, "{text}");
        assert!(one.request.is_some() && one.response.is_some() && one.oddities.is_empty(), "{text}");
    }
    assert_eq!(kernel.pipeline.counters().lost_bytes, 0);
}

#[test]
fn five_gib_up_and_down_with_the_next_head_right_behind() {
    for (delay, call) in [(0, MIB), (1, MIB), (3, 100_001), (0, 700_000_000)] {
        let mut kernel = Kernel::new(delay);
        let head = format!("PUT /b/k HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 5 * GIB + 7);
        kernel.text(Received, head.as_bytes());
        // A call that moves more than the whole run budget can bring no head behind it: what it moves was withheld.
        let pipelined = call <= MIB;
        kernel.body(Received, 5 * GIB + 7, call, if pipelined { NEXT } else { b"" });
        kernel.text(Sent, OK);
        if !pipelined {
            kernel.text(Received, NEXT);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3 * GIB);
        kernel.text(Sent, head.as_bytes());
        kernel.body(Sent, 3 * GIB, call, b"");
        kernel.text(Received, NEXT);
        kernel.text(Sent, OK);
        kernel.close();
        assert_bodies(&kernel, &[(5 * GIB + 7, 0), (0, 3 * GIB), (0, 0)]);
        let counters = kernel.pipeline.counters();
        assert!(counters.seen_bytes < 16 * MIB, "{counters:?}");
        assert!(counters.skip_windows <= 9, "{counters:?}");
    }
}

#[test]
fn windows_that_never_arrive() {
    let mut kernel = Kernel::new(usize::MAX / 2);
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nContent-Length: 5368709120\r\n\r\n");
    kernel.body(Received, 5 * GIB, MIB, b"");
    kernel.text(Sent, OK);
    kernel.text(Received, NEXT);
    kernel.text(Sent, OK);
    kernel.close();
    assert_bodies(&kernel, &[(5 * GIB, 0), (0, 0)]);
    let counters = kernel.pipeline.counters();
    // The kernel side takes no body for longer than 1 GiB by itself, and has the run budget behind that.
    assert!(counters.received_skipped_bytes > 4 * GIB && counters.seen_bytes < 2 * MIB, "{counters:?}");
    assert_eq!(counters.unseen_withheld_bytes, 0, "what nobody needs is not missing");
}

/// An object's reply, its length told.
fn object(bytes: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n")
}

#[test]
fn bodies_that_a_head_announces_are_withheld_before_any_word() {
    for call in [4096, 32 * 1024, 100_001, MIB, 64 * MIB] {
        let mut kernel = Kernel::new(usize::MAX / 2);
        for _ in 0..4 {
            // A first byte alone: how Go's server takes up a request while it serves another.
            kernel.text(Received, b"P");
            let put = "UT /b/k HTTP/1.1\r\nContent-Length: 67108864\r\n\r\n".as_bytes();
            kernel.call(Received, &[Bytes::Text(put.to_vec()), Bytes::Zeros(4096)]);
            // The next head in the call that brings the body's end.
            kernel.body(Received, 64 * MIB - 4096, call, NEXT);
            kernel.text(Sent, OK);
            kernel.text(Sent, OK);
            kernel.text(Received, NEXT);
            kernel.call(Sent, &[Bytes::Text(object(64 * MIB).into_bytes()), Bytes::Zeros(8192)]);
            kernel.body(Sent, 64 * MIB - 8192, call, b"");
        }
        kernel.close();
        let all = [(64 * MIB, 0), (0, 0), (0, 64 * MIB)].repeat(4);
        assert_bodies(&kernel, &all);
        let counters = kernel.pipeline.counters();
        assert!(counters.seen_bytes < 64 * 1024, "{call}: {counters:?}");
        assert_eq!(counters.unseen_withheld_bytes, 0);
    }
}

#[test]
fn bodies_in_chunks_are_followed_before_any_word() {
    // As botocore has it: each chunk of its own coding in one of HTTP's, the checksum in the last one that is not empty.
    const LAST: &[u8] = b"24\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n\r\n0\r\n\r\n";
    // Longer than the buffer into which nginx receives heads.
    let agent = "boto3 ".repeat(160);
    let head = format!("PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUser-Agent: {agent}\r\nHost: h\r\n\r\n");
    let mut upload = vec![Bytes::Text(head.into_bytes())];
    for nth in 0..20 {
        let bytes = MIB + nth * nth;
        let line = format!("{bytes:x}\r\n").into_bytes();
        upload.extend([Bytes::Text(line), Bytes::Zeros(bytes), Bytes::Text(b"\r\n".to_vec())]);
    }
    upload.push(Bytes::Text(LAST.to_vec()));
    for (delay, call) in [0, 3, usize::MAX / 2]
        .into_iter()
        .flat_map(|delay| [999, 4096, 4099, 16_384, 16_381, 32_768, 100_001, MIB].map(|call| (delay, call)))
    {
        let mut kernel = Kernel::new(delay);
        for _ in 0..2 {
            kernel.calls(Received, &upload, call);
            kernel.text(Sent, OK);
            kernel.text(Received, NEXT);
            kernel.text(Sent, OK);
        }
        kernel.close();
        let counters = kernel.pipeline.counters();
        assert_eq!(counters.unseen_withheld_bytes, 0, "{delay} {call}: {counters:?}");
        assert!(counters.seen_bytes < 64 * 1024, "{delay} {call}: {counters:?}");
        let body = upload.iter().skip(1).map(length).sum();
        assert_bodies(&kernel, &[(body, 0), (0, 0), (body, 0), (0, 0)]);
    }
}

#[test]
fn a_request_instead_of_a_body_in_chunks_is_looked_at() {
    let mut kernel = Kernel::new(usize::MAX / 2);
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    kernel.text(Sent, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nContent-Length: 67108864\r\n\r\n");
    kernel.body(Received, 64 * MIB, 16_384, b"");
    kernel.text(Sent, OK);
    kernel.close();
    let counters = kernel.pipeline.counters();
    assert!(counters.seen_bytes < 64 * 1024, "{counters:?}");
    let bodies: Vec<_> = kernel.exchanges.iter().map(|one| (one.completion, one.request_body_bytes)).collect();
    assert_eq!(bodies, [(Completion::Complete, 0), (Completion::Complete, 64 * MIB)]);
}

#[test]
fn a_length_without_a_body_hides_no_reply() {
    const HEAD: &[u8] = b"HEAD /b/k HTTP/1.1\r\n\r\n";
    let reply = object(64 * MIB);
    let (head_reply, small) = (reply.as_bytes(), object(2));
    for pipelined in [false, true] {
        let mut kernel = Kernel::new(usize::MAX / 2);
        if pipelined {
            kernel.call(Received, &[Bytes::Text([HEAD, NEXT].concat())]);
            kernel.call(Sent, &[Bytes::Text([head_reply, small.as_bytes(), b"ok"].concat())]);
        } else {
            kernel.text(Received, HEAD);
            kernel.text(Sent, head_reply);
            kernel.text(Received, NEXT);
            kernel.text(
                Sent,
                b"HTTP/1.1 304 Not Modified\r\nContent-Type: text/plain\r\nContent-Length: 67108864\r\n\r\n",
            );
            kernel.text(Received, NEXT);
            kernel.text(Sent, &[small.as_bytes(), b"ok"].concat());
        }
        kernel.close();
        assert_bodies(&kernel, if pipelined { &[(0, 0), (0, 2)] } else { &[(0, 0), (0, 0), (0, 2)] });
        assert_eq!(kernel.pipeline.counters().unseen_withheld_bytes, 0);
    }
}

#[test]
fn a_body_that_is_waited_for_is_withheld_behind_the_turn() {
    let mut kernel = Kernel::new(usize::MAX / 2);
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 67108864\r\n\r\n");
    kernel.text(Sent, b"HTTP/1.1 100 Continue\r\n\r\n");
    kernel.body(Received, 64 * MIB, 100_000, b"");
    kernel.text(Sent, OK);
    // Refused: the next head comes instead of the body, and is read.
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 67108864\r\n\r\n");
    kernel.text(Sent, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let field = format!("GET /b/next HTTP/1.1\r\nX-Long: {}\r\n\r\n", "a".repeat(500_000));
    kernel.text(Received, field.as_bytes());
    kernel.text(Sent, OK);
    kernel.close();
    let bodies: Vec<_> = kernel.exchanges.iter().map(|one| (one.request_body_bytes, one.completion)).collect();
    assert_eq!(bodies, [64 * MIB, 0, 0].map(|bytes| (bytes, Completion::Complete)));
    let counters = kernel.pipeline.counters();
    assert!(counters.seen_bytes < MIB && counters.unseen_withheld_bytes == 0, "{counters:?}");
}

#[test]
fn an_upload_refused_in_the_middle_of_what_is_withheld() {
    let mut kernel = Kernel::new(usize::MAX / 2);
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nContent-Length: 67108864\r\n\r\n");
    kernel.body(Received, 300_000, 100_000, b"");
    kernel.text(Sent, b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n");
    kernel.body(Received, 100_000, 100_000, b"");
    kernel.close();
    assert_eq!(kernel.exchanges[0].request_body_bytes, 400_000);
    let counters = kernel.pipeline.counters();
    assert_eq!((counters.lost_bytes, counters.unseen_withheld_bytes), (0, 0), "{counters:?}");
}

#[test]
fn large_chunks_are_skipped_and_their_framing_is_seen() {
    for delay in [0, 1, 3] {
        let mut kernel = Kernel::new(delay);
        kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = 64 * MIB;
        let framing = format!("{chunk:x}\r\n");
        let chunks = 3 * GIB / chunk;
        for _ in 0..chunks {
            kernel.text(Received, framing.as_bytes());
            kernel.body(Received, chunk, 150_000, b"\r\n");
        }
        kernel.text(Received, b"0\r\n\r\nGET /b/next HTTP/1.1\r\n\r\n");
        kernel.text(Sent, OK);
        kernel.text(Sent, OK);
        kernel.close();
        assert_bodies(&kernel, &[(3 * GIB + chunks * (framing.len() as u64 + 2) + 5, 0), (0, 0)]);
        let counters = kernel.pipeline.counters();
        assert!(counters.seen_bytes < chunks * 6 * MIB, "{counters:?}");
    }
}

#[test]
fn small_chunks_are_wanted() {
    for delay in [0, 1, 4] {
        let mut kernel = Kernel::new(delay);
        kernel.text(Received, NEXT);
        kernel.text(Sent, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3200 {
            kernel.text(Sent, b"8000\r\n");
            kernel.body(Sent, 0x8000, MIB, b"\r\n");
        }
        kernel.text(Sent, b"0\r\n\r\n");
        kernel.text(Received, NEXT);
        kernel.text(Sent, OK);
        kernel.close();
        assert_bodies(&kernel, &[(0, 3200 * (0x8000 + 8) + 5), (0, 0)]);
        assert_eq!(kernel.pipeline.counters().unseen_withheld_bytes, 0);
    }
}

#[test]
fn a_body_that_ends_with_the_connection() {
    let mut kernel = Kernel::new(1);
    kernel.text(Received, NEXT);
    kernel.text(Sent, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    kernel.body(Sent, 5 * GIB + 3, MIB, b"");
    kernel.close();
    assert_bodies(&kernel, &[(0, 5 * GIB + 3)]);
    assert!(kernel.pipeline.counters().seen_bytes < 4 * MIB);
}

#[test]
fn other_protocols_cost_little() {
    let mut kernel = Kernel::new(1);
    kernel.text(Received, b"\x16\x03\x01\x02");
    kernel.body(Sent, 5 * GIB, MIB, b"");
    kernel.body(Received, 5 * GIB, MIB, b"");
    kernel.close();
    let counters = kernel.pipeline.counters();
    assert_eq!(counters.tls_connections, 1);
    assert!(counters.seen_bytes < 8 * MIB, "{counters:?}");
    assert_eq!(counters.opaque_bytes, 10 * GIB + 4);
}

#[test]
fn an_upload_cut_off_inside_a_window() {
    let mut kernel = Kernel::new(0);
    kernel.text(Received, b"PUT /b/k HTTP/1.1\r\nContent-Length: 5368709120\r\n\r\n");
    for _ in 0..100 {
        kernel.body(Received, MIB, MIB, b"");
    }
    // The refusal in the middle of the body tells by its position how much had been received.
    kernel.text(Sent, b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n");
    kernel.body(Received, MIB, MIB, b"");
    kernel.close();
    let one = &kernel.exchanges[0];
    assert_eq!(one.completion, Completion::GatewayAborted);
    assert_eq!(one.request_body_bytes, 101 * MIB);
    assert_eq!(kernel.pipeline.counters().lost_bytes, 0);
}

#[test]
fn a_head_of_one_mib_behind_another_exchange() {
    let mut kernel = Kernel::new(0);
    for _ in 0..2 {
        let field = format!("X-Long: {}\r\n", "a".repeat(999_000));
        kernel.text(Received, format!("GET /b/k HTTP/1.1\r\n{field}\r\n").as_bytes());
        kernel.text(Sent, OK);
    }
    kernel.close();
    assert_bodies(&kernel, &[(0, 0), (0, 0)]);
}
