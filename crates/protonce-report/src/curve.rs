//! A curve of bounded length: what every line of a log measured goes in, at most [`MOST_POINTS`] points
//! with the same means come out.
//!
//! When there are more, neighbours are merged. A run of a week takes as much memory as one of an hour.

use protonce_run::Measures;

/// Most points of a curve. More than a screen has columns for.
pub(crate) const MOST_POINTS: usize = 2048;

/// What the numbers of a point are, in order. Accuracies and waiting are percentages, time is in
/// epochs, `rate` in images per second.
pub(crate) const COLUMNS: [&str; 9] = [
    "time",
    "loss",
    "instance_loss",
    "prototype_loss",
    "instance_accuracy",
    "prototype_accuracy",
    "learning_rate",
    "rate",
    "waiting",
];

/// What a line of the log says of the steps it stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedMeans {
    pub(crate) measures: Measures,
    pub(crate) learning_rate: f64,
    pub(crate) images: usize,
    pub(crate) seconds: f64,
    pub(crate) waited: f64,
}

/// Sums over successive steps, weighted by images, from which means are made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CurvePoint {
    /// Epochs finished at its end, in fractions: 2.5 is half way through the third epoch.
    time: f64,
    pub(crate) images: f64,
    pub(crate) seconds: f64,
    waited: f64,
    learning_rate: f64,
    loss: f64,
    instance_loss: f64,
    instance_accuracy: f64,
    /// Images for which there was a prototype term.
    prototype_images: f64,
    prototype_loss: f64,
    prototype_accuracy: f64,
}

impl CurvePoint {
    /// The sums over the steps that a log line stands for, and when it was logged. None without a
    /// loss.
    pub(crate) fn of(time: f64, logged: &LoggedMeans) -> Option<CurvePoint> {
        let or = |value: f64, other: f64| if value.is_finite() { value } else { other };
        let Measures { loss, instance_loss, instance_accuracy, prototype_loss, prototype_accuracy } =
            logged.measures;
        if !loss.is_finite() {
            return None;
        }
        // Logs without this count weigh all lines alike.
        let images = logged.images.max(1) as f64;
        let prototype = prototype_loss.filter(|loss| loss.is_finite());
        Some(CurvePoint {
            time,
            images,
            seconds: or(logged.seconds, 0.0),
            waited: or(logged.waited, 0.0),
            learning_rate: images * or(logged.learning_rate, f64::NAN),
            loss: images * loss,
            instance_loss: images * or(instance_loss, loss),
            instance_accuracy: images * or(instance_accuracy, f64::NAN),
            prototype_images: prototype.map_or(0.0, |_| images),
            prototype_loss: images * prototype.unwrap_or(0.0),
            prototype_accuracy: prototype
                .map_or(0.0, |_| images * or(prototype_accuracy.unwrap_or(f64::NAN), f64::NAN)),
        })
    }

    fn merge(&mut self, later: &CurvePoint) {
        self.time = later.time;
        self.images += later.images;
        self.seconds += later.seconds;
        self.waited += later.waited;
        self.learning_rate += later.learning_rate;
        self.loss += later.loss;
        self.instance_loss += later.instance_loss;
        self.instance_accuracy += later.instance_accuracy;
        self.prototype_images += later.prototype_images;
        self.prototype_loss += later.prototype_loss;
        self.prototype_accuracy += later.prototype_accuracy;
    }

    /// The means, as [`COLUMNS`] names them; what is not there is NaN, which JSON calls null.
    pub(crate) fn means(&self) -> [f32; COLUMNS.len()] {
        let mean = |sum: f64| (sum / self.images) as f32;
        let prototype_mean = |sum: f64| (sum / self.prototype_images) as f32;
        [
            self.time as f32,
            mean(self.loss),
            mean(self.instance_loss),
            prototype_mean(self.prototype_loss),
            mean(self.instance_accuracy),
            prototype_mean(self.prototype_accuracy),
            mean(self.learning_rate),
            (self.images / self.seconds) as f32,
            (100.0 * self.waited / self.seconds) as f32,
        ]
    }
}

/// Points in order of time. What a resumed run repeats replaces what it had logged before.
#[derive(Debug, Default)]
pub(crate) struct Curve {
    points: Vec<CurvePoint>,
    /// Log lines that a full point stands for; a power of two.
    stride: u32,
    /// Log lines in the last point.
    in_last: u32,
    /// Grows when points that were final change.
    generation: u64,
}

impl Curve {
    /// An empty curve that no reader takes for the continuation of this one.
    pub(crate) fn restarted(&self) -> Curve {
        Curve { generation: self.generation + 1, ..Curve::default() }
    }

    /// The points so far.
    pub(crate) fn points(&self) -> &[CurvePoint] {
        &self.points
    }

    /// Points that there is memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.points.capacity()
    }

    /// Log lines that a point sums up, at most.
    pub(crate) fn stride(&self) -> u32 {
        self.stride
    }

    /// Another number whenever points that were final have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a point.
    pub(crate) fn push(&mut self, new: CurvePoint) {
        self.stride = self.stride.max(1);
        if self.points.last().is_some_and(|last| last.time >= new.time) {
            // Back in time: what comes was lost with a kill and happens again.
            self.points.retain(|point| point.time < new.time);
            self.generation += 1;
            self.in_last = self.stride;
        }
        match self.points.last_mut() {
            Some(last) if self.in_last < self.stride => {
                last.merge(&new);
                self.in_last += 1;
                return;
            }
            _ => {}
        }
        if self.points.len() == MOST_POINTS {
            let merged = self.points.chunks(2).map(|pair| {
                let mut first = pair[0];
                pair[1..].iter().for_each(|second| first.merge(second));
                first
            });
            self.points = merged.collect();
            self.stride *= 2;
            self.generation += 1;
        }
        self.points.push(new);
        self.in_last = 1;
    }
}
