//! What went wrong on the other side, where Rust and C++ call one another: neither an exception nor a
//! panic may unwind through the other language, so it crosses as a sentence.

use std::any::Any;
use std::ffi::c_char;

/// A sentence ended by a zero; empty when nothing went wrong.
#[repr(C)]
pub struct Message([c_char; 1024]);

impl Message {
    /// No sentence.
    pub const EMPTY: Message = Message([0; 1024]);

    /// The sentence of a panic.
    pub fn of(panic: &(dyn Any + Send)) -> Message {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .filter(|text| !text.is_empty())
            .unwrap_or("a backward pass written in Rust panicked");
        let mut message = Message::EMPTY;
        // The last element stays zero.
        for (element, byte) in message.0[..1023].iter_mut().zip(text.bytes()) {
            *element = byte as c_char;
        }
        message
    }

    /// Panics with the sentence, as tch does when libtorch fails.
    ///
    /// # Panics
    /// When there is one.
    pub fn panic_if_any(&self) {
        if let Err(sentence) = self.result() {
            std::panic::panic_any(sentence);
        }
    }

    /// Whether nothing went wrong.
    ///
    /// # Errors
    /// The sentence, if there is one.
    pub fn result(&self) -> Result<(), String> {
        let bytes: Vec<u8> =
            self.0.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }
}
