use super::*;
use crate::sample::OwnedSample;
use s3auditd_common::sample::SampleHeader;
use zerocopy::FromZeros as _;

// What OpenSSL 3.0 sent through memory, asked for s3.example.com.
const CLIENT_13: &str = "16030100f3010000ef030352fef09c1448269e8e641fd5e510755b3559eae7f8a699b558de2012f3b21f9d20ea4b0e8b3cf4c06e6c935ff4c13fd\
    eb996fa530da27f7b8228e6368320a0c9fd000813021303130100ff0100009e00000013001100000e73332e6578616d706c652e636f6d000b0004030001\
    02000a00160014001d0017001e0019001801000101010201030104002300000016000000170000000d001e001c040305030603080708080809080a080b0\
    80408050806040105010601002b0003020304002d00020101003300260024001d00201ffee8f9c993f846a2f01730648f28bd015129496b98e602da74bbb\
    e823b1d24";
const SERVER_13: &str = "160303007a020000760303fc82510ac79ec52a8ff1b3a1cfc3597d1589a6bb6fa8ef5b4ef1613a40734e7c20ea4b0e8b3cf4c06e6c935ff4c13fd\
    eb996fa530da27f7b8228e6368320a0c9fd130200002e002b0002030400330024001d0020a33b024a082c1d0d3cf2877df20b29675bddead532c1dd331a\
    5d26f8da6f9627";
const SERVER_12: &str = "16030300410200003d03031b787a3ecf98f29c3fb5d666329569a024274659b5395b8f444f574e4752440100c02f000015ff01000100000b00040\
    30001020023000000170000";

const RECEIVED_FROM: u32 = u32::MAX - 100;
const SENT_FROM: u32 = 7;

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn sample(kind: Kind, seq: u32, payload: &[u8]) -> OwnedSample {
    let mut header = SampleHeader::new_zeroed();
    (header.kind, header.family, header.seq) = (kind as u8, 2, seq);
    header.len = u32::try_from(payload.len()).unwrap();
    header.copied = header.len;
    OwnedSample { header, payload: payload.to_vec() }
}

/// Both hellos in pieces of so many bytes.
fn pieces(client: &[u8], server: &[u8], size: usize) -> Vec<OwnedSample> {
    let of = |kind, from: u32, bytes: &[u8]| {
        let place = |index: usize| from.wrapping_add(u32::try_from(index * size).unwrap());
        bytes.chunks(size).enumerate().map(|(index, piece)| sample(kind, place(index), piece)).collect::<Vec<_>>()
    };
    [of(Kind::Received, RECEIVED_FROM, client), of(Kind::Sent, SENT_FROM, server)].concat()
}

fn opened() -> OwnedSample {
    let mut opened = sample(Kind::Opened, RECEIVED_FROM, &[]);
    opened.header.other_seq = SENT_FROM;
    opened
}

/// What is known after these, in that order.
fn read_in_order(samples: &[OwnedSample]) -> (TlsSession, Handshake) {
    let mut handshake = Handshake::awaited();
    for sample in samples {
        handshake.take(&sample.sample().unwrap(), false);
        assert!(handshake.cost() <= 4 * MAX_HELLO_BYTES + 2 * MAX_PIECES * size_of::<Piece>());
    }
    (TlsSession::clone(&handshake.session()), handshake)
}

fn read(samples: &[OwnedSample]) -> TlsSession {
    read_in_order(&[&[opened()], samples].concat()).0
}

fn session(version: u16, suite: u16) -> TlsSession {
    TlsSession { version: Some(version), cipher_suite: Some(suite), server_name: Some("s3.example.com".to_owned()) }
}

#[test]
fn a_handshake_says_version_suite_and_name_however_it_is_split() {
    for (server, expected) in [(SERVER_13, session(0x0304, 0x1302)), (SERVER_12, session(0x0303, 0xc02f))] {
        let (client, server) = (bytes(CLIENT_13), bytes(server));
        for size in 1..=client.len() {
            assert_eq!(read(&pieces(&client, &server, size)), expected, "{size}");
        }
    }
    let named = session(0x0304, 0x1302);
    assert_eq!(named.version_name().as_deref(), Some("TLSv1.3"));
    assert_eq!(named.cipher_suite_name().as_deref(), Some("TLS_AES_256_GCM_SHA384"));
    assert_eq!(session(0x7f1c, 0xfafa).version_name().as_deref(), Some("0x7f1c"));
    assert_eq!(session(0x7f1c, 0xfafa).cipher_suite_name().as_deref(), Some("0xfafa"));
}

#[test]
fn a_hello_may_be_in_several_records() {
    let client = bytes(CLIENT_13);
    for size in [1, 3, 100] {
        let records: Vec<u8> = client[HEADER_BYTES..]
            .chunks(size)
            .flat_map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()], part].concat())
            .collect();
        assert_eq!(read(&pieces(&records, &bytes(SERVER_13), 64)), session(0x0304, 0x1302), "{size}");
    }
}

#[test]
fn what_is_missing_is_not_known_and_what_is_late_or_twice_does_no_harm() {
    let all = pieces(&bytes(CLIENT_13), &bytes(SERVER_13), 60);
    let clients = all.iter().filter(|sample| sample.header.kind == Kind::Received as u8).count();
    for missing in 0..all.len() {
        let mut samples = all.clone();
        samples.remove(missing);
        let found = read(&samples);
        assert_eq!((found.server_name.is_none(), found.version.is_none()), (missing < clients, missing >= clients));
        // Its bytes did not come along.
        let mut samples = all.clone();
        samples[missing].payload.clear();
        samples[missing].header.copied = 0;
        samples[missing].header.unseen = s3auditd_common::sample::Unseen::Fault as u8;
        let found = read(&samples);
        assert_eq!((found.server_name.is_none(), found.version.is_none()), (missing < clients, missing >= clients));
        let twice: Vec<_> = all.iter().flat_map(|sample| [sample.clone(), sample.clone()]).collect();
        assert_eq!(read(&twice), session(0x0304, 0x1302));
    }
}

#[test]
fn rings_may_bring_it_in_any_order() {
    let expected = session(0x0304, 0x1302);
    let all = [vec![opened()], pieces(&bytes(CLIENT_13), &bytes(SERVER_13), 60)].concat();
    let mut order = all.clone();
    for turn in 0..all.len() {
        order.rotate_left(1);
        assert_eq!(read_in_order(&order).0, expected, "turned by {turn}");
        order.swap(turn, all.len() / 2);
        assert_eq!(read_in_order(&order).0, expected, "swapped {turn}");
    }
    order.reverse();
    assert_eq!(read_in_order(&order).0, expected);
}

#[test]
fn without_its_opening_it_begins_with_what_came_first() {
    let mut all = pieces(&bytes(CLIENT_13), &bytes(SERVER_13), 60);
    all.reverse();
    let (nothing_yet, mut handshake) = read_in_order(&all);
    assert_eq!((nothing_yet, handshake.is_whole()), (TlsSession::default(), false));
    handshake.begin_at_the_first();
    assert_eq!((TlsSession::clone(&handshake.session()), handshake.is_whole()), (session(0x0304, 0x1302), true));
    // Its first bytes are lost: the rest is no hello.
    all.retain(|sample| ![RECEIVED_FROM, SENT_FROM].contains(&sample.header.seq));
    let (_, mut handshake) = read_in_order(&all);
    handshake.begin_at_the_first();
    assert_eq!((TlsSession::clone(&handshake.session()), handshake.is_whole()), (TlsSession::default(), true));
}

#[test]
fn hostile_bytes_are_not_said() {
    let (client, server) = (bytes(CLIENT_13), bytes(SERVER_13));
    for at in 0..client.len() {
        for flip in [1_u8, 0x80, 0xff] {
            let mut client = client.clone();
            client[at] ^= flip;
            let mut server = server.clone();
            let place = at % server.len();
            server[place] ^= flip;
            let found = read(&pieces(&client, &server, 1000));
            let name = found.server_name.unwrap_or_default();
            assert!(name.len() <= MAX_NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        }
    }
    // A hello that promises a megabyte, one that goes on in empty records, and plain HTTP.
    let promise = [&[22, 3, 1, 0x40, 0, 1, 0x0f, 0xff, 0xff][..], &[0; 60_000]].concat();
    let empty = [22, 3, 1, 0, 0].repeat(5000);
    for hostile in [promise, empty, b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![22; 60_000]] {
        assert_eq!(read(&pieces(&hostile, &hostile, 1400)), TlsSession::default());
    }
}
