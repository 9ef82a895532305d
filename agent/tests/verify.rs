//! `s3auditd verify` against streams that an author wrote and that somebody changed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is a test's failure report; clippy.toml allows it in test functions, not in their helpers"
)]

use s3auditd::stream::chain::{Hash, Key, PublicKey, Seal, Sealed};
use s3auditd::stream::gaps::{ConnectionGap, RecordLoss};
use s3auditd::stream::{Author, Line};
use s3auditd::verify::report::{End, Place, Problem, Report};
use s3auditd::verify::{Options, Verifier, verify};
use s3auditd_rebuild::exchange::{BodyStart, Completion, ConnectionInfo, Exchange};
use s3auditd_rebuild::http::head::{Headers, RequestHead, Version};
use s3auditd_rebuild::record::event::{
    ConfigurationRecord, CoverageRecord, Kind, PreviousInstance, RecoveryRecord, SequenceRange, Stage, StartRecord,
};
use s3auditd_rebuild::record::{Clock, RecordMaker, RecordSettings};

const PRIVATE: &[u8] = include_bytes!("../src/stream/test_key.pem");
const PUBLIC: &[u8] = include_bytes!("../src/stream/test_key.pub.pem");
/// Between two operations: a checkpoint every twelve.
const STEP_NS: u64 = 5_000_000_000;

fn exchange(ordinal: u64) -> Exchange {
    let mut headers = Headers::default();
    headers.push(b"Host", b"h");
    Exchange {
        connection: ConnectionInfo {
            cookie: 7,
            client: "192.0.2.7:40000".parse().unwrap(),
            announced: None,
            server: "192.0.2.1:9000".parse().unwrap(),
            netns: 1,
            tgid: 1,
            cgroup_id: 1,
            comm: "minio".to_owned(),
            preexisting: false,
            tls: None,
        },
        ordinal,
        request: Some(RequestHead {
            method: b"GET".to_vec(),
            target: format!("/b/{ordinal}").into_bytes(),
            version: Version::Http11,
            headers,
        }),
        response: None,
        interim_replies: 0,
        started_ns: 1,
        head_read_ns: 2,
        first_byte_ns: None,
        ended_ns: ordinal * STEP_NS,
        request_head_bytes: 30,
        request_body_bytes: 0,
        response_head_bytes: 0,
        response_body_bytes: 0,
        request_body: BodyStart::default(),
        response_body: BodyStart::default(),
        completion: Completion::NoReply,
        unseen: Vec::new(),
        oddities: Vec::new(),
    }
}

/// An agent over several runs, and what its receiver gets.
struct Node {
    author: Author,
    instance: String,
    chain: bool,
    key: bool,
    now_ns: u64,
    lines: Vec<Line>,
    delivered: Vec<Vec<u8>>,
    /// Where each instance begins in `delivered`.
    begins: Vec<usize>,
}

impl Node {
    fn new(chain: bool, key: bool) -> Self {
        let author = author("a", chain, key, None);
        let mut node = Self {
            author,
            instance: "a".to_owned(),
            chain,
            key,
            now_ns: 0,
            lines: Vec::new(),
            delivered: Vec::new(),
            begins: vec![0],
        };
        node.author.start(start(None), None, 0);
        node.deliver();
        node
    }

    fn deliver(&mut self) {
        while let Some(line) = self.author.next_line() {
            self.delivered.push(line.bytes.to_vec());
            self.lines.push(line);
        }
    }

    /// Operations, in steps; `lost` of them never reach the receiver.
    fn operations(&mut self, count: u64, lost: &[u64]) {
        for number in 0..count {
            self.now_ns += STEP_NS;
            let exchange = exchange(self.now_ns / STEP_NS);
            let reading = self.author.read(&exchange);
            self.author.operation(reading, self.now_ns);
            self.deliver();
            if lost.contains(&number) {
                let line = self.lines.last().unwrap().clone();
                assert_eq!(line.kind, Kind::Operation, "checkpoints are not lost here");
                self.delivered.pop();
                self.lose(&line, None);
            }
            self.tick();
        }
    }

    fn lose(&mut self, line: &Line, instance_id: Option<String>) {
        let previous = Sealed::previous_of(&line.bytes).map(|hash| hash.as_str().to_owned());
        let range = SequenceRange { instance_id, first: line.sequence, last: line.sequence, count: None, previous };
        self.author.record_loss(RecordLoss {
            endpoint: Some("splunk".into()),
            sequences: vec![range],
            ..RecordLoss::unnumbered(Stage::Delivery, "poison", 1, self.now_ns)
        });
    }

    fn tick(&mut self) {
        self.author.tick(self.now_ns);
        self.deliver();
    }

    fn stop(&mut self) {
        self.author.stop("signal", 5, 5, self.now_ns);
        self.deliver();
    }

    fn restart(&mut self, instance: &str, recovery: bool) {
        let last = self.lines.last().unwrap().sequence;
        self.restart_behind(instance, recovery, last, self.author.head());
    }

    fn restart_behind(&mut self, instance: &str, recovery: bool, last_sequence: u64, head: Option<Hash>) {
        let previous = PreviousInstance { instance_id: self.instance.clone(), last_sequence, stopped: !recovery };
        let recovery = recovery.then(|| RecoveryRecord {
            instance_id: self.instance.clone(),
            last_sequence: Some(last_sequence),
            operations_may_be_missing: true,
            ..RecoveryRecord::default()
        });
        self.author = author(instance, self.chain, self.key, head);
        self.instance = instance.to_owned();
        self.begins.push(self.delivered.len());
        self.author.start(start(Some(previous)), recovery, self.now_ns);
        self.deliver();
    }
}

fn author(instance: &str, chain: bool, key: bool, head: Option<Hash>) -> Author {
    let settings =
        RecordSettings { instance_id: instance.to_owned(), boot_id: "boot".to_owned(), ..RecordSettings::default() };
    let key = key.then(|| Key::parse(PRIVATE).unwrap());
    let mut author = Author::new(RecordMaker::new(settings, 0), Seal::new(chain, key, head));
    author.set_clock(Clock { wall_minus_monotonic_ns: 1_742_539_047_000_000_000 });
    author
}

fn start(previous: Option<PreviousInstance>) -> StartRecord {
    StartRecord { version: "0".to_owned(), previous, backend: "b".to_owned(), ports: vec![9000] }
}

/// Three instances: one stopped, one crashed, one stopped; with gaps, a lost tail, and all kinds of records.
fn node(chain: bool, key: bool) -> Node {
    let mut node = Node::new(chain, key);
    node.author.coverage(CoverageRecord::default(), 1);
    node.deliver();
    node.operations(14, &[3, 4, 7]);
    node.author.connection_gap(ConnectionGap {
        stage: Stage::Kernel,
        cause: "hole",
        cookie: 7,
        client: "192.0.2.7:40000".parse().unwrap(),
        server: "192.0.2.1:9000".parse().unwrap(),
        netns: 1,
        direction: None,
        from: 1,
        to: 100,
        first_ns: 1,
        last_ns: 2,
        may_hide: 5,
    });
    node.operations(14, &[]);
    node.stop();
    node.restart("b", false);
    node.operations(8, &[]);
    node.author.configuration(ConfigurationRecord::default(), node.now_ns);
    node.deliver();
    node.operations(5, &[]);
    // What was on its way when it crashed is lost.
    let lost = node.lines[node.lines.len() - 1].clone();
    node.delivered.pop();
    node.restart("c", true);
    node.lose(&lost, Some("b".to_owned()));
    node.operations(12, &[]);
    node.stop();
    node
}

fn options(key: bool) -> Options {
    Options { public_key: key.then(|| PublicKey::parse(PUBLIC).unwrap()), ..Options::default() }
}

fn check(lines: &[Vec<u8>], options: Options) -> Report {
    let mut verifier = Verifier::new(options);
    for (line, number) in lines.iter().zip(1..) {
        verifier.line(line, Place { file: "f".into(), line: number });
    }
    verifier.finish()
}

/// The same, by way of a file.
fn check_bytes(bytes: &[u8], options: Options) -> Report {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    verify(options, &[file.path().to_owned()]).unwrap()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

fn problems(report: &Report) -> Vec<Problem> {
    report.findings.iter().map(|finding| finding.problem).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn what_an_author_writes_is_whole() {
    for (chain, key) in [(false, false), (true, false), (true, true)] {
        let node = node(chain, key);
        let report = check_bytes(&joined(&node.delivered), options(key));
        assert!(report.whole, "{}", report.render());
        assert_eq!(
            report.instances.iter().map(|it| it.end).collect::<Vec<_>>(),
            [End::Stopped, End::Recovered, End::Stopped]
        );
        assert_eq!((report.hole_count, report.missing_records), (4, 4));
        assert!(report.holes.iter().all(|hole| hole.explained && hole.named_by.len() == 1));
        assert_eq!((report.operations_min, report.operations_max), (4, None), "a crash has no bound");
        assert_eq!((report.checkpoints > 5, report.unsigned_lines > 0), (key, !key));
        assert_eq!(report.records.values().sum::<u64>(), report.lines);
        assert!(report.render().contains("named by gap record"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["whole"], &json["holes"][0]["first"]), (&true.into(), &report.holes[0].first.into()));
    }
}

#[test]
fn batches_that_are_sent_again_are_no_harm() {
    let node = node(true, true);
    let mut random = Random(3);
    for _ in 0..30 {
        let mut lines = node.delivered.clone();
        let first = random.below(lines.len());
        let batch = lines[first..(first + 1 + random.below(20)).min(lines.len())].to_vec();
        let sent = batch.len();
        // In whole or in part, then in whole.
        let behind = first + random.below(sent) + 1;
        lines.splice(behind..behind, batch);
        let report = check(&lines, options(true));
        assert!(report.whole, "{}", report.render());
        assert_eq!(report.duplicates, sent as u64);
        if behind - first < sent {
            continue;
        }
        // But not when one of the copies differs.
        let copy = behind + random.below(sent);
        let at = random.below(lines[copy].len());
        lines[copy][at] ^= 1;
        assert!(!check(&lines, options(true)).whole);
    }
}

/// A random change; what it is.
fn tamper(lines: &[Vec<u8>], random: &mut Random) -> (Vec<u8>, String) {
    let count = lines.len();
    let mut changed = lines.to_vec();
    let what = match random.below(8) {
        0..=2 => {
            let mut bytes = joined(lines);
            let at = random.below(bytes.len());
            let with = 1 + random.below(255) as u8;
            bytes[at] ^= with;
            return (bytes, format!("byte {at} ^ {with}"));
        }
        3 => {
            let (first, run) = (random.below(count), 1 + random.below(12));
            let last = (first + run).min(count);
            changed.drain(first..last);
            format!("lines {first}..{last} deleted")
        }
        4 => {
            let keep = random.below(count - 1) + 1;
            if random.below(2) == 0 {
                changed.drain(..keep);
                format!("the first {keep} of {count} lines deleted")
            } else {
                changed.truncate(keep);
                format!("{keep} of {count} lines kept")
            }
        }
        5 => {
            // A copy that differs, somewhere else.
            let (from, to) = (random.below(count), random.below(count + 1));
            let mut copy = lines[from].clone();
            let digits: Vec<usize> = (0..copy.len()).filter(|&at| copy[at].is_ascii_digit()).collect();
            let at = digits[random.below(digits.len())];
            copy[at] = b'0' + (copy[at] - b'0' + 1 + random.below(9) as u8) % 10;
            changed.insert(to, copy);
            format!("line {from} inserted at {to} with another digit at {at}")
        }
        6 => {
            let (one, other) = (random.below(count), random.below(count));
            let other = if one == other { (other + 1) % count } else { other };
            changed.swap(one, other);
            format!("lines {one} and {other} swapped")
        }
        _ => {
            let (from, run) = (random.below(count - 1), 1 + random.below(5));
            let run: Vec<Vec<u8>> = changed.drain(from..(from + run).min(count)).collect();
            let mut to = random.below(changed.len() + 1);
            if to == from {
                to = if to == changed.len() { 0 } else { to + 1 };
            }
            changed.splice(to..to, run);
            format!("lines from {from} moved to {to}")
        }
    };
    (joined(&changed), what)
}

fn each_change_is_found(key: bool, seed: u64, changes: usize) {
    let node = node(true, key);
    // A stream that ends with the stop of an earlier instance is whole as far as it goes: nobody can know better.
    let boundary = joined(&node.delivered[..node.begins[1]]);
    assert!(check_bytes(&boundary, options(key)).whole);
    let original = joined(&node.delivered);
    let mut random = Random(seed);
    let mut done = 0;
    while done < changes {
        let (bytes, what) = tamper(&node.delivered, &mut random);
        if bytes == boundary || bytes == original {
            continue;
        }
        done += 1;
        // Also where the reader has no key.
        let report = check_bytes(&bytes, Options::default());
        assert!(!report.whole, "{what} (signed: {key}) was not found\n{}", report.render());
    }
}

#[test]
fn each_of_a_thousand_changes_is_found_in_a_signed_stream() {
    each_change_is_found(true, 0xfeed, 1000);
}

#[test]
fn each_change_is_found_in_a_chained_stream() {
    each_change_is_found(false, 0x5eed, 250);
}

/// Somebody who knows all but the key writes the chain anew from a line on, `until` a line.
fn rechain(lines: &mut [Vec<u8>], from: usize, until: usize) {
    let mut before = from.checked_sub(1).map_or(Hash::NONE, |before| Sealed::chain_of(&lines[before]).unwrap());
    for line in &mut lines[from..until] {
        let text = String::from_utf8(line.clone()).unwrap();
        let (content, _) = text.rsplit_once(",\"s3auditdPrevious\"").unwrap();
        let mut seal = Seal::new(true, None, Some(before));
        *line = seal.line(format!("{content}}}").into_bytes());
        before = seal.head().unwrap();
    }
}

fn edit(line: &mut Vec<u8>) {
    let text = String::from_utf8(line.clone()).unwrap();
    *line = text.replacen("\"time\":\"2025", "\"time\":\"2024", 1).into_bytes();
    assert_ne!(text.as_bytes(), line);
}

#[test]
fn who_writes_the_whole_chain_anew_is_found_by_the_signatures() {
    let node = node(true, true);
    let count = node.delivered.len();
    let holes: Vec<usize> = (1..count)
        .filter(|&at| Sealed::previous_of(&node.delivered[at]) != Sealed::chain_of(&node.delivered[at - 1]))
        .collect();
    assert_eq!(holes.len(), 4);
    for at in 0..count {
        let mut lines = node.delivered.clone();
        edit(&mut lines[at]);
        rechain(&mut lines, at, count);
        let report = check(&lines, options(true));
        assert!(!report.whole, "line {at}: {}", report.render());
        // The careful one stops where a hole hides it.
        if let Some(&hole) = holes.iter().find(|&&hole| hole > at) {
            let mut lines = node.delivered.clone();
            edit(&mut lines[at]);
            rechain(&mut lines, at, hole);
            let report = check(&lines, options(true));
            assert!(!report.whole, "line {at} before {hole}: {}", report.render());
        }
    }
}

#[test]
fn another_key_or_none_is_not_enough() {
    let signed = node(true, true).delivered;
    let other = Options { public_key: PublicKey::parse(&[7; 32]), ..Options::default() };
    assert!(problems(&check(&signed, other)).contains(&Problem::ForeignKey));
    let unsigned = node(true, false).delivered;
    assert_eq!(problems(&check(&unsigned, options(true))), [Problem::Unsigned]);
    // Without the checkpoint after the stop record.
    let last = signed.len() - 1;
    assert_eq!(problems(&check(&signed[..last], Options::default())), [Problem::Unsigned]);
    assert_eq!(problems(&check(&signed[..last], options(true))), [Problem::Unsigned]);
}

#[test]
fn what_another_endpoint_lost_explains_nothing() {
    let lines = node(true, false).delivered;
    let at = |name: &str| Options { endpoint: Some(name.to_owned()), ..Options::default() };
    assert!(check(&lines, at("splunk")).whole);
    assert_eq!(problems(&check(&lines, at("elastic"))), [Problem::Missing; 4]);
}

#[test]
fn without_a_chain_numbers_are_checked() {
    let node = node(false, false);
    let (lines, third) = (node.delivered, node.begins[2]);
    let changed = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        problems(&check(&lines, Options::default()))
    };
    assert_eq!(changed(&|_| {}), []);
    assert_eq!(changed(&|lines| drop(lines.remove(3))), [Problem::Missing]);
    assert_eq!(changed(&|lines| drop(lines.remove(0))), [Problem::Missing]);
    assert_eq!(changed(&|lines| drop(lines.pop())), [Problem::OpenEnd]);
    assert_eq!(changed(&|lines| lines.swap(third + 6, third + 7)), [Problem::Reordered, Problem::Missing]);
    assert_eq!(changed(&|lines| lines.push(b"{\"torn".to_vec())), [Problem::Invalid]);
    assert_eq!(changed(&|lines| lines.push(Vec::new())), [Problem::Invalid]);
    assert_eq!(changed(&Vec::clear), [Problem::Missing]);
    // A record that is made to look like another one.
    let line = |lines: &mut Vec<Vec<u8>>| {
        let text = String::from_utf8(lines[third + 5].clone()).unwrap();
        lines[third + 5] = text.replace("\"kind\":\"operation\"", "\"kind\":\"coverage\"").into_bytes();
    };
    assert_eq!(changed(&line), [Problem::Totals]);
}

#[test]
fn an_agent_that_forgot_its_last_lines_goes_on_from_an_earlier_one() {
    for chain in [false, true] {
        let mut node = Node::new(chain, false);
        node.operations(5, &[]);
        let (sequence, head) = (node.lines[4].sequence, Sealed::chain_of(&node.lines[4].bytes));
        node.restart_behind("b", true, sequence, head);
        node.stop();
        let report = check(&node.delivered, Options::default());
        assert!(report.whole, "{}", report.render());
    }
    // But not from a line that never was.
    let mut node = Node::new(true, false);
    node.operations(5, &[]);
    node.restart_behind("b", true, 4, Some(Hash::of(b"another")));
    node.stop();
    assert_eq!(problems(&check(&node.delivered, Options::default())), [Problem::Broken]);
}

#[test]
fn nodes_may_share_a_file() {
    let (one, mut other) = (node(true, true).delivered, Node::new(true, true));
    // Instance ids are drawn; here the second node's are made to differ.
    other.author = author("other", true, true, None);
    other.delivered.clear();
    other.author.start(start(None), None, 0);
    other.operations(50, &[]);
    other.stop();
    let mut lines = Vec::new();
    let mut rest = other.delivered.into_iter();
    for line in one {
        lines.push(line);
        lines.extend(rest.next());
    }
    lines.extend(rest);
    let report = check(&lines, options(true));
    assert!(report.whole, "{}", report.render());
    assert_eq!(report.instance_count, 4);
}
#[test]
fn exit_codes_are_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stream");
    let verify = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_s3auditd"));
        let output = command.arg("verify").args(arguments).arg(&file).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(verify(&[]).0, 2, "no such file");
    let mut lines = node(true, true).delivered;
    std::fs::write(&file, joined(&lines)).unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, PUBLIC).unwrap();
    let (code, text) = verify(&["--public-key", key.to_str().unwrap()]);
    assert!(code == 0 && text.contains("\nwhole: "), "{text}");
    assert_eq!(verify(&["--public-key", "nonsense"]).0, 2);
    lines.remove(3);
    std::fs::write(&file, joined(&lines)).unwrap();
    let (code, text) = verify(&["--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["findings"][0]["problem"]), (9, &"missing".into()), "{text}");
}
