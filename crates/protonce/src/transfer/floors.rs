//! Floors: what images are worth without learning anything. Pixels in, trivial features out.
//!
//! Random weights and plain colours already tell a dog from a ship more often than chance does. An
//! accuracy says something about training only where these stand beside it.

use protonce_images::views::{Loader, LoaderError, ViewConfig};
use protonce_run::Floor;
use tch::{Device, Kind, Tensor};

use super::{Knn, knn_accuracy};
use protonce_encoder::image_tensor;

/// Features that nothing was learned for.
pub struct TrivialFeatures {
    /// How much of the image each of 8 × 8 × 8 colours fills, square roots: float32 [images, 512]. The
    /// cosine of two rows is then the Bhattacharyya coefficient of the histograms.
    pub colours: Tensor,
    /// The image at 16 × 16 pixels or less: float32 [images, pixels · 3].
    pub pixels: Tensor,
    /// The image of each row.
    pub images: Vec<i64>,
}

/// Levels of red, of green and of blue.
const LEVELS: i64 = 8;
/// The greatest side of an image of which pixels are compared.
const SIDE: i64 = 16;
/// Principal components that are compared.
const COMPONENTS: i64 = 64;

impl TrivialFeatures {
    /// Those of the centre crops of `loader`, which `views` describes.
    ///
    /// # Errors
    /// When the loader fails.
    pub fn of(loader: &mut Loader, views: &ViewConfig) -> Result<TrivialFeatures, LoaderError> {
        let _guard = tch::no_grad_guard();
        let channels =
            |values: [f64; 3]| Tensor::from_slice(&values).to_kind(Kind::Float).view([1, 3, 1, 1]);
        let (mean, std) = (channels(views.mean), channels(views.std));
        let (mut colours, mut pixels, mut images) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = loader.next() {
            let batch = batch?;
            if !batch.indices.is_empty() {
                let x = image_tensor(&batch.views[0], batch.image_size, Device::Cpu);
                // 0 to 1, as they were before they were normalised.
                let x = x * &std + &mean;
                let side = SIDE.min(batch.image_size as i64);
                colours.push(histograms(&x));
                pixels.push(x.adaptive_avg_pool2d([side, side]).flatten(1, -1));
                images.extend(batch.indices.iter().map(|&index| index as i64));
            }
            loader.recycle(batch);
        }
        let all = |rows: Vec<Tensor>| match rows.is_empty() {
            true => Tensor::zeros([0, 1], (Kind::Float, Device::Cpu)),
            false => Tensor::cat(&rows, 0),
        };
        Ok(TrivialFeatures { colours: all(colours), pixels: all(pixels), images })
    }
}

/// Square roots of the shares of 512 colours: x of 0 to 1 [batch, 3, side, side] → [batch, 512].
fn histograms(x: &Tensor) -> Tensor {
    let (batch, bins) = (x.size()[0], LEVELS.pow(3));
    let levels = (x * LEVELS as f64).floor().clamp(0.0, LEVELS as f64 - 1.0).to_kind(Kind::Int64);
    let places = Tensor::from_slice(&[LEVELS * LEVELS, LEVELS, 1]).view([1, 3, 1, 1]);
    let colour = (levels * places).sum_dim_intlist([1].as_slice(), false, Kind::Int64);
    let image = Tensor::arange(batch, (Kind::Int64, Device::Cpu)).view([-1, 1, 1]);
    let counts = (colour + image * bins).flatten(0, -1).bincount(None::<&Tensor>, batch * bins);
    let pixels = x.size()[2] * x.size()[3];
    (counts.view([batch, bins]).to_kind(Kind::Float) / pixels as f64).sqrt()
}

/// The rows along the principal components of `train`: the same for `test`, [images, components].
fn principal_components(train: &Tensor, test: &Tensor) -> [Tensor; 2] {
    let mean = train.mean_dim([0].as_slice(), true, Kind::Float);
    let centred = train - &mean;
    let covariance = centred.tr().matmul(&centred).to_kind(Kind::Double);
    // Ascending, so the last are the largest.
    let (_, vectors) = covariance.linalg_eigh("L");
    let dim = vectors.size()[1];
    let kept = COMPONENTS.min(dim);
    let vectors = vectors.narrow(1, dim - kept, kept).to_kind(Kind::Float);
    [centred.matmul(&vectors), (test - mean).matmul(&vectors)]
}

/// The kNN accuracy of trivial features, as [`knn_accuracy`] has it of learned ones.
pub fn trivial_floors(
    options: &Knn,
    (train, train_labels): (&TrivialFeatures, &Tensor),
    (test, test_labels): (&TrivialFeatures, &Tensor),
    classes: i64,
) -> [Floor; 2] {
    let floor = |name: &str, train: &Tensor, test: &Tensor| {
        let found = knn_accuracy(options, (train, train_labels), (test, test_labels), classes);
        let knn = found.into_iter().map(|accuracy| (accuracy.k, accuracy.top1)).collect();
        Floor { name: name.to_owned(), knn }
    };
    let [train_pixels, test_pixels] = principal_components(&train.pixels, &test.pixels);
    [
        floor("colour histogram", &train.colours, &test.colours),
        floor("PCA of pixels", &train_pixels, &test_pixels),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_colours_wherever_they_are() {
        // Half black, a quarter pure red and a quarter white.
        let image = Tensor::zeros([2, 3, 2, 2], (Kind::Float, Device::Cpu));
        for (batch, [red, white]) in [(0, [0, 1]), (1, [3, 2])] {
            let pixel = |number: i64| image.get(batch).flatten(1, -1).select(1, number);
            let _ = pixel(red).get(0).fill_(1.0);
            let _ = pixel(white).fill_(1.0);
        }
        let found = histograms(&image);
        assert_eq!(found.get(0), found.get(1));
        let share = |colour: i64| found.double_value(&[0, colour]).powi(2);
        for (colour, expected) in [(0, 0.5), (7 * 64, 0.25), (511, 0.25), (3, 0.0)] {
            assert!((share(colour) - expected).abs() < 1e-6, "{colour}");
        }
    }

    #[test]
    fn principal_components_keep_what_differs_most() {
        let train = Tensor::from_slice(&[5f32, 1., 9., 5., 3., 9., 5., -4., 9.1]).view([3, 3]);
        let [train, test] = principal_components(&train, &train.narrow(0, 2, 1));
        assert_eq!((train.size(), test.size()), (vec![3, 3], vec![1, 3]));
        // The last component is along the second number, whose mean is 0.
        let last: Vec<f32> = Vec::try_from(train.select(1, 2).abs()).unwrap();
        for (found, expected) in last.into_iter().zip([1.0, 3.0, 4.0]) {
            assert!((found - expected).abs() < 0.05, "{found}");
        }
    }
}
