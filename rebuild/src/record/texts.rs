//! Times, ids and addresses as text. Every record has a dozen of them, and `format!` costs several times what writing the
//! digits does.

use jiff::Timestamp;
use std::net::IpAddr;

const SECONDS_A_DAY: i64 = 86_400;

/// RFC 3339, UTC, nanoseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.as_second(), time.subsec_nanosecond());
    // Before 1970 the calendar's own way will do.
    let (Ok(days), Ok(nanoseconds)) = (u64::try_from(seconds / SECONDS_A_DAY), u64::try_from(nanoseconds)) else {
        return format!("{time:.9}");
    };
    let Ok(second) = u64::try_from(seconds % SECONDS_A_DAY) else { return format!("{time:.9}") };
    let (year, month, day) = date(days);
    let mut text = String::with_capacity("2026-01-01T00:00:00.000000000Z".len());
    decimal(&mut text, year, 4);
    for (before, number, width) in [
        ('-', month, 2),
        ('-', day, 2),
        ('T', second / 3600, 2),
        (':', second / 60 % 60, 2),
        (':', second % 60, 2),
        ('.', nanoseconds, 9),
    ] {
        text.push(before);
        decimal(&mut text, number, width);
    }
    text.push('Z');
    text
}

/// Year, month and day of so many days after 1970-01-01. Years are taken to begin in March, so that the leap day is the
/// last of one, and 400 of them are one era (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
const fn date(days: u64) -> (u64, u64, u64) {
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

/// The last `width` decimal digits.
fn decimal(text: &mut String, number: u64, width: u32) {
    for place in (0..width).rev() {
        text.push(digit(number / 10_u64.pow(place) % 10));
    }
}

/// A UUID of these two halves.
pub(super) fn uuid(first: u64, second: u64) -> String {
    let mut text = String::with_capacity(36);
    for place in (0..16).rev() {
        text.push(digit(first >> (4 * place) & 0xf));
        if matches!(place, 8 | 4 | 0) {
            text.push('-');
        }
    }
    for place in (0..16).rev() {
        text.push(digit(second >> (4 * place) & 0xf));
        if place == 12 {
            text.push('-');
        }
    }
    text
}

/// An address as it is usually written.
pub(super) fn ip(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (nth, octet) in address.octets().into_iter().map(u64::from).enumerate() {
        if nth > 0 {
            text.push('.');
        }
        decimal(&mut text, octet, 1 + u32::from(octet > 9) + u32::from(octet > 99));
    }
    text
}

/// A digit below 16.
fn digit(value: u64) -> char {
    u32::try_from(value).ok().and_then(|value| char::from_digit(value, 16)).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn times_are_as_the_calendar_has_them() {
        // Every seventh hour and some for 450 years, so every day of all kinds of years, and the ends.
        let steps = (0..560_000).map(|nth| i128::from(nth) * 25_321_123_456_789);
        let ends = [Timestamp::MIN, Timestamp::MAX, Timestamp::from_nanosecond(-1).unwrap()];
        let times = steps.map(|time| Timestamp::from_nanosecond(time).unwrap()).chain(ends);
        for time in times {
            assert_eq!(rfc3339(time), format!("{time:.9}"));
        }
    }

    #[test]
    fn addresses_are_as_the_standard_library_has_them() {
        for octet in 0..=255 {
            let address = IpAddr::V4(Ipv4Addr::new(octet, 0, 9, 255 - octet));
            assert_eq!(ip(address), address.to_string());
        }
        let address: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(ip(address), "fd00::1");
    }

    #[test]
    fn a_uuid_has_five_groups() {
        assert_eq!(uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), "01234567-89ab-cdef-fedc-ba9876543210");
    }
}
