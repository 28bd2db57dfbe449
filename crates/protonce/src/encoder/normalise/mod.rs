//! Batch normalisation (Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>) together with what
//! follows it in a residual network: the carried input's sum and the ReLU.
//!
//! A processor that multiplies fast waits for activations to pass through its memory, so they pass as
//! seldom as can be. A forward pass reads the input twice (statistics, result); a backward pass reads
//! input and gradient twice (two sums, result) and, where a residual was added, the output once.
//! Kept for the way back: the input, a few numbers a channel and, with residual and ReLU, the output.
//! Without a residual the output can be made [`Again`] from the input in one more pass, so that the
//! convolution which follows need not keep it either.
//!
//! Sums run in float32 over blocks of a few dozen rows and in float64 beyond. How the work is cut
//! depends on the shape alone, and partial sums are added in their order, so the result has the same
//! bits for any number of threads.

mod kernels;

use std::iter::zip;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use tch::{Device, Kind, Tensor};

use super::autograd::{differentiable, gradients_wanted, parallel_for};
use super::layers::BatchStats;
use super::memory::{BFloat16, Element, elements, elements_mut};
use crate::profile::{self, Kernel};
use kernels::Line;

/// What follows a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x as it is.
    None,
}

impl Activation {
    /// The least value that it lets through.
    fn floor(self) -> f32 {
        match self {
            Activation::Relu => 0.0,
            Activation::None => f32::NEG_INFINITY,
        }
    }
}

/// The parameters and statistics of a batch normalisation, each float32 [channels].
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// γ, the deviation of the result.
    pub weight: &'a Tensor,
    /// β, the mean of the result.
    pub bias: &'a Tensor,
    /// Moving average of the batches' means; moves in training.
    pub running_mean: &'a Tensor,
    /// Moving average of the batches' unbiased variances; moves in training.
    pub running_var: &'a Tensor,
}

/// The result of [`normalise`].
pub struct Normalised {
    /// activation(normalise(x) + residual).
    pub tensor: Tensor,
    /// How it is made again, where it may be forgotten until the way back.
    pub again: Option<Again>,
}

/// Makes the result of a [`normalise`] without residual again from its input, which is kept for the
/// way back anyway: the same bits.
pub struct Again {
    x_rows: Tensor,
    line: Line,
    floor: f32,
    cut: Cut,
}

impl Again {
    /// The result, without a graph.
    pub(super) fn make(&self) -> Tensor {
        match self.x_rows.kind() {
            Kind::BFloat16 => self.make_as::<BFloat16>(),
            _ => self.make_as::<f32>(),
        }
    }

    fn make_as<T: Element>(&self) -> Tensor {
        let mut y_rows = Tensor::empty(self.x_rows.size(), (T::KIND, Device::Cpu));
        let (x, y) = (Some(elements::<T>(&self.x_rows)), elements_mut::<T>(&mut y_rows));
        write(x, None, &self.line, self.floor, y, &self.cut);
        y_rows.permute([0, 3, 1, 2])
    }
}

/// torchvision's momentum of the running statistics.
const MOMENTUM: f64 = 0.1;
/// torchvision's floor under the variance.
const EPSILON: f64 = 1e-5;

/// activation(normalise(x) + residual): [batch, channels, height, width], the shape and precision of
/// `x`, which `residual` has too. Statistics and arithmetic are in float32 at least.
///
/// On a CPU, where no gradient is wanted, the result takes over the memory of `x`, which therefore
/// must be in no other use.
///
/// # Panics
/// Like the operations of `tch`, when shapes do not fit.
pub fn normalise(
    x: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
) -> Normalised {
    let mut inputs = vec![&x, norm.weight, norm.bias];
    inputs.extend(residual);
    let keep = if gradients_wanted(&inputs) { Keep::Both } else { Keep::Output };
    // A gradient through fixed statistics, which only unusual training wants, is libtorch's.
    let ours = x.device() == Device::Cpu
        && x.dim() == 4
        && x.numel() > 0
        && (stats == BatchStats::Batch || keep == Keep::Output);
    profile::kernel(Kernel::Normalisation, 0.0, || match x.kind() {
        Kind::Float if ours => fused::<f32>(x, norm, residual, activation, stats, keep),
        Kind::BFloat16 if ours => fused::<BFloat16>(x, norm, residual, activation, stats, keep),
        _ => Normalised { tensor: by_libtorch(&x, norm, residual, activation, stats), again: None },
    })
}

fn by_libtorch(
    x: &Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
) -> Tensor {
    let mut y = x.batch_norm(
        Some(norm.weight),
        Some(norm.bias),
        Some(norm.running_mean),
        Some(norm.running_var),
        stats == BatchStats::Batch,
        MOMENTUM,
        EPSILON,
        true,
    );
    // In place: autograd needs batch norm's input and ReLU's output, never what lies between.
    if let Some(residual) = residual {
        y += residual;
    }
    match activation {
        Activation::Relu => y.relu_(),
        Activation::None => y,
    }
}

/// [`normalise`] for elements of type `T`; differentiable in training mode.
fn fused<T: Element>(
    x: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
    keep: Keep,
) -> Normalised {
    let (y, backward) = tch::no_grad(|| {
        let rows = channels_last::<T>(&x.detach());
        forward::<T>(rows, norm, residual, activation, stats, keep)
    });
    if keep == Keep::Output {
        return Normalised { tensor: y, again: None };
    }
    let again = (!backward.has_residual).then(|| Again {
        x_rows: backward.x_rows.shallow_clone(),
        line: backward.line.clone(),
        floor: activation.floor(),
        cut: backward.cut,
    });
    let mut inputs = vec![&x, norm.weight, norm.bias];
    inputs.extend(residual);
    let tensor = differentiable(y, &inputs, move |gradient| {
        profile::kernel(Kernel::NormalisationGradient, 0.0, || backward.run::<T>(gradient))
    });
    Normalised { tensor, again }
}

/// Which of a forward pass's activations are needed after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The output only: it may overwrite the input.
    Output,
    /// The input as well, for a backward pass.
    Both,
}

/// `rows` comes from [`channels_last`], as everything named `rows` here: [batch, height, width,
/// channels].
fn forward<T: Element>(
    mut rows: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
    keep: Keep,
) -> (Tensor, Backward) {
    let cut = Cut::new(&rows);
    let weight = per_channel(norm.weight, &cut);
    let bias = per_channel(norm.bias, &cut);
    let statistics = match stats {
        BatchStats::Batch => {
            let statistics = Statistics::of::<T>(elements(&rows), &cut);
            statistics.move_running(norm, &cut);
            statistics
        }
        BatchStats::Running => Statistics::running(norm, &cut),
    };

    let residual = residual.map(|residual| {
        assert_eq!(
            residual.numel(),
            rows.numel(),
            "a residual has the shape of what it is added to"
        );
        channels_last::<T>(residual)
    });
    let line = statistics.line(&weight, &bias, &cut);
    let mut fresh = match keep {
        Keep::Output => None,
        Keep::Both => Some(Tensor::empty(rows.size(), (T::KIND, Device::Cpu))),
    };
    {
        let (x, y) = match &mut fresh {
            Some(fresh) => (Some(elements::<T>(&rows)), elements_mut::<T>(fresh)),
            None => (None, elements_mut::<T>(&mut rows)),
        };
        let residual = residual.as_ref().map(elements::<T>);
        write(x, residual, &line, activation.floor(), y, &cut);
    }

    let y_rows = fresh.unwrap_or_else(|| rows.shallow_clone());
    let relu = match (activation, &residual) {
        (Activation::None, _) => Relu::None,
        (Activation::Relu, None) => Relu::OfLine,
        // Detached: the output will hold this backward pass, which must not hold the output.
        (Activation::Relu, Some(_)) => Relu::OfSum { y_rows: y_rows.detach() },
    };
    let has_residual = residual.is_some();
    let backward = Backward { x_rows: rows, relu, has_residual, line, weight, statistics, cut };
    (y_rows.permute([0, 3, 1, 2]), backward)
}

/// Writes max(line(x) + residual, floor) into `y`, which is `x` as well where that is not given.
fn write<T: Element>(
    x: Option<&[T]>,
    residual: Option<&[T]>,
    line: &Line,
    floor: f32,
    y: &mut [T],
    cut: &Cut,
) {
    let outputs = cut.chunks_mut(y);
    cut.for_each(|number, range| {
        let mut y = outputs[number].lock().unwrap_or_else(PoisonError::into_inner);
        let x = x.map(|x| &x[range.clone()]);
        let residual = residual.map(|residual| &residual[range]);
        kernels::write_line(x, residual, line, floor, &mut y);
    });
}

/// How the way back finds out what a ReLU let through.
enum Relu {
    /// There was none.
    None,
    /// Without a residual, the input tells, at less cost than reading the output.
    OfLine,
    /// With one, the output does.
    OfSum { y_rows: Tensor },
}

/// What a forward pass keeps, and the way back from it.
struct Backward {
    x_rows: Tensor,
    relu: Relu,
    has_residual: bool,
    /// From the input to the normalised output.
    line: Line,
    weight: Vec<f32>,
    statistics: Statistics,
    cut: Cut,
}

impl Backward {
    /// From the gradient g of the output to those of x, γ, β and the residual. With g already behind
    /// the ReLU, x̂ the normalised input, n the rows:
    ///
    /// ```text
    /// dβ = Σ g    dγ = Σ g·x̂    dx = γ/σ · (g − dβ/n − x̂·dγ/n)    dresidual = g
    /// ```
    fn run<T: Element>(&self, gradient: &Tensor) -> Vec<Option<Tensor>> {
        let gradient_rows = channels_last::<T>(gradient);
        let x = elements::<T>(&self.x_rows);
        let cut = &self.cut;
        let (sums, g_rows) = self.gradient_sums::<T>(gradient_rows, x);
        let g = elements::<T>(&g_rows);

        let n = cut.rows as f64;
        let mut slope = Vec::new();
        let mut along = Line::default();
        let (mut weight_gradient, mut bias_gradient) = (Vec::new(), Vec::new());
        let [sums, products] = sums;
        for (channel, (sum, product)) in zip(sums, products).enumerate() {
            let Channel { centre, beyond, inverse_deviation, .. } = self.statistics.0[channel];
            // Σ g·x̂, with x̂ = (x − centre − beyond) / σ.
            let along_x = (product - beyond * sum) * inverse_deviation;
            weight_gradient.push(along_x as f32);
            bias_gradient.push(sum as f32);
            slope.push((f64::from(self.weight[channel]) * inverse_deviation) as f32);
            let scale = -inverse_deviation * along_x / n;
            along.centre.push(centre);
            along.scale.push(scale as f32);
            along.offset.push((-sum / n - scale * beyond) as f32);
        }
        let slope = cut.lanes(&slope);
        let along = cut.lanes_of(along);

        let mut dx_rows = Tensor::empty(self.x_rows.size(), (T::KIND, Device::Cpu));
        let relu = matches!(self.relu, Relu::OfLine).then_some(&self.line);
        let outputs = cut.chunks_mut(elements_mut::<T>(&mut dx_rows));
        cut.for_each(|number, range| {
            let mut dx = outputs[number].lock().unwrap_or_else(PoisonError::into_inner);
            let g = &g[range.clone()];
            kernels::write_input_gradient(g, &x[range], relu, &slope, &along, &mut dx);
        });
        drop(outputs);

        let channels_first = |rows: Tensor| Some(rows.permute([0, 3, 1, 2]));
        let mut gradients = vec![
            channels_first(dx_rows),
            Some(Tensor::from_slice(&weight_gradient)),
            Some(Tensor::from_slice(&bias_gradient)),
        ];
        if self.has_residual {
            gradients.push(channels_first(g_rows));
        }
        gradients
    }

    /// Σ g and Σ g·(x − centre) of each channel, and g; but where the ReLU's input tells what it let
    /// through, g is as yet the gradient behind it.
    fn gradient_sums<T: Element>(&self, gradient_rows: Tensor, x: &[T]) -> ([Vec<f64>; 2], Tensor) {
        let (cut, line) = (&self.cut, &self.line);
        let Relu::OfSum { y_rows } = &self.relu else {
            let g = elements::<T>(&gradient_rows);
            let relu = matches!(self.relu, Relu::OfLine);
            let sums = cut.sum(|range, total| {
                add_gradient_sums(cut, line, &g[range.clone()], &x[range], relu, total);
            });
            return (sums, gradient_rows);
        };
        let gradient = elements::<T>(&gradient_rows);
        let y = elements::<T>(y_rows);
        let mut g_rows = Tensor::empty(gradient_rows.size(), (T::KIND, Device::Cpu));
        let outputs = cut.chunks_mut(elements_mut::<T>(&mut g_rows));
        let sums = cut.sum(|range, total| {
            let number = range.start / cut.chunk;
            let mut g = outputs[number].lock().unwrap_or_else(PoisonError::into_inner);
            // Piece by piece, so that a piece is still in the cache when it is summed.
            for (g, piece) in zip(g.chunks_mut(cut.block), cut.blocks(range)) {
                kernels::write_before_relu(&gradient[piece.clone()], &y[piece.clone()], g);
                add_gradient_sums(cut, line, g, &x[piece], false, total);
            }
        });
        drop(outputs);
        (sums, g_rows)
    }
}

/// Adds Σ g and Σ g·(x − centre) of each channel to `total`; see [`kernels::add_gradient_sums`].
fn add_gradient_sums<T: Element>(
    cut: &Cut,
    line: &Line,
    g: &[T],
    x: &[T],
    relu: bool,
    total: &mut [Vec<f64>; 2],
) {
    let (mut sums, mut products) = (vec![0.0; cut.width], vec![0.0; cut.width]);
    for (g, x) in zip(g.chunks(cut.block), x.chunks(cut.block)) {
        sums.fill(0.0);
        products.fill(0.0);
        kernels::add_gradient_sums(g, x, line, relu, &mut sums, &mut products);
        for (total, lanes) in zip(&mut *total, [&sums, &products]) {
            for lanes in lanes.chunks(cut.channels) {
                for (total, &lane) in zip(&mut *total, lanes) {
                    *total += f64::from(lane);
                }
            }
        }
    }
}

/// The statistics of each channel that normalise it.
struct Statistics(Vec<Channel>);

#[derive(Clone, Copy)]
struct Channel {
    /// The mean in float32.
    centre: f32,
    /// The mean less `centre`: what float32 cannot hold of it.
    beyond: f64,
    /// The variance, biased.
    variance: f64,
    /// 1 / √(variance + ε).
    inverse_deviation: f64,
}

impl Channel {
    fn new(mean: f64, variance: f64) -> Channel {
        let centre = mean as f32;
        Channel {
            centre,
            beyond: mean - f64::from(centre),
            variance,
            inverse_deviation: 1.0 / (variance + EPSILON).sqrt(),
        }
    }
}

impl Statistics {
    /// The running ones.
    fn running(norm: &BatchNorm<'_>, cut: &Cut) -> Statistics {
        let mean = per_channel(norm.running_mean, cut);
        let variance = per_channel(norm.running_var, cut);
        let channel = |(mean, variance)| Channel::new(f64::from(mean), f64::from(variance));
        Statistics(zip(mean, variance).map(channel).collect())
    }

    /// Means and variances of a batch in one pass.
    ///
    /// Squares are summed of differences from the mean of a block's first four rows. Of n rows, that
    /// is no further than √(n / 4) deviations from the mean of all, so rounding costs n / 4 units in
    /// the last place at the very worst and about one as a rule; a mean far from zero costs nothing.
    /// Blocks are brought to the activation's first row and added in float64, where the same
    /// argument leaves digits to spare.
    fn of<T: Element>(x: &[T], cut: &Cut) -> Statistics {
        let origin: Vec<f64> = x[..cut.channels].iter().map(|x| f64::from(x.widen())).collect();
        let [sums, squares] = cut.sum(|range, total| {
            let mut shift = vec![0.0; cut.width];
            let (mut sums, mut squares) = (vec![0.0; cut.width], vec![0.0; cut.width]);
            for block in cut.blocks(range) {
                let block = &x[block];
                kernels::write_first_mean(block, &mut shift);
                sums.fill(0.0);
                squares.fill(0.0);
                kernels::add_moments(block, &shift, &mut sums, &mut squares);
                for start in (0..cut.width.min(block.len())).step_by(cut.channels) {
                    // Rows this block has in these lanes.
                    let n = (block.len() - start).div_ceil(cut.width);
                    let lanes = start..start + cut.channels;
                    let moments = [&sums[lanes.clone()], &squares[lanes.clone()]];
                    kernels::move_moments(n, moments, &shift[lanes], &origin, total);
                }
            }
        });
        let n = cut.rows as f64;
        let channel = |((sum, square), origin): ((f64, f64), f64)| {
            let offset = sum / n;
            Channel::new(origin + offset, (square / n - offset * offset).max(0.0))
        };
        Statistics(zip(zip(sums, squares), origin).map(channel).collect())
    }

    /// Moves the running statistics towards these.
    fn move_running(&self, norm: &BatchNorm<'_>, cut: &Cut) {
        let n = cut.rows as f64;
        // The variance of a single row is unknown rather than infinite: its 0 stays.
        let unbiased = n / (n - 1.0).max(1.0);
        let move_to = |running: &Tensor, value: &dyn Fn(&Channel) -> f64| {
            let mut running = running.shallow_clone();
            assert_eq!(running.numel(), cut.channels, "one running statistic a channel");
            for (running, channel) in zip(elements_mut::<f32>(&mut running), &self.0) {
                let before = f64::from(*running);
                *running = ((1.0 - MOMENTUM) * before + MOMENTUM * value(channel)) as f32;
            }
        };
        move_to(norm.running_mean, &|channel| f64::from(channel.centre) + channel.beyond);
        move_to(norm.running_var, &|channel| channel.variance * unbiased);
    }

    /// From an input to its normalised, scaled and shifted value.
    fn line(&self, weight: &[f32], bias: &[f32], cut: &Cut) -> Line {
        let mut line = Line::default();
        for (channel, (&weight, &bias)) in zip(&self.0, zip(weight, bias)) {
            let scale = f64::from(weight) * channel.inverse_deviation;
            line.centre.push(channel.centre);
            line.scale.push(scale as f32);
            line.offset.push((f64::from(bias) - channel.beyond * scale) as f32);
        }
        cut.lanes_of(line)
    }
}

/// How an activation is cut into pieces: by its shape alone.
#[derive(Clone, Copy)]
struct Cut {
    channels: usize,
    /// Positions (batch × height × width).
    rows: usize,
    /// Lanes of the kernels: a multiple of the channels.
    width: usize,
    /// Elements of a chunk, which one thread works on; a multiple of `width`.
    chunk: usize,
    /// Elements of a block, which is summed in float32; a multiple of `width`.
    block: usize,
}

impl Cut {
    /// Shorter rows are taken several together.
    const MIN_WIDTH: usize = 256;
    /// Rows of lanes in a block.
    const BLOCK_ROWS: usize = 32;
    /// Below this many elements a thread costs more than it saves.
    const MIN_CHUNK: usize = 1 << 14;
    /// Enough for the threads of a large machine; each has partial sums of its own.
    const MAX_CHUNKS: usize = 128;

    fn new(rows: &Tensor) -> Cut {
        let channels = rows.size().last().map_or(1, |&channels| channels as usize);
        let count = rows.numel();
        let width = channels * Self::MIN_WIDTH.div_ceil(channels);
        let chunk = count.div_ceil(Self::MAX_CHUNKS).max(Self::MIN_CHUNK);
        Cut {
            channels,
            rows: count / channels,
            width,
            chunk: chunk.next_multiple_of(width),
            block: Self::BLOCK_ROWS * width,
        }
    }

    fn count(&self) -> usize {
        self.rows * self.channels
    }

    /// Calls `body` with the number and the elements of each chunk, on libtorch's threads.
    fn for_each(&self, body: impl Fn(usize, Range<usize>) + Sync) {
        parallel_for(self.count().div_ceil(self.chunk), 1, |numbers| {
            for number in numbers {
                let start = number * self.chunk;
                body(number, start..self.count().min(start + self.chunk));
            }
        });
    }

    /// The blocks of a chunk.
    fn blocks(&self, chunk: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (length, end) = (self.block, chunk.end);
        chunk.step_by(length).map(move |start| start..end.min(start + length))
    }

    /// The chunks of an output, each for the one thread that works on it.
    fn chunks_mut<'a, T>(&self, output: &'a mut [T]) -> Vec<Mutex<&'a mut [T]>> {
        output.chunks_mut(self.chunk).map(Mutex::new).collect()
    }

    /// Two sums for each channel: `body` adds those of a chunk.
    fn sum(&self, body: impl Fn(Range<usize>, &mut [Vec<f64>; 2]) + Sync) -> [Vec<f64>; 2] {
        let zeros = || [vec![0.0; self.channels], vec![0.0; self.channels]];
        let chunks = self.count().div_ceil(self.chunk);
        let partial: Vec<OnceLock<[Vec<f64>; 2]>> = (0..chunks).map(|_| OnceLock::new()).collect();
        self.for_each(|number, range| {
            let mut total = zeros();
            body(range, &mut total);
            partial[number].get_or_init(|| total);
        });
        let mut total = zeros();
        for partial in partial.iter().filter_map(OnceLock::get) {
            for (total, partial) in zip(&mut total, partial) {
                for (total, partial) in zip(total, partial) {
                    *total += partial;
                }
            }
        }
        total
    }

    /// From one number a channel to one a lane.
    fn lanes(&self, channels: &[f32]) -> Vec<f32> {
        channels.repeat(self.width / self.channels)
    }

    fn lanes_of(&self, line: Line) -> Line {
        Line {
            centre: self.lanes(&line.centre),
            scale: self.lanes(&line.scale),
            offset: self.lanes(&line.offset),
        }
    }
}

/// [batch, channels, height, width] as dense rows of `T`, [batch, height, width, channels]: the same
/// memory if it lies so already.
fn channels_last<T: Element>(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).to_kind(T::KIND).contiguous()
}

/// The values of a float32 parameter or statistic.
fn per_channel(parameter: &Tensor, cut: &Cut) -> Vec<f32> {
    let parameter = parameter.detach().contiguous();
    assert_eq!(parameter.numel(), cut.channels, "one parameter a channel");
    elements::<f32>(&parameter).to_vec()
}

#[cfg(test)]
mod tests;
