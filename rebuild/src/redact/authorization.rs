//! The Authorization header: who asks stays, what proves it does not.

use super::{REDACTED, lossy};

/// An Authorization header: the scheme if it is a known one; of AWS's schemes also the identifiers.
pub(super) fn authorization(value: &[u8]) -> String {
    /// A proof has three fields; what comes after a few more is not one.
    const MAX_FIELDS: usize = 8;
    const KNOWN: [&str; 7] = ["Basic", "Bearer", "Digest", "JWT", "Negotiate", "NTLM", "Token"];
    let value = value.trim_ascii();
    let (scheme, rest) = crate::s3::query::split_at_byte(value, b' ').unwrap_or((value, b""));
    match scheme {
        b"AWS4-HMAC-SHA256" | b"AWS4-ECDSA-P256-SHA256" => {
            let mut kept = String::with_capacity(value.len());
            kept.push_str(&lossy(scheme));
            let mut left = Some(rest);
            for at in 0..MAX_FIELDS {
                let Some(fields) = left else { break };
                let (sent, behind) = crate::s3::query::split_at_byte(fields, b',').unzip();
                let sent = sent.unwrap_or(fields);
                left = behind;
                // With the blank behind the comma, or without, as it was sent.
                kept.push_str(match sent.first() {
                    _ if at == 0 => " ",
                    Some(byte) if byte.is_ascii_whitespace() => ", ",
                    _ => ",",
                });
                let field = sent.trim_ascii();
                let (name, value) = crate::s3::query::split_at_byte(field, b'=').unwrap_or((field, b""));
                match name {
                    // A credential has a scope; without one it may be anything, a pasted secret for example.
                    b"Credential" if memchr::memchr_iter(b'/', value).count() >= 3 => {
                        kept.push_str("Credential=");
                        kept.push_str(&lossy(value));
                    }
                    b"SignedHeaders" => {
                        kept.push_str("SignedHeaders=");
                        kept.push_str(&lossy(value));
                    }
                    b"Credential" => {
                        kept.push_str("Credential=");
                        kept.push_str(REDACTED);
                    }
                    b"Signature" => {
                        kept.push_str("Signature=");
                        kept.push_str(REDACTED);
                    }
                    _ => kept.push_str(REDACTED),
                }
            }
            kept
        }
        b"AWS" => match memchr::memrchr(b':', rest).and_then(|at| rest.get(..at)) {
            Some(key) => format!("AWS {}:{REDACTED}", String::from_utf8_lossy(key)),
            None => format!("AWS {REDACTED}"),
        },
        _ => match KNOWN.iter().find(|known| scheme.eq_ignore_ascii_case(known.as_bytes())) {
            Some(known) if !rest.is_empty() => format!("{known} {REDACTED}"),
            _ => REDACTED.to_owned(),
        },
    }
}
