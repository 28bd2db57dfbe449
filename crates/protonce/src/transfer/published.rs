//! Figures that others have published, to stand beside ours.
//!
//! Only figures that were read in their source are here. All are of a ResNet-50 trained on ImageNet without
//! labels, unless the method says otherwise.

use serde::Serialize;

use protonce_images::data::Benchmark;

/// A published figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// The method, with the epochs it was trained for.
    pub method: &'static str,
    /// What it was evaluated on.
    pub benchmark: Benchmark,
    /// The evaluation, under the name that ours has.
    pub evaluation: &'static str,
    /// Percent.
    pub value: f64,
    /// Where it stands.
    pub source: &'static str,
}

const PCL: &str = "github.com/salesforce/PCL, README";
const PCL_PAPER: &str = "Li et al., ICLR 2021, table 2";
const MOCO: &str = "github.com/facebookresearch/moco, README";
const SWAV: &str = "github.com/facebookresearch/swav, README";
const MMSELFSUP: &str = "github.com/open-mmlab/mmselfsup, model zoo";

/// Every figure there is of an evaluation on a benchmark.
pub fn published(benchmark: Benchmark, evaluation: &str) -> Vec<Published> {
    all()
        .into_iter()
        .filter(|figure| figure.benchmark == benchmark && figure.evaluation == evaluation)
        .collect()
}

fn all() -> Vec<Published> {
    const SVM: [&str; 6] =
        ["SVM 1 shot", "SVM 2 shots", "SVM 4 shots", "SVM 8 shots", "SVM 16 shots", "SVM full"];
    let mut figures = Vec::new();
    for (method, values, source) in [
        ("PCL v1, 200", [46.9, 56.4, 62.8, 70.2, 74.3, 82.3], PCL),
        ("PCL v2, 200", [47.9, 59.6, 66.2, 74.5, 78.3, 85.4], PCL),
        ("MoCo v2, 200", [43.14, 53.29, 65.34, 71.03, 75.42, 84.04], MMSELFSUP),
    ] {
        figures.extend(SVM.into_iter().zip(values).map(|(evaluation, value)| Published {
            method,
            benchmark: Benchmark::Voc07,
            evaluation,
            value,
            source,
        }));
    }
    for (method, value, source) in [
        ("PCL v1, 200", 61.5, PCL),
        ("PCL v2, 200", 67.6, PCL),
        ("MoCo v1, 200", 60.8, MOCO),
        ("MoCo v2, 200", 67.5, MOCO),
        ("MoCo v2, 800", 71.1, MOCO),
        ("SimCLR, 200", 57.28, MMSELFSUP),
        ("BYOL, 200", 67.55, MMSELFSUP),
        ("SimSiam, 200", 69.84, MMSELFSUP),
        ("SwAV, 200", 73.9, SWAV),
        ("SwAV, 800", 75.3, SWAV),
        ("DeepCluster-v2, 800", 75.2, SWAV),
    ] {
        figures.push(Published {
            method,
            benchmark: Benchmark::ImageNet,
            evaluation: "linear top-1",
            value,
            source,
        });
    }
    figures.push(Published {
        method: "PCL, 200",
        benchmark: Benchmark::ImageNet,
        evaluation: "semi 1 % top-5",
        value: 75.6,
        source: PCL_PAPER,
    });
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_where_the_benchmark_matches_only() {
        let found = published(Benchmark::Voc07, "SVM full");
        assert!(
            found.iter().any(|figure| figure.method.starts_with("PCL v2") && figure.value == 85.4)
        );
        assert!(published(Benchmark::Cifar10, "SVM full").is_empty());
        assert!(published(Benchmark::ImageNet, "linear top-1").len() > 5);
    }
}
