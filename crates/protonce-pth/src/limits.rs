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
