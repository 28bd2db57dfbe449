//! PyTorch checkpoint files, read without executing anything, and written.
//!
//! `torch.save` writes a pickle: a small program that a stack machine runs to rebuild Python objects, and
//! that may call any function. Here the machine knows tensors, numbers, text and plain containers and
//! nothing else. Objects of other classes, as trainers save them, are passed over and named; a file that
//! asks for what runs programs or code is refused. Enters: a file or any other seekable reader. Leaves: a
//! [`Checkpoint`], whose objects are walked as [`Value`]s and whose tensors are read as bytes, each from
//! its position in the file.
//!
//! ```
//! use std::io::Cursor;
//!
//! use protonce_pth::{Checkpoint, Dtype, Item, write_zip};
//!
//! let numbers: Vec<u8> = [1.0_f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let state = Item::Dict(vec![("fc.bias", Item::Tensor(Dtype::F32, &[3], &numbers))]);
//! let mut file = Vec::new();
//! write_zip(&mut file, "archive", &Item::Dict(vec![("state_dict", state)]))?; // as torch.save does
//!
//! let mut checkpoint = Checkpoint::new(Cursor::new(file))?; // or Checkpoint::open(path)
//! let state = checkpoint.root().get("state_dict").ok_or("no state dict")?;
//! let bias = checkpoint.tensor(state.get("fc.bias").ok_or("no bias")?)?.ok_or("no tensor")?;
//! assert_eq!((bias.dtype, &bias.shape[..]), (Dtype::F32, &[3][..]));
//! assert_eq!(checkpoint.read(&bias)?, numbers);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All three layouts are known: the zip archive of today, the stream of pickles that PyTorch wrote until
//! 1.6, and a bare pickle of numpy arrays, as detectron2 has them.
//!
//! A hostile file can make the reader allocate no more than twice its own length plus 64 MiB: sizes
//! are believed only as far as the file has bytes for them, and up to the constants in `limits`.

mod archive;
mod checkpoint;
mod dtype;
mod error;
mod limits;
mod pickle;
mod state_dicts;
mod write;

pub use checkpoint::{Checkpoint, Layout, Tensor};
pub use dtype::Dtype;
pub use error::PthError;
pub use pickle::Value;
pub use state_dicts::StateDict;
pub use write::{Item, write_numpy, write_zip};
