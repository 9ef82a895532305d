//! Follows one body to its end, and keeps its start where that is wanted.

use super::chunked::{Chunked, Step};
use crate::exchange::BodyStart;

/// How far the bytes brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All bytes belong to the body, and more follow.
    More,
    /// The body ended; bytes not used belong to what follows.
    End,
    /// The framing broke: where it ends is not known.
    Broken,
}

/// Framing that is being followed.
#[derive(Debug)]
enum Follow {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Body {
    follow: Follow,
    /// Bytes on the wire so far.
    taken: u64,
    /// The most content bytes to keep; 0 keeps nothing.
    keep: usize,
    kept: Vec<u8>,
    /// Content bytes were left out of `kept`: too many, or not seen.
    cut: bool,
}

impl Body {
    pub(crate) const fn length(bytes: u64, keep: usize) -> Self {
        Self::new(Follow::Length(bytes), keep)
    }

    pub(crate) const fn chunked(keep: usize) -> Self {
        Self::new(Follow::Chunked(Chunked::START), keep)
    }

    pub(crate) const fn until_close(keep: usize) -> Self {
        Self::new(Follow::UntilClose, keep)
    }

    const fn new(follow: Follow, keep: usize) -> Self {
        Self { follow, taken: 0, keep, kept: Vec::new(), cut: keep == 0 }
    }

    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    pub(crate) const fn ends_with_connection(&self) -> bool {
        matches!(self.follow, Follow::UntilClose)
    }

    /// Its framing must be seen to be followed.
    pub(crate) const fn needs_bytes(&self) -> bool {
        matches!(self.follow, Follow::Chunked(_)) || self.keeps()
    }

    /// Content bytes from here on that nobody needs, and whether the body ends with them.
    pub(crate) const fn unneeded(&self) -> (u64, bool) {
        match &self.follow {
            _ if self.keeps() => (0, false),
            Follow::Length(rest) => (*rest, true),
            Follow::Chunked(chunked) => (chunked.data_left(), false),
            Follow::UntilClose => (u64::MAX, false),
        }
    }

    /// What was kept. `whole` says that the body came to its end.
    pub(crate) fn into_start(self, whole: bool) -> BodyStart {
        let whole = whole && !self.cut;
        BodyStart { bytes: self.kept, whole }
    }

    /// Takes seen bytes; says how many belong to the body.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let (used, progress) = match &mut self.follow {
            Follow::Length(rest) => {
                let used = usize::try_from(*rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
                *rest = rest.saturating_sub(used as u64);
                let progress = if *rest == 0 { Progress::End } else { Progress::More };
                self.keep_content(bytes.get(..used).unwrap_or_default());
                (used, progress)
            }
            Follow::UntilClose => {
                self.keep_content(bytes);
                (bytes.len(), Progress::More)
            }
            Follow::Chunked(_) => self.take_chunked(bytes),
        };
        self.taken += used as u64;
        (used, progress)
    }

    /// Passes over bytes that were not seen; says how many of them belong to the body.
    pub(crate) fn pass(&mut self, count: u64) -> (u64, Progress) {
        self.cut |= count > 0;
        let (used, progress) = match &mut self.follow {
            Follow::Length(rest) => {
                let used = count.min(*rest);
                *rest -= used;
                (used, if *rest == 0 { Progress::End } else { Progress::More })
            }
            Follow::UntilClose => (count, Progress::More),
            Follow::Chunked(chunked) => {
                if chunked.pass(count) {
                    (count, Progress::More)
                } else {
                    (count, Progress::Broken)
                }
            }
        };
        self.taken += used;
        (used, progress)
    }

    fn take_chunked(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let Follow::Chunked(chunked) = &mut self.follow else { break };
            match chunked.step(rest) {
                Step::Framing(count) => used += count,
                Step::Data(count) => {
                    self.keep_content(rest.get(..count).unwrap_or(rest));
                    used += count;
                }
                Step::End(count) => return (used + count, Progress::End),
                Step::Broken => return (used, Progress::Broken),
            }
        }
        (used, Progress::More)
    }

    const fn keeps(&self) -> bool {
        !self.cut && self.kept.len() < self.keep
    }

    fn keep_content(&mut self, content: &[u8]) {
        if self.cut || content.is_empty() {
            return;
        }
        let room = self.keep.saturating_sub(self.kept.len());
        self.cut = content.len() > room;
        self.kept.extend_from_slice(content.get(..room).unwrap_or(content));
    }
}
