//! The views of one image.

use protonce_images::views::{Image, Renderer, View, ViewParameters, ViewRandom, decode};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::array::{Array, values};
use crate::failure::Failure;
use crate::loader::pixels;
use crate::patience::at_once;
use crate::settings::resolved;

/// The views of an image that is given by its encoded bytes, or by its pixels: uint8 [height, width, 3].
#[pyfunction]
#[pyo3(name = "views")]
#[pyo3(signature = (encoded, rgb, preset, settings, *, centre, epoch, index, uint8))]
#[allow(clippy::too_many_arguments)]
pub fn views(
    py: Python<'_>,
    encoded: Option<PyBackedBytes>,
    rgb: Option<Bound<'_, PyAny>>,
    preset: &str,
    settings: &str,
    centre: bool,
    epoch: u64,
    index: u64,
    uint8: bool,
) -> Result<Vec<Array>, Failure> {
    let config = resolved(preset, settings)?;
    let (seed, mut config) = (config.seed, config.views);
    if uint8 {
        (config.mean, config.std) = ([0.0; 3], [1.0; 3]);
    }
    let image = match rgb {
        Some(rgb) => Some(copied(&rgb)?),
        None => None,
    };
    at_once(py, || {
        let image = match (image, &encoded) {
            (Some(image), _) => image,
            (None, Some(bytes)) => decode(bytes)?,
            (None, None) => return Err(Failure::Argument("no image was given".to_owned())),
        };
        let mut arrays = Vec::new();
        let mut keep = |renderer: &Renderer, side: usize| {
            let mut view = vec![0.0; side * side * 3];
            renderer.normalise_into(&mut view);
            let shape = [side, side, 3];
            arrays.push(match uint8 {
                true => Array::new(pixels(&view), &shape),
                false => Array::new(view, &shape),
            });
        };
        if centre {
            let mut renderer = Renderer::new(&config);
            renderer.evaluation(&image);
            keep(&renderer, config.image_size);
            return Ok(arrays);
        }
        let local = config.local();
        for view in config.pretraining_views() {
            let config = if matches!(view, View::Local(_)) { &local } else { &config };
            let mut random = ViewRandom::new(seed, epoch, index, view);
            let parameters = ViewParameters::draw(config, image.width, image.height, &mut random);
            let mut renderer = Renderer::new(config);
            renderer.training(&image, &parameters);
            keep(&renderer, config.image_size);
        }
        Ok(arrays)
    })
}

/// The image of which `rgb` has the pixels.
fn copied(rgb: &Bound<'_, PyAny>) -> Result<Image, Failure> {
    let (values, shape) = values::<u8>(rgb)?;
    match shape[..] {
        [height, width, 3] if height > 0 && width > 0 => {
            Ok(Image { width, height, pixels: values.to_vec() })
        }
        _ => {
            let sentence = format!("an image of shape {shape:?}: expected [height, width, 3]");
            Err(Failure::Argument(sentence))
        }
    }
}
