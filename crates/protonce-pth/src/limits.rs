//! How much of anything a checkpoint may have, so that a hostile file cannot exhaust memory: sizes that
//! a file claims are believed up to these numbers and as far as the file has bytes for them.

/// Most bytes of a pickle: the tensors' numbers are not in it, and the largest ResNet's names with
/// momentum encoder and optimiser come to less than a megabyte.
pub(crate) const MAX_PICKLE: u64 = 16 << 20;

/// Most objects pushed on the stack in all. ResNet-152 with momentum encoder and optimiser has about
/// 60 000. At about 100 bytes each with every table, this bounds memory at 26 MiB.
pub(crate) const MAX_OBJECTS: usize = 1 << 18;

/// Most dimensions of a tensor.
pub(crate) const MAX_DIMENSIONS: usize = 8;

/// Most bytes of an archive's table of contents: at about 80 bytes an entry, 200 000 tensors.
pub(crate) const MAX_DIRECTORY: u64 = 16 << 20;

/// Most bytes of the list of storages in the legacy layout.
pub(crate) const MAX_STORAGE_KEYS: u64 = 4 << 20;

/// Most classes that are passed over and remembered by name.
pub(crate) const MAX_NAMES: usize = 64;

/// Most dicts one inside the other in which tensors are looked for.
pub(crate) const MAX_PATH: usize = 8;

/// Most modules one inside the other.
pub(crate) const MAX_MODULES: usize = 16;

/// Longest key of a dict or name of a module in which tensors are looked for, in bytes.
pub(crate) const MAX_KEY: usize = 100;

/// Most bytes of the names of whole models' tensors and modules, and [`MEMBER`] for each of them.
pub(crate) const MAX_MEMBERS: usize = 8 << 20;

/// What a member of a module takes besides its name.
pub(crate) const MEMBER: usize = 64;
