//! XML documents keep their elements, and of their text only what records tell: names of keys, error codes.

/// Elements whose text stays. The same names in requests, replies and errors.
const SHOWN: [&[u8]; 6] = [b"Code", b"Key", b"VersionId", b"Quiet", b"AccessKeyId", b"DeleteMarker"];
/// No name that counts is longer.
const MAX_NAME_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first `<`.
    Start,
    /// Between tags; whether the text stays.
    Text(bool),
    /// In a tag: in its name, or behind it, in quotes or not.
    Name,
    Tag(Option<u8>),
    /// It is no XML that is understood: the rest is not kept.
    Refused,
}

/// Masks a document piece by piece. See the module.
#[derive(Debug)]
pub(super) struct Xml {
    state: State,
    name: Vec<u8>,
}

impl Xml {
    pub(super) const fn new() -> Self {
        Self { state: State::Start, name: Vec::new() }
    }

    /// Masks the next piece; false: nothing of it, nor of what follows, may be kept.
    pub(super) fn mask(&mut self, bytes: &mut [u8]) -> bool {
        for byte in bytes {
            let found = *byte;
            self.state = match (self.state, found) {
                (State::Start | State::Text(_), b'<') => {
                    self.name.clear();
                    State::Name
                }
                (State::Start, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) => State::Start,
                (State::Start | State::Refused, _) => State::Refused,
                // Comments, CDATA and document types may hide a `>`.
                (State::Name, b'!') if self.name.is_empty() => State::Refused,
                (State::Name, b'>') => State::Text(SHOWN.contains(&self.name.as_slice())),
                (State::Name, b' ' | b'\t' | b'\r' | b'\n') => State::Tag(None),
                (State::Name, _) if self.name.len() < MAX_NAME_BYTES => {
                    self.name.push(found);
                    State::Name
                }
                (State::Name, _) => State::Refused,
                (State::Tag(None), b'>') => State::Text(SHOWN.contains(&self.name.as_slice())),
                (State::Tag(None), b'"' | b'\'') => State::Tag(Some(found)),
                (State::Tag(Some(quote)), _) if quote == found => State::Tag(None),
                (state @ (State::Tag(_) | State::Text(_)), _) => state,
            };
            let hidden = match self.state {
                // The end of `<a/>` and of `<?xml ... ?>` stays.
                State::Tag(None) if matches!(found, b'/' | b'?') => None,
                State::Tag(_) => Some(b' '),
                State::Text(false) if found != b'>' && !found.is_ascii_whitespace() => Some(b'*'),
                State::Refused => return false,
                State::Start | State::Name | State::Text(_) => None,
            };
            if let Some(hidden) = hidden {
                *byte = hidden;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(document: &str, piece: usize) -> Option<String> {
        let mut bytes = document.as_bytes().to_vec();
        let mut masker = Xml::new();
        bytes.chunks_mut(piece).all(|piece| masker.mask(piece)).then(|| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_what_records_tell_is_shown() {
        let document = "<?xml version=\"1.0\"?>\n<Error a='>S'><Code>NoSuchKey</Code><Message>S S</Message><Key>a&amp;b</Key>S</Error><X/>";
        for piece in 1..20 {
            assert_eq!(
                masked(document, piece).unwrap(),
                "<?xml              ?>\n<Error       ><Code>NoSuchKey</Code><Message>* *</Message><Key>a&amp;b</Key>*</Error><X/>"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_not_kept() {
        for document in ["{\"a\":1}", "<a><![CDATA[S]]></a>", "<a><!-- S --></a>", "\u{1f}gzip"] {
            assert_eq!(masked(document, 3), None, "{document}");
        }
    }
}
