//! Where text goes: results to stdout, everything else to stderr.
//!
//! A result that cannot be written is an error, as on a full disk; a reader that wants no more of it, as
//! `head`, ends the program quietly with the status that a shell gives a program of which the pipe is
//! closed. What goes to stderr is for someone who watches: when nobody can any more, work goes on.

use std::fmt::Display;
use std::io::{self, Write};

/// The exit status of a program that a closed pipe ends: 128 and the number of SIGPIPE.
pub const CLOSED_PIPE: u8 = 141;

/// A result that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Nobody reads any more.
    #[error("stdout was closed")]
    Closed,
    /// Anything else.
    #[error("cannot write to stdout: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> OutputError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Failed(error),
        }
    }
}

/// Writes a result to stdout, as it is.
///
/// # Errors
/// When stdout is closed or full.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    // Now, since nothing is said of what fails at the program's end.
    Ok(out.flush()?)
}

/// [`print()`], with the end of the line.
///
/// # Errors
/// When stdout is closed or full.
pub fn print_line(text: impl Display) -> Result<(), OutputError> {
    print(format_args!("{text}\n"))
}

/// Writes a result for people to read: to stdout, or to stderr where stdout is for JSON.
///
/// # Errors
/// When stdout is closed or full.
pub fn show(text: impl Display, json: bool) -> Result<(), OutputError> {
    match json {
        true => say(format_args!("{}", text.to_string().trim_end_matches('\n'))),
        false => print(text)?,
    }
    Ok(())
}

/// Writes a line to stderr, if there is still someone there.
pub fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// [`say`], with a format.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::say(format_args!($($text)*))
    };
}
