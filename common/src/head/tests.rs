extern crate std;
use super::*;
use std::{format, string::String, vec::Vec};

fn look(direction: Direction, bytes: &[u8]) -> Option<Found> {
    looked(direction, bytes).0
}

/// With the number of steps that it took.
fn looked(direction: Direction, bytes: &[u8]) -> (Option<Found>, u32) {
    let (look, steps) = stepped(Look::START, bytes);
    (Some(look.found(direction)).filter(|found| *found != Found::NOTHING), steps)
}

fn stepped(mut look: Look, bytes: &[u8]) -> (Look, u32) {
    let mut padded: Vec<u8> = bytes.to_vec();
    // What lies behind is of somebody else.
    padded.extend_from_slice(b"\r\ncontent-length: 999999\r\n\r\n\n\n\n\n\n\n\n\n");
    padded.resize(padded.len().next_multiple_of(8) + 32, b'\n');
    let aligned = |at: u32| u64::from_le_bytes(padded[at as usize..at as usize + 8].try_into().unwrap());
    let mut steps = 0;
    while look.step(bytes.len() as u32, aligned) {
        steps += 1;
        assert!(steps < MAX_LOOK_STEPS);
    }
    (look, steps)
}

const fn body(at: usize, bytes: u32) -> Found {
    Found { inside: inside::BODY, at: at as u32, bytes }
}

fn put(fields: &str) -> String {
    format!("PUT /b/k HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn a_length_is_found_wherever_it_stands() {
    for before in 0..20 {
        for name in ["Content-Length: ", "content-length:", "CONTENT-LENGTH: \t"] {
            let filling = format!("X: {}\r\n", &"abcdefghijklmnopqrstuvwxyz"[..before]);
            let head = put(&format!("{filling}{name}67108864\r\n{filling}"));
            let found = Some(body(head.len(), 67_108_864));
            assert_eq!(look(Direction::Received, head.as_bytes()), found, "{head}");
            assert_eq!(look(Direction::Received, format!("{head}\r\n\r\nbody").as_bytes()), found, "{head}");
            for cut in 0..=head.len() {
                assert_cut(&head, cut, body(head.len(), 67_108_864));
            }
        }
    }
    let bare = "PUT / HTTP/1.1\nContent-Length: 40000\n\n";
    assert_eq!(look(Direction::Received, bare.as_bytes()), Some(body(bare.len(), 40_000)));
    let huge = put("Content-Length: 5368709120\r\n");
    assert_eq!(look(Direction::Received, huge.as_bytes()), Some(body(huge.len(), 1 << 30)));
}

#[test]
fn what_is_short_doubtful_or_to_be_read_is_left_alone() {
    for fields in [
        "",
        "Content-Length: 32767\r\n",
        "Content-Length: 67108864\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nContent-Length: 67108864\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunkeds\r\n",
        "Transfer-Encoding: chunke\r\n",
        "Transfer-Encodinx: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Type: application/xml\r\n",
        "Content-Length: 67108864\r\nContent-Length: 67108864\r\n",
        "Content-Length: 67108864, 67108864\r\n",
        "Content-Length: +67108864\r\n",
        "Content-Length: 0x4000000\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1234567890123456\r\n",
        "Content-Length : 67108864\r\n",
        "Content-Lengths: 67108864\r\n",
        "X-Content-Length: 67108864\r\n",
        "X: y\r\n Content-Length: 67108864\r\n",
        "Content-Length: 67108864\r\nContent-Type: application/xml\r\n",
        "Content-Type:text/XML; charset=utf-8\r\nContent-Length: 67108864\r\n",
    ] {
        assert_eq!(look(Direction::Received, put(fields).as_bytes()), None, "{fields}");
    }
}

#[test]
fn chunks_are_followed_as_far_as_they_are_there() {
    let chunk = |at: usize, bytes| Some(Found { inside: inside::CHUNK, at: at as u32, bytes });
    let line = |at: usize| Some(Found { inside: inside::SIZE, at: at as u32, bytes: 0 });
    for field in
        ["Transfer-Encoding: chunked\r\n", "transfer-encoding:CHUNKED\n", "X: y\r\nTransfer-encoding: chunked\r\n"]
    {
        let head = put(field);
        assert_eq!(look(Direction::Received, head.as_bytes()), line(head.len()), "{field}");
        assert_eq!(look(Direction::Sent, head.as_bytes()), None);
        for (body, found) in [
            ("100\r\n", chunk(5, 256)),
            ("10000A\r\nabc", chunk(8, 0x10_000a)),
            ("3\r\nabc", line(6)),
            ("3\r\nabc\r", line(7)),
            ("3\r\nabc\r\n", line(8)),
            ("3\r\nabc\r\n7f", line(10)),
            ("3\r\nabc\r\n7F\r\n", chunk(12, 127)),
            ("0\r\n", None),
            ("3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", None),
            ("3;name=value\r\nabc", None),
            ("40000001\r\n", None),
            ("ffffffffffffffffffff\r\n", None),
            ("PUT /", None),
        ] {
            let placed = found.map(|found: Found| Found { at: found.at + head.len() as u32, ..found });
            assert_eq!(look(Direction::Received, format!("{head}{body}").as_bytes()), placed, "{field} {body}");
        }
    }
}

/// A head cut there is known when it is whole, unless a line is cut that says something.
fn assert_cut(head: &str, cut: usize, whole: Found) {
    let (before, behind) = head.as_bytes().split_at(cut);
    let line = head[..cut].rsplit('\n').next().unwrap().to_ascii_lowercase();
    let says = (1..8).contains(&line.len()) || line.starts_with("content-") || line.starts_with("transfer");
    let (look, _) = stepped(Look::START, before);
    let found = look.found(Direction::Received);
    if cut == head.len() {
        return assert_eq!(found, whole);
    }
    if says {
        return assert_eq!(found, Found::NOTHING, "{cut} of {head}");
    }
    assert_eq!(found, Found { inside: inside::HEAD, at: cut as u32, bytes: 0 }, "{cut} of {head}");
    let (look, _) = stepped(Look::resumed(inside::HEAD, look.kept()), behind);
    let found = look.found(Direction::Received);
    assert_eq!(Found { at: found.at + cut as u32, ..found }, whole, "{cut} of {head}");
}

#[test]
fn a_head_that_is_cut_goes_on() {
    let head = put("X-A: b\r\nTransfer-Encoding: chunked\r\nAuthorization: AWS4-HMAC-SHA256\r\n");
    for cut in 0..=head.len() {
        assert_cut(&head, cut, Found { inside: inside::SIZE, at: head.len() as u32, bytes: 0 });
    }
    // Cut into many.
    let mut look = Look::START;
    for (nth, line) in head.as_bytes().chunks(36).enumerate() {
        if nth != 0 {
            look = Look::resumed(look.found(Direction::Received).inside, look.kept());
        }
        (look, _) = stepped(look, line);
    }
    assert_eq!(look.found(Direction::Received).inside, inside::SIZE);
    // A reply's is not followed.
    assert_eq!(look_at_reply("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\nX: y"), Found::NOTHING);
}

fn look_at_reply(text: &str) -> Found {
    stepped(Look::START, text.as_bytes()).0.found(Direction::Sent)
}

#[test]
fn a_line_that_is_cut_goes_on() {
    let line = "\r\n10abC\r\ndata";
    for cut in 0..=7 {
        let (before, behind) = line.as_bytes().split_at(cut);
        let (look, _) = stepped(Look::resumed(inside::SIZE, 0), before);
        assert_eq!(look.found(Direction::Received), Found { inside: inside::SIZE, at: cut as u32, bytes: 0 });
        let (look, _) = stepped(Look::resumed(inside::SIZE, look.kept()), behind);
        let found = Found { inside: inside::CHUNK, at: 9 - cut as u32, bytes: 0x1_0abc };
        assert_eq!(look.found(Direction::Received), found, "{cut}");
    }
}

#[test]
fn behind_a_length_that_is_short_nothing_is_looked_at() {
    let more = "X-Amz-Meta-Long: value\r\n".repeat(40);
    let (found, steps) = looked(Direction::Received, put(&format!("Content-Length: 4096\r\n{more}")).as_bytes());
    assert!(found.is_none() && steps < 20, "{steps} steps");
    let (found, steps) = looked(Direction::Received, put(&format!("Content-Length: 40960\r\n{more}")).as_bytes());
    assert!(found.is_some() && steps > 100, "{steps} steps");
}

#[test]
fn replies_say_what_they_are() {
    let reply = |fields| format!("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n{fields}\r\n");
    assert_eq!(look(Direction::Sent, reply("").as_bytes()), None);
    assert_eq!(look(Direction::Sent, reply("Content-Type: application/xml\r\n").as_bytes()), None);
    let object = reply("Content-Type: application/octet-stream\r\n");
    assert_eq!(look(Direction::Sent, object.as_bytes()), Some(body(object.len(), 1 << 20)));
}

#[test]
fn beginnings() {
    let words = |text: &[u8; 16]| {
        (u64::from_le_bytes(text[..8].try_into().unwrap()), u64::from_le_bytes(text[8..].try_into().unwrap()))
    };
    let left_out = |direction, request: &[u8; 4], text| {
        let (first, second) = words(text);
        may_be_left_out(direction, half(*request), first, second)
    };
    assert!(left_out(Direction::Received, b"\0\0\0\0", b"PUT /b/k HTTP/1."));
    assert!(!left_out(Direction::Received, b"\0\0\0\0", b"POST /b?delete H"));
    assert!(left_out(Direction::Sent, b"GET ", b"HTTP/1.1 206 Par"));
    for (request, text) in [
        (b"GET ", b"HTTP/1.1 304 Not"),
        (b"GET ", b"HTTP/1.1 404 Not"),
        (b"PUT ", b"HTTP/1.1 100 Con"),
        (b"HEAD", b"HTTP/1.1 200 OK\r"),
        (b"POST", b"HTTP/1.1 200 OK\r"),
    ] {
        assert!(!left_out(Direction::Sent, request, text), "{request:?} {text:?}");
    }
    for text in [b"PUT /b/k HTTP/1.", b"GET /b/k HTTP/1.", b"DELETE /b/k HTTP"] {
        assert!(begins(Direction::Received, words(text).0));
        assert!(!begins(Direction::Sent, words(text).0));
    }
    assert!(!begins(Direction::Received, words(b"PUTTY is a body.").0));
}

/// The bytes are the client's: no sum may overflow, no look go on for ever or beyond what is there.
#[test]
fn whatever_comes_a_look_ends_within_it() {
    const PIECES: [&str; 18] = [
        "PUT /b/k HTTP/1.1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 40000\r\n",
        "Content-Length: 999999999999999\r\n",
        "Content-Type: text/plain\r\n",
        "X-Amz-Date: 20261129T000000Z\r\n",
        "transfer",
        "content-",
        "\r\n",
        "\n",
        "\r",
        ": ",
        "5\r\nhello",
        "3fffffff\r\n",
        "40000000\r\n",
        "ffffffff",
        "0",
        "zz",
    ];
    let mut random = 1_u32;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % bound
    };
    let mut found_of = [0; 5];
    for _ in 0..50_000 {
        let count = below(12);
        let text: String = (0..count).map(|_| PIECES[below(PIECES.len())]).collect();
        let kept = (below(1 << 16) << 16 | below(1 << 16)) as u32;
        let begin = match below(3) {
            0 => Look::START,
            1 => Look::resumed(inside::SIZE, if kept.is_multiple_of(2) { 0 } else { DIGITS_READ | kept >> 2 }),
            // Chunks, or a length.
            _ if kept.is_multiple_of(2) => Look::resumed(inside::HEAD, kept & (CHUNKED | IN_LINE)),
            _ => Look::resumed(inside::HEAD, kept & !CHUNKED | LENGTH_READ),
        };
        let (look, _) = stepped(begin, text.as_bytes());
        let found = look.found(Direction::Received);
        assert!(found.at as usize <= text.len() && found.bytes <= 1 << 30, "{found:?} in {text:?}");
        found_of[found.inside as usize] += 1;
        if found.inside >= inside::SIZE {
            assert_eq!(found.at as usize, text.len(), "{text:?}");
            let again = Look::resumed(found.inside, look.kept());
            assert_eq!(stepped(again, b"").0.kept(), look.kept(), "{text:?}");
        }
    }
    assert!(found_of.iter().all(|times| *times > 100), "{found_of:?}");
}
