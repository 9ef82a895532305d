//! Request and reply heads, as received: bytes, not strings, because captured bytes need not be UTF-8.

/// The HTTP version of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Header fields in their order on the wire. Names keep their case; look-ups ignore it. All texts lie in one buffer, so
/// that a flood of short fields costs little more than its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field's name and value end in the buffer; the name begins where the field before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    name_end: usize,
    value_end: usize,
}

impl Headers {
    /// Room for so many fields with so much text.
    #[must_use]
    pub fn with_capacity(fields: usize, text_bytes: usize) -> Self {
        Self { text: Vec::with_capacity(text_bytes), fields: Vec::with_capacity(fields) }
    }

    /// Appends a field; `value` without the white space around it.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(value);
        self.fields.push(Field { name_end, value_end: self.text.len() });
    }

    /// The first field of that name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Every field of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.fields.iter().map(move |field| {
            let name = self.text.get(start..field.name_end).unwrap_or_default();
            start = field.value_end;
            (name, self.text.get(field.name_end..field.value_end).unwrap_or_default())
        })
    }

    /// The memory they take.
    pub(crate) const fn cost(&self) -> usize {
        self.text.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// As sent; methods are case-sensitive (RFC 9110, 9.1).
    pub method: Vec<u8>,
    /// The request target as sent: origin form, absolute form, authority form or `*`.
    pub target: Vec<u8>,
    /// See [`Version`].
    pub version: Version,
    /// See [`Headers`].
    pub headers: Headers,
}

/// A reply's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code, 100 to 999.
    pub status: u16,
    /// See [`Version`].
    pub version: Version,
    /// See [`Headers`].
    pub headers: Headers,
}
