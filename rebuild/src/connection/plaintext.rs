//! A connection whose TLS the kernel side reads where the gateway has it: from the first such sample on its streams are of
//! plaintext, with numbers of their own (docs/decisions/0070-plaintext-is-a-stream.md).

use super::{Connection, Outside, note_first};
use crate::http::conversation::Conversation;
use crate::http::span::Closing;
use crate::pipeline::Moved;
use crate::sample::{OwnedSample, Sample};
use crate::stream::Stream;
use s3auditd_common::sample::{Direction, Kind, Layer, Role, SampleHeader};
use zerocopy::FromZeros as _;

impl Connection {
    /// What came of the socket itself was the handshake; the streams begin anew.
    pub(super) fn become_plaintext(&mut self, layer: Layer, time_ns: u64, out: &mut Outside<'_>) {
        let whole = layer == Layer::Plaintext;
        out.counters.tls_connections_read += 1;
        if whole {
            self.http.is_read_as_plaintext();
        }
        self.converse(out, |http, cx| http.close(Closing::Evicted, time_ns, cx));
        // What waited for its turn has not been entered anywhere.
        if self.anchored && !(self.balances(Direction::Received) && self.balances(Direction::Sent)) {
            out.counters.connections_out_of_balance += 1;
        }
        let announced = self.http.announced();
        self.layer = layer;
        // Another CPU's ring may have it still.
        self.handshake_until = (!self.handshake.is_whole()).then_some(time_ns);
        self.received = Stream::starting_at(0);
        self.sent = Stream::starting_at(0);
        self.told = (time_ns, 0, 0);
        let (received, sent) = (self.received.assembler.cursor(), self.sent.assembler.cursor());
        self.anchor(received, sent);
        self.http = if whole {
            Conversation::from_the_start()
        } else {
            // Numbered from what the probes saw first, so nothing is missing before it that could still come.
            Conversation::in_mid_stream(self.role != Role::Unknown)
        };
        // A proxy's header stands in front of the handshake, in the open.
        self.http.announce(announced);
        if let Some(moves) = &mut out.moves {
            moves.push_back(Moved::Forgotten { cookie: self.cookie });
            if whole {
                moves.push_back(Moved::Sample(self.opened(time_ns)));
            }
        }
    }

    /// A sample of the socket's own bytes that another CPU's ring brought late.
    pub(super) fn take_late_ciphertext(&mut self, sample: &Sample<'_>, out: &mut Outside<'_>) {
        match sample.kind {
            Kind::Received | Kind::Sent => out.counters.stale_bytes += u64::from(sample.header.len),
            Kind::PeerClosed => note_first(&mut self.peer_closed_ns, sample.header.time_ns),
            Kind::LocalClosed => note_first(&mut self.local_closed_ns, sample.header.time_ns),
            // The kernel side tells the end in numbers of plaintext.
            Kind::Opened | Kind::Closed => {}
        }
    }

    /// What ended before the handshake was known has nothing to wait for any more.
    pub(super) fn hand_out_held(&mut self, out: &mut Outside<'_>) {
        self.handshake_until = None;
        for (open, completion) in std::mem::take(&mut self.held) {
            self.hand_out(open, completion, out);
        }
    }

    fn opened(&self, time_ns: u64) -> OwnedSample {
        let mut header = SampleHeader::new_zeroed();
        header.time_ns = time_ns;
        header.cookie = self.cookie;
        header.netns = self.netns;
        header.local_port = self.server.port();
        header.remote_port = self.client.port();
        header.kind = Kind::Opened as u8;
        header.role = self.role as u8;
        header.layer = self.layer as u8;
        let (family, local, remote) = crate::sample::raw_addresses(self.server.ip(), self.client.ip());
        (header.family, header.local_addr, header.remote_addr) = (family, local, remote);
        OwnedSample { header, payload: Vec::new() }
    }
}
