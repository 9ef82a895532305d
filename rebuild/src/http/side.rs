//! The states of a conversation's two directions: what is expected next.

use super::body::Body;
use super::preface::Preface;
use super::reader::HeadReader;

#[derive(Debug)]
pub(super) enum RequestSide {
    /// The connection begins: a proxy's header may stand in front of the first request.
    Preface(Preface),
    Head {
        reader: HeadReader,
        origin: Origin,
    },
    /// `committed`: it has been decided that what comes is body, not the next head.
    Body {
        body: Body,
        committed: bool,
    },
    /// What comes has no known place. `sent_at`: where the sent stream stood when the last byte was received.
    Lost {
        sent_at: u64,
    },
    /// Met in mid-stream: a head may begin where a sample begins.
    Unsynced,
    /// Not HTTP/1.
    Opaque,
}

/// Why a request head is looked for, and so what it means when none is there.
#[derive(Debug)]
pub(super) enum Origin {
    /// The connection begins: it does not carry HTTP.
    First,
    /// The one before has ended: it is malformed.
    Next,
    /// In mid-stream: try again later.
    MidStream,
    /// The gateway has replied to what was lost: still lost.
    Turn,
    /// A final reply came although the client waits for `100 Continue`: it is the body after all.
    InsteadOfBody(Body),
    /// What was sent while the client waited for `100 Continue` was not seen: it is the body. Should there be a head,
    /// then nobody can tell whether the body only looks like one.
    DoubtfulBody(Body),
}

#[derive(Debug)]
pub(super) enum ReplySide {
    /// In step, between replies.
    Idle,
    Head {
        reader: HeadReader,
        origin: ReplyOrigin,
    },
    /// `sure` false: the request may have been a HEAD, then there is no body. `probed_at`: a head was looked for here.
    Body {
        body: Body,
        sure: bool,
        probed_at: u64,
    },
    /// The end of a reply is not known. `holder`: that reply belongs to the first exchange whose reply is not done.
    Lost {
        holder: bool,
    },
    /// Replies were lost while several were due, so that it is not known whose the later ones are. It stays so: a client
    /// that pipelines never shows that it has them all.
    Unpaired,
    Opaque,
}

/// Why a reply's head is looked for.
#[derive(Debug)]
pub(super) enum ReplyOrigin {
    /// The one before has ended: what is no head is surplus of it.
    Next,
    /// After a loss, at the place where the next request's reply begins.
    Turn,
    /// Where a body whose end is doubtful may have ended.
    InsteadOfBody(Body),
}
