//! Evaluations leave the encoder as it is, and learn what there is to learn.

use protonce::transfer::{
    FeatureCache, FineTune, FrozenEncoder, Knn, LinearProbe, SupervisedProgress, SupervisedSgd,
    knn_accuracy, listed, neighbours, recall, top_accuracy,
};
use protonce_encoder::{Output, Precision};
use protonce_images::data::Dataset;
use protonce_images::views::ViewConfig;
use protonce_run::{EncoderConfig, Head, Stem};
use tch::{Device, Kind, Tensor};

use crate::images;

fn frozen(seed: u64) -> FrozenEncoder {
    let encoder = EncoderConfig {
        arch: "resnet18".parse().unwrap(),
        stem: Stem::ImageNet,
        head: Head::Linear,
        dim: 8,
        ..Default::default()
    };
    let views = ViewConfig::v2(16);
    FrozenEncoder::untrained(&encoder, &views, Precision::Float32, Device::Cpu, seed).unwrap()
}

/// Every number of an encoder, statistics of batch norm included.
fn bytes(frozen: &FrozenEncoder) -> Vec<u32> {
    let tensors = frozen.encoder().parameters().named_tensors();
    let bits = tensors.iter().flat_map(|(_, tensor)| {
        let mut values = vec![0f32; tensor.numel()];
        tensor.copy_data(&mut values, tensor.numel());
        values.into_iter().map(f32::to_bits)
    });
    bits.collect()
}

fn extract(
    frozen: &FrozenEncoder,
    data: &Dataset,
    cache: Option<&FeatureCache>,
) -> (Tensor, usize) {
    let mut computed = 0;
    let extracted = frozen
        .extract(data, Output::Features, 8, cache, &mut |done| computed = done, &mut |warning| {
            panic!("{warning}")
        })
        .unwrap();
    (extracted.rows, computed)
}

#[test]
fn the_published_protocol_moves_no_bit_of_the_encoder_and_learns() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    let labels = data.labels().unwrap();
    let frozen = frozen(0);
    let before = bytes(&frozen);
    let sgd = SupervisedSgd { epochs: 12, batch_size: 8, ..LinearProbe::default().sgd };
    let probe = LinearProbe { sgd, lr: 0.01 };
    let mut losses = Vec::new();
    let classifier = probe
        .fit(&frozen, (&data, &labels), 2, &mut |step| {
            if let SupervisedProgress::Epoch(_, loss) = step {
                losses.push(loss);
            }
        })
        .unwrap();
    let (features, _) = extract(&frozen, &data, None);
    assert_eq!(before, bytes(&frozen), "a frozen encoder stays as it is, to the bit");
    assert_eq!(losses.len(), 12);
    assert!(losses[11] < losses[0] / 2.0, "{losses:?}");
    let accuracy = top_accuracy(&classifier.scores(&features), &Tensor::from_slice(&labels));
    assert_eq!(accuracy.top1, 100.0);
}

#[test]
fn fine_tuning_takes_two_learning_rates_and_changes_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    let labels = data.labels().unwrap();
    let frozen = frozen(1);
    let before = bytes(&frozen);
    let moved = |backbone_lr, classifier_lr| {
        let sgd = SupervisedSgd {
            epochs: 2,
            batch_size: 8,
            weight_decay: 0.0,
            ..FineTune::default().sgd
        };
        let options = FineTune { sgd: sgd.clone(), backbone_lr, classifier_lr };
        let tuned = options.fit(&frozen, (&data, &labels), 2, &mut |_| ()).unwrap();
        let untouched = FineTune { sgd: SupervisedSgd { epochs: 0, ..sgd }, ..options }
            .fit(&frozen, (&data, &labels), 2, &mut |_| ())
            .unwrap();
        let start = untouched.network.parameters().named_tensors();
        let end = tuned.network.parameters().named_tensors();
        let differs = |wanted: &dyn Fn(&str) -> bool| {
            start.iter().zip(&end).any(|((name, a), (_, b))| wanted(name) && !a.equal(b))
        };
        let backbone = differs(&|name| !name.starts_with("fc.") && !name.contains("running"));
        (backbone, differs(&|name| name.starts_with("fc.")))
    };
    assert_eq!(moved(0.0, 0.1), (false, true));
    assert_eq!(moved(0.01, 0.0), (true, false));
    assert_eq!(before, bytes(&frozen));

    // All images a step: the normalisations' running statistics, which testing uses, come to rest.
    let sgd = SupervisedSgd {
        epochs: 30,
        batch_size: 24,
        milestones: Vec::new(),
        ..FineTune::default().sgd
    };
    let options = FineTune { sgd, classifier_lr: 0.01, ..FineTune::default() };
    let tuned = options.fit(&frozen, (&data, &labels), 2, &mut |_| ()).unwrap();
    let accuracy = tuned.test(&frozen, (&data, &labels), 24, &mut |_| ()).unwrap();
    assert!(accuracy.top1 > 90.0, "{accuracy:?}");
}

#[test]
fn kept_features_are_the_computed_ones_and_belong_to_weights_and_images() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    let cache = FeatureCache::new(folder.path().join("cache"));
    let (computed, count) = extract(&frozen(0), &data, Some(&cache));
    assert_eq!(count, 24);
    let (kept, count) = extract(&frozen(0), &data, Some(&cache));
    assert_eq!(count, 0, "nothing is computed twice");
    assert!(kept.equal(&computed));
    // Other weights, other images and a changed image are other features.
    assert_eq!(extract(&frozen(1), &data, Some(&cache)).1, 24);
    assert_eq!(extract(&frozen(0), &data.select(&[0, 1, 2]), Some(&cache)).1, 3);
    let image = image::RgbImage::new(16, 17);
    image.save(folder.path().join("data/red/00.png")).unwrap();
    let data = Dataset::open(data.argument()).unwrap();
    assert_eq!(extract(&frozen(0), &data, Some(&cache)).1, 24);
    // A damaged file is computed anew.
    for file in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        std::fs::write(file.unwrap().path(), "cut short").unwrap();
    }
    assert_eq!(extract(&frozen(0), &data, Some(&cache)).1, 24);
}

#[test]
fn retrieval_finds_what_is_nearest() {
    let bank = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 0.1, 0.7, 0.7]).view([4, 2]);
    let bank_labels = Tensor::from_slice(&[0i64, 1, 2, 1]);
    let queries = Tensor::from_slice(&[2.0f32, 0.1, 0.3, 0.9]).view([2, 2]);
    let (similarity, found) = neighbours(&bank, &queries, 9);
    assert_eq!(found.size(), [2, 4], "never more than there are");
    assert_eq!(Vec::<i64>::try_from(found.get(0)).unwrap(), [0, 3, 1, 2]);
    assert!((similarity.double_value(&[0, 0]) - 0.9988).abs() < 1e-3);
    let labels = Tensor::from_slice(&[1i64, 1]);
    let recalls = recall(&[1, 2], (&bank, &bank_labels), (&queries, &labels));
    assert_eq!((recalls[0].recall, recalls[1].recall), (50.0, 100.0));
}

/// The votes of a weighted kNN, one after the other in float64.
fn reference(k: usize, bank: &Tensor, labels: &[i64], queries: &Tensor, truth: &[i64]) -> f64 {
    let unit = |rows: &Tensor| {
        let rows = rows.to_kind(Kind::Double);
        &rows / rows.norm_scalaropt_dim(2, [1].as_slice(), true)
    };
    let similarity = unit(queries).matmul(&unit(bank).tr());
    let right = truth.iter().enumerate().filter(|(query, truth)| {
        let row = Vec::<f64>::try_from(similarity.get(*query as i64)).unwrap();
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let mut votes = [0.0; 16];
        for &neighbour in &order[..k] {
            votes[labels[neighbour] as usize] += (row[neighbour] / 0.07).exp();
        }
        let best = (0..votes.len()).max_by(|&a, &b| f64::total_cmp(&votes[a], &votes[b])).unwrap();
        best as i64 == **truth
    });
    100.0 * right.count() as f64 / truth.len() as f64
}

#[test]
fn weighted_knn_equals_a_float64_reference() {
    tch::manual_seed(5);
    let random = |rows: i64| Tensor::randn([rows, 24], (Kind::Float, Device::Cpu));
    let (bank, queries) = (random(900), random(300));
    let classes = random(16);
    let class = |rows: &Tensor| rows.matmul(&classes.tr()).argmax(1, false);
    let (labels, truth) = (class(&bank), class(&queries));
    let options = Knn { neighbours: vec![1, 20, 200], temperature: 0.07 };
    let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
    for found in knn_accuracy(&options, (&bank, &labels), (&queries, &truth), 16) {
        let expected =
            reference(found.k as usize, &bank, &numbers(&labels), &queries, &numbers(&truth));
        assert!((found.top1 - expected).abs() < 1e-9, "{found:?}, {expected}");
    }
}

#[test]
fn a_list_names_its_images_or_says_which_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    let list = folder.path().join("1percent.txt");
    std::fs::write(&list, "03.png\n").unwrap();
    // The same file name in two classes: the first one counts.
    assert_eq!(listed(&data, &list).unwrap(), [3]);
    std::fs::write(&list, "03.png\nn01440764_1.JPEG\n").unwrap();
    let text = listed(&data, &list).unwrap_err().to_string();
    assert!(text.contains("n01440764_1.JPEG") && text.contains("1 of 2"), "{text}");
    std::fs::write(&list, "\n").unwrap();
    assert!(listed(&data, &list).unwrap_err().to_string().contains("no images"));
}
