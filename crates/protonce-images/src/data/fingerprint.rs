//! A short number for a list of strings, the same in every version of the program.

/// FNV-1a over length-prefixed strings: ours, because the standard hasher may change between
/// releases and a fingerprint outlives the program that wrote it.
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for &byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Sixteen hexadecimal digits.
    pub(super) fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }
}
