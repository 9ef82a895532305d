//! What a new configuration changes of the one that runs.

use super::endpoint;
use super::token::REDACTED;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Keys, besides those of endpoints, that take effect on a reload. All others need a restart.
const LIVE: &[&str] = &[
    "dialect",
    "domain",
    "cluster_guid",
    "cluster_name",
    "release",
    "server_ip",
    "server_name",
    "version",
    "deployment_id",
    "audit_classes",
    "trusted_proxies",
    "redact_names",
    "redact_mode",
    "keep_names",
    "batch_records",
    "batch_bytes",
    "batch_delay_ms",
    "drain_seconds",
];

/// Every value in effect, by name (`endpoints.NAME.KEY` for the tables'), to be compared with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(pub(super) BTreeMap<String, Setting>);

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) field: &'static str,
    pub(super) text: String,
    pub(super) secret: bool,
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value so far, redacted; empty: not set.
    pub old: String,
    /// Its new value, redacted; empty: not set.
    pub new: String,
    /// It takes effect at once; otherwise with the next start.
    pub live: bool,
}

impl Settings {
    /// What is different in `new`.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let names: BTreeSet<_> = self.0.keys().chain(new.0.keys()).collect();
        let differing = names.into_iter().filter(|name| self.0.get(*name) != new.0.get(*name));
        differing
            .map(|name| {
                let (old, new) = (self.0.get(name), new.0.get(name));
                let field = old.or(new).map_or("", |setting| setting.field);
                let shown = |setting: Option<&Setting>| setting.map(Setting::shown).unwrap_or_default();
                let live = LIVE.contains(&field) || endpoint::FIELDS.contains(&field);
                Change { key: name.clone(), old: shown(old), new: shown(new), live }
            })
            .collect()
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Setting {
    fn shown(&self) -> String {
        if self.secret { REDACTED.to_owned() } else { self.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Flags, KEYS};
    use super::super::{FileChoice, load};
    use super::*;

    fn settings(file: &str) -> Settings {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        load(&FileChoice::Given(path.path().to_owned()), Flags::default(), &BTreeMap::new()).unwrap().settings
    }

    fn change(key: &str, old: &str, new: &str, live: bool) -> Change {
        Change { key: key.to_owned(), old: old.to_owned(), new: new.to_owned(), live }
    }

    #[test]
    fn changes_name_their_keys_and_show_no_secret() {
        let old = settings("listen = [9000]\nauth-token = 'a secret'\n[endpoints.siem]\nendpoint = 'http://h/'");
        assert_eq!(old.changes(&old), []);
        let new = settings(
            "listen = [9000, 9001]\nauth-token = 'another'\ndialect = 'aws'\n[endpoints.b]\nendpoint = 'http://h/'",
        );
        let expected = [
            change("auth-token", "(redacted)", "(redacted)", true),
            change("dialect", "weka", "aws", true),
            change("endpoints.b.endpoint", "", "http://h/", true),
            change("endpoints.siem.endpoint", "http://h/", "", true),
            change("listen", "9000", "9000, 9001", false),
        ];
        assert_eq!(old.changes(&new), expected);
    }

    #[test]
    fn what_is_live_are_keys() {
        for field in LIVE.iter().chain(endpoint::FIELDS) {
            assert!(KEYS.iter().any(|key| key.field == *field), "{field} is no key");
        }
    }
}
