//! The JSON of a record, byte for byte as `serde_json` writes it, and faster: most texts need no escape, and whether one
//! does is seen at once for the whole text.
//!
//! It knows the shapes that records have (texts, integers, flags, lists, maps with texts as keys) and no others.

use serde::Serialize;
use serde::ser::{Impossible, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use std::fmt::Error;

/// Appends the value to `out`.
///
/// # Errors
/// A shape that no record has; `out` holds rubbish then.
pub(super) fn write(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    value.serialize(Writer(out))
}

/// Where the next value goes.
struct Writer<'a>(&'a mut Vec<u8>);

/// Inside of a list, map or struct: what stands before the next entry, and what ends it.
struct Inside<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    end: u8,
}

impl<'a> Writer<'a> {
    fn inside(self, begin: u8, end: u8) -> Inside<'a> {
        self.0.push(begin);
        Inside { out: self.0, first: true, end }
    }

    /// What is rare, or not worth the trouble.
    fn slowly(self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(self.0, value).map_err(|_| Error)
    }
}

/// Appends a text with its quotes.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    if !has_escape(text.as_bytes()) {
        quoted(out, text);
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        // A text written to memory: there is no way to fail.
        out.extend_from_slice(b"\"\"");
    }
}

/// A text that is known to need no escape.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether any byte has to be escaped. Eight at a time; the last eight may have been looked at already. Texts are short, so
/// a loop with a way out is better than one that is made for vectors.
fn has_escape(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().any(|byte| matches!(byte, ..0x20 | b'"' | b'\\'));
    };
    let (words, _) = text.as_chunks::<8>();
    words.iter().chain([last]).any(|word| {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20);
        let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        // A byte below 0x80 borrows exactly if it is the one looked for, or if one before it borrowed.
        (control | quote | backslash) & !word & (ONES * 0x80) != 0
    })
}

/// A number in decimal digits: they begin at the place that is given with them.
pub(super) fn decimal(mut number: u64) -> ([u8; 20], usize) {
    let mut text = [b'0'; 20];
    let mut from = text.len();
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        from -= 1;
        if number == 0 {
            break;
        }
    }
    (text, from)
}

fn digits(out: &mut Vec<u8>, number: u64) {
    let (text, from) = decimal(number);
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}

impl Inside<'_> {
    fn next(&mut self) -> Writer<'_> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        Writer(self.out)
    }

    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        // A name in the source: identifiers, nothing to escape.
        self.out.reserve(name.len() + r#","":"#.len());
        self.out.extend_from_slice(if std::mem::take(&mut self.first) { b"\"" } else { b",\"" });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Writer(self.out))
    }

    fn close(self) {
        self.out.push(self.end);
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Inside<'a>;
    type SerializeMap = Inside<'a>;
    type SerializeStruct = Inside<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.slowly(&value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.slowly(&value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.slowly(&value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.slowly(&value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        digits(self.0, value.into());
        Ok(())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        digits(self.0, value.into());
        Ok(())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        digits(self.0, value.into());
        Ok(())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        digits(self.0, value);
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        Err(Error)
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        Err(Error)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.slowly(&value)
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        text(self.0, value);
        Ok(())
    }

    /// Bytes are JSON already.
    fn serialize_bytes(self, json: &[u8]) -> Result<(), Error> {
        self.0.extend_from_slice(json);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Error> {
        text(self.0, name);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(Error)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Err(Error)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        Err(Error)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(Error)
    }
}

impl SerializeSeq for Inside<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

/// Keys have to be texts: anything else would be no JSON.
impl SerializeMap for Inside<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let from = self.next().0.len();
        key.serialize(Writer(self.out))?;
        if self.out.get(from) == Some(&b'"') { Ok(()) } else { Err(Error) }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeStruct for Inside<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Inner {
        list: Vec<Option<i64>>,
        kind: &'static str,
    }

    #[derive(Serialize)]
    struct Shape {
        #[serde(flatten)]
        flat: Inner,
        flag: bool,
        nothing: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        most: u64,
        map: BTreeMap<String, String>,
        empty: BTreeMap<String, u8>,
    }

    #[test]
    fn every_byte_is_as_serde_json_has_it() {
        // Every character that is escaped, some that are not, and some that are long, alone and in the middle.
        let texts = (0..0x100_u32).chain([0x2028, 0xffff, 0x1f980]).filter_map(char::from_u32);
        let texts =
            texts.flat_map(|letter| [letter.to_string(), format!("some {letter} text that is longer than a word")]);
        for text in texts {
            let shape = Shape {
                flat: Inner { list: vec![None, Some(i64::MIN), Some(7)], kind: "kind" },
                flag: true,
                nothing: None,
                left_out: None,
                most: u64::MAX,
                map: BTreeMap::from([(text.clone(), text.clone()), ("other".to_owned(), text.clone())]),
                empty: BTreeMap::new(),
            };
            let mut json = Vec::new();
            write(&mut json, &shape).unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&shape).unwrap());
        }
    }

    #[test]
    fn what_would_be_no_json_is_refused() {
        assert!(write(&mut Vec::new(), &BTreeMap::from([(1, 2)])).is_err());
        assert!(write(&mut Vec::new(), &0.5).is_err());
    }
}
