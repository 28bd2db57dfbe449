//! Times the classifiers of `transfer` on features in a file, for `benches/transfer_speed.py`, which
//! races scikit-learn with them.
//!
//! `cargo bench --bench transfer -- FILE.safetensors`; the file holds `train.features` and
//! `test.features` (float32 [n, dim]), `train.labels` and `test.labels` (int64 [n]).

// A bench stops at what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use protonce::transfer::{
    FeatureMatrix, Knn, Logistic, Svm, SvmMeasure, SvmSet, knn_accuracy, svm_results, top_accuracy,
};
use tch::Tensor;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(file) = arguments.next() else {
        println!("transfer: needs a file of features; see benches/transfer_speed.py");
        return;
    };
    let tensors = Tensor::read_safetensors(file).unwrap();
    let get =
        |name: &str| tensors.iter().find(|(known, _)| known == name).expect(name).1.shallow_clone();
    let (train, labels) = (get("train.features"), get("train.labels"));
    let (test, truth) = (get("test.features"), get("test.labels"));
    let classes = labels.max().int64_value(&[]) + 1;

    for c in [0.01, 0.1, 1.0] {
        let begin = Instant::now();
        let fit = Logistic::default().sweep(&train, &labels, classes, &[c]).unwrap().pop().unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        let accuracy = top_accuracy(&fit.classifier.scores(&test), &truth).top1;
        println!(
            "{{\"what\":\"logistic\",\"c\":{c},\"seconds\":{seconds},\"top1\":{accuracy},\"objective\":{},\"passes\":{}}}",
            fit.objective, fit.passes
        );
    }

    let set = |features: &Tensor, labels: &Tensor| {
        let labels: Vec<i64> = Vec::try_from(labels).unwrap();
        let positive = (0..classes).map(|class| labels.iter().map(|&l| l == class).collect());
        let features = FeatureMatrix::normalised(features).unwrap();
        SvmSet { features, positive: positive.collect() }
    };
    let (train_set, test_set) = (set(&train, &labels), set(&test, &truth));
    let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let begin = Instant::now();
    let found = svm_results(
        &Svm::default(),
        (&train_set, &test_set),
        &names,
        SvmMeasure::Accuracy,
        (None, 1, 0),
        &[0.5],
    );
    let seconds = begin.elapsed().as_secs_f64();
    let accuracy = found.unwrap()[0].mean;
    println!("{{\"what\":\"svm\",\"c\":0.5,\"seconds\":{seconds},\"top1\":{accuracy}}}");

    let options = Knn { neighbours: vec![1, 20, 200], ..Knn::default() };
    let begin = Instant::now();
    let found = knn_accuracy(&options, (&train, &labels), (&test, &truth), classes);
    let seconds = begin.elapsed().as_secs_f64() / found.len() as f64;
    for accuracy in found {
        let (k, top1) = (accuracy.k, accuracy.top1);
        println!("{{\"what\":\"knn\",\"k\":{k},\"seconds\":{seconds},\"top1\":{top1}}}");
    }
}
