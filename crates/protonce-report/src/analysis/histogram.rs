//! Histograms of sizes and concentrations, as the page draws them.

use serde::Serialize;

/// Bars of a histogram, at most.
const BARS: usize = 32;

/// Equal bars from `low` to `high`.
#[derive(Debug, Serialize)]
pub(super) struct Histogram {
    low: f64,
    high: f64,
    counts: Vec<u32>,
}

impl Histogram {
    /// `whole`: the values are counts, so that bars hold whole numbers.
    pub(super) fn of(values: &[f64], whole: bool) -> Histogram {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            return Histogram { low: 0.0, high: 1.0, counts: Vec::new() };
        }
        let (low, width, bars) = if whole {
            let width = ((high - low + 1.0) / BARS as f64).ceil();
            (low, width, ((high - low + 1.0) / width).ceil() as usize)
        } else if high > low {
            (low, (high - low) / BARS as f64, BARS)
        } else {
            (low, low.abs().max(1e-6) / BARS as f64, 1)
        };
        let mut counts = vec![0; bars];
        for value in values {
            counts[(((value - low) / width) as usize).min(bars - 1)] += 1;
        }
        Histogram { low, high: low + width * bars as f64, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_every_value_once() {
        for whole in [true, false] {
            for values in [&[3.0][..], &[1.0, 1.0, 1.0], &[0.0, 500.0, 77.0, 12.0], &[0.0; 9]] {
                let histogram = Histogram::of(values, whole);
                assert_eq!(histogram.counts.iter().sum::<u32>() as usize, values.len());
                assert!(histogram.counts.len() <= BARS && histogram.high > histogram.low);
            }
        }
        assert!(Histogram::of(&[], true).counts.is_empty());
        // 0 to 3 in four bars of one number each.
        assert_eq!(Histogram::of(&[0.0, 1.0, 1.0, 3.0], true).counts, [1, 2, 0, 1]);
    }
}
