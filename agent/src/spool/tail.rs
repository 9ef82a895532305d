//! The tail: what the newest frame is, outside of the database.
//!
//! The database's journal ends for SQLite where its first damaged byte is, silently. The tail tells that there was more.
//! It is written behind every commit, so it is never ahead of what was acknowledged, and in two slots by turns, so a torn
//! write leaves the other.

use super::Mark;
use super::place::private_file;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The name of its file.
pub(super) const FILE: &str = "tail";

const SLOT_BYTES: usize = 2048;

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    turn: u64,
    pub(super) newest: u64,
    /// Every reader has settled up to here.
    pub(super) settled: u64,
    pub(super) mark: Option<Mark>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    turn: u64,
}

impl Tail {
    /// Opens or makes it, and reads what it says; `None`: it is new, or damaged.
    pub(super) fn open(dir: &Path) -> std::io::Result<(Self, Option<Said>)> {
        let file = private_file(&dir.join(FILE))?;
        let said = read(&file);
        let turn = said.as_ref().map_or(0, |said| said.turn);
        Ok((Self { file, turn }, said))
    }

    /// Says so from here on.
    pub(super) fn write(&mut self, newest: u64, settled: u64, mark: Option<&Mark>) -> std::io::Result<()> {
        self.turn += 1;
        let mut said = Said { turn: self.turn, newest, settled, mark: mark.cloned() };
        let mut text = serde_json::to_vec(&said)?;
        if text.len() > SLOT_BYTES - 8 {
            said.mark = None;
            text = serde_json::to_vec(&said)?;
        }
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
        slot.extend_from_slice(&crc32fast::hash(&text).to_le_bytes());
        slot.extend_from_slice(&text);
        slot.resize(SLOT_BYTES, 0);
        self.file.write_all_at(&slot, (self.turn % 2) * SLOT_BYTES as u64)
    }

    /// To the disk.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

fn read(file: &File) -> Option<Said> {
    (0..2).filter_map(|slot| read_slot(file, slot)).max_by_key(|said| said.turn)
}

fn read_slot(file: &File, slot: u64) -> Option<Said> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if crc32fast::hash(text) != u32::from_le_bytes(*checksum) {
        return None;
    }
    serde_json::from_slice(text).ok()
}
