//! A connection that began with a TLS hello, as long as its plaintext has not been seen. Nothing of it can be read; the
//! headers of its records tell whether the client has sent anything but its part of the handshake.
//! Source: RFC 8446, 5.1 and 5.2, and appendix D.4; RFC 5246, 6.2.1 and 7.3.

const HEADER_BYTES: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// An encrypted alert of TLS 1.3: two bytes, the type, and the tag.
const WRAPPED_ALERT_BYTES: usize = 19;

/// Ciphertext in either direction, or turns of the gateway after the client's data, behind which plaintext must have been
/// seen if anybody reads it. A probed library shows its own before the next record moves.
const PATIENCE_BYTES: u64 = 64 * 1024;
const PATIENCE_TURNS: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Encrypted {
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// What is left of the current record.
    left: usize,
    changed_cipher: bool,
    /// TLS 1.2 or older: its handshake goes on in the open after the change of ciphers.
    old: bool,
    /// A record of type 23 was received: in TLS 1.3 the first is of the handshake.
    wrapped: bool,
    application: bool,
    moved: u64,
    turns: u32,
}

impl Encrypted {
    pub(super) fn receive(&mut self, mut bytes: &[u8]) {
        self.moved = self.moved.saturating_add(bytes.len() as u64);
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.header.get_mut(self.filled) {
                *place = *byte;
            }
            self.filled += 1;
            bytes = rest;
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.begin_record();
            }
        }
    }

    fn begin_record(&mut self) {
        let [kind, _, _, high, low] = self.header;
        self.left = usize::from(u16::from_be_bytes([high, low]));
        match kind {
            CHANGE_CIPHER_SPEC => self.changed_cipher = true,
            HANDSHAKE => self.old |= self.changed_cipher,
            ALERT => {}
            APPLICATION_DATA => {
                self.application |= self.old || (self.wrapped && self.left != WRAPPED_ALERT_BYTES);
                self.wrapped = true;
            }
            // Not understood, so nothing is ruled out.
            _ => self.application = true,
        }
    }

    /// Bytes received that were not seen: what they were is not known.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
        self.application = true;
    }

    pub(super) fn send(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
        self.turns += u32::from(self.application);
    }

    /// The client has sent data.
    pub(super) const fn has_application_data(&self) -> bool {
        self.application
    }

    /// And nobody shows it, though it must have been read by now.
    pub(super) const fn is_unread(&self) -> bool {
        self.application && (self.moved > PATIENCE_BYTES || self.turns > PATIENCE_TURNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, bytes: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(bytes).unwrap().to_be_bytes();
        [&[kind, 3, 3, high, low][..], &vec![7; bytes]].concat()
    }

    /// Whether there was data, with all bytes at once and with one at a time.
    fn data(records: &[(u8, usize)]) -> bool {
        let bytes: Vec<u8> = records.iter().flat_map(|(kind, bytes)| record(*kind, *bytes)).collect();
        let (mut whole, mut split) = (Encrypted::default(), Encrypted::default());
        whole.receive(&bytes);
        bytes.iter().for_each(|byte| split.receive(&[*byte]));
        assert_eq!(whole.has_application_data(), split.has_application_data());
        whole.has_application_data()
    }

    #[test]
    fn a_handshake_is_no_data() {
        // TLS 1.3: hello, change of ciphers, finished, alert.
        assert!(!data(&[(22, 500), (20, 1), (23, 53), (23, 19)]));
        assert!(data(&[(22, 500), (20, 1), (23, 53), (23, 60)]));
        // TLS 1.2: hello, key exchange, change of ciphers, finished, alert.
        assert!(!data(&[(22, 200), (22, 70), (20, 1), (22, 40), (21, 26)]));
        assert!(data(&[(22, 200), (22, 70), (20, 1), (22, 40), (23, 30)]));
        assert!(data(&[(22, 200), (99, 3)]));
    }

    #[test]
    fn data_is_unread_when_the_gateway_has_long_gone_on() {
        let mut quiet = Encrypted::default();
        quiet.send(PATIENCE_BYTES + 1);
        assert!(!quiet.is_unread());
        quiet.lose(1);
        assert!(quiet.is_unread());
        let mut answered = Encrypted::default();
        answered.lose(1);
        (0..=PATIENCE_TURNS).for_each(|_| answered.send(1));
        assert!(answered.is_unread());
    }
}
