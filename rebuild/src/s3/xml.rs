//! The little of XML that S3 bodies need: names on the way down and the text of a leaf. A body that is cut short or
//! broken is read as far as it goes.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// How far a body could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The outermost element's name, without its prefix.
    pub root: Option<String>,
    /// The outermost element was read to its end.
    pub whole: bool,
}

/// Calls `visit` at the end of every element with the names from the root to it (prefixes left out) and the text
/// directly in it. Work and memory are linear in the body.
pub fn walk(body: &[u8], mut visit: impl FnMut(&[&str], &str)) -> Extent {
    let body = String::from_utf8_lossy(body.trim_ascii_start());
    let mut reader = Reader::from_str(&body);
    let mut open: Vec<(String, String)> = Vec::new();
    let mut extent = Extent { root: None, whole: false };
    let mut close = |open: &mut Vec<(String, String)>| {
        let path: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((_, text)) = open.last() {
            visit(&path, text);
        }
        open.pop();
        open.is_empty()
    };
    while open.len() < MAX_DEPTH {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                let name = tag.local_name().as_ref().to_owned();
                extent.root.get_or_insert_with(|| name.clone());
                open.push((name, String::new()));
            }
            Ok(Event::Empty(tag)) => {
                let name = tag.local_name().as_ref().to_owned();
                extent.root.get_or_insert_with(|| name.clone());
                open.push((name, String::new()));
                extent.whole |= close(&mut open);
            }
            Ok(Event::End(_)) => extent.whole |= close(&mut open),
            Ok(Event::Text(text)) => append(&mut open, &text),
            Ok(Event::CData(text)) => append(&mut open, &text),
            Ok(Event::GeneralRef(reference)) => {
                let mut buffer = [0; 4];
                // An entity of the document's own is not looked up: what it stands for is not known, and said so.
                let character = resolve(&reference).unwrap_or(char::REPLACEMENT_CHARACTER);
                append(&mut open, character.encode_utf8(&mut buffer));
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => {}
        }
        if extent.whole {
            break;
        }
    }
    extent
}

/// S3's deepest bodies have less than ten levels; what goes deeper is not one, and the work per element is its depth.
const MAX_DEPTH: usize = 16;

fn append(open: &mut [(String, String)], text: &str) {
    if let Some((_, content)) = open.last_mut() {
        content.push_str(text);
    }
}

fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    match &**reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(body: &str) -> (Vec<String>, Extent) {
        let mut seen = Vec::new();
        let extent = walk(body.as_bytes(), |path, text| {
            seen.push(format!("{}={text}", path.join("/")));
        });
        (seen, extent)
    }

    #[test]
    fn references_and_prefixes() {
        let (seen, extent) =
            leaves("\n <?xml version=\"1.0\"?><s:A><B>x&amp;&#x41;<![CDATA[<]]></B><C/></s:A>trailing");
        assert_eq!(seen, ["A/B=x&A<", "A/C=", "A="]);
        assert_eq!(extent, Extent { root: Some("A".to_owned()), whole: true });
    }

    #[test]
    fn entities_of_the_document_are_not_expanded() {
        let mut body = "<!DOCTYPE lolz [<!ENTITY lol0 \"lol\">".to_owned();
        for n in 1..50 {
            body.push_str(&format!("<!ENTITY lol{n} \"{}\">", format!("&lol{};", n - 1).repeat(10)));
        }
        body.push_str("]><Error><Code>Slow&lol49;</Code></Error>");
        assert_eq!(leaves(&body).0, ["Error/Code=Slow\u{fffd}", "Error="]);
    }

    #[test]
    fn a_cut_body_gives_what_it_has() {
        let (seen, extent) = leaves("<A><B>1</B><B>2</");
        assert_eq!(seen, ["A/B=1"]);
        assert!(!extent.whole);
    }

    #[test]
    fn depth_is_bounded() {
        let (seen, extent) = leaves(&"<a>".repeat(100_000));
        assert!(seen.is_empty() && !extent.whole);
    }
}
