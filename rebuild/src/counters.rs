//! What the core counts. Numbers only go up; gauges are differences of them.

use crate::exchange::Completion;
use crate::loss::LossCause;
use s3auditd_common::sample::Unseen;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// See the module. Every field has its name as metric name.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl Counters {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that entered the table.
    connections_seen,
    /// Connections that left it because the socket closed.
    connections_closed,
    /// Connections that left it because the agent stopped.
    connections_stopped,
    /// Connections that left it because it was full.
    connection_table_evictions,
    /// Connections that turned out not to carry HTTP.
    not_http_connections,
    /// Connections that began with the HTTP/2 preface: not rebuilt yet, so they give no records.
    http2_connections,
    /// Connections that began with a TLS hello.
    tls_connections,
    /// Connections whose TLS is read as plaintext: they give records like any other.
    tls_connections_read,
    /// Connections with TLS on which the client sent data that was not read, or not from the first byte on.
    tls_connections_unread,
    /// Connections whose socket something in the kernel has (kTLS, MPTCP, a sockmap): what they carry is not seen.
    upper_layer_connections,
    /// Headers of the PROXY protocol in front of a connection's first request.
    proxy_headers,
    /// Connections of role unknown on which the gateway is the client.
    outgoing_connections,
    /// Connections that left HTTP by 101 or CONNECT.
    upgraded_connections,
    /// Exchanges of which something was read.
    exchanges_begun,
    /// Exchanges handed out.
    exchanges_ended,
    /// Exchanges handed out as `Completion::Complete`.
    exchanges_complete,
    /// Exchanges handed out as `Completion::ClientAborted`.
    exchanges_client_aborted,
    /// Exchanges handed out as `Completion::GatewayAborted`.
    exchanges_gateway_aborted,
    /// Exchanges handed out as `Completion::NoReply`.
    exchanges_no_reply,
    /// Exchanges handed out as `Completion::AgentStopped`.
    exchanges_agent_stopped,
    /// Exchanges handed out as `Completion::Partial`.
    exchanges_partial,
    /// Samples taken.
    samples,
    /// Samples that the kernel side says it lost, by the connections' own counts.
    kernel_lost_samples,
    /// Bytes of the streams that came with their sample.
    seen_bytes,
    /// Bytes not copied because they were not wanted.
    skipped_bytes,
    /// Bytes not copied: run budget.
    unseen_withheld_bytes,
    /// Bytes not copied: no user buffer.
    unseen_no_buffer_bytes,
    /// Bytes not copied: deferred worker.
    unseen_deferred_bytes,
    /// Bytes not copied: kernel thread or 32-bit caller.
    unseen_foreign_caller_bytes,
    /// Bytes not copied: unreadable memory.
    unseen_fault_bytes,
    /// Bytes not copied: upper-layer protocol.
    unseen_upper_layer_bytes,
    /// Bytes not copied: too many segments.
    unseen_too_many_segments_bytes,
    /// Bytes that moved and of which no sample tells.
    lost_bytes,
    /// Bytes that were seen, but dropped because a buffer limit was hit.
    dropped_bytes,
    /// Of the bytes received: how far their sequence numbers moved. It equals the sum of the dispositions that follow.
    received_moved_bytes,
    /// Of them: came with their sample.
    received_seen_bytes,
    /// Of them: not wanted.
    received_skipped_bytes,
    /// Of them: told, and not seen, for whatever cause.
    received_unseen_bytes,
    /// Of them: no sample tells of them.
    received_lost_bytes,
    /// Of them: seen, but dropped because a buffer limit was hit.
    received_dropped_bytes,
    /// Of the bytes sent: how far their sequence numbers moved. It equals the sum of the dispositions that follow.
    sent_moved_bytes,
    /// Of them: came with their sample.
    sent_seen_bytes,
    /// Of them: not wanted.
    sent_skipped_bytes,
    /// Of them: told, and not seen, for whatever cause.
    sent_unseen_bytes,
    /// Of them: no sample tells of them.
    sent_lost_bytes,
    /// Of them: seen, but dropped because a buffer limit was hit.
    sent_dropped_bytes,
    /// Connections that left the table with both directions accounted for to the byte.
    connections_balanced,
    /// Connections that left it with bytes that no disposition accounts for, or with too many: an error of ours.
    connections_out_of_balance,
    /// Gaps handed out.
    gaps,
    /// The most operations that all gaps together may hide.
    operations_hidden_at_most,
    /// Bytes of samples that told what was known already (duplicates, or late inside a skipped part).
    stale_bytes,
    /// Bytes, however disposed of, before the first request head of a connection met in mid-stream.
    unsynced_bytes,
    /// Bytes, however disposed of, of connections (or parts of them) that carry no HTTP/1.
    opaque_bytes,
    /// Bytes sent beyond the end of a reply and before the next one.
    surplus_bytes,
    /// Bytes whose place in a message is not known, because of an earlier loss.
    unplaced_bytes,
    /// See `LossCause::Hole`.
    holes,
    /// See `LossCause::Withheld`.
    unseen_withheld,
    /// See `LossCause::NoBuffer`.
    unseen_no_buffer,
    /// See `LossCause::Deferred`.
    unseen_deferred,
    /// See `LossCause::ForeignCaller`.
    unseen_foreign_caller,
    /// See `LossCause::Fault`.
    unseen_fault,
    /// See `LossCause::UpperLayer`.
    unseen_upper_layer,
    /// See `LossCause::TooManySegments`.
    unseen_too_many_segments,
    /// See `LossCause::Unplaced`.
    unplaced_stretches,
    /// See `LossCause::HeadTooLong`.
    heads_too_long,
    /// See `LossCause::HeadMalformed`.
    heads_malformed,
    /// Heads that only the lenient reader understood.
    heads_lenient,
    /// See `LossCause::RequestHeadUnseen`.
    request_heads_unseen,
    /// See `LossCause::ResponseHeadUnseen`.
    response_heads_unseen,
    /// See `LossCause::RequestFraming`.
    request_framing_lost,
    /// See `LossCause::ResponseFraming`.
    response_framing_lost,
    /// Times that a direction got back into step after a loss.
    resyncs,
    /// See `LossCause::PendingLimit`.
    pending_limit_hits,
    /// See `LossCause::TotalLimit`.
    total_limit_hits,
    /// See `LossCause::PipeliningLimit`.
    pipelining_limit_hits,
    /// See `LossCause::RepliesUnpaired`.
    replies_unpaired,
    /// Skip windows asked for.
    skip_windows,
    /// Want windows asked for.
    want_windows,
}

impl Counters {
    /// Connections in the table.
    #[must_use]
    pub const fn connections_open(&self) -> u64 {
        self.connections_seen
            .saturating_sub(self.connections_closed)
            .saturating_sub(self.connections_stopped)
            .saturating_sub(self.connection_table_evictions)
    }

    /// Exchanges begun and not yet handed out.
    #[must_use]
    pub const fn exchanges_open(&self) -> u64 {
        self.exchanges_begun.saturating_sub(self.exchanges_ended)
    }

    pub(crate) fn lose(&mut self, cause: LossCause) {
        *cause.counter(self) += 1;
    }

    /// The bytes counter of a disposition.
    pub(crate) const fn bytes_of(&mut self, unseen: Unseen) -> &mut u64 {
        match unseen {
            Unseen::Seen => &mut self.seen_bytes,
            Unseen::Skipped => &mut self.skipped_bytes,
            Unseen::Withheld => &mut self.unseen_withheld_bytes,
            Unseen::NoBuffer => &mut self.unseen_no_buffer_bytes,
            Unseen::Deferred => &mut self.unseen_deferred_bytes,
            Unseen::ForeignCaller => &mut self.unseen_foreign_caller_bytes,
            Unseen::Fault => &mut self.unseen_fault_bytes,
            Unseen::UpperLayer => &mut self.unseen_upper_layer_bytes,
            Unseen::TooManySegments => &mut self.unseen_too_many_segments_bytes,
        }
    }

    pub(crate) const fn ended(&mut self, completion: Completion) {
        self.exchanges_ended += 1;
        let counter = match completion {
            Completion::Complete => &mut self.exchanges_complete,
            Completion::ClientAborted => &mut self.exchanges_client_aborted,
            Completion::GatewayAborted => &mut self.exchanges_gateway_aborted,
            Completion::NoReply => &mut self.exchanges_no_reply,
            Completion::AgentStopped => &mut self.exchanges_agent_stopped,
            Completion::Partial => &mut self.exchanges_partial,
        };
        *counter += 1;
    }
}
