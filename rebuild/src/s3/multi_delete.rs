//! DeleteObjects: which keys were asked for, and which of them the reply says failed.

use super::xml;
use crate::exchange::BodyStart;

/// What a multi-delete did, as far as the starts of both bodies tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiDelete {
    /// In the order of the request; keys that only the reply names come last.
    pub keys: Vec<DeletedKey>,
    /// Keys are missing: a body was cut or unreadable, or there were more than the limits allow.
    pub cut: bool,
    /// The reply was read to its end, so a key without an error was deleted.
    pub reply_whole: bool,
    /// The reply names an error for at least one key.
    pub any_failed: bool,
}

/// One key of a multi-delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedKey {
    /// The key.
    pub key: String,
    /// The version that was named.
    pub version_id: Option<String>,
    /// The S3 error code that the reply gives for it.
    pub error: Option<String>,
}

/// What may be kept of a multi-delete. S3 itself takes 1,000 keys of 1,024 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many keys.
    pub keys: usize,
    /// How many bytes of keys and version ids together.
    pub bytes: usize,
}

impl MultiDelete {
    /// Reads the contents of both bodies. What is no XML, or was not kept, gives nothing and is marked cut.
    #[must_use]
    pub fn read(request: &BodyStart, response: &BodyStart, limits: Limits) -> Self {
        let mut list = Self::default();
        let mut bytes = 0;
        let mut entry = DeletedKey::default();
        let asked = xml::walk(&request.bytes, |path, text| match path {
            ["Delete", "Object", "Key"] => entry.key = text.to_owned(),
            ["Delete", "Object", "VersionId"] => entry.version_id = version(text),
            ["Delete", "Object"] => list.add(std::mem::take(&mut entry), &mut bytes, limits),
            _ => {}
        });
        let mut failed = DeletedKey::default();
        let mut failures = Vec::new();
        let answered = xml::walk(&response.bytes, |path, text| match path {
            ["DeleteResult", "Error", "Key"] => failed.key = text.to_owned(),
            ["DeleteResult", "Error", "VersionId"] => failed.version_id = version(text),
            ["DeleteResult", "Error", "Code"] => failed.error = super::outcome::code(text),
            ["DeleteResult", "Error"] => failures.push(std::mem::take(&mut failed)),
            _ => {}
        });
        list.any_failed = !failures.is_empty();
        for failure in failures {
            list.mark(failure, &mut bytes, limits);
        }
        list.cut |= !asked.whole;
        list.reply_whole = answered.whole && answered.root.as_deref() == Some("DeleteResult");
        list
    }

    /// Whether every key went, as far as the reply says; None when it was not read to its end and names no error.
    #[must_use]
    pub fn in_full(&self) -> Option<bool> {
        if self.any_failed { Some(false) } else { self.reply_whole.then_some(true) }
    }

    fn add(&mut self, entry: DeletedKey, bytes: &mut usize, limits: Limits) {
        *bytes += entry.key.len() + entry.version_id.as_ref().map_or(0, String::len);
        if self.keys.len() < limits.keys && *bytes <= limits.bytes {
            self.keys.push(entry);
        } else {
            self.cut = true;
        }
    }

    /// Puts a failure on its key. The search is linear; both lists are bounded by `Limits::keys`.
    fn mark(&mut self, failure: DeletedKey, bytes: &mut usize, limits: Limits) {
        let named = self
            .keys
            .iter_mut()
            .find(|entry| entry.key == failure.key && entry.version_id == failure.version_id && entry.error.is_none());
        match named {
            Some(entry) => entry.error = failure.error,
            None => self.add(failure, bytes, limits),
        }
    }
}

fn version(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { keys: 3, bytes: 1000 };

    fn body(text: &str) -> BodyStart {
        BodyStart { bytes: text.as_bytes().to_vec(), whole: true }
    }

    fn read(request: &str, response: &str) -> MultiDelete {
        MultiDelete::read(&body(request), &body(response), LIMITS)
    }

    #[test]
    fn errors_find_their_keys() {
        let list = read(
            "<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object>\
             <Object><Key>b &amp; c</Key><VersionId>v1</VersionId></Object></Delete>",
            "<DeleteResult><Error><Key>b &amp; c</Key><VersionId>v1</VersionId><Code>AccessDenied</Code>\
             <Message>secret</Message></Error></DeleteResult>",
        );
        let shown: Vec<_> = list.keys.iter().map(|key| (key.key.as_str(), key.error.as_deref())).collect();
        assert_eq!(shown, [("a", None), ("b & c", Some("AccessDenied"))]);
        assert!(!list.cut && list.reply_whole);
    }

    #[test]
    fn limits_and_cuts_are_said() {
        let object = "<Object><Key>k</Key></Object>";
        let many = format!("<Delete>{}</Delete>", object.repeat(5));
        let list = read(&many, "");
        assert_eq!((list.keys.len(), list.cut, list.reply_whole), (3, true, false));
        let list = read("<Delete><Object><Key>k</Key></Object><Object><Ke", "");
        assert_eq!((list.keys.len(), list.cut), (1, true));
    }
}
