//! Sums of losses and accuracies over steps, from which the log's means follow.

use std::ops::AddAssign;

use protonce_run::Measures;
use tch::{Device, Kind, Tensor};

/// Sums over images of the loss terms and accuracies, kept on the device so that no step waits for
/// it: float64 [images, loss, instance loss, instance accuracy, images with prototypes, prototype
/// loss, prototype accuracy].
pub(super) struct LossSums(Tensor);

impl LossSums {
    pub(super) fn zero(device: Device) -> LossSums {
        LossSums(Tensor::zeros([7], (Kind::Double, device)))
    }

    pub(super) fn of(images: usize, terms: [Option<Tensor>; 5], device: Device) -> LossSums {
        let zero = || Tensor::zeros([], (Kind::Double, device));
        let one = || Tensor::ones([], (Kind::Double, device));
        let with_prototypes = if terms[3].is_some() { one() } else { zero() };
        let [loss, instance_loss, instance_accuracy, prototype_loss, prototype_accuracy] =
            terms.map(|term| term.map_or_else(zero, |term| term.detach().to_kind(Kind::Double)));
        let row = [
            one(),
            loss,
            instance_loss,
            instance_accuracy,
            with_prototypes,
            prototype_loss,
            prototype_accuracy,
        ];
        LossSums(Tensor::stack(&row, 0) * images as f64)
    }

    /// Sums that were saved.
    pub(super) fn restore(values: &[f64], device: Device) -> LossSums {
        match values.len() {
            7 => LossSums(Tensor::from_slice(values).to_device(device)),
            _ => LossSums::zero(device),
        }
    }

    pub(super) fn values(&self) -> Vec<f64> {
        let mut values = vec![0.0; 7];
        self.0.to_device(Device::Cpu).copy_data(&mut values, 7);
        values
    }

    /// The means; none when there was no image.
    pub(super) fn measures(&self) -> Option<Measures> {
        let values = self.values();
        let mean = |sum: f64| sum / values[0];
        let prototype_mean = |sum: f64| (values[4] > 0.0).then(|| sum / values[4]);
        (values[0] > 0.0).then(|| Measures {
            loss: mean(values[1]),
            instance_loss: mean(values[2]),
            instance_accuracy: 100.0 * mean(values[3]),
            prototype_loss: prototype_mean(values[5]),
            prototype_accuracy: prototype_mean(values[6]).map(|share| 100.0 * share),
        })
    }
}

impl AddAssign<&LossSums> for LossSums {
    fn add_assign(&mut self, other: &LossSums) {
        self.0 += &other.0;
    }
}
