//! The method's arithmetic against the published code and a reference kNN.

use protonce::contrast::{info_nce, proto_nce};
use protonce::prototypes::Prototypes;
use protonce::transfer::{FeatureMatrix, Knn, Svm, average_precision, knn_accuracy};
use protonce_encoder::normalise_rows;
use protonce_kmeans::{Clustering, ConcentrationOptions, concentration};
use protonce_run::Duplicates;
use protonce_run::{Config, Position};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::fixtures::{Tensors, load};

#[test]
fn losses_and_gradient_are_the_published_ones() {
    let fixture = Tensors::load("protonce.safetensors");
    let temperature = f64::from(fixture.scalar("temperature"));
    let raw_query = fixture.get("raw_q").set_requires_grad(true);
    let query = normalise_rows(&raw_query);
    let instance = info_nce(&query, &fixture.get("key"), &fixture.get("queue"), None, temperature);
    close("instance loss", &instance.loss, &fixture.get("loss.instance").squeeze(), 1e-5);

    let images = fixture.get("index");
    let mut sum = Tensor::from(0f32);
    for m in 0..3 {
        let granularity = Prototypes {
            assignment: fixture.get(&format!("assignment.{m}")),
            prototypes: fixture.get(&format!("centroids.{m}")),
            concentration: fixture.get(&format!("concentration.{m}")),
        };
        let own = granularity.assignment.index_select(0, &images);
        let negatives = fixture.get(&format!("negatives.{m}"));
        let term = proto_nce(&query, &granularity, &own, &negatives, Duplicates::Keep);
        close("prototype loss", &term.loss, &fixture.get("loss.proto").get(m), 1e-5);
        let accuracy = fixture.get(&format!("accuracy.{m}")).squeeze();
        close("prototype accuracy", &term.accuracy, &accuracy, 1e-6);
        sum += term.loss;
    }
    let total = instance.loss + sum / 3.0;
    close("total loss", &total, &fixture.get("loss.total").squeeze(), 1e-5);
    let gradient = Tensor::run_backward(&[&total], &[&raw_query], false, false).remove(0);
    close("gradient", &gradient, &fixture.get("grad.raw_q"), 1e-5);
}

#[test]
fn concentrations_are_the_published_ones() {
    let fixture = Tensors::load("concentration.safetensors");
    for case in 0..3 {
        let get = |name: &str| fixture.get(&format!("{case}.{name}"));
        let (embeddings, centroids, assignment) =
            (get("embeddings"), get("centroids"), get("assignment"));
        let expected = get("concentration");
        let offsets = embeddings - centroids.index_select(0, &assignment);
        let distances = offsets.norm_scalaropt_dim(2, [1].as_slice(), false);
        // The concentrations average to the temperature they were computed with.
        let temperature = expected.mean(Kind::Double).double_value(&[]);
        let options = ConcentrationOptions { temperature, smoothing: 10.0 };
        let found = concentration(&clustering(&centroids, &assignment, &distances), options);
        close("concentration", &Tensor::from_slice(&found), &expected, 1e-5);
    }
}

/// A clustering of which concentrations can be computed.
fn clustering(centroids: &Tensor, assignment: &Tensor, distances: &Tensor) -> Clustering {
    Clustering {
        centroids: Vec::try_from(centroids.view([-1])).unwrap(),
        dim: centroids.size()[1] as usize,
        assignment: Vec::try_from(assignment).unwrap(),
        distances: Vec::try_from(distances).unwrap(),
        objective: 0.0,
        history: Vec::new(),
    }
}

/// The same formula in tensor arithmetic.
fn concentration_of_tensors(
    distances: &Tensor,
    assignment: &Tensor,
    clusters: i64,
    options: ConcentrationOptions,
) -> Tensor {
    let sums = Tensor::zeros([clusters], (Kind::Double, distances.device()));
    let sums = sums.index_put(&[Some(assignment)], &distances.to_kind(Kind::Double), true);
    let sizes = assignment.bincount(None::<&Tensor>, clusters).to_kind(Kind::Double);
    let density = sums / sizes.clamp_min(1.0) / (&sizes + options.smoothing).log();
    let several = sizes.ge(2.0);
    let density = density.where_scalarother(&several, 0.0);
    let density = density.where_self(&several, &density.max());
    let bounds = Tensor::from_slice(&[0.1, 0.9]);
    let bounds = density.quantile(&bounds, 0, false, "linear");
    let density = density.clamp_tensor(Some(bounds.get(0)), Some(bounds.get(1)));
    let mean = density.mean(Kind::Double);
    (density * options.temperature / mean).to_kind(Kind::Float)
}

#[test]
fn concentrations_are_those_of_tensor_arithmetic_to_the_bit() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (clusters, points) in [(1, 5), (2, 9), (7, 60), (100, 150), (1000, 20_000), (5000, 9000)] {
        // Sizes differ widely: some clusters are empty, some have one point.
        let assignment: Vec<i64> = (0..points)
            .map(|_| (random.random::<f64>().powi(3) * f64::from(clusters)) as i64)
            .collect();
        let distances: Vec<f32> = (0..points).map(|_| random.random_range(0.01..2.0)).collect();
        let (assignment, distances) =
            (Tensor::from_slice(&assignment), Tensor::from_slice(&distances));
        for (temperature, smoothing) in [(0.2, 10.0), (0.1, 1.0), (0.07, 100.0)] {
            let options = ConcentrationOptions { temperature, smoothing };
            let centroids = Tensor::zeros([i64::from(clusters), 2], (Kind::Float, Device::Cpu));
            let found = concentration(&clustering(&centroids, &assignment, &distances), options);
            let expected =
                concentration_of_tensors(&distances, &assignment, clusters.into(), options);
            let expected: Vec<f32> = expected.try_into().unwrap();
            assert!(found == expected, "{clusters} clusters, {options:?}");
        }
    }
}

#[test]
fn both_schedules_are_exact() {
    let fixture: serde_json::Value = serde_json::from_slice(&load("schedule.json")).unwrap();
    for (preset, name) in [("v1", "v1_step"), ("v2", "v2_cosine")] {
        let mut base = Config::preset(preset).unwrap();
        base.insert("epochs".into(), fixture[name]["epochs"].as_i64().unwrap().into());
        base.insert("lr".into(), fixture[name]["base"].as_f64().unwrap().into());
        let config = Config::resolve([base]).unwrap();
        let rates = fixture[name]["lr"].as_array().unwrap();
        assert_eq!(rates.len(), config.epochs);
        for (epoch, rate) in rates.iter().enumerate() {
            let position = Position { epoch, step: 0, steps: 7 };
            let (found, expected) = (config.learning_rate(position), rate.as_f64().unwrap());
            assert!((found - expected).abs() <= 1e-12, "{name}, epoch {epoch}: {found}");
        }
    }
}

#[test]
fn weighted_knn_is_the_reference() {
    let fixture = Tensors::load("knn.safetensors");
    let expected: serde_json::Value = serde_json::from_slice(&load("knn.json")).unwrap();
    let expected_of = |k: i64| expected["top1_percent"][k.to_string()].as_f64().unwrap();
    let options = Knn {
        neighbours: vec![1, 20, 200],
        temperature: expected["temperature"].as_f64().unwrap(),
    };
    let (bank, bank_labels) = (fixture.get("bank.features"), fixture.get("bank.labels"));
    let (queries, labels) = (fixture.get("query.features"), fixture.get("query.labels"));
    let classes = bank_labels.max().int64_value(&[]) + 1;
    for found in knn_accuracy(&options, (&bank, &bank_labels), (&queries, &labels), classes) {
        assert!((found.top1 - expected_of(found.k)).abs() < 0.1, "{found:?}");
    }
}

#[test]
fn support_vector_machines_are_the_published_ones() {
    let fixture = Tensors::load("svm.safetensors");
    let rows = |name: &str| FeatureMatrix::from_tensor(&fixture.get(name)).unwrap();
    let (train, test) = (rows("train.features"), rows("test.features"));
    let positive = |name: &str, class: i64| -> Vec<bool> {
        Vec::try_from(fixture.get(name).select(1, class).gt(0)).unwrap()
    };
    let classes = fixture.get("train.labels").size()[1];
    let planes: Vec<Vec<bool>> = (0..classes).map(|c| positive("train.labels", c)).collect();
    let mut precisions = Vec::new();
    for (class, plane) in Svm::default().fit_classes(&train, &planes).iter().enumerate() {
        let decisions = plane.decisions(&test);
        let expected = fixture.get("decision").select(1, class as i64).to_kind(Kind::Double);
        close("decision", &Tensor::from_slice(&decisions), &expected, 1e-3);
        let found = average_precision(&decisions, &positive("test.labels", class as i64)).unwrap();
        let expected = fixture.get("average_precision").double_value(&[class as i64]);
        assert!((found - expected).abs() <= 1e-4, "class {class}: {found}, {expected}");
        precisions.push(found);
    }
    let mean = precisions.iter().sum::<f64>() / classes as f64;
    assert!((mean - fixture.get("mean_ap").double_value(&[0])).abs() <= 1e-4, "{mean}");
}

fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let difference = (found - expected).abs().max().double_value(&[]);
    assert!(difference <= tolerance, "{what} differs by {difference}, more than {tolerance}");
}
