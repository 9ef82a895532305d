//! TLS libraries that are not read, told by what they leave in a program: `status` names them.

use super::{boringssl, symbols::Elf};

/// The source of a crate lies in a folder of its name and version; places in it are told when it panics.
const RUSTLS: &[u8] = b"/rustls-";
/// It calls itself `OpenSSL 1.1.1 (compatible; BoringSSL)`, and has functions of those names.
const BORINGSSL: &[u8] = b"(compatible; BoringSSL)";

/// What `status` says of a program that has it and is not Envoy.
pub(super) const BORINGSSL_ELSEWHERE: &str = "it has BoringSSL, which is read in Envoy only";

/// Why a program that serves is not read, which has none of the libraries that are.
pub(super) fn named(elf: Option<&Elf<'_>>) -> String {
    let is_version = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    match elf.and_then(|elf| elf.word_behind(RUSTLS, is_version)) {
        Some(version) => format!("it has rustls {version}, which cannot be read"),
        None if elf.is_some_and(boringssl::is_in) => BORINGSSL_ELSEWHERE.to_owned(),
        None => "no TLS library that is known".to_owned(),
    }
}

/// Whether what looks like OpenSSL is another library, whose objects live otherwise.
pub(super) fn is_boringssl(elf: &Elf<'_>) -> bool {
    elf.word_behind(BORINGSSL, |_| true).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::ReadCache;
    use std::fs::File;

    #[test]
    fn rustls_is_named_with_its_version() {
        // This program has it, for webhooks.
        let cache = ReadCache::new(File::open("/proc/self/exe").unwrap());
        let said = named(Elf::parse(&cache).as_ref());
        let version = said.strip_prefix("it has rustls ").and_then(|rest| rest.strip_suffix(", which cannot be read"));
        assert!(version.is_some_and(|version| version.split('.').count() >= 3), "{said}");
        let cache = ReadCache::new(File::open("/usr/bin/env").unwrap());
        assert_eq!(named(Elf::parse(&cache).as_ref()), named(None));
    }
}
