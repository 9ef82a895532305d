//! Connections whose TLS is read where the gateway has it: samples of the socket first, then of plaintext.

use crate::support::{LATER_NS, Owned, RECEIVED_FROM, SENT_FROM, assert_balanced, exchanges, samples};
use s3auditd_common::sample::{Kind, Layer, Role};
use s3auditd_rebuild::exchange::Completion;
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};

/// The client's first records: a hello, the change of ciphers, its end of the handshake, and data.
fn ciphertext() -> Vec<u8> {
    let record = |kind: u8, len: u8| [vec![kind, 3, 3, 0, len], vec![0xa7; usize::from(len)]].concat();
    [record(22, 200), record(20, 1), record(23, 53), record(23, 100)].concat()
}

/// The handshake and the first data, as the socket shows them.
fn of_socket() -> Vec<Owned> {
    let bytes = ciphertext();
    let end = RECEIVED_FROM.wrapping_add(u32::try_from(bytes.len()).unwrap());
    vec![
        Owned::new(Kind::Opened, 1, RECEIVED_FROM, SENT_FROM),
        Owned::new(Kind::Received, 2, RECEIVED_FROM, SENT_FROM).with_bytes(&bytes),
        Owned::new(Kind::Sent, 3, SENT_FROM, end).with_bytes(&[0xa7; 500]),
    ]
}

/// Two requests and their replies, with numbers of plaintext, up to the end.
fn of_plaintext(layer: Layer) -> Vec<Owned> {
    let text = "> GET /b/one HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok\n\
                > GET /b/two HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\n\\r\\n\n\
                peer closes\nclosed\n";
    let mut samples = samples(text);
    samples.remove(0);
    for sample in &mut samples {
        let (received, sent) = (RECEIVED_FROM, SENT_FROM);
        let (own, other) = if sample.header.kind == Kind::Sent as u8 { (sent, received) } else { (received, sent) };
        sample.header.seq = sample.header.seq.wrapping_sub(own);
        sample.header.other_seq = sample.header.other_seq.wrapping_sub(other);
        sample.header.layer = layer as u8;
    }
    samples
}

fn run(samples: &[Owned]) -> (Pipeline, Vec<(String, Completion)>) {
    let mut pipeline = Pipeline::new(Limits::default());
    samples.iter().for_each(|sample| sample.give(&mut pipeline));
    pipeline.advance(LATER_NS);
    let found = exchanges(&mut pipeline).into_iter().map(|one| {
        let target = one.request.map(|head| String::from_utf8(head.target).unwrap()).unwrap_or_default();
        (target, one.completion)
    });
    let found = found.collect();
    (pipeline, found)
}

fn both() -> Vec<(String, Completion)> {
    ["/b/one", "/b/two"].map(|target| (target.to_owned(), Completion::Complete)).into()
}

#[test]
fn plaintext_follows_the_handshake() {
    let (pipeline, found) = run(&[of_socket(), of_plaintext(Layer::Plaintext)].concat());
    assert_eq!(found, both());
    let c = pipeline.counters();
    assert_eq!((c.tls_connections, c.tls_connections_read, c.tls_connections_unread, c.gaps), (1, 1, 0, 0));
    assert_eq!((c.connections_balanced, c.connections_out_of_balance, c.lost_bytes), (1, 0, 0));
    assert_balanced(c);
}

#[test]
fn samples_of_the_socket_may_come_at_any_time() {
    let (socket, plaintext) = (of_socket(), of_plaintext(Layer::Plaintext));
    for at in 0..=plaintext.len() {
        let (before, after) = plaintext.split_at(at);
        let (pipeline, found) = run(&[before, &socket, after].concat());
        let c = pipeline.counters();
        // Behind the end of the connection they are all that there is of another one.
        if at < plaintext.len() {
            assert_eq!(found, both(), "{at}");
            assert_eq!((c.tls_connections_unread, c.connections_out_of_balance), (0, 0), "{at}");
        }
        assert_balanced(c);
    }
}

#[test]
fn a_missing_sample_is_a_hole_to_the_byte_at_the_end_too() {
    let plaintext = of_plaintext(Layer::Plaintext);
    for missing in (0..plaintext.len()).filter(|at| plaintext[*at].is_data()) {
        let mut samples = [of_socket(), plaintext.clone()].concat();
        samples.remove(missing + 3);
        let (pipeline, found) = run(&samples);
        let c = pipeline.counters();
        assert_eq!(c.lost_bytes, plaintext[missing].payload.len() as u64, "{missing}");
        assert!(found.iter().filter(|(_, completion)| *completion == Completion::Complete).count() < 2, "{missing}");
        assert_balanced(c);
    }
    // One byte at the end: on a socket that may be the FIN's number, in plaintext it never is.
    let mut samples = [of_socket(), plaintext].concat();
    samples.last_mut().unwrap().header.other_seq += 1;
    let (pipeline, _) = run(&samples);
    assert_eq!((pipeline.counters().lost_bytes, pipeline.counters().connections_out_of_balance), (1, 0));
}

#[test]
fn what_is_not_read_is_counted_and_a_handshake_alone_is_not() {
    let closed = Owned::new(Kind::Closed, 50, 0, 0);
    let end = |samples: &[Owned]| {
        let mut closed = closed.clone();
        (closed.header.seq, closed.header.other_seq) = samples.iter().fold((RECEIVED_FROM, SENT_FROM), |at, one| {
            let len = one.header.len;
            if one.header.kind == Kind::Sent as u8 {
                (at.0, at.1.wrapping_add(len))
            } else {
                (at.0.wrapping_add(len), at.1)
            }
        });
        run(&[samples, &[closed]].concat()).0.counters().tls_connections_unread
    };
    assert_eq!(end(&of_socket()), 1);
    let mut handshake = of_socket();
    let whole = ciphertext();
    let short = &whole[..whole.len() - 105];
    handshake[1] = Owned::new(Kind::Received, 2, RECEIVED_FROM, SENT_FROM).with_bytes(short);
    handshake[2].header.other_seq = RECEIVED_FROM.wrapping_add(u32::try_from(short.len()).unwrap());
    assert_eq!(end(&handshake), 0);
}

#[test]
fn midway_is_midway() {
    let (pipeline, found) = run(&[of_socket(), of_plaintext(Layer::PlaintextMidway)].concat());
    assert_eq!(found, both());
    assert_eq!(pipeline.counters().tls_connections_unread, 1);
    let mut preexisting = of_plaintext(Layer::PlaintextMidway);
    preexisting.iter_mut().for_each(|sample| sample.header.role = Role::Unknown as u8);
    let (pipeline, found) = run(&preexisting);
    assert_eq!(found, both());
    assert_eq!(pipeline.counters().tls_connections_unread, 0);
}

#[test]
fn the_record_says_what_the_handshake_said() {
    // A hello for `s3.example`, and one that answers it.
    let name = b"s3.example";
    let listed = u8::try_from(name.len()).unwrap();
    let extension = [&[0, 0, 0, listed + 5, 0, listed + 3, 0, 0, listed], name.as_slice()].concat();
    let end = [&[0, 2, 0x13, 1, 1, 0, 0, listed + 9], extension.as_slice()].concat();
    let hello = |kind: u8, behind_random: &[u8]| {
        let body = [&[3, 3], [7; 32].as_slice(), &[0], behind_random].concat();
        let len = u8::try_from(body.len()).unwrap();
        [&[22, 3, 1, 0, len + 4, kind, 0, 0, len], body.as_slice()].concat()
    };
    let (client, server) = (hello(1, &end), hello(2, &[0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]));
    let received = RECEIVED_FROM.wrapping_add(u32::try_from(client.len()).unwrap());
    let socket = [
        Owned::new(Kind::Opened, 1, RECEIVED_FROM, SENT_FROM),
        Owned::new(Kind::Received, 2, RECEIVED_FROM, SENT_FROM).with_bytes(&client),
        Owned::new(Kind::Sent, 3, SENT_FROM, received).with_bytes(&server),
    ];
    let plaintext = of_plaintext(Layer::Plaintext);
    // Another CPU's ring may bring the handshake behind the first plaintext.
    for at in 0..3 {
        let (before, after) = plaintext.split_at(at);
        let mut pipeline = Pipeline::new(Limits::default());
        [before, &socket, after].concat().iter().for_each(|sample| sample.give(&mut pipeline));
        pipeline.advance(LATER_NS);
        for exchange in exchanges(&mut pipeline) {
            let tls = exchange.connection.tls.unwrap();
            assert_eq!(tls.server_name.as_deref(), Some("s3.example"), "{at}");
            assert_eq!((tls.version, tls.cipher_suite), (Some(0x0304), Some(0x1301)), "{at}");
        }
    }
    let (_, found) = run(&plaintext);
    assert_eq!(found, both());
}

#[test]
fn what_a_proxy_announced_in_front_of_the_handshake_holds() {
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 443\r\n";
    let mut pipeline = Pipeline::new(Limits::default());
    let bytes = [header.as_slice(), &ciphertext()].concat();
    let socket = [
        Owned::new(Kind::Opened, 1, RECEIVED_FROM, SENT_FROM),
        Owned::new(Kind::Received, 2, RECEIVED_FROM, SENT_FROM).with_bytes(&bytes),
    ];
    [&socket, of_plaintext(Layer::Plaintext).as_slice()].concat().iter().for_each(|sample| sample.give(&mut pipeline));
    pipeline.advance(LATER_NS);
    let found = exchanges(&mut pipeline);
    assert_eq!(found.len(), 2);
    for exchange in found {
        assert_eq!(exchange.connection.announced.unwrap().client.to_string(), "203.0.113.7:5555");
    }
}

#[test]
fn windows_say_which_numbers_they_count() {
    let mut pipeline = Pipeline::new(Limits::default());
    let head = b"PUT /b/k HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n";
    let mut samples = of_socket();
    let mut request = Owned::new(Kind::Received, 10, 0, 0).with_bytes(head);
    request.header.layer = Layer::Plaintext as u8;
    samples.push(request);
    samples.iter().for_each(|sample| sample.give(&mut pipeline));
    let windows: Vec<_> = std::iter::from_fn(|| pipeline.next_output())
        .filter_map(|output| if let Output::Window { window, .. } = output { Some(window) } else { None })
        .collect();
    let end = u32::try_from(head.len()).unwrap() + 10_000_000;
    assert_eq!(windows.iter().map(|window| (window.plaintext, window.until)).collect::<Vec<_>>(), [(1, end)]);
}
