//! Where random choices come from: keys that follow from the seed and from where in the run a choice is made.

/// What a random choice is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The order of an epoch's images.
    Order,
    /// The negatives of the granularity of this number.
    Negatives(usize),
    /// The order in which keys are normalised in groups.
    KeyOrder,
}

/// The key of a random choice: it depends on the seed and on where in the run the choice is made.
pub(super) fn random_key(seed: u64, purpose: Purpose, epoch: usize, step: usize) -> [u8; 32] {
    // Views use the numbers 0 and 1 in the last place.
    let purpose = match purpose {
        Purpose::Order => 2,
        Purpose::KeyOrder => 3,
        Purpose::Negatives(granularity) => 4 + granularity as u64,
    };
    let mut key = [0; 32];
    for (place, number) in [seed, epoch as u64, step as u64, purpose].into_iter().enumerate() {
        key[place * 8..][..8].copy_from_slice(&number.to_le_bytes());
    }
    key
}
