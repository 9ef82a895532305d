//! Text from a flag, a variable or the file becomes a typed value. Every problem is a phrase that begins with "must".

use super::AuditClass;
use ipnet::IpNet;
use reqwest::Url;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What stands in one place of the configuration, before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A flag, a variable, or a scalar in the file.
    Text(String),
    /// An array in the file.
    List(Vec<String>),
}

/// A parsed value, or what is wrong with the text.
pub(super) type Parsed<T> = Result<T, String>;

impl Value {
    fn scalar(&self) -> Parsed<&str> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) => Err("must be one value, not a list".to_owned()),
        }
    }

    fn items(&self) -> impl Iterator<Item = &str> {
        let (text, list) = match self {
            Self::Text(text) => (Some(text), None),
            Self::List(list) => (None, Some(list)),
        };
        let split = text.into_iter().flat_map(|text| text.split(','));
        split.chain(list.into_iter().flatten().map(String::as_str)).map(str::trim).filter(|item| !item.is_empty())
    }

    fn list<T>(&self, item: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.items().map(item).collect()
    }
}

pub(super) fn not<T>(what: impl Display, text: &str) -> Parsed<T> {
    Err(format!("must be {what}, not {text:?}"))
}

/// Empty text is "not set".
pub(super) fn optional<T>(value: &Value, parse: impl Fn(&Value) -> Parsed<T>) -> Parsed<Option<T>> {
    if *value == Value::Text(String::new()) { Ok(None) } else { parse(value).map(Some) }
}

pub(super) fn text(value: &Value) -> Parsed<String> {
    value.scalar().map(str::to_owned)
}

pub(super) fn whole<T>(value: &Value, limits: RangeInclusive<T>) -> Parsed<T>
where
    T: FromStr + PartialOrd + Display,
{
    let text = value.scalar()?;
    match text.parse() {
        Ok(number) if limits.contains(&number) => Ok(number),
        _ => not(format_args!("a number from {} to {}", limits.start(), limits.end()), text),
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// Bytes: a number, or a number with `KiB`, `MiB` or `GiB`.
pub(super) fn bytes(value: &Value, limits: RangeInclusive<u64>) -> Parsed<u64> {
    let text = value.scalar()?;
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
        .unwrap_or((text, 1));
    let size = digits.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match size {
        Some(size) if limits.contains(&size) => Ok(size),
        _ => not(format_args!("a size from {} to {}", show(*limits.start()), show(*limits.end())), text),
    }
}

fn show(size: u64) -> String {
    let (name, unit) = UNITS.into_iter().find(|(_, unit)| size.is_multiple_of(*unit) && size > 0).unwrap_or(("", 1));
    format!("{}{name}", size / unit)
}

/// A size of the perf ring: a power of two that every page size of Linux (4 KiB to 64 KiB) divides.
pub(super) fn ring(value: &Value) -> Parsed<u64> {
    match bytes(value, 64 << 10..=1 << 30)? {
        size if size.is_power_of_two() => Ok(size),
        _ => not("a power of two from 64KiB to 1GiB", value.scalar()?),
    }
}

pub(super) fn ports(value: &Value) -> Parsed<Vec<u16>> {
    let mut ports = value.list(|item| match item.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => not("ports from 1 to 65535", item),
    })?;
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// `http` or `https`, with a host, and without credentials: those would show wherever the URL does.
pub(super) fn endpoint(value: &Value) -> Parsed<Url> {
    let text = value.scalar()?;
    let Ok(url) = Url::parse(text) else {
        return not("a URL such as https://splunk:8088/services/collector/raw", text);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry credentials; they belong into auth-token-file".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return not("an http or https URL", text);
    }
    Ok(url)
}

/// An address, or `off`.
pub(super) fn listener(value: &Value) -> Parsed<Option<SocketAddr>> {
    match value.scalar()? {
        "off" => Ok(None),
        text => text.parse().map(Some).or_else(|_| not("an address such as 127.0.0.1:9466, or \"off\"", text)),
    }
}

pub(super) fn networks(value: &Value) -> Parsed<Vec<IpNet>> {
    value.list(|item| {
        let network = item.parse::<IpNet>().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from));
        network.map_or_else(|| not("networks such as 10.0.0.0/8 or addresses", item), |network| Ok(network.trunc()))
    })
}

/// Host names of the gateway, lower case, without scheme and port.
pub(super) fn domains(value: &Value) -> Parsed<Vec<String>> {
    value.list(|item| {
        let name = item.trim_end_matches('.').to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain) {
            Ok(name)
        } else {
            not("host names such as s3.example.com", item)
        }
    })
}

/// Names of headers and query parameters, lower case.
pub(super) fn names(value: &Value) -> Parsed<Vec<String>> {
    value.list(|item| {
        if item.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'=' | b'&')) {
            Ok(item.to_ascii_lowercase())
        } else {
            not("names of headers or query parameters", item)
        }
    })
}

pub(super) fn log_filter(value: &Value) -> Parsed<String> {
    let text = value.scalar()?;
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => not("a log filter such as info or s3auditd=debug,warn", text),
    }
}

macro_rules! named {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn of(text: &str) -> value::Parsed<Self> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => value::not(format_args!("one of {}", [$($text,)+].join(", ")), text),
                }
            }
        }
    )+};
}
pub(super) use named;

pub(super) fn classes(value: &Value) -> Parsed<Vec<AuditClass>> {
    value.list(AuditClass::of)
}

pub(super) fn redact_mode(value: &Value) -> Parsed<super::RedactMode> {
    super::RedactMode::of(value.scalar()?)
}

pub(super) fn backend(value: &Value) -> Parsed<super::BackendChoice> {
    super::BackendChoice::of(value.scalar()?)
}

pub(super) fn dialect(value: &Value) -> Parsed<super::Dialect> {
    super::Dialect::of(value.scalar()?)
}

pub(super) fn address(value: &Value) -> Parsed<IpAddr> {
    let text = value.scalar()?;
    text.parse().or_else(|_| not("an IP address", text))
}

pub(super) fn secret(value: &Value) -> Parsed<super::Secret> {
    let secret = super::Secret::new(value.scalar()?);
    secret.header()?;
    Ok(secret)
}
