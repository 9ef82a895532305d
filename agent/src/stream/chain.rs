//! Tamper evidence: a hash chain over the lines as they are delivered, byte for byte, and signed checkpoints in it.
//!
//! Each line ends in `,"s3auditdPrevious":"P","s3auditdChain":"C"}`, spliced in before the final brace. C is the SHA-256
//! of every byte of this line before `,"s3auditdChain"`; P is the C of the line before, 64 zeros for the first line ever.
//! A checkpoint's signature is spliced in before both: `,"s3auditdSignature":"S"`, over every byte before it. Decision
//! 0040 says why so; `docs/verify.md` is the format's reference.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{Digest, SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::fmt;
use std::path::{Path, PathBuf};

const PREVIOUS: &[u8] = b",\"s3auditdPrevious\":\"";
const CHAIN: &[u8] = b",\"s3auditdChain\":\"";
const SIGNATURE: &[u8] = b",\"s3auditdSignature\":\"";
const CLOSE: &[u8] = b"\"}";
/// Hex digits of a hash.
const HASH_DIGITS: usize = 64;
/// Base64 of the 64 bytes of a signature.
const SIGNATURE_DIGITS: usize = 88;
/// What every line grows by.
const LINK_BYTES: usize = PREVIOUS.len() + HASH_DIGITS + 1 + CHAIN.len() + HASH_DIGITS + 1;

/// A checkpoint is due after so many records.
pub const CHECKPOINT_RECORDS: u64 = 10_000;
/// A checkpoint is due after so much time, if there were records.
pub const CHECKPOINT_NS: u64 = 60_000_000_000;

/// The chain's value of a line, in hex digits as it stands there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; HASH_DIGITS]);

impl Hash {
    /// What the first line ever has for the line before.
    pub const NONE: Self = Self([b'0'; HASH_DIGITS]);

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(digest(&SHA256, bytes))
    }

    /// 64 hex digits in lower case; None: anything else.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let digits: [u8; HASH_DIGITS] = digits.try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hex digits only, by construction.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    fn from_digest(digest: Digest) -> Self {
        let mut digits = [0; HASH_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(digest.as_ref()) {
            pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 0xf)]);
        }
        Self(digits)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

const fn hex(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{}: no Ed25519 private key (PKCS#8, as `openssl genpkey -algorithm ed25519` writes it)", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// It is no public key.
    #[error(
        "no Ed25519 public key: it must be a file as `openssl pkey -pubout` writes it, or 32 bytes in base64, as the \
         checkpoints have them"
    )]
    NotPublic,
}

/// The key that signs checkpoints.
pub struct Key {
    pair: Ed25519KeyPair,
    id: String,
    public: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// Reads a private key: PKCS#8, as PEM or DER.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes).ok_or_else(|| KeyError::NotPrivate { path: path.to_owned() })
    }

    /// From PKCS#8, as PEM or DER.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let der = pem(bytes, "PRIVATE KEY");
        // Version 1 of PKCS#8, which openssl writes, has no public key to check against.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.as_deref().unwrap_or(bytes)).ok()?;
        let public = pair.public_key().as_ref();
        Some(Self { id: key_id(public), public: BASE64.encode(public), pair })
    }

    /// The first 16 hex digits of the public key's SHA-256.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key in base64.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }
}

/// A key that checks signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From a file (`openssl pkey -pubout`, PEM or DER, or the base64 text) or, if there is none of that name, from base64.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(file_or_base64: &str) -> Result<Self, KeyError> {
        match std::fs::read(file_or_base64) {
            Ok(bytes) => Self::parse(&bytes),
            Err(_) => Self::parse(file_or_base64.as_bytes()),
        }
        .ok_or(KeyError::NotPublic)
    }

    /// From PEM, DER, base64 of either DER or the 32 bytes, or the 32 bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        /// The head of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410, 4 and 10.1); the key follows.
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let decoded = pem(bytes, "PUBLIC KEY").or_else(|| BASE64.decode(bytes.trim_ascii()).ok());
        let bytes = decoded.as_deref().unwrap_or(bytes);
        let bare = bytes.strip_prefix(&HEAD).unwrap_or(bytes);
        Some(Self(bare.try_into().ok()?))
    }

    /// See [`Key::id`].
    #[must_use]
    pub fn id(&self) -> String {
        key_id(&self.0)
    }

    /// Whether this key signed it; `signature` is base64.
    #[must_use]
    pub fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        BASE64.decode(signature).is_ok_and(|signature| key.verify(signed, &signature).is_ok())
    }
}

fn key_id(public: &[u8]) -> String {
    Hash::of(public).as_str().chars().take(16).collect()
}

/// What stands between the markers of a PEM file; None: it is none.
fn pem(bytes: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let digits: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(digits).ok()
}

/// What seals the lines of one stream, in the order in which they are delivered.
#[derive(Debug)]
pub struct Seal {
    chain: Option<Chain>,
    key: Option<Key>,
}

#[derive(Debug)]
struct Chain {
    head: Hash,
    /// Records since the last checkpoint, and when that was.
    unsigned: u64,
    signed_ns: u64,
}

impl Seal {
    /// A seal that goes on behind the line with this value (`previous`). A key signs what is chained, so with one there
    /// is a chain in any case.
    #[must_use]
    pub fn new(chain: bool, key: Option<Key>, previous: Option<Hash>) -> Self {
        let chained = chain || key.is_some();
        let chain = Chain { head: previous.unwrap_or(Hash::NONE), unsigned: 0, signed_ns: 0 };
        Self { chain: chained.then_some(chain), key }
    }

    /// One that leaves lines as they are.
    #[must_use]
    pub fn off() -> Self {
        Self { chain: None, key: None }
    }

    /// The chain's value of the last line: what the next start goes on from. None: lines are not chained.
    #[must_use]
    pub fn head(&self) -> Option<Hash> {
        self.chain.as_ref().map(|chain| chain.head)
    }

    /// The key, where checkpoints are signed.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Seals a record's line (without a line end), in place.
    #[must_use]
    pub fn line(&mut self, mut line: Vec<u8>) -> Vec<u8> {
        let Some(chain) = &mut self.chain else { return line };
        if line.pop_if(|last| *last == b'}').is_none() {
            return line;
        }
        line.reserve(LINK_BYTES + 1);
        line.extend_from_slice(PREVIOUS);
        line.extend_from_slice(&chain.head.0);
        line.push(b'"');
        chain.head = Hash::of(&line);
        chain.unsigned = chain.unsigned.saturating_add(1);
        line.extend_from_slice(CHAIN);
        line.extend_from_slice(&chain.head.0);
        line.extend_from_slice(CLOSE);
        line
    }

    /// Signs a checkpoint's line and seals it.
    #[must_use]
    pub fn sign(&mut self, mut line: Vec<u8>, now_ns: u64) -> Vec<u8> {
        if let Some(key) = &self.key
            && line.pop_if(|last| *last == b'}').is_some()
        {
            let signature = key.pair.sign(&line);
            line.extend_from_slice(SIGNATURE);
            line.extend_from_slice(BASE64.encode(signature.as_ref()).as_bytes());
            line.extend_from_slice(CLOSE);
        }
        let line = self.line(line);
        if let Some(chain) = &mut self.chain {
            (chain.unsigned, chain.signed_ns) = (0, now_ns);
        }
        line
    }

    /// Whether a checkpoint is due.
    #[must_use]
    pub fn due(&self, now_ns: u64) -> bool {
        let (Some(chain), Some(_)) = (&self.chain, &self.key) else { return false };
        chain.unsigned >= CHECKPOINT_RECORDS
            || (chain.unsigned > 0 && now_ns.saturating_sub(chain.signed_ns) >= CHECKPOINT_NS)
    }
}

/// The end of a sealed line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The chain's value of the line before.
    pub previous: Hash,
    /// This line's, as it says.
    pub chain: Hash,
    /// This line's, as its bytes say.
    pub computed: Hash,
    /// A checkpoint's signature, with what it is over.
    pub signature: Option<Signature<'a>>,
}

/// A signature in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The bytes that were signed.
    pub signed: &'a [u8],
    /// In base64.
    pub base64: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// None: the line does not end as a sealed one does.
    #[must_use]
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let (rest, chain) = hash_at_end(line.strip_suffix(CLOSE)?)?;
        let before_chain = rest.strip_suffix(CHAIN)?;
        let (rest, previous) = hash_at_end(before_chain.strip_suffix(b"\"")?)?;
        let content = rest.strip_suffix(PREVIOUS)?;
        Some(Self { previous, chain, computed: Hash::of(before_chain), signature: signature_at_end(content) })
    }

    /// `s3auditdPrevious` of a line, without computing anything: what a gap record says of the first line that is lost.
    #[must_use]
    pub fn previous_of(line: &[u8]) -> Option<Hash> {
        let (rest, _) = hash_at_end(line.strip_suffix(CLOSE)?)?;
        hash_at_end(rest.strip_suffix(CHAIN)?.strip_suffix(b"\"")?).map(|(_, previous)| previous)
    }

    /// `s3auditdChain` of a line, without computing anything.
    #[must_use]
    pub fn chain_of(line: &[u8]) -> Option<Hash> {
        let (rest, chain) = hash_at_end(line.strip_suffix(CLOSE)?)?;
        rest.ends_with(CHAIN).then_some(chain)
    }
}

fn hash_at_end(bytes: &[u8]) -> Option<(&[u8], Hash)> {
    let (rest, digits) = bytes.split_at_checked(bytes.len().checked_sub(HASH_DIGITS)?)?;
    Some((rest, Hash::parse(digits)?))
}

fn signature_at_end(content: &[u8]) -> Option<Signature<'_>> {
    let content = content.strip_suffix(b"\"")?;
    let (rest, base64) = content.split_at_checked(content.len().checked_sub(SIGNATURE_DIGITS)?)?;
    Some(Signature { signed: rest.strip_suffix(SIGNATURE)?, base64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519`, and its `openssl pkey -pubout`.
    const PRIVATE: &str = include_str!("test_key.pem");
    const PUBLIC: &str = include_str!("test_key.pub.pem");

    #[test]
    fn a_line_is_what_the_documentation_says() {
        let mut seal = Seal::new(true, None, None);
        let first = seal.line(br#"{"a":1}"#.to_vec());
        let covered = format!(r#"{{"a":1,"s3auditdPrevious":"{}""#, "0".repeat(64));
        let hash = Hash::of(covered.as_bytes());
        assert_eq!(String::from_utf8(first.clone()).unwrap(), format!(r#"{covered},"s3auditdChain":"{hash:?}"}}"#));
        assert_eq!(seal.head(), Some(hash));
        let second = seal.line(br#"{"b":2}"#.to_vec());
        let sealed = Sealed::read(&second).unwrap();
        assert_eq!((sealed.previous, sealed.chain, sealed.signature), (hash, sealed.computed, None));
        assert_eq!((Sealed::previous_of(&second), Sealed::chain_of(&second)), (Some(hash), Some(sealed.chain)));
        // A known value, by sha256sum.
        assert_eq!(Hash::of(b"abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn off_changes_nothing_and_a_start_goes_on() {
        assert_eq!(Seal::off().line(b"{}".to_vec()), b"{}");
        assert!(!Seal::off().due(u64::MAX));
        let mut seal = Seal::new(true, None, Some(Hash::of(b"x")));
        assert_eq!(Sealed::read(&seal.line(br#"{"a":1}"#.to_vec())).unwrap().previous, Hash::of(b"x"));
        assert!(!seal.due(u64::MAX), "nothing signs");
    }

    #[test]
    fn checkpoints_are_signed_by_openssls_keys() {
        let key = Key::parse(PRIVATE.as_bytes()).unwrap();
        let public = PublicKey::parse(PUBLIC.as_bytes()).unwrap();
        assert_eq!((key.id(), PublicKey::parse(key.public().as_bytes())), (public.id().as_str(), Some(public)));
        let der = pem(PRIVATE.as_bytes(), "PRIVATE KEY").unwrap();
        assert_eq!(Key::parse(&der).unwrap().public(), key.public());
        assert!(Key::parse(PUBLIC.as_bytes()).is_none());
        assert!(PublicKey::parse(PRIVATE.as_bytes()).is_none());
        assert!(!format!("{key:?}").contains(key.public()));

        let mut seal = Seal::new(false, Some(key), None);
        assert!(!seal.due(u64::MAX));
        let _line = seal.line(br#"{"a":1}"#.to_vec());
        assert!(!seal.due(CHECKPOINT_NS - 1) && seal.due(CHECKPOINT_NS));
        let line = seal.sign(br#"{"a":1}"#.to_vec(), 5);
        assert!(!seal.due(u64::MAX), "a checkpoint alone wants no other");
        let sealed = Sealed::read(&line).unwrap();
        let signature = sealed.signature.unwrap();
        assert_eq!(signature.signed, br#"{"a":1"#);
        assert!(public.has_signed(signature.signed, signature.base64));
        assert!(!public.has_signed(br#"{"a":2"#, signature.base64));
        for _ in 0..CHECKPOINT_RECORDS {
            assert!(!seal.due(6));
            let _line = seal.line(b"{}".to_vec());
        }
        assert!(seal.due(6));
    }
}
