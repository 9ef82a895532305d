//! Request and reply heads, as received: bytes, not strings, because captured bytes need not be UTF-8.

/// The HTTP version of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Header fields in their order on the wire. Names keep their case; look-ups ignore it. All texts lie in one buffer (that
/// of the whole head, where it is read without a doubt), so that a flood of short fields costs little more than its bytes.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// What the fields are, wherever they lie.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// Where a field's name and value lie in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name_from: u32,
    pub(crate) name_len: u32,
    pub(crate) value_from: u32,
    pub(crate) value_len: u32,
}

impl Headers {
    /// No fields.
    pub(crate) const NONE: Self = Self { text: Vec::new(), fields: Vec::new() };

    /// Fields where they lie in a head.
    pub(crate) const fn in_head(text: Vec<u8>, fields: Vec<Field>) -> Self {
        Self { text, fields }
    }

    /// Room for so many fields with so much text.
    #[must_use]
    pub fn with_capacity(fields: usize, text_bytes: usize) -> Self {
        Self { text: Vec::with_capacity(text_bytes), fields: Vec::with_capacity(fields) }
    }

    /// Appends a field; `value` without the white space around it. What lies beyond 4 GiB of text is left out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let places = [self.text.len(), name.len(), self.text.len() + name.len(), value.len()].map(u32::try_from);
        let [Ok(name_from), Ok(name_len), Ok(value_from), Ok(value_len)] = places else { return };
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.fields.push(Field { name_from, name_len, value_from, value_len });
    }

    /// The first field of that name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every field of that name, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let of_length = self.fields.iter().filter(move |field| field.name_len as usize == name.len());
        of_length
            .filter(move |field| self.part(field.name_from, field.name_len).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.part(field.value_from, field.value_len))
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|field| (self.part(field.name_from, field.name_len), self.part(field.value_from, field.value_len)))
    }

    fn part(&self, from: u32, len: u32) -> &[u8] {
        let rest = self.text.get(from as usize..).unwrap_or_default();
        rest.get(..len as usize).unwrap_or_default()
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
