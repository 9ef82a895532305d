//! What to do after an attempt to deliver: a pure function of its outcome. Time and randomness are arguments.
//!
//! Splunk's reply codes (`{"text":..,"code":N}`) are more exact than its HTTP status, so they decide where they are known
//! (Splunk "Troubleshoot HTTP Event Collector", possible error codes).

use crate::config::endpoint::Endpoint;
use crate::ledger::DropCause;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply's head arrived.
    Reply {
        /// HTTP status.
        status: u16,
        /// The reply's wish; see [`retry_after`].
        retry_after: Option<Duration>,
        /// `code` of a Splunk reply.
        hec_code: Option<u64>,
    },
    /// None did.
    NoReply,
    /// The webhook took the batch, and its acknowledgement did not come in time.
    NotAcknowledged,
    /// The webhook took the batch without a promise to acknowledge it.
    NoAcknowledgement,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The batch has arrived.
    Done,
    /// The webhook is away or busy: send the same again after this time.
    Retry(Duration),
    /// Nothing will be accepted before somebody repairs something: keep everything, read the token again, and try again
    /// after this time.
    Hold(Hold, Duration),
    /// Send the two halves.
    Split,
    /// The batch is one record that will never be accepted: it goes into the dead-letter file, or is dropped so.
    Refused(DropCause),
}

/// What has to be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The token.
    Token,
    /// The URL, or the webhook's own settings.
    Endpoint,
    /// The URL: the webhook has moved, and the token is not carried along.
    Redirect,
    /// The webhook, or what it is sent: it refuses record after record; see [`Guard`].
    Everything,
}

/// The waits between attempts: full jitter, that is a random time below a bound that doubles (AWS Architecture Blog,
/// "Exponential Backoff And Jitter").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first bound.
    pub first: Duration,
    /// The last bound.
    pub most: Duration,
    /// The longest time that a reply's Retry-After is obeyed.
    pub most_retry_after: Duration,
}

impl From<&Endpoint> for Backoff {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            first: endpoint.retry_first,
            most: endpoint.retry_most,
            most_retry_after: endpoint.retry_most.saturating_mul(5),
        }
    }
}

impl Backoff {
    /// `attempt` counts from 0; `random` is uniform over all of u32.
    pub(super) fn wait(&self, attempt: u32, random: u32) -> Duration {
        let bound = self.first.saturating_mul(2u32.saturating_pow(attempt)).min(self.most);
        bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// What the outcome means, before any waiting time.
enum Verdict {
    Done,
    Retry,
    Hold(Hold),
    Refused(DropCause),
}

/// Decides. `records` is the size of the batch, `attempt` counts from 0 within the batch.
#[must_use]
pub fn decide(outcome: &Outcome, records: u64, attempt: u32, backoff: &Backoff, random: u32) -> Action {
    let (verdict, wish) = match outcome {
        Outcome::NoReply | Outcome::NotAcknowledged => (Verdict::Retry, None),
        Outcome::NoAcknowledgement => (Verdict::Hold(Hold::Endpoint), None),
        Outcome::Reply { status, retry_after, hec_code } => {
            let known = hec_code.filter(|_| *status >= 400).and_then(of_hec_code);
            (known.unwrap_or_else(|| of_status(*status)), *retry_after)
        }
    };
    // The wish is a lower bound; what is above it spreads the senders that were all told the same.
    let wait = wish.unwrap_or_default().min(backoff.most_retry_after).saturating_add(backoff.wait(attempt, random));
    match verdict {
        Verdict::Done => Action::Done,
        Verdict::Retry => Action::Retry(wait),
        Verdict::Hold(why) => Action::Hold(why, wait),
        Verdict::Refused(_) if records > 1 => Action::Split,
        Verdict::Refused(cause) => Action::Refused(cause),
    }
}

fn of_status(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Done,
        300..=399 => Verdict::Hold(Hold::Redirect),
        401 | 403 => Verdict::Hold(Hold::Token),
        413 => Verdict::Refused(DropCause::TooLarge),
        400 | 422 => Verdict::Refused(DropCause::Poison),
        408 | 425 | 429 => Verdict::Retry,
        501 => Verdict::Hold(Hold::Endpoint),
        500..=599 => Verdict::Retry,
        // 404, 405, 410, 415 and what else a wrong path gives; below 200 and above 599 it is not HTTP as we know it.
        _ => Verdict::Hold(Hold::Endpoint),
    }
}

fn of_hec_code(code: u64) -> Option<Verdict> {
    match code {
        1..=4 => Some(Verdict::Hold(Hold::Token)),
        // Wrong index, missing or bad channel, acknowledgement off, query authorisation off.
        7 | 10 | 11 | 14 | 16 => Some(Verdict::Hold(Hold::Endpoint)),
        5 | 6 | 12 | 13 | 15 => Some(Verdict::Refused(DropCause::Poison)),
        8 | 9 | 18..=20 | 23 => Some(Verdict::Retry),
        _ => None,
    }
}

/// Keeps a webhook that refuses everything from costing everything: after so many refused records in a row, with nothing
/// accepted in between, the next one is no longer given up but held. One for each endpoint.
#[derive(Debug, Default)]
pub struct Guard(AtomicU32);

impl Guard {
    /// How many records may be refused in a row.
    pub const MOST: u32 = 16;

    /// Something was accepted, or somebody has changed something.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether another refused record may be given up; counts it if so.
    pub fn lets_go(&self) -> bool {
        let more = |refused| (refused < Self::MOST).then_some(refused + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Reads a Retry-After header: seconds, or a date (RFC 9110 section 10.2.3). A date that has passed is no wait.
#[must_use]
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
