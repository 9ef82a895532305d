//! SIGKILL at random moments: what was acknowledged is there, once, and whole.

use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

const ROUNDS: u64 = 50;

fn nth(number: u64) -> (Vec<Bytes>, Uuid, Mark) {
    frame(number, number * 4, 4, if number.is_multiple_of(5) { 50_000 } else { 500 })
}

fn round_settings(dir: &Path, round: u64) -> Settings {
    let sync = SpoolSync::ALL[usize::try_from(round % 3).unwrap()];
    Settings { sync, ..settings(dir) }
}

/// Appends and settles until it is killed, and says so after each.
#[test]
#[ignore = "a part of another test"]
fn victim() {
    let (Ok(dir), Ok(round)) = (std::env::var("SPOOL_TEST_DIR"), std::env::var("SPOOL_TEST_ROUND")) else { return };
    let (spool, _) = Spool::open(round_settings(Path::new(&dir), round.parse().unwrap()), &readers(&["a"])).unwrap();
    let mut out = std::io::stdout();
    let mut number = *spool.watch().borrow();
    loop {
        number += 1;
        assert_eq!(append(&spool, nth(number)), Appended::Stored { number, dropped: Vec::new() });
        writeln!(out, "\nappended {number}").unwrap();
        if number % 10 != 0 {
            let next = spool.next("a", spool.cursor("a")).unwrap().unwrap().number;
            spool.settle("a", next).unwrap();
            writeln!(out, "\nsettled {next}").unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_is_there() {
    let dir = private_dir();
    let (mut appended, mut settled, mut seen) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::victim", "--ignored", "--nocapture"])
            .env("SPOOL_TEST_DIR", dir.path())
            .env("SPOOL_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut heed = |line: String| match line.split_once(' ') {
            Some(("appended", number)) => appended = number.parse().unwrap(),
            Some(("settled", number)) => settled = number.parse().unwrap(),
            _ => {}
        };
        for line in lines.by_ref().take(15 + usize::try_from(round % 7).unwrap()) {
            heed(line.unwrap());
        }
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 977 % 20_000));
            victim.kill().unwrap();
            victim.wait().unwrap();
        });
        lines.map_while(Result::ok).for_each(&mut heed);
        killer.join().unwrap();

        let (spool, found) = Spool::open(round_settings(dir.path(), round), &readers(&["a"])).unwrap();
        let about = format!("round {round}: appended {appended}, settled {settled}, {found:?}");
        assert_eq!((found.corrupt_frames, &found.set_aside, found.given_up.len()), (0, &None, 0), "{about}");
        let cursor = spool.cursor("a");
        assert!((settled..=settled + 1).contains(&cursor), "{about}: cursor {cursor}");
        let numbers: Vec<_> = all(&spool, "a", cursor)
            .into_iter()
            .map(|frame| {
                let (lines, key, _) = nth(frame.number);
                assert!(frame.lines == lines && frame.key == key, "{about}: frame {}", frame.number);
                frame.number
            })
            .collect();
        let newest = numbers.last().copied().unwrap_or(cursor);
        assert!((appended..=appended + 1).contains(&newest), "{about}: newest {newest}");
        assert_eq!(numbers, (cursor + 1..=newest).collect::<Vec<_>>(), "{about}");
        (appended, settled) = (newest, cursor);
        seen = seen.max(newest);
    }
    assert!(seen > ROUNDS);
}
