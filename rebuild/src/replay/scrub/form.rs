//! Forms keep their fields' names, and of their values only those that records tell.

/// Fields of browser uploads whose values stay, in lower case.
const SHOWN: [&[u8]; 4] = [b"key", b"x-amz-credential", b"x-amz-algorithm", b"awsaccesskeyid"];
/// No line of a part's head that counts is longer.
const MAX_LINE_BYTES: usize = 1024;

/// A form of `multipart/form-data`, up to its file.
#[derive(Debug)]
pub(super) struct Multipart {
    delimiter: Vec<u8>,
    place: Place,
    /// Of the line at hand, as long as it may be the delimiter or a head's line.
    line: Vec<u8>,
    name: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Lines of a part's head, which stay.
    Head,
    /// Its value; whether the line may still be the delimiter.
    Value(bool),
    /// Of which nothing is kept.
    File,
}

impl Multipart {
    pub(super) fn new(boundary: &[u8]) -> Self {
        let delimiter = [b"--", boundary].concat();
        Self { delimiter, place: Place::Value(true), line: Vec::new(), name: Vec::new() }
    }

    /// Masks the next piece; the number of bytes that may be kept: less than all where the file begins.
    pub(super) fn mask(&mut self, bytes: &mut [u8]) -> usize {
        for (at, byte) in bytes.iter_mut().enumerate() {
            let found = *byte;
            match self.place {
                Place::File => return at,
                Place::Head => {
                    self.line.push(found);
                    if self.line.len() > MAX_LINE_BYTES {
                        self.place = Place::File;
                        return 0;
                    }
                    if found == b'\n' {
                        let line = std::mem::take(&mut self.line);
                        if line.trim_ascii().is_empty() {
                            if self.name.eq_ignore_ascii_case(b"file") {
                                self.place = Place::File;
                                return at + 1;
                            }
                            self.place = Place::Value(true);
                        } else if let Some(name) = name(&line) {
                            self.name = name.to_ascii_lowercase();
                        }
                    }
                }
                Place::Value(may_be_delimiter) => {
                    let fits = may_be_delimiter && self.delimiter.get(self.line.len()) == Some(&found);
                    if fits {
                        self.line.push(found);
                        self.place = Place::Value(true);
                        if self.line == self.delimiter {
                            // The rest of its line, and the lines to come.
                            self.line.clear();
                            self.name.clear();
                            self.line.push(b'-');
                            self.place = Place::Head;
                        }
                        continue;
                    }
                    self.line.clear();
                    self.place = Place::Value(found == b'\n');
                    if !matches!(found, b'\r' | b'\n') && !SHOWN.contains(&self.name.as_slice()) {
                        *byte = b'*';
                    }
                }
            }
        }
        bytes.len()
    }
}

/// `name` of a `Content-Disposition` line.
fn name(line: &[u8]) -> Option<&[u8]> {
    let mut rest = line;
    while let Some(at) = memchr::memmem::find(rest, b"name=\"") {
        let behind = rest.get(at + 6..)?;
        if !rest.get(..at)?.ends_with(b"file") {
            return behind.split(|byte| *byte == b'"').next();
        }
        rest = behind;
    }
    None
}

/// A form as a query has it; of STS calls the action alone is told.
#[derive(Debug, Default)]
pub(super) struct Urlencoded {
    name: Vec<u8>,
    in_value: bool,
}

impl Urlencoded {
    pub(super) fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            match *byte {
                b'&' => {
                    self.name.clear();
                    self.in_value = false;
                }
                b'=' if !self.in_value => self.in_value = true,
                _ if self.in_value && !matches!(self.name.as_slice(), b"Action" | b"Version") => *byte = b'*',
                found if !self.in_value && self.name.len() < MAX_LINE_BYTES => self.name.push(found),
                // A name that long is none, and may hold what a value does.
                _ if !self.in_value => *byte = b'*',
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_keep_what_names_the_caller() {
        let field = |name: &str, value: &str| {
            format!("--bb\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let file = "--bb\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
        let form =
            [field("key", "k/-x"), field("policy", "--b\r\n--b"), field("x-amz-signature", "S"), file.to_owned()];
        let shown =
            [field("key", "k/-x"), field("policy", "--b\r\n--b"), field("x-amz-signature", "*"), file.to_owned()];
        let form = form.concat() + "SECRET";
        for piece in 1..30 {
            let mut bytes = form.clone().into_bytes();
            let mut masker = Multipart::new(b"bb");
            let mut kept = Vec::new();
            for piece in bytes.chunks_mut(piece) {
                let length = masker.mask(piece);
                kept.extend_from_slice(&piece[..length]);
                if length < piece.len() {
                    break;
                }
            }
            assert_eq!(String::from_utf8(kept).unwrap(), shown.concat(), "pieces of {piece}");
        }
    }

    #[test]
    fn sts_calls_keep_their_action() {
        let mut bytes = b"Action=AssumeRole&WebIdentityToken=abc&x".to_vec();
        let mut masker = Urlencoded::default();
        bytes.chunks_mut(3).for_each(|piece| masker.mask(piece));
        assert_eq!(bytes, b"Action=AssumeRole&WebIdentityToken=***&x");
    }
}
