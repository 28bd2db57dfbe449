//! Weights that come in, go out and come back.

use std::path::{Path, PathBuf};

use protonce::weights::{
    Card, Export, Hints, Target, Weights, checksum, diff, export, training_state,
};
use protonce_encoder::{BatchStats, Encoder, Precision, image_tensor};
use protonce_images::views::ViewConfig;
use protonce_pth::{Dtype, Item, write_zip};
use protonce_run::{Architecture, EncoderConfig, Head, Stem};
use tch::{Device, Kind, Tensor};

fn fresh(arch: Architecture, stem: Stem, head: Head) -> Weights {
    let mut encoder = EncoderConfig { arch, stem, head, dim: 24, ..Default::default() };
    if head == Head::None {
        encoder.dim = encoder.width();
    }
    fresh_of(encoder)
}

fn fresh_of(encoder: EncoderConfig) -> Weights {
    let network = Encoder::new(&encoder, Precision::Float32, Device::Cpu, 7);
    let tensors = network.parameters().named_tensors();
    let views = ViewConfig::v2(48);
    let card = Card::default();
    Weights { encoder, views, tensors, card, left_out: Vec::new(), notes: Vec::new() }
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
fn a_narrow_network_comes_back_and_is_refused_for_tools_that_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let (arch, out) = (Architecture::ResNet50, folder.path().join("out"));
    let weights = fresh_of(EncoderConfig { arch, base_channels: 16, ..Default::default() });
    for target in [Target::Torchvision, Target::Pcl, Target::Safetensors] {
        let exported = export(&weights, &Vec::new(), &to(target), &out).unwrap();
        assert_eq!(Weights::read(&out).unwrap().encoder, weights.encoder, "{target}");
        let said = exported.notes.iter().any(|note| note.contains("of 16 base channels"));
        assert_eq!(said, target == Target::Torchvision);
    }
    export(&weights, &Vec::new(), &to(Target::Onnx), &out).unwrap();
    for target in [Target::Timm, Target::Detectron2] {
        let error = export(&weights, &Vec::new(), &to(target), &out).unwrap_err().to_string();
        assert!(error.contains("base channels") && error.contains("protonce.load"), "{error}");
    }
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

fn dict<'a>(entries: &[(&'a str, Item<'a>)]) -> Item<'a> {
    Item::Dict(entries.to_vec())
}

/// A state dict of a ResNet-18 with these names, in whole numbers that follow from `seed`.
struct Whole {
    tensors: Vec<(String, Vec<u64>, Vec<u8>)>,
}

impl Whole {
    fn new(weights: &Weights, seed: usize, rename: impl Fn(&str) -> String) -> Whole {
        let tensors = weights.tensors.iter().map(|(name, tensor)| {
            let shape: Vec<u64> = tensor.size().iter().map(|&side| side as u64).collect();
            (rename(name), shape, Whole::numbers(seed, tensor.numel()))
        });
        Whole { tensors: tensors.collect() }
    }

    fn numbers(seed: usize, count: usize) -> Vec<u8> {
        (0..count).map(|n| ((n * 31 + seed * 17 + count) % 128) as u8).collect()
    }

    fn item(&self) -> Item<'_> {
        let tensors = self.tensors.iter();
        Item::Dict(
            tensors
                .map(|(name, shape, data)| (&name[..], Item::Tensor(Dtype::U8, shape, data)))
                .collect(),
        )
    }

    /// Whether `weights` are those of `seed`, number for number.
    fn is(weights: &Weights, seed: usize) -> bool {
        weights.tensors.iter().all(|(_, tensor)| {
            let expected = Tensor::from_slice(&Whole::numbers(seed, tensor.numel()));
            expected.to_kind(tensor.kind()).view_as(tensor).equal(tensor)
        })
    }
}

#[test]
fn state_dicts_levels_down_are_found_and_of_several_the_one_that_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let plain = fresh(Architecture::ResNet18, Stem::Small, Head::None);
    let behind = |prefix: &'static str| move |name: &str| format!("{prefix}{name}");
    let (one, two) = (
        Whole::new(&plain, 1, behind("module.backbone.")),
        Whole::new(&plain, 2, behind("backbone.")),
    );
    let trunk = Whole::new(&plain, 3, behind("_feature_blocks."));
    let read = |root: Item, prefix: Option<&str>| {
        write_zip(&mut std::fs::File::create(&path).unwrap(), "archive", &root).unwrap();
        Weights::read_with(&path, &Hints { prefix: prefix.map(str::to_owned), ..Hints::default() })
            .unwrap()
    };

    for key in ["net", "encoder", "params"] {
        let weights = read(dict(&[("epoch", Item::Int(3)), (key, one.item())]), None);
        assert!(Whole::is(&weights, 1) && weights.notes.is_empty(), "{key}: {:?}", weights.notes);
        assert_eq!(weights.card.epochs, Some(3));
    }
    let dino = [("student", one.item()), ("teacher", two.item())];
    let weights = read(dict(&dino), None);
    assert!(Whole::is(&weights, 2) && weights.notes[0].contains("teacher.backbone."));
    assert_eq!(weights.left_out.len(), one.tensors.len());
    assert!(Whole::is(&read(dict(&dino), Some("student.module.backbone.")), 1));

    let averaged = [("state_dict", one.item()), ("state_dict_ema", two.item())];
    assert!(Whole::is(&read(dict(&averaged), None), 2));

    let model = dict(&[("trunk", trunk.item()), ("heads", dict(&[]))]);
    let vissl = dict(&[("base_model", dict(&[("model", model)]))]);
    let weights = read(dict(&[("phase_idx", Item::Int(9)), ("classy_state_dict", vissl)]), None);
    assert!(Whole::is(&weights, 3));

    let sequential = Whole::new(&plain, 4, |name| {
        let (layer, rest) = name.split_once('.').unwrap();
        let layers = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"];
        format!("backbone.{}.{rest}", layers.iter().position(|known| *known == layer).unwrap())
    });
    assert!(Whole::is(&read(dict(&[("state_dict", sequential.item())]), None), 4));
}

#[test]
fn numbers_that_are_none_are_refused_and_the_first_tensor_that_has_them_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (number, target, at) in [
        (f32::NAN, Target::Pcl, "layer2.0.conv1.weight"),
        (f32::INFINITY, Target::Safetensors, "bn1.running_var"),
        (f32::NEG_INFINITY, Target::Torchvision, "fc.2.bias"),
    ] {
        let mut weights = fresh(Architecture::ResNet18, Stem::Small, Head::Mlp);
        let mut later = false;
        for (name, tensor) in &mut weights.tensors {
            later |= name == at;
            if later && tensor.kind() == Kind::Float {
                let flat = tensor.copy().view([-1]);
                let _ = flat.get(flat.size()[0] - 1).fill_(f64::from(number));
                *tensor = flat.view_as(tensor);
            }
        }
        let out = folder.path().join("diverged");
        export(&weights, &Vec::new(), &to(target), &out).unwrap();
        let error = Weights::read(&out).unwrap_err().to_string();
        assert!(error.contains(&format!("its tensor {at} ")) && error.contains("NaN"), "{error}");
        assert_eq!(error.matches("layer").count(), at.matches("layer").count(), "{error}");
    }
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
