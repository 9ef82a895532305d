//! Header fields as they were written before. On kept connections nearly all fields come again and again, word for word,
//! and what a record says of one depends on nothing but its name, its value and the settings.
//!
//! A fixed number of places, each for one field: whatever comes, looking costs one hash and one comparison, and the memory
//! has a bound. A field gets its place when it comes for the second time, so what never comes again (ids, sums) puts
//! nothing out. Of a field that is kept nothing was cut: what must not be written down is not kept either.

/// How many fields are kept.
const PLACES: usize = 512;

/// Longer ones, as they came and as they are written together, are not kept.
const MAX_FIELD_BYTES: usize = 1024;

/// See the module. Those of requests, of replies and of queries are written in different ways, so each has its own.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    key: u64,
    places: Vec<Place>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    /// Of the field that was met here last and is not kept.
    met: u64,
    /// Of the one that is kept.
    hash: u64,
    name_len: u16,
    value_len: u16,
    /// Name and value as they came, then the text as it is written. Empty: none is kept.
    text: Vec<u8>,
}

impl Lines {
    /// `key`: what an outsider does not know, so that nobody can choose which fields share a place.
    pub(super) fn new(key: u64) -> Self {
        Self { key, places: vec![Place::default(); PLACES] }
    }

    /// Forgets all: they were written under other settings.
    pub(super) fn clear(&mut self) {
        self.places.fill(Place::default());
    }

    /// Appends what was kept of this field to `out`, or else says where it may be kept.
    pub(super) fn write(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Option<Vacant<'_>> {
        let hash = hash(hash(self.key, name), value);
        let at = usize::try_from(hash).unwrap_or_default() % PLACES;
        // The remainder is a place.
        let place = self.places.get_mut(at);
        if let Some(place) = &place
            && place.hash == hash
            && let Some((came, written)) = place.text.split_at_checked(name.len() + value.len())
            && (usize::from(place.name_len), usize::from(place.value_len)) == (name.len(), value.len())
            && came.starts_with(name)
            && came.ends_with(value)
        {
            out.extend_from_slice(written);
            return None;
        }
        Some(Vacant { place, hash })
    }
}

/// A place for a field that is not kept.
pub(super) struct Vacant<'a> {
    place: Option<&'a mut Place>,
    hash: u64,
}

impl Vacant<'_> {
    /// Keeps it, if it comes for the second time. Only for fields of which nothing was cut.
    pub(super) fn keep(self, name: &[u8], value: &[u8], written: &[u8]) {
        let Some(place) = self.place else { return };
        if place.met != self.hash {
            place.met = self.hash;
            return;
        }
        let bytes = name.len() + value.len() + written.len();
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u16::try_from(value.len())) else { return };
        if bytes > MAX_FIELD_BYTES || name.is_empty() {
            return;
        }
        let mut text = std::mem::take(&mut place.text);
        text.clear();
        text.reserve_exact(bytes);
        for part in [name, value, written] {
            text.extend_from_slice(part);
        }
        *place = Place { met: 0, hash: self.hash, name_len, value_len, text };
    }
}

/// Not a cryptographic hash: who finds two fields for one place gets them written as slowly as those that are not kept.
/// Sixteen bytes at a time, the last of which may have been taken already.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let seed = seed ^ bytes.len() as u64;
    if let Some(last) = bytes.last_chunk::<16>() {
        let (chunks, _) = bytes.as_chunks::<16>();
        return chunks.iter().chain([last]).fold(seed, |hash, chunk| {
            let word = u128::from_le_bytes(*chunk);
            mix(hash ^ low(word), low(word >> 64))
        });
    }
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (bytes.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte)), 0),
    };
    mix(seed ^ first, last)
}

/// Both halves of a product (wyhash, by Wang Yi).
const fn mix(one: u64, other: u64) -> u64 {
    const KEYS: (u64, u64) = (0x9e37_79b9_7f4a_7c15, 0xe703_7ed1_a0b4_28db);
    let product = (one ^ KEYS.0) as u128 * (other ^ KEYS.1) as u128;
    low(product) ^ low(product >> 64)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(word: u128) -> u64 {
    word as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a record would say, from the cache or made anew.
    fn write(lines: &mut Lines, name: &[u8], value: &[u8]) -> bool {
        let made = [name, b"=", value].concat();
        let mut out = b"before ".to_vec();
        match lines.write(name, value, &mut out) {
            None => {
                assert_eq!(out, [&b"before "[..], &made].concat());
                true
            }
            Some(vacant) => {
                assert_eq!(out, b"before ");
                vacant.keep(name, value, &made);
                false
            }
        }
    }

    #[test]
    fn a_field_is_kept_from_its_second_time_on() {
        let mut lines = Lines::new(7);
        let fields: [(&[u8], &[u8]); 5] = [
            (b"Server", b"MinIO"),
            (b"Serve", b"rMinIO"),
            (b"Vary", b""),
            (b"x", b"\xff\0"),
            (b"Range", b"bytes=0-4095"),
        ];
        let times = fields.map(|(name, value)| [(); 4].map(|()| write(&mut lines, name, value)));
        assert_eq!(times, [[false, false, true, true]; 5]);
        lines.clear();
        assert!(!write(&mut lines, b"Server", b"MinIO"));
    }

    #[test]
    fn no_flood_makes_it_grow() {
        let mut lines = Lines::new(7);
        for nth in 0..20_000_usize {
            let value = vec![b'v'; nth % 1500];
            let name = format!("name-{nth}");
            for _ in 0..3 {
                write(&mut lines, name.as_bytes(), &value);
            }
        }
        assert_eq!(lines.places.len(), PLACES);
        assert!(lines.places.iter().all(|place| place.text.capacity() <= MAX_FIELD_BYTES));
        assert!(lines.places.iter().all(|place| !place.text.is_empty()));
    }

    #[test]
    fn what_comes_once_puts_nothing_out() {
        let mut lines = Lines::new(7);
        assert!((0..3).any(|_| write(&mut lines, b"Server", b"MinIO")));
        for nth in 0..20_000 {
            write(&mut lines, b"X-Amz-Request-Id", format!("{nth:016X}").as_bytes());
        }
        assert!(write(&mut lines, b"Server", b"MinIO"));
    }

    #[test]
    fn fields_that_share_a_place_are_told_apart() {
        // One place for all, and no hash to tell them by.
        let mut lines = Lines { key: 0, places: vec![Place::default(); PLACES] };
        let mut out = Vec::new();
        for place in &mut lines.places {
            *place = Place { met: 0, hash: 0, name_len: 1, value_len: 2, text: b"abcwritten".to_vec() };
        }
        for (name, value) in [(&b"a"[..], &b"bc"[..]), (b"ab", b"c"), (b"b", b"bc"), (b"a", b"bd")] {
            let hash = hash(hash(0, name), value);
            lines.places.iter_mut().for_each(|place| place.hash = hash);
            assert_eq!(lines.write(name, value, &mut out).is_none(), name == b"a" && value == b"bc");
        }
        assert_eq!(out, b"written");
    }
}
