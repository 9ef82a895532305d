//! Connections that were open when a library's probes went in. None of them has a handshake to come that would tie it to its object
//! (docs/decisions/0072-openssl-by-use.md), so the functions that read are probed at entry and return until each has made a read, or has ended.
//!
//! The same probes are needed for good where a server lets its handshakes happen inside of reads: it has plaintext that is tied to
//! nothing, and connections that are not read.

use crate::capture::{
    attach::AsPod,
    diag::{Connection, Diag},
    sockets,
};
use aya::{Ebpf, maps::HashMap};
use s3auditd_common::settings::{ConnectionState, TlsFile};
use std::collections::VecDeque;

/// How many connections are looked at in one look.
const AT_ONCE: usize = 64;
/// In so many looks both must be seen of a server that wants its reads probed: a minute.
const LOOKS: u32 = 60;

/// What a file's reads are probed for.
#[derive(Debug)]
pub(super) enum Before {
    /// Connections that are not tied yet.
    Open(VecDeque<Connection>),
    /// Who knows: they stay.
    ForGood,
    /// No more: they are out.
    Over(Unread),
}

/// What there was when it was begun to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// Plaintext in the file that is tied to no connection.
    untied: u64,
    /// Connections of TLS that are not read, of whichever file.
    connections: u64,
    looks: u32,
}

/// What a look calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Nothing,
    /// At each look one, until all are out.
    TakeOut,
    PutIn,
}

impl Before {
    /// To be asked when the other probes are in: what begins from then on has its handshake seen. `own_numbers`: the kernel side does not
    /// know connections by their cookies.
    pub fn now(processes: impl IntoIterator<Item = u32>, ports: &[u16], own_numbers: bool) -> Self {
        match Diag::default().open(ports) {
            Some(open) if open.is_empty() || !own_numbers => {
                if sockets::is_open_elsewhere(processes, ports) {
                    Self::ForGood
                } else {
                    Self::Open(open.into())
                }
            }
            _ => Self::ForGood,
        }
    }

    /// Whether there is nothing to probe reads for.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Open(open) if open.is_empty())
    }

    /// Looks at some of the connections, or at what goes unread: `connections` is how many have, in all.
    pub fn look(&mut self, ebpf: &Ebpf, file: Option<TlsFile>, connections: u64) -> Call {
        match self {
            Self::ForGood => Call::Nothing,
            Self::Open(open) => {
                let some = open.drain(..open.len().min(AT_ONCE));
                let untied = some.filter(|connection| !is_tied(ebpf, connection.cookie())).collect::<Vec<_>>();
                // If there is no answer, they are asked for again.
                let still = Diag::default().still_open(untied.clone()).unwrap_or(untied);
                open.extend(still);
                if open.is_empty() { Call::TakeOut } else { Call::Nothing }
            }
            Self::Over(unread) => {
                if !unread.is_seen(file.map_or(0, |file| file.untied), connections) {
                    return Call::Nothing;
                }
                *self = Self::ForGood;
                Call::PutIn
            }
        }
    }
}

impl Unread {
    /// From now on.
    pub fn now(file: Option<TlsFile>, connections: u64) -> Self {
        Self { untied: file.map_or(0, |file| file.untied), connections, looks: 0 }
    }

    /// Whether both have become more within a minute.
    fn is_seen(&mut self, untied: u64, connections: u64) -> bool {
        if self.looks >= LOOKS {
            *self = Self { untied, connections, looks: 0 };
        }
        self.looks += 1;
        untied > self.untied && connections > self.connections
    }
}

/// Whether the kernel side has found the object of that connection.
fn is_tied(ebpf: &Ebpf, cookie: u64) -> bool {
    let states = ebpf.map("CONNECTIONS").and_then(|map| HashMap::<_, u64, AsPod<ConnectionState>>::try_from(map).ok());
    states.is_some_and(|states| states.get(&cookie, 0).is_ok_and(|state| state.0.tls_tied != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_wanted_if_both_are_seen_in_a_minute() {
        let mut unread = Unread::now(Some(TlsFile { untied: 5, ..TlsFile::default() }), 7);
        assert!(!unread.is_seen(5, 7), "what was before");
        assert!(!unread.is_seen(6, 7) && !unread.is_seen(9, 7), "of a server on a port that is not watched");
        assert!(unread.is_seen(9, 8));
        let mut unread = Unread { untied: 5, connections: 7, looks: LOOKS - 1 };
        assert!(!unread.is_seen(6, 7));
        assert!(!unread.is_seen(6, 8), "the minute is over");
        assert!(unread.is_seen(7, 9));
    }
}
