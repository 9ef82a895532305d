//! What is looked for in code (x86-64), whichever library it is of.

/// Where the calls in a function are, from its beginning, and where they go; now and then a number in it that looks like one.
pub(super) fn calls(code: &[u8], address: u64) -> impl Iterator<Item = (usize, u64)> {
    const CALL: u8 = 0xe8;
    const CALL_BYTES: u64 = 5;
    code.windows(5).enumerate().filter_map(move |(at, window)| {
        let [CALL, distance @ ..] = window else { return None };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let behind = address.wrapping_add(at as u64 + CALL_BYTES);
        Some((at, behind.wrapping_add_signed(i64::from(distance))))
    })
}

/// What there is one of; None: there is none, or a second.
pub(super) fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let one = found.next()?;
    found.next().is_none().then_some(one)
}
