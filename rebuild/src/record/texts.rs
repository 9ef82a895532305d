//! Times, ids, numbers and addresses as text. Every record has a dozen of them, and `format!` costs several times what
//! writing the digits does; none is long enough to need room on the heap.

use super::headers::Json;
use super::json;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt::{self, Write as _};
use std::net::IpAddr;

const SECONDS_A_DAY: i64 = 86_400;

/// A text of letters, digits and marks that need no escape. What it has no room for is left out: nothing here is so long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Short {
    /// With its quotes, as it stands in a record.
    json: [u8; Self::ROOM],
    len: usize,
}

impl Short {
    /// An IPv6 address with an IPv4 one in it has 45 letters.
    const ROOM: usize = 52;

    /// Without its last quote.
    const fn open() -> Self {
        let mut json = [0; Self::ROOM];
        if let Some(first) = json.first_mut() {
            *first = b'"';
        }
        Self { json, len: 1 }
    }

    fn push(&mut self, letter: u8) {
        if let Some(place) = self.json.get_mut(self.len) {
            *place = letter;
            self.len += 1;
        }
    }

    const fn of<const N: usize>(text: [u8; N]) -> Self {
        let mut json = [0; Self::ROOM];
        if let Some(place) = json.first_chunk_mut::<N>() {
            *place = text;
        }
        Self { json, len: N }
    }

    fn close(mut self) -> Self {
        self.push(b'"');
        self
    }

    /// All decimal digits, and what they are of.
    fn decimal(mut self, number: u64, unit: &str) -> Self {
        let (digits, from) = json::decimal(number);
        digits.iter().skip(from).for_each(|digit| self.push(*digit));
        unit.bytes().for_each(|letter| self.push(letter));
        self
    }

    pub(super) fn as_str(&self) -> &str {
        let text = self.json.get(1..self.len.saturating_sub(1)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Short {
    fn default() -> Self {
        Self::open().close()
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|letter| self.push(letter));
        Ok(())
    }
}

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json(self.json.get(..self.len).unwrap_or_default()).serialize(serializer)
    }
}

/// A number in decimal digits.
pub(super) fn number(number: u64) -> Short {
    Short::open().decimal(number, "").close()
}

/// A time in nanoseconds, as Go writes it when it is told to.
pub(super) fn nanoseconds(number: u64) -> Short {
    Short::open().decimal(number, "ns").close()
}

/// RFC 3339, UTC, nanoseconds.
pub(super) fn rfc3339(time: Timestamp) -> Short {
    let (seconds, nanoseconds) = (time.as_second(), time.subsec_nanosecond());
    let (Ok(days), Ok(second), Ok(nanoseconds)) =
        (u64::try_from(seconds / SECONDS_A_DAY), u64::try_from(seconds % SECONDS_A_DAY), u64::try_from(nanoseconds))
    else {
        // Before 1970 the calendar's own way will do. It has room.
        let mut text = Short::open();
        let _ = write!(text, "{time:.9}");
        return text.close();
    };
    let (year, month, day) = date(days);
    let mut text = *br#""0000-00-00T00:00:00.000000000Z""#;
    digits::<4>(&mut text, 1, year);
    digits::<2>(&mut text, 6, month);
    digits::<2>(&mut text, 9, day);
    digits::<2>(&mut text, 12, second / 3600);
    digits::<2>(&mut text, 15, second / 60 % 60);
    digits::<2>(&mut text, 18, second % 60);
    digits::<9>(&mut text, 21, nanoseconds);
    Short::of(text)
}

/// Writes the last `N` decimal digits of a number at this place.
#[inline]
fn digits<const N: usize>(text: &mut [u8], at: usize, mut number: u64) {
    let Some(places) = text.get_mut(at..at + N) else { return };
    for place in places.iter_mut().rev() {
        *place = digit(number % 10);
        number /= 10;
    }
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

/// A UUID of these two halves.
pub(super) fn uuid(first: u64, second: u64) -> Short {
    let mut text = *br#""00000000-0000-0000-0000-000000000000""#;
    let nibbles =
        (0..16).rev().map(|place| first >> (4 * place)).chain((0..16).rev().map(|place| second >> (4 * place)));
    for (place, nibble) in text.iter_mut().filter(|place| **place == b'0').zip(nibbles) {
        *place = digit(nibble & 0xf);
    }
    Short::of(text)
}

/// An address as it is usually written.
pub(super) fn ip(address: IpAddr) -> Short {
    let mut text = Short::open();
    match address {
        IpAddr::V4(address) => {
            for (nth, octet) in address.octets().into_iter().enumerate() {
                text = text.decimal(octet.into(), if nth < 3 { "." } else { "" });
            }
        }
        // It has room.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
    text.close()
}

/// The same; IPv6 in brackets.
pub(super) fn bracketed_ip(address: IpAddr) -> Short {
    let IpAddr::V6(address) = address else { return ip(address) };
    let mut text = Short::open();
    let _ = write!(text, "[{address}]");
    text.close()
}

/// A digit below 16.
fn digit(value: u64) -> u8 {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    usize::try_from(value).ok().and_then(|value| DIGITS.get(value)).copied().unwrap_or(b'0')
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
            assert_eq!(rfc3339(time).as_str(), format!("{time:.9}"));
        }
    }

    #[test]
    fn addresses_are_as_the_standard_library_has_them() {
        for octet in 0..=255 {
            let address = IpAddr::V4(Ipv4Addr::new(octet, 0, 9, 255 - octet));
            assert_eq!(ip(address).as_str(), address.to_string());
        }
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        for text in ["fd00::1", "::ffff:255.255.255.255", longest] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(address).as_str(), text);
            assert_eq!(bracketed_ip(address).as_str(), format!("[{text}]"));
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for power in 0..64 {
            for value in [1_u64 << power, (1 << power) - 1, u64::MAX >> power] {
                assert_eq!(number(value).as_str(), value.to_string());
                assert_eq!(nanoseconds(value).as_str(), format!("{value}ns"));
            }
        }
        assert_eq!(Short::default().as_str(), "");
    }

    #[test]
    fn a_uuid_has_five_groups() {
        assert_eq!(uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210).as_str(), "01234567-89ab-cdef-fedc-ba9876543210");
    }
}
