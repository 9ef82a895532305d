//! The layers of the configuration, and the place that each value came from: an error names it.

use super::ConfigError;
use super::endpoint::{self, Endpoint};
use super::keys::{self, Config, Flags, KEYS, Key};
use super::reload::{Setting, Settings};
use super::token::REDACTED;
use super::value::{Parsed, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where a value came from; later variants win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default { name: String },
    File { path: PathBuf, line: usize, name: String },
    Variable { name: String },
    Flag { name: String },
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default { .. } => 0,
            Self::File { .. } => 1,
            Self::Variable { .. } => 2,
            Self::Flag { .. } => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { name } | Self::Variable { name } => f.write_str(name),
            Self::File { path, line, name } => write!(f, "{}:{line}: {name}", path.display()),
            Self::Flag { name } => write!(f, "--{name}"),
        }
    }
}

/// The winning text of every key that is set anywhere.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: BTreeMap<&'static str, (Origin, Value)>,
    /// The file's tables `[endpoints.NAME]`: each is as if it were the flat keys of a configuration of its own.
    endpoints: BTreeMap<String, Layers>,
}

impl Layers {
    /// Adds a layer's value; the stronger origin stays.
    fn set(&mut self, field: &'static str, origin: Origin, value: Value) {
        match self.values.get(field) {
            Some((present, _)) if present.rank() >= origin.rank() => {}
            _ => drop(self.values.insert(field, (origin, value))),
        }
    }

    pub(super) fn add_flags(&mut self, flags: Flags) {
        for (field, text) in flags.into_pairs() {
            self.set(field, Origin::Flag { name: field.replace('_', "-") }, Value::Text(text));
        }
    }

    /// Takes the variables of the agent. Returns the names that look like its own and mean nothing: they are warnings, not
    /// errors, because Kubernetes sets such names for any service called `s3auditd`.
    pub(super) fn add_environment(&mut self, variables: &BTreeMap<String, String>) -> Vec<String> {
        for key in KEYS {
            if let Some(text) = variables.get(&key.variable()) {
                self.set(key.field, Origin::Variable { name: key.variable() }, Value::Text(text.clone()));
            }
        }
        let known = |name: &str| name == super::CONFIG_VARIABLE || KEYS.iter().any(|key| key.variable() == name);
        variables.keys().filter(|name| name.starts_with("S3AUDITD_") && !known(name)).cloned().collect()
    }

    /// `RUST_LOG` stands in for `log` where nothing else sets it.
    pub(super) fn add_rust_log(&mut self, variables: &BTreeMap<String, String>) {
        if let (false, Some(text)) = (self.values.contains_key("log"), variables.get("RUST_LOG")) {
            self.set("log", Origin::Variable { name: "RUST_LOG".to_owned() }, Value::Text(text.clone()));
        }
    }

    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let syntax = |line, problem| ConfigError::Syntax { path: path.to_owned(), line, problem };
        let table = DeTable::parse(text).map_err(|error| {
            let line = line_of(error.span().map_or(0, |span| span.start));
            syntax(line, error.message().replace('\n', ", "))
        })?;
        let (flat, tables): (Vec<_>, Vec<_>) =
            table.get_ref().iter().partition(|(name, _)| name.get_ref().as_ref() != ENDPOINTS);
        let every: Vec<_> = KEYS.iter().collect();
        for (name, value) in flat {
            self.set_of_file(&every, path, "", name.get_ref(), line_of(name.span().start), value.get_ref())?;
        }
        let of_endpoint: Vec<_> = KEYS.iter().filter(|key| endpoint::FIELDS.contains(&key.field)).collect();
        for (name, value) in tables {
            let not_tables = |line| syntax(line, "endpoints: must be tables, as in [endpoints.siem]".to_owned());
            let line = line_of(name.span().start);
            for (name, value) in value.get_ref().as_table().ok_or_else(|| not_tables(line))? {
                let line = line_of(name.span().start);
                let table = value.get_ref().as_table().ok_or_else(|| not_tables(line))?;
                let name = name.get_ref().as_ref();
                if !is_name(name) || name == endpoint::DEFAULT {
                    let problem = "must be letters, digits, - and _, at most 64, and not \"default\"";
                    return Err(syntax(line, format!("endpoints.{name}: the name {problem}")));
                }
                let mut layers = Self::default();
                let prefix = format!("{ENDPOINTS}.{name}.");
                for (key, value) in table {
                    layers.set_of_file(
                        &of_endpoint,
                        path,
                        &prefix,
                        key.get_ref(),
                        line_of(key.span().start),
                        value.get_ref(),
                    )?;
                }
                if !layers.values.contains_key("endpoint") {
                    return Err(syntax(line, format!("{prefix}endpoint: must be set")));
                }
                self.endpoints.insert(name.to_owned(), layers);
            }
        }
        Ok(())
    }

    fn set_of_file(
        &mut self,
        keys: &[&'static Key],
        path: &Path,
        prefix: &str,
        name: &str,
        line: usize,
        value: &DeValue<'_>,
    ) -> Result<(), ConfigError> {
        let Some(key) = keys.iter().find(|key| key.name() == name) else {
            let problem = format!("{prefix}{}", unknown(keys, name));
            return Err(ConfigError::Syntax { path: path.to_owned(), line, problem });
        };
        let origin = Origin::File { path: path.to_owned(), line, name: format!("{prefix}{name}") };
        let value = match value {
            DeValue::Array(items) => {
                items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().map(Value::List)
            }
            other => scalar(other).map(Value::Text),
        };
        let Some(value) = value else {
            return Err(ConfigError::value(&origin, "must be a text, a number, or a list of them"));
        };
        self.set(key.field, origin, value);
        Ok(())
    }

    /// The typed configuration, whole.
    pub(super) fn build(&mut self) -> Result<Config, ConfigError> {
        let mut config = self.build_flat()?;
        config.endpoints.extend(Endpoint::of(endpoint::DEFAULT, &config));
        for (name, layers) in &mut self.endpoints {
            config.endpoints.extend(Endpoint::of(name, &layers.build_flat()?));
        }
        Ok(config)
    }

    fn build_flat(&mut self) -> Result<Config, ConfigError> {
        self.settle_token()?;
        let config = keys::build(self)?;
        match (&config.client_cert_file, &config.client_key_file) {
            (Some(_), None) => {
                Err(ConfigError::value(&self.origin("client_cert_file"), "must come with client-key-file"))
            }
            (None, Some(_)) => {
                Err(ConfigError::value(&self.origin("client_key_file"), "must come with client-cert-file"))
            }
            _ if config.retry_first_ms > config.retry_most_ms => {
                Err(ConfigError::value(&self.origin("retry_first_ms"), "must be at most retry-most-ms"))
            }
            _ => Ok(config),
        }
    }

    /// Both ways to give a token at once: the stronger origin wins, equal ones contradict each other.
    fn settle_token(&mut self) -> Result<(), ConfigError> {
        let [Some((given, _)), Some((file, _))] = ["auth_token", "auth_token_file"].map(|key| self.values.get(key))
        else {
            return Ok(());
        };
        let weaker = match given.rank().cmp(&file.rank()) {
            std::cmp::Ordering::Less => "auth_token",
            std::cmp::Ordering::Greater => "auth_token_file",
            std::cmp::Ordering::Equal => return Err(ConfigError::value(file, "must not stand beside auth-token")),
        };
        self.values.remove(weaker);
        Ok(())
    }

    pub(super) fn parse<T>(
        &self,
        field: &'static str,
        default: &str,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Result<T, ConfigError> {
        match self.values.get(field) {
            Some((origin, value)) => parse(value).map_err(|problem| ConfigError::value(origin, problem)),
            None => parse(&Value::Text(default.to_owned()))
                .map_err(|problem| ConfigError::value(&self.origin(field), problem)),
        }
    }

    /// The place to name when a value does not fit another one.
    pub(super) fn origin(&self, field: &'static str) -> Origin {
        match self.values.get(field) {
            Some((origin, _)) => origin.clone(),
            None => Origin::Default { name: field.replace('_', "-") },
        }
    }

    /// The whole configuration as a file of its own, each line with where it came from, secrets redacted.
    pub(super) fn show(&self) -> String {
        let flat = KEYS.iter().map(|key| self.show_key(key));
        let tables = self.endpoints.iter().map(|(name, layers)| {
            let keys = KEYS.iter().filter(|key| layers.values.contains_key(key.field));
            format!("\n[{ENDPOINTS}.{name}]\n{}", keys.map(|key| layers.show_key(key)).collect::<String>())
        });
        flat.chain(tables).collect()
    }

    /// Every value in effect.
    pub(super) fn settings(&self) -> Settings {
        let mut settings = BTreeMap::new();
        let mut add = |prefix: &str, layers: &Self, defaults: bool| {
            for key in KEYS {
                let text = match layers.values.get(key.field) {
                    None if defaults && !key.default.is_empty() => key.default.to_owned(),
                    None => continue,
                    Some((_, Value::Text(text))) => text.clone(),
                    Some((_, Value::List(list))) => list.join(", "),
                };
                let setting = Setting { field: key.field, text, secret: key.is_secret() };
                settings.insert(format!("{prefix}{}", key.name()), setting);
            }
        };
        add("", self, true);
        for (name, layers) in &self.endpoints {
            add(&format!("{ENDPOINTS}.{name}."), layers, false);
        }
        Settings(settings)
    }

    fn show_key(&self, key: &Key) -> String {
        let name = key.name();
        let quoted = |text: &str| match text.parse::<i64>() {
            Ok(number) => number.to_string(),
            Err(_) => toml::Value::from(text).to_string(),
        };
        match self.values.get(key.field) {
            None if key.default.is_empty() => format!("# {name} is not set\n"),
            None => format!("{name} = {}  # default\n", quoted(key.default)),
            Some((origin, _)) if key.is_secret() => format!("# {name} = {REDACTED}, {}\n", origin.place()),
            Some((origin, Value::Text(text))) => format!("{name} = {}  # {}\n", quoted(text), origin.place()),
            Some((origin, Value::List(list))) => {
                let items = list.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ");
                format!("{name} = [{items}]  # {}\n", origin.place())
            }
        }
    }
}

impl Origin {
    fn place(&self) -> String {
        match self {
            Self::Default { .. } => "default".to_owned(),
            Self::File { path, line, .. } => format!("{}:{line}", path.display()),
            Self::Variable { name } => name.clone(),
            Self::Flag { name } => format!("--{name}"),
        }
    }
}

/// The key of the file under which the tables of endpoints stand.
const ENDPOINTS: &str = "endpoints";

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string()),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Names the nearest key where one differs by little, because most unknown keys are typing errors.
fn unknown(keys: &[&'static Key], name: &str) -> String {
    let nearest = keys.iter().map(|key| (distance(name, &key.name()), key.name())).min();
    match nearest {
        Some((distance, nearest)) if distance <= 3 => format!("{name}: no such key; is {nearest} meant?"),
        _ => format!("{name}: no such key"),
    }
}

/// Edits between two names (Levenshtein), one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(from != to)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
