//! The groups of batch norm, which are the units of a step: how many images enter, the images of each
//! group and the process that computes it leave.
//!
//! Groups are cut from the images of a whole batch, of all processes, so that nothing depends on how many
//! processes there are. Each process has as many neighbouring groups.

use std::ops::Range;

use protonce_encoder::Encoder;

/// The groups of one batch.
pub(super) struct Groups {
    /// The images of each group, by their places in the batch.
    pub(super) images: Vec<Range<usize>>,
    /// The groups of each process.
    of_processes: Vec<Range<usize>>,
}

impl Groups {
    /// `count` images in `splits` groups, dealt to `processes`. As [`Encoder::embed_split`] cuts them.
    pub(super) fn of(count: usize, splits: i64, processes: usize) -> Groups {
        let groups = Encoder::groups(count, splits);
        let (each, larger) = (count / groups, count % groups);
        let start = |group: usize| group * each + group.min(larger);
        let images = (0..groups).map(|group| start(group)..start(group + 1)).collect();
        let bound = |process: usize| (splits as usize * process / processes).min(groups);
        let of_processes = (0..processes).map(|n| bound(n)..bound(n + 1)).collect();
        Groups { images, of_processes }
    }

    /// The images of each group of `process`.
    pub(super) fn of_process(&self, process: usize) -> &[Range<usize>] {
        &self.images[self.of_processes[process].clone()]
    }

    /// The images of `process`.
    pub(super) fn images_of(&self, process: usize) -> Range<usize> {
        match self.of_process(process) {
            [first, .., last] => first.start..last.end,
            [only] => only.clone(),
            // It has none.
            [] => 0..0,
        }
    }

    /// How many groups each process has.
    pub(super) fn counts(&self) -> Vec<usize> {
        self.of_processes.iter().map(Range::len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_in_one_group_and_every_group_in_one_process() {
        for count in 2..40 {
            for splits in [1i64, 2, 3, 4, 6, 8] {
                let alone = Groups::of(count, splits, 1);
                let all: Vec<usize> = alone.images.iter().cloned().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                let sizes = alone.images.iter().map(Range::len);
                let [least, most] = [sizes.clone().min(), sizes.max()].map(Option::unwrap);
                assert!(most - least <= 1 && (least > 1 || alone.images.len() == 1));
                for processes in
                    (1..=splits as usize).filter(|n| (splits as usize).is_multiple_of(*n))
                {
                    let groups = Groups::of(count, splits, processes);
                    // The same groups, whoever has them.
                    assert_eq!(groups.images, alone.images);
                    let dealt: Vec<usize> =
                        (0..processes).flat_map(|process| groups.images_of(process)).collect();
                    assert_eq!(
                        dealt, all,
                        "{count} images, {splits} groups, {processes} processes"
                    );
                    assert_eq!(groups.counts().iter().sum::<usize>(), groups.images.len());
                }
            }
        }
    }
}
