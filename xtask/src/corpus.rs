//! `cargo xtask corpus DIR`: recorded connections become the test data of `rebuild`.
//!
//! The corpus has an `index.jsonl` with a line for each connection, and for each `file` of it the two byte streams
//! (`.c2s`, `.s2c`, or gzipped) and their interleaving (`.seg`: microseconds, direction, length of each piece). What
//! comes of it is one gzipped file of conversations as `docs/replay.md` has them, runs of one byte as such.

use crate::process::workspace;
use anyhow::{Context as _, ensure};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use s3auditd_rebuild::replay::conversation::{Bytes, Event, From, Line};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Where tests find it.
const PLACE: &str = "rebuild/tests/data/conversations.jsonl.gz";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The corpus: a folder with an index.jsonl
    directory: PathBuf,
    /// Where the conversations go
    #[arg(long, default_value = PLACE)]
    out: PathBuf,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    client: String,
    server: String,
    scenario: String,
    ops: Vec<String>,
    requests: u64,
    ops_exact: bool,
    closed_first_by: String,
}

/// What tests look at; it stands in the first line of a conversation.
#[derive(Serialize)]
struct About {
    client: String,
    server: String,
    scenario: String,
    ops: Vec<String>,
    requests: u64,
    ops_exact: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let out = workspace().join(&args.out);
    let file = File::create(&out).with_context(|| format!("creating {}", out.display()))?;
    // No time and no name in it: the same corpus gives the same file.
    let mut gzip = GzBuilder::new().write(file, Compression::best());
    let index = args.directory.join("index.jsonl");
    let index = BufReader::new(File::open(&index).with_context(|| format!("opening {}", index.display()))?);
    let mut count = 0;
    for text in index.lines() {
        let entry: Entry = serde_json::from_str(&text?).context("index.jsonl")?;
        let place = args.directory.join(&entry.file);
        for line in conversation(entry, &place).with_context(|| place.display().to_string())? {
            serde_json::to_writer(&mut gzip, &line)?;
            gzip.write_all(b"\n")?;
        }
        count += 1;
    }
    gzip.finish()?;
    let size = fs::metadata(&out)?.len();
    eprintln!("corpus: {count} connections in {} ({size} bytes)", out.display());
    Ok(())
}

fn conversation(entry: Entry, place: &Path) -> anyhow::Result<Vec<Line>> {
    let streams = [stream(place, "c2s")?, stream(place, "s2c")?];
    let mut rest = [streams[0].as_slice(), streams[1].as_slice()];
    let name = entry.file.clone();
    let line = |time_us| Line { connection: name.clone(), time_us, ..Line::default() };
    let about = About {
        client: entry.client,
        server: entry.server,
        scenario: entry.scenario,
        ops: entry.ops,
        requests: entry.requests,
        ops_exact: entry.ops_exact,
    };
    let mut lines = vec![Line { event: Some(Event::Opened), about: Some(serde_json::to_value(about)?), ..line(0) }];
    let mut now = 0;
    for text in fs::read_to_string(place.with_extension("seg"))?.lines() {
        let (time_us, direction, length): (u64, String, usize) = serde_json::from_str(text)?;
        let (rest, from) = match direction.as_str() {
            "c2s" => (&mut rest[0], From::Client),
            _ => (&mut rest[1], From::Gateway),
        };
        let (piece, tail) = rest.split_at_checked(length).context("the pieces are longer than their stream")?;
        *rest = tail;
        now = time_us;
        lines.push(Line { from: Some(from), bytes: Some(Bytes::of(piece)), ..line(now) });
    }
    ensure!(rest.iter().all(|rest| rest.is_empty()), "the pieces are shorter than their stream");
    let closing: &[Event] = match entry.closed_first_by.as_str() {
        "client" => &[Event::ClientClosed, Event::GatewayClosed, Event::Closed],
        "server" => &[Event::GatewayClosed, Event::ClientClosed, Event::Closed],
        _ => &[],
    };
    lines.extend(closing.iter().zip(now + 1..).map(|(event, now)| Line { event: Some(*event), ..line(now) }));
    Ok(lines)
}

fn stream(place: &Path, extension: &str) -> anyhow::Result<Vec<u8>> {
    let plain = place.with_extension(extension);
    if plain.exists() {
        return Ok(fs::read(plain)?);
    }
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(place.with_extension(format!("{extension}.gz")))?).read_to_end(&mut bytes)?;
    Ok(bytes)
}
