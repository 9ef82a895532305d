use super::*;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    most: Duration::from_secs(60),
    most_retry_after: Duration::from_secs(300),
};

/// With the largest jitter, so that waits are exact.
fn after(outcome: &Outcome, records: u64, attempt: u32) -> Action {
    decide(outcome, records, attempt, &BACKOFF, u32::MAX)
}

fn reply(status: u16, hec_code: Option<u64>) -> Outcome {
    Outcome::Reply { status, retry_after: None, hec_code }
}

#[test]
fn every_status_has_its_action() {
    let wait = BACKOFF.first;
    let retry = Action::Retry(wait);
    let token = Action::Hold(Hold::Token, wait);
    let endpoint = Action::Hold(Hold::Endpoint, wait);
    let poison = Action::Refused(DropCause::Poison);
    // status, Splunk code, action for a batch, action for a single record
    for (status, hec_code, batch, single) in [
        (200, None, Action::Done, Action::Done),
        (200, Some(0), Action::Done, Action::Done),
        (200, Some(9), Action::Done, Action::Done),
        (202, None, Action::Done, Action::Done),
        (204, None, Action::Done, Action::Done),
        (301, None, Action::Hold(Hold::Redirect, wait), Action::Hold(Hold::Redirect, wait)),
        (308, None, Action::Hold(Hold::Redirect, wait), Action::Hold(Hold::Redirect, wait)),
        (400, None, Action::Split, poison),
        (400, Some(5), Action::Split, poison),
        (400, Some(6), Action::Split, poison),
        (400, Some(7), endpoint, endpoint),
        (400, Some(10), endpoint, endpoint),
        (400, Some(11), endpoint, endpoint),
        (400, Some(12), Action::Split, poison),
        (400, Some(13), Action::Split, poison),
        (400, Some(14), endpoint, endpoint),
        (400, Some(15), Action::Split, poison),
        (400, Some(16), endpoint, endpoint),
        (400, Some(4711), Action::Split, poison),
        (401, None, token, token),
        (401, Some(2), token, token),
        (401, Some(3), token, token),
        (403, None, token, token),
        (403, Some(1), token, token),
        (403, Some(4), token, token),
        (404, None, endpoint, endpoint),
        (405, None, endpoint, endpoint),
        (408, None, retry, retry),
        (413, None, Action::Split, Action::Refused(DropCause::TooLarge)),
        (422, None, Action::Split, poison),
        (425, None, retry, retry),
        (429, None, retry, retry),
        (500, None, retry, retry),
        (500, Some(8), retry, retry),
        (501, None, endpoint, endpoint),
        (502, None, retry, retry),
        (503, Some(9), retry, retry),
        (503, Some(18), retry, retry),
        (503, Some(20), retry, retry),
        (503, Some(23), retry, retry),
        (504, None, retry, retry),
        (599, None, retry, retry),
        (600, None, endpoint, endpoint),
        (101, None, endpoint, endpoint),
    ] {
        assert_eq!(after(&reply(status, hec_code), 2, 0), batch, "{status} {hec_code:?} of a batch");
        assert_eq!(after(&reply(status, hec_code), 1, 0), single, "{status} {hec_code:?} of one record");
    }
    for (outcome, action) in
        [(Outcome::NoReply, retry), (Outcome::NotAcknowledged, retry), (Outcome::NoAcknowledgement, endpoint)]
    {
        assert_eq!((after(&outcome, 2, 0), after(&outcome, 1, 0)), (action, action), "{outcome:?}");
    }
}

#[test]
fn no_status_at_all_is_dropped_but_the_three_that_refuse_a_record() {
    for status in 0..=999 {
        let dropped = matches!(after(&reply(status, None), 1, 0), Action::Refused(_));
        assert_eq!(dropped, matches!(status, 400 | 413 | 422), "{status}");
    }
}

#[test]
fn waits_double_to_their_bound_and_are_spread_below_it() {
    let wait = |attempt, random| BACKOFF.wait(attempt, random);
    for (attempt, millis) in
        [(0, 500), (1, 1000), (2, 2000), (6, 32_000), (7, 60_000), (40, 60_000), (u32::MAX, 60_000)]
    {
        assert_eq!(wait(attempt, u32::MAX), Duration::from_millis(millis), "attempt {attempt}");
        assert_eq!(wait(attempt, 0), Duration::ZERO);
        assert!(wait(attempt, u32::MAX / 2) < Duration::from_millis(millis));
    }
}

#[test]
fn a_wish_of_the_webhook_is_the_least_wait_up_to_its_cap() {
    for (seconds, total) in [(0, 500), (7, 7500), (300, 300_500), (86_400, 300_500), (u64::MAX, 300_500)] {
        let outcome = Outcome::Reply { status: 429, retry_after: Some(Duration::from_secs(seconds)), hec_code: None };
        assert_eq!(after(&outcome, 1, 0), Action::Retry(Duration::from_millis(total)), "{seconds}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    for (header, seconds) in [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("99999999999999999999", Some(u64::MAX)),
        ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
        ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
        ("Sun Nov  6 08:50:07 1994", Some(30)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
    ] {
        assert_eq!(retry_after(header, now), seconds.map(Duration::from_secs), "{header}");
    }
}

#[test]
fn the_guard_lets_sixteen_go_and_begins_anew_after_a_success() {
    let guard = Guard::default();
    let go = |tries| (0..tries).filter(|_| guard.lets_go()).count();
    assert_eq!((go(10), go(10), go(10)), (10, 6, 0));
    guard.reset();
    assert_eq!(go(20), 16);
}
