//! What trainers save beside tensors is passed over and named, and the tensors come out as they went in.
//! The files are torch's own, by objects.py.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use protonce_pth::Checkpoint;

const LIGHTNING: &[u8] = include_bytes!("objects_lightning.pth");
const PYTHON: &[u8] = include_bytes!("objects_python.pth");
const PROTOCOL_4: &[u8] = include_bytes!("objects_protocol_4.pth");
const MODULE: &[u8] = include_bytes!("objects_module.pth");
const DEEP: &[u8] = include_bytes!("objects_deep.pth");

/// Every state dict: the keys that lead to it, names, shapes and numbers (those of float32).
type Found = Vec<(String, Vec<(String, Vec<u64>, Vec<f32>)>)>;

fn found(file: &[u8]) -> Found {
    let mut checkpoint = Checkpoint::new(Cursor::new(file)).unwrap();
    let mut found = Vec::new();
    for dict in checkpoint.state_dicts() {
        let tensor = |(name, value): &(String, _)| {
            (name.clone(), checkpoint.tensor(*value).unwrap().unwrap())
        };
        let tensors: Vec<_> = dict.tensors.iter().map(tensor).collect();
        found.push((dict.path.join("."), tensors));
    }
    let mut numbers = |tensor: &protonce_pth::Tensor| -> Vec<f32> {
        let bytes = checkpoint.read(tensor).unwrap();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    let mut all = Vec::new();
    for (path, tensors) in found {
        let read = |(name, tensor): (String, protonce_pth::Tensor)| {
            let numbers = numbers(&tensor);
            (name, tensor.shape, numbers)
        };
        all.push((path, tensors.into_iter().map(read).collect()));
    }
    all
}

fn passed_over(file: &[u8]) -> Vec<String> {
    Checkpoint::new(Cursor::new(file)).unwrap().passed_over().to_vec()
}

fn thirds(numbers: &[u8]) -> Vec<f32> {
    numbers.iter().map(|&number| f32::from(number) / 3.0).collect()
}

#[test]
fn tensors_beside_a_trainers_objects_are_read_exactly() {
    for file in [LIGHTNING, PYTHON, PROTOCOL_4] {
        let found = found(file);
        let (_, state) = found.iter().find(|(path, _)| path == "state_dict").unwrap();
        let (name, shape, numbers) = &state[0];
        assert_eq!((&name[..], &shape[..]), ("weight", &[2, 3][..]));
        assert_eq!(numbers, &thirds(&[0, 1, 2, 3, 4, 5]));
        // A view: columns 1 and 2 of four rows of three.
        let (name, shape, numbers) = &state[1];
        assert_eq!((&name[..], &shape[..]), ("view", &[2, 4][..]));
        assert_eq!(numbers, &thirds(&[1, 4, 7, 10, 2, 5, 8, 11]));
        assert_eq!((&state[2].0[..], &state[2].1[..]), ("steps", &[][..]));
    }
}

#[test]
fn what_is_passed_over_is_named() {
    let names = passed_over(LIGHTNING);
    for name in ["AttributeDict", "omegaconf.dictconfig.DictConfig", "ModelCheckpoint"] {
        assert!(names.iter().any(|known| known.contains(name)), "{name} in {names:?}");
    }
    for file in [PYTHON, PROTOCOL_4] {
        let names = passed_over(file);
        for name in ["functools.partial", "torch.nn.modules.activation.GELU", "datetime.datetime"] {
            assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
        }
    }
    assert!(passed_over(MODULE).iter().any(|name| name.ends_with("Network")));
    assert!(passed_over(DEEP).is_empty());
    assert!(passed_over(include_bytes!("tiny_zip.pth.tar")).is_empty());
}

#[test]
fn a_whole_module_has_the_names_of_its_state_dict() {
    let found = found(MODULE);
    let (path, tensors) = &found[0];
    assert_eq!(path, "model");
    let mut tensors = tensors.clone();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<(&str, f32)> = tensors
        .iter()
        .map(|(name, _, numbers)| (&name[..], numbers.first().copied().unwrap_or_default()))
        .collect();
    // Numbered by torch in the order of parameters(), then of buffers(); `again` is a second name.
    let expected = [
        ("again.bias", 2.0),
        ("again.weight", 1.0),
        ("body.0.bias", 2.0),
        ("body.0.weight", 1.0),
        ("body.2.bias", 4.0),
        ("body.2.num_batches_tracked", 0.0),
        ("body.2.running_mean", 5.0),
        ("body.2.running_var", 6.0),
        ("body.2.weight", 3.0),
        ("scale", 0.0),
    ];
    for ((name, number), (known, right)) in found.iter().zip(expected) {
        assert_eq!(*name, known);
        // The count is a whole number and not read as float32 here.
        assert!(*number == right || name.ends_with("tracked"), "{name}: {number}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn state_dicts_are_found_however_deep_and_with_attributes_on_their_tensors() {
    let found = found(DEEP);
    assert_eq!(found.len(), 1);
    let (path, tensors) = &found[0];
    assert_eq!(path, "a.b.c");
    for (name, (found, shape, numbers)) in ["parameter", "tensor"].iter().zip(tensors) {
        assert_eq!((found, &shape[..]), (&(*name).to_owned(), &[2, 3][..]));
        assert_eq!(numbers, &thirds(&[0, 1, 2, 3, 4, 5]));
    }
}

#[test]
fn what_runs_programs_is_refused_wherever_it_stands() {
    let name = |module: &str, name: &str| {
        [b"\x80\x02}X\x01\x00\x00\x00ac", module.as_bytes(), b"\n", name.as_bytes(), b"\n"].concat()
    };
    for (module, function) in [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "exec"),
        ("__builtin__", "getattr"),
        ("importlib", "import_module"),
        ("os.path", "exists"),
        ("runpy", "_run_code"),
        ("webbrowser", "open"),
    ] {
        let mentioned = [&name(module, function)[..], b"s."].concat();
        let called = [&name(module, function)[..], b"X\x01\x00\x00\x00b\x85Rs."].concat();
        for file in [mentioned, called] {
            let result = Checkpoint::new(Cursor::new(&file));
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("{module}.{function}")), "{error}");
            assert!(error.contains("nothing was executed"), "{error}");
        }
    }
}
