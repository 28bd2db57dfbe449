//! Weights that come in, go out and come back.

use std::path::{Path, PathBuf};

use protonce_encoder::{BatchStats, Encoder, Precision, image_tensor};
use protonce::weights::{
    Card, Export, Hints, Target, Weights, checksum, diff, export, training_state,
};
use protonce_images::views::ViewConfig;
use protonce_run::{Architecture, EncoderConfig, Head, Stem};
use tch::{Device, Kind, Tensor};

fn fresh(arch: Architecture, stem: Stem, head: Head) -> Weights {
    let dim = if head == Head::None { arch.width() } else { 24 };
    let encoder = EncoderConfig { arch, stem, head, dim };
    let network = Encoder::new(&encoder, Precision::Float32, Device::Cpu, 7);
    let tensors = network.parameters().named_tensors();
    let views = ViewConfig::v2(48);
    Weights { encoder, views, tensors, card: Card::default(), left_out: Vec::new() }
}

fn to(target: Target) -> Export {
    Export { target, head: true, fold: false, licence: None }
}

/// A file of `fixtures/` in the folder of large files that are kept beside the repository, or none, said
/// loudly. It must be there where `PROTONCE_SHARED` says so.
fn fixture(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("PROTONCE_SHARED").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = named.clone().unwrap_or_else(beside).join("fixtures").join(name);
    if named.is_none() && !path.exists() {
        eprintln!(
            "SKIPPED: {} is absent; set PROTONCE_SHARED to the folder that holds fixtures/{name}",
            path.display()
        );
        return None;
    }
    Some(path)
}

#[test]
fn the_published_checkpoint_gives_its_features_and_goes_back_as_it_came() {
    let (Some(file), Some(expected)) = (
        fixture("pcl_v2_resnet18_legacy.pth.tar"),
        fixture("pcl_v2_resnet18_expected.safetensors"),
    ) else {
        return;
    };
    let weights = Weights::read(&file).unwrap();
    assert_eq!(weights.encoder.arch, Architecture::ResNet18);
    assert_eq!((weights.encoder.head, weights.encoder.dim), (Head::Mlp, 128));
    assert_eq!(weights.card.epochs, Some(200));
    assert_eq!(weights.left_out, ["module.queue", "module.queue_ptr"]);

    let expected = Tensor::read_safetensors(expected).unwrap();
    let expected = |name: &str| {
        let found = expected.iter().find(|(known, _)| known == name).unwrap();
        found.1.shallow_clone()
    };
    let encoder = weights.load(Precision::Float32, Device::Cpu).unwrap();
    // As the loader lays images out.
    let images = expected("images").permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let _guard = tch::no_grad_guard();
    let features = encoder.features(&images, BatchStats::Running);
    for (found, name) in
        [(&encoder.project(&features, BatchStats::Running), "embeddings"), (&features, "features")]
    {
        let difference = (found - expected(name)).abs().max().double_value(&[]);
        println!("{name} differ by {difference:.1e}");
        assert!(difference < 1e-4, "{name}: {difference}");
    }

    // Back in the published layout: every tensor of the state dict, queue included, bit for bit.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("again.pth.tar");
    export(&weights, &training_state(&file).unwrap(), &to(Target::Pcl), &out).unwrap();
    let (before, after) = (state_dict(&file), state_dict(&out));
    assert_eq!(before.len(), after.len());
    for (name, dtype, shape, bytes) in &before {
        let again = after.iter().find(|(known, ..)| known == name).unwrap();
        assert!((dtype, shape, bytes) == (&again.1, &again.2, &again.3), "{name} differs");
    }
}

type Raw = (String, protonce_pth::Dtype, Vec<u64>, Vec<u8>);

/// Everything under `state_dict`, as the file has it.
fn state_dict(path: &Path) -> Vec<Raw> {
    let mut file = protonce_pth::Checkpoint::open(path).unwrap();
    let entries: Vec<_> = file.root().get("state_dict").unwrap().entries().unwrap().collect();
    let tensors: Vec<_> = entries
        .iter()
        .map(|(name, value)| {
            (name.as_str().unwrap().to_owned(), file.tensor(*value).unwrap().unwrap())
        })
        .collect();
    let read = |(name, tensor): (String, protonce_pth::Tensor)| {
        let bytes = file.read(&tensor).unwrap();
        (name, tensor.dtype, tensor.shape, bytes)
    };
    tensors.into_iter().map(read).collect()
}

#[test]
fn every_export_that_can_be_read_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (stem, head) in
        [(Stem::Small, Head::Mlp), (Stem::ImageNet, Head::Linear), (Stem::ImageNet, Head::None)]
    {
        let weights = fresh(Architecture::ResNet18, stem, head);
        for target in [Target::Torchvision, Target::Timm, Target::Pcl, Target::Safetensors] {
            let out = folder.path().join(format!("{target}"));
            let exported = export(&weights, &Vec::new(), &to(target), &out).unwrap();
            let back = Weights::read(&out).unwrap();
            assert_eq!(back.encoder, weights.encoder, "{target}");
            // The format's own counts of batches aside.
            assert_eq!(
                checksum(&back.tensors).unwrap(),
                checksum(&weights.tensors).unwrap(),
                "{target}"
            );
            assert_eq!(exported.checksum, checksum(&weights.tensors).unwrap());
            if target == Target::Safetensors {
                assert!(diff(&weights, &back).is_empty());
            }
        }
    }
}

#[test]
fn without_head_and_for_detectron2_the_backbone_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let weights = fresh(Architecture::ResNet50, Stem::ImageNet, Head::Mlp);
    for (target, head) in [(Target::Detectron2, true), (Target::Timm, false)] {
        let out = folder.path().join("backbone");
        let options = Export { head, ..to(target) };
        export(&weights, &Vec::new(), &options, &out).unwrap();
        let back = Weights::read(&out).unwrap();
        assert_eq!((back.encoder.head, back.encoder.dim), (Head::None, 2048));
        let difference = diff(&weights, &back);
        let only_head = difference
            .changed
            .iter()
            .all(|(name, _)| name.starts_with("fc.") || name.ends_with("num_batches_tracked"));
        assert!(only_head, "{target}: {:?}", difference.changed);
        assert_eq!(difference.equal, weights.tensors.len() - 4);
    }
}

#[test]
fn what_a_target_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let small = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
    let error = export(&small, &Vec::new(), &to(Target::Detectron2), &out).unwrap_err();
    assert!(error.to_string().contains("small stem"), "{error}");
    let folded = Export { fold: true, ..to(Target::Timm) };
    let error = export(&small, &Vec::new(), &folded, &out).unwrap_err();
    assert!(error.to_string().contains("--fold"), "{error}");
    assert!(!out.exists());
    let nowhere = folder.path().join("no/such/folder");
    assert!(export(&small, &Vec::new(), &to(Target::Onnx), &nowhere).is_err());
}

#[test]
fn hints_fill_in_what_a_file_does_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("weights.pth");
    let weights = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
    export(&weights, &Vec::new(), &to(Target::Pcl), &out).unwrap();
    assert_eq!(Weights::read(&out).unwrap().views.image_size, 32);
    let hints = Hints { image_size: Some(48), prefix: Some("module.encoder_q.".to_owned()) };
    assert_eq!(Weights::read_with(&out, &hints).unwrap().views, weights.views);
    let hints = Hints { prefix: Some("backbone.".to_owned()), ..Hints::default() };
    let error = Weights::read_with(&out, &hints).unwrap_err().to_string();
    assert!(error.contains("backbone.conv1.weight"), "{error}");
}

#[test]
fn files_that_are_no_weights_are_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let weights = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
    export(&weights, &Vec::new(), &to(Target::Safetensors), &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (contents, expected) in [
        (&b"<html>not found</html>"[..], "HTML"),
        (b"", "empty"),
        (&whole[..whole.len() / 2], "safetensors"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
    ] {
        std::fs::write(&path, contents).unwrap();
        let error = Weights::read(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("file"), "{error}");
    }
    assert!(Weights::read(folder.path()).unwrap_err().to_string().contains("no weights"));
}

#[test]
fn a_checksum_follows_the_numbers_and_a_diff_names_them() {
    let weights = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
    let mut other = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
    assert!(diff(&weights, &other).is_empty());
    let mut order: Vec<usize> = (0..other.tensors.len()).collect();
    order.reverse();
    let reversed =
        order.iter().map(|&at| (other.tensors[at].0.clone(), other.tensors[at].1.copy())).collect();
    assert_eq!(checksum(&reversed).unwrap(), checksum(&weights.tensors).unwrap());

    let (name, tensor) = &mut other.tensors[3];
    *tensor = tensor.shallow_clone() * 1.5;
    let name = name.clone();
    other.views.image_size = 64;
    let difference = diff(&weights, &other);
    assert_eq!(difference.changed.len(), 1);
    assert_eq!(difference.changed[0].0, name);
    assert_eq!(difference.settings[0].0, "image-size");
    assert_ne!(checksum(&other.tensors).unwrap(), checksum(&weights.tensors).unwrap());
}

#[test]
fn an_encoder_without_head_embeds_its_normalised_features() {
    let weights = fresh(Architecture::ResNet18, Stem::Small, Head::None);
    let encoder = weights.load(Precision::Float32, Device::Cpu).unwrap();
    let pixels: Vec<f32> = (0..2 * 16 * 16 * 3).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let images = image_tensor(&pixels, 16, Device::Cpu);
    let _guard = tch::no_grad_guard();
    let features = encoder.features(&images, BatchStats::Running);
    let embeddings = encoder.embed(&images, BatchStats::Running);
    assert_eq!(embeddings.size(), [2, 512]);
    let lengths = (&embeddings * &embeddings).sum_dim_intlist([1].as_slice(), false, Kind::Double);
    assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-5);
    let cosine = (&features * &embeddings).sum(Kind::Double).double_value(&[]);
    assert!(cosine > 0.0);
}
