//! What the processes have of one batch: what each has loaded enters, what all know leaves.
//!
//! Each process loads the images of its own groups. Which of them could be read shows only then, and moves
//! the borders between the groups that follow: processes hand pixels on where that happens.

use std::borrow::Cow;
use std::ops::Range;

use protonce_images::views::{Batch, Unreadable};
use serde::{Deserialize, Serialize};

use super::groups::Groups;
use crate::world::{World, WorldError};

/// What the processes have of one batch.
pub(super) struct Share {
    /// The images of the batch, in all processes.
    pub(super) images: Vec<i64>,
    /// Those that cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// The images that each process has, by their places in the batch.
    held: Vec<Range<usize>>,
}

/// What one process says of its part.
#[derive(Serialize, Deserialize)]
struct Part {
    indices: Vec<usize>,
    unreadable: Vec<Unreadable>,
}

impl Share {
    /// Of a batch of which each process of `world` has loaded a part.
    ///
    /// # Errors
    /// When a process is gone.
    pub(super) fn of(batch: &Batch, world: &World) -> Result<Share, WorldError> {
        let own = Part { indices: batch.indices.clone(), unreadable: batch.unreadable.clone() };
        let parts = match world.size() {
            1 => vec![own],
            _ => world.gather_words(&own)?,
        };
        let mut share = Share { images: Vec::new(), unreadable: Vec::new(), held: Vec::new() };
        for Part { indices, unreadable } in parts {
            let start = share.images.len();
            share.images.extend(indices.into_iter().map(|index| index as i64));
            share.unreadable.extend(unreadable);
            share.held.push(start..share.images.len());
        }
        Ok(share)
    }

    /// Pixels of the images of this process's groups, in their order. `pixels` are those of the images that
    /// it has, `width` values each; the batch goes into the groups in the order `order`, or in its own.
    ///
    /// # Errors
    /// When a process is gone.
    pub(super) fn pixels<'a>(
        &self,
        pixels: &'a [f32],
        width: usize,
        groups: &Groups,
        order: Option<&[i64]>,
        world: &World,
    ) -> Result<Cow<'a, [f32]>, WorldError> {
        let place = |place: usize| order.map_or(place, |order| order[place] as usize);
        let wanted: Vec<Vec<usize>> = (0..world.size())
            .map(|process| groups.images_of(process).map(place).collect())
            .collect();
        let there = wanted.iter().zip(&self.held).all(|(wanted, held)| {
            wanted.len() == held.len() && wanted.iter().copied().eq(held.clone())
        });
        if there {
            return Ok(Cow::Borrowed(pixels));
        }
        Ok(Cow::Owned(world.deal(pixels, width, &self.held, &wanted)?))
    }
}
