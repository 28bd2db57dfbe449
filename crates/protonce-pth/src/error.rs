//! Why a file is refused.

use std::io;

/// Why a checkpoint file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// The system refuses to read.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// The file is none of the known layouts.
    #[error(
        "it is {found}, expected what torch.save writes: a zip archive with data.pkl, or the stream \
         of pickles of PyTorch before 1.6"
    )]
    OtherFormat {
        /// What it looks like.
        found: &'static str,
    },
    /// An instruction that nothing in a checkpoint of tensors needs.
    #[error(
        "its pickle has the instruction {name} at byte {position}, which tensors and plain \
         containers never need and which may run code; nothing was executed, and files that have it \
         are refused"
    )]
    Instruction {
        /// Python's name of the instruction, or its code.
        name: String,
        /// Where in the pickle.
        position: usize,
    },
    /// A function or class that runs programs or code, or reaches files and networks.
    #[error(
        "its pickle asks for the Python object {name} at byte {position}, which can run code and \
         which no checkpoint needs; nothing was executed, and files that ask for it are refused"
    )]
    Global {
        /// Module and name.
        name: String,
        /// Where in the pickle.
        position: usize,
    },
    /// The pickle is broken or means something else than tensors and containers.
    #[error("its pickle is damaged at byte {position}: {reason}")]
    Pickle {
        /// What is wrong.
        reason: String,
        /// Where in the pickle.
        position: usize,
    },
    /// The archive around the pickle is broken.
    #[error("its archive is damaged: {0}")]
    Archive(String),
    /// A tensor does not fit the bytes there are for it.
    #[error("a tensor of it is damaged: {0}")]
    Tensor(String),
    /// More than any checkpoint has.
    #[error("it has {what}: more than the {limit} that a checkpoint can have here")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// How much is possible.
        limit: u64,
    },
}
