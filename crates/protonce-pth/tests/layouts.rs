//! Files that PyTorch wrote, and files of our own, come back as they are.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use protonce_pth::{Checkpoint, Dtype, Item, Layout, write_numpy, write_zip};

const LEGACY: &[u8] = include_bytes!("tiny_legacy.pth.tar");
const ZIP: &[u8] = include_bytes!("tiny_zip.pth.tar");
const EXPECTED: &[u8] = include_bytes!("tiny_expected.safetensors");

/// Numbers of any type as float64, which holds all that occur here exactly.
fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let half = |bits: u16| {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let size = match exponent {
            0 => fraction / 1024.0 * 2_f64.powi(-14),
            _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
        };
        if bits >> 15 == 1 { -size } else { size }
    };
    let chunks = bytes.chunks(dtype.size() as usize);
    match dtype {
        Dtype::F32 => chunks.map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        Dtype::F16 => chunks.map(|b| half(u16::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::I64 => chunks.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        other => panic!("{other:?} does not occur"),
    }
}

#[test]
fn both_layouts_of_pytorch_are_read_exactly() {
    let expected = safetensors::SafeTensors::deserialize(EXPECTED).unwrap();
    for (file, layout) in [(LEGACY, Layout::Legacy), (ZIP, Layout::Zip)] {
        let mut checkpoint = Checkpoint::new(Cursor::new(file)).unwrap();
        assert_eq!(checkpoint.layout(), layout);
        assert_eq!(checkpoint.root().get("epoch").unwrap().as_i64(), Some(3));
        assert_eq!(checkpoint.root().get("arch").unwrap().as_str(), Some("resnet18"));
        let state = checkpoint.root().get("state_dict").unwrap();
        let tensors: Vec<_> = state
            .entries()
            .unwrap()
            .map(|(name, value)| {
                (name.as_str().unwrap().to_owned(), checkpoint.tensor(value).unwrap().unwrap())
            })
            .collect();
        assert_eq!(tensors.len(), expected.len());
        for (name, tensor) in tensors {
            let view = expected.tensor(&name).unwrap();
            let shape: Vec<u64> = view.shape().iter().map(|&side| side as u64).collect();
            assert_eq!(tensor.shape, shape, "{name}");
            let found = numbers(tensor.dtype, &checkpoint.read(&tensor).unwrap());
            let dtype = match view.dtype() {
                safetensors::Dtype::I64 => Dtype::I64,
                _ => Dtype::F32,
            };
            assert_eq!(found, numbers(dtype, view.data()), "{name}");
        }
    }
}

#[test]
fn what_is_written_reads_back() {
    let weight: Vec<u8> = (0..24_u32).flat_map(|i| (i as f32 / 7.0).to_le_bytes()).collect();
    let steps = 1_u64.pow(3).to_le_bytes();
    let inner = vec![
        ("weight", Item::Tensor(Dtype::F32, &[2, 3, 4], &weight)),
        ("steps", Item::Tensor(Dtype::I64, &[], &steps)),
    ];
    let root = Item::Dict(vec![
        ("state_dict", Item::Dict(inner)),
        ("name", Item::Text("φ")),
        ("large", Item::Int(1 << 40)),
        ("flag", Item::Bool(true)),
    ]);
    let (mut zip, mut bare) = (Vec::new(), Vec::new());
    write_zip(&mut zip, "archive", &root).unwrap();
    write_numpy(&mut bare, &root).unwrap();
    for (file, layout) in [(zip, Layout::Zip), (bare, Layout::Bare)] {
        let mut checkpoint = Checkpoint::new(Cursor::new(&file[..])).unwrap();
        assert_eq!(checkpoint.layout(), layout);
        let root = checkpoint.root();
        assert_eq!(root.get("name").unwrap().as_str(), Some("φ"));
        assert_eq!(root.get("large").unwrap().as_i64(), Some(1 << 40));
        assert_eq!(root.get("flag").unwrap().as_bool(), Some(true));
        let state = root.get("state_dict").unwrap();
        for (name, shape, data) in [("weight", &[2, 3, 4][..], &weight[..]), ("steps", &[], &steps)]
        {
            let tensor = checkpoint.tensor(state.get(name).unwrap()).unwrap().unwrap();
            assert_eq!(tensor.shape, shape);
            // `root` borrows the checkpoint, reading moves in its file.
            let mut reader = Checkpoint::new(Cursor::new(&file[..])).unwrap();
            assert_eq!(reader.read(&tensor).unwrap(), data, "{layout:?} {name}");
        }
        let _ = &mut checkpoint;
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    for (file, kind) in [
        (&b""[..], "empty"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"epoch,loss\n", "text"),
        (b"\xff\xd8\xff\xe0\x00", "another kind"),
    ] {
        let error = Checkpoint::new(Cursor::new(file)).unwrap_err().to_string();
        assert!(error.contains(kind), "{error}");
    }
}
