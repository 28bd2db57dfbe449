//! The pixels of a batch, read a square of 16 channels at a time.

use super::panel::{NOTHING, PANEL, row};
use super::tiling::OUTSIDE;

/// The pixels of a batch: [batch · height · width, channels].
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a> {
    pub(super) values: &'a [f32],
    pub(super) channels: usize,
}

impl<'a> Pixels<'a> {
    /// The channels of one panel at each of `pixels`; zeros outside the image. Where the panel has
    /// fewer than 16 channels, they lie in `padded`, with zeros after them.
    #[inline(always)]
    pub(super) fn window<'b, const SIDE: usize>(
        &self,
        pixels: &[[usize; SIDE]; SIDE],
        panel: usize,
        padded: &'b mut [[[f32; PANEL]; SIDE]; SIDE],
    ) -> [[&'b [f32; PANEL]; SIDE]; SIDE]
    where
        'a: 'b,
    {
        let mut window = [[&NOTHING; SIDE]; SIDE];
        let first = panel * PANEL;
        if first + PANEL > self.channels {
            self.pad(pixels, first, padded);
            for i in 0..SIDE {
                for j in 0..SIDE {
                    window[i][j] = &padded[i][j];
                }
            }
            return window;
        }
        for i in 0..SIDE {
            for j in 0..SIDE {
                if pixels[i][j] != OUTSIDE {
                    let start = pixels[i][j] * self.channels + first;
                    window[i][j] = row(&self.values[start..start + PANEL]);
                }
            }
        }
        window
    }

    #[inline(never)]
    fn pad<const SIDE: usize>(
        &self,
        pixels: &[[usize; SIDE]; SIDE],
        first: usize,
        padded: &mut [[[f32; PANEL]; SIDE]; SIDE],
    ) {
        *padded = [[NOTHING; SIDE]; SIDE];
        for (pixel, channels) in pixels.as_flattened().iter().zip(padded.as_flattened_mut()) {
            if *pixel != OUTSIDE {
                let start = pixel * self.channels;
                let rest = &self.values[start + first..start + self.channels];
                channels[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    #[inline(always)]
    pub(super) fn panels(&self) -> usize {
        self.channels.div_ceil(PANEL)
    }
}
