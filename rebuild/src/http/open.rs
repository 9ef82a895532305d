//! An exchange that is being read.

use super::head::{RequestHead, ResponseHead};
use crate::exchange::{BodyStart, Completion, ConnectionInfo, Exchange, Oddity, UnseenPart};

/// How far a request or a reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing of it was read; for a reply, interim ones apart.
    Awaited,
    /// In its head or body.
    Running,
    /// At its end, read or inferred.
    Done,
}

/// See the module. Its fields become those of [`Exchange`].
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) ordinal: u64,
    pub(crate) request: Option<RequestHead>,
    pub(crate) response: Option<ResponseHead>,
    pub(crate) interim_replies: u32,
    pub(crate) started_ns: u64,
    pub(crate) head_read_ns: u64,
    pub(crate) first_byte_ns: Option<u64>,
    pub(crate) ended_ns: u64,
    pub(crate) request_head_bytes: u64,
    pub(crate) request_body_bytes: u64,
    pub(crate) response_head_bytes: u64,
    pub(crate) response_body_bytes: u64,
    pub(crate) request_body: BodyStart,
    pub(crate) response_body: BodyStart,
    pub(crate) unseen: Vec<UnseenPart>,
    pub(crate) oddities: Vec<Oddity>,
    pub(crate) request_part: Part,
    pub(crate) reply_part: Part,
    /// Where the sent stream stood when the request's head had been received: its reply begins there or later. None:
    /// the request's head was not seen, so that nothing can be said.
    pub(crate) reply_from: Option<u64>,
    /// Where the received stream stood when the reply's head ended.
    pub(crate) replied_at: u64,
    /// Where the reply ended in the sent stream.
    pub(crate) reply_end: u64,
    /// The client said that it waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// And it got it.
    pub(crate) continued: bool,
    /// Its head is longer than is read: what is received until the reply belongs to it.
    pub(crate) head_too_long: bool,
    /// Its head was found behind a loss: requests before it may wait unseen.
    pub(crate) behind_loss: bool,
}

impl Open {
    /// Whether the client waits for `100 Continue`, as far as was seen.
    pub(crate) const fn awaits_continue(&self) -> bool {
        self.expects_continue && !self.continued
    }

    pub(crate) const fn new(ordinal: u64, started_ns: u64) -> Self {
        Self {
            ordinal,
            request: None,
            response: None,
            interim_replies: 0,
            started_ns,
            head_read_ns: started_ns,
            first_byte_ns: None,
            ended_ns: started_ns,
            request_head_bytes: 0,
            request_body_bytes: 0,
            response_head_bytes: 0,
            response_body_bytes: 0,
            request_body: BodyStart { bytes: Vec::new(), whole: false },
            response_body: BodyStart { bytes: Vec::new(), whole: false },
            unseen: Vec::new(),
            oddities: Vec::new(),
            request_part: Part::Running,
            reply_part: Part::Awaited,
            reply_from: None,
            replied_at: 0,
            reply_end: 0,
            expects_continue: false,
            continued: false,
            head_too_long: false,
            behind_loss: false,
        }
    }

    pub(crate) fn miss(&mut self, part: UnseenPart) {
        if let Err(at) = self.unseen.binary_search(&part) {
            self.unseen.insert(at, part);
        }
    }

    pub(crate) fn note(&mut self, oddity: Oddity) {
        if let Err(at) = self.oddities.binary_search(&oddity) {
            self.oddities.insert(at, oddity);
        }
    }

    pub(crate) fn touch(&mut self, time_ns: u64) {
        self.ended_ns = self.ended_ns.max(time_ns);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.request_part == Part::Done && self.reply_part == Part::Done
    }

    /// An estimate of the memory it holds besides itself.
    pub(crate) fn cost(&self) -> usize {
        let request = self
            .request
            .as_ref()
            .map_or(0, |head| head.method.capacity() + head.target.capacity() + head.headers.cost());
        let response = self.response.as_ref().map_or(0, |head| head.headers.cost());
        let bodies = self.request_body.bytes.capacity() + self.response_body.bytes.capacity();
        request.saturating_add(response).saturating_add(bodies).saturating_add(size_of::<Self>())
    }

    pub(crate) fn into_exchange(self, connection: ConnectionInfo, completion: Completion) -> Exchange {
        let completion = if self.unseen.is_empty() { completion } else { Completion::Partial };
        Exchange {
            connection,
            ordinal: self.ordinal,
            request: self.request,
            response: self.response,
            interim_replies: self.interim_replies,
            started_ns: self.started_ns,
            head_read_ns: self.head_read_ns,
            first_byte_ns: self.first_byte_ns,
            ended_ns: self.ended_ns,
            request_head_bytes: self.request_head_bytes,
            request_body_bytes: self.request_body_bytes,
            response_head_bytes: self.response_head_bytes,
            response_body_bytes: self.response_body_bytes,
            request_body: self.request_body,
            response_body: self.response_body,
            completion,
            unseen: self.unseen,
            oddities: self.oddities,
        }
    }
}
