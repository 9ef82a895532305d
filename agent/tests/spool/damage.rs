//! Bytes flipped and files cut: it always opens, never says what was not written, and counts what is gone.

use super::*;
use s3auditd::ledger::DropCause;
use s3auditd::spool::Recovered;
use std::collections::BTreeMap;
use std::fs;

const FRAMES: u64 = 40;
const SETTLED: u64 = 10;

/// Reproducible numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

fn nth(n: u64) -> (Vec<Bytes>, Uuid, Mark) {
    frame(n, 3 * n, 3, if n.is_multiple_of(4) { 12_000 } else { 300 })
}

/// A spool as `kill -9` leaves it (its last frames still in the journal) or as a stop does.
fn image(to: &Path, stopped: bool) {
    let dir = private_dir();
    let (spool, _) = Spool::open(settings(dir.path()), &readers(&["a"])).unwrap();
    for n in 1..=FRAMES {
        assert!(matches!(append(&spool, nth(n)), Appended::Stored { .. }));
        if n == FRAMES / 2 {
            spool.settle("a", SETTLED).unwrap();
        }
    }
    spool.flush().unwrap();
    if stopped {
        drop(spool);
    }
    copy(dir.path(), to);
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Opens what is left, and holds it against what was written. Returns how many frames were lost.
fn examine(dir: &Path, about: &str) -> u64 {
    let (spool, found) =
        Spool::open(settings(dir), &readers(&["a"])).unwrap_or_else(|error| panic!("{about}: {error}"));
    let after = spool.cursor("a").max(SETTLED);
    let frames: BTreeMap<_, _> =
        all(&spool, "a", spool.cursor("a")).into_iter().map(|frame| (frame.number, frame)).collect();
    for frame in frames.values() {
        let (lines, key, _) = nth(frame.number);
        assert!(frame.lines == lines && frame.key == key, "{about}: frame {} is not what was written", frame.number);
    }
    let lost = (after + 1..=FRAMES).filter(|number| !frames.contains_key(number)).count() as u64;
    let counted = spool.status().corrupt_frames;
    assert!(lost <= counted, "{about}: {lost} frames lost, {counted} counted; {found:?}");
    let runs = spool.given_up();
    assert!(lost == 0 || runs.iter().any(|run| run.cause == DropCause::Corrupt), "{about}: nothing given up");
    let known: u64 = runs.iter().map(|run| run.records).sum();
    assert!(runs.iter().any(|run| run.instance_id.is_empty()) || known >= 3 * lost, "{about}: {runs:?}");
    // It works on, and the next start finds nothing new.
    let Appended::Stored { number, .. } = append(&spool, frame(1000, 3000, 1, 100)) else { panic!("{about}: refused") };
    assert!(number > FRAMES, "{about}: number {number} was given twice");
    let count = all(&spool, "a", spool.cursor("a")).len() as u64;
    drop(spool);
    let (_, Recovered { corrupt_frames, set_aside, frames, .. }) =
        Spool::open(settings(dir), &readers(&["a"])).unwrap();
    assert_eq!((corrupt_frames, set_aside, frames), (0, None, count), "{about}");
    lost
}

fn damaged(seeds: std::ops::Range<u64>, hurt: impl Fn(&mut Dice, &mut Vec<u8>)) {
    let images = [private_dir(), private_dir()];
    image(images[0].path(), false);
    image(images[1].path(), true);
    for image in &images {
        assert_eq!(examine_copy(image.path(), |_| {}, "untouched"), 0);
    }
    let mut most = 0;
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9));
        let image = &images[usize::try_from(seed % 2).unwrap()];
        let mut files: Vec<_> = fs::read_dir(image.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        files.retain(|name| name != "lock");
        // Twice as often what holds the frames.
        files.extend(
            files.iter().filter(|name| name.to_string_lossy().starts_with("spool.db")).cloned().collect::<Vec<_>>(),
        );
        let file = files[usize::try_from(dice.below(files.len() as u64)).unwrap()].clone();
        let about = format!("seed {seed}, {}", file.to_string_lossy());
        let lost = examine_copy(
            image.path(),
            |dir| {
                let mut bytes = fs::read(dir.join(&file)).unwrap();
                hurt(&mut dice, &mut bytes);
                fs::write(dir.join(&file), bytes).unwrap();
            },
            &about,
        );
        most = most.max(lost);
    }
    println!("at most {most} of {} frames lost", FRAMES - SETTLED);
    assert!(most > 0, "no damage was ever done");
}

fn examine_copy(image: &Path, hurt: impl FnOnce(&Path), about: &str) -> u64 {
    let dir = private_dir();
    copy(image, dir.path());
    hurt(dir.path());
    examine(dir.path(), about)
}

#[test]
fn one_flipped_byte() {
    damaged(0..100, |dice, bytes| flip(dice, bytes));
}

#[test]
fn many_flipped_bytes() {
    damaged(1000..1060, |dice, bytes| (0..dice.below(200)).for_each(|_| flip(dice, bytes)));
}

#[test]
fn a_block_of_zeros() {
    damaged(2000..2060, |dice, bytes| {
        let start = usize::try_from(dice.below(bytes.len() as u64)).unwrap() / 4096 * 4096;
        let end = (start + 4096).min(bytes.len());
        bytes[start..end].fill(0);
    });
}

#[test]
fn a_torn_tail() {
    damaged(3000..3060, |dice, bytes| bytes.truncate(usize::try_from(dice.below(bytes.len() as u64)).unwrap()));
}

#[test]
fn the_first_page_and_everything() {
    for whole in [false, true] {
        let image_dir = private_dir();
        image(image_dir.path(), true);
        let hurt = |dir: &Path| {
            let mut bytes = fs::read(dir.join("spool.db")).unwrap();
            let end = if whole { bytes.len() } else { 4096 };
            bytes[..end].fill(0xff);
            fs::write(dir.join("spool.db"), bytes).unwrap();
        };
        examine_copy(image_dir.path(), hurt, "the start of the database");
    }
}

fn flip(dice: &mut Dice, bytes: &mut [u8]) {
    if bytes.is_empty() {
        return;
    }
    let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
    bytes[at] ^= u8::try_from(1 + dice.below(255)).unwrap();
}
