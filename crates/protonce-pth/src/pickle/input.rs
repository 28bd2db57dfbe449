//! The bytes of a pickle, consumed from front to back; an error names the byte at which the current
//! instruction begins.

use super::object::Span;
use crate::PthError;

/// The pickle and how far it is read.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where the current instruction begins.
    instruction: usize,
}

impl<'a> Input<'a> {
    /// Reads `bytes` from `start` on.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Input<'a> {
        Input { bytes, position: start, instruction: start }
    }

    /// How far it is read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Where the current instruction begins.
    pub(super) fn instruction(&self) -> usize {
        self.instruction
    }

    /// The code of the next instruction.
    pub(super) fn opcode(&mut self) -> Result<u8, PthError> {
        self.instruction = self.position;
        let [code] = self.take()?;
        Ok(code)
    }

    /// An error at the current instruction.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> PthError {
        PthError::Pickle { reason: reason.into(), position: self.instruction }
    }

    /// The next `length` bytes.
    pub(super) fn slice(&mut self, length: u64) -> Result<&'a [u8], PthError> {
        let left = &self.bytes[self.position..];
        match usize::try_from(length).ok().and_then(|length| left.get(..length)) {
            Some(slice) => {
                self.position += slice.len();
                Ok(slice)
            }
            None => {
                Err(self.wrong(format!("{length} bytes are promised, {} are left", left.len())))
            }
        }
    }

    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], PthError> {
        let slice = self.slice(N as u64)?;
        slice.try_into().map_err(|_| self.wrong("too short"))
    }

    /// Where the next `length` bytes lie, which are passed over.
    pub(super) fn span(&mut self, length: u64) -> Result<Span, PthError> {
        // Both fit: `Pickle::parse` takes no more bytes than 32 bits count.
        let start = self.position as u32;
        let length = self.slice(length)?.len() as u32;
        Ok(Span { start, length })
    }

    /// The bytes of a span.
    pub(super) fn bytes(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }

    /// Up to the end of the line, which is not part of it.
    pub(super) fn line(&mut self) -> Result<&'a str, PthError> {
        let left = &self.bytes[self.position..];
        let Some(length) = left.iter().position(|&byte| byte == b'\n') else {
            return Err(self.wrong("a name without an end"));
        };
        self.position += length + 1;
        std::str::from_utf8(&left[..length]).map_err(|_| self.wrong("a name that is no text"))
    }
}
