//! Where the reference numbers lie.

use std::path::PathBuf;

use tch::{Kind, Tensor};

/// Reads a file of reference numbers from the folder in `PROTONCE_FIXTURES`, or else from
/// `tests/fixtures`.
pub fn load(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("PROTONCE_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let path = folder.join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("the fixture {} cannot be read: {error}", path.display()))
}

/// The tensors of a safetensors file, by name.
pub struct Tensors(Vec<(String, Tensor)>);

impl Tensors {
    /// Reads a file as [`load`] does.
    pub fn load(name: &str) -> Tensors {
        let bytes = load(name);
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
            let kind = match view.dtype() {
                safetensors::Dtype::F32 => Kind::Float,
                safetensors::Dtype::F64 => Kind::Double,
                safetensors::Dtype::I64 => Kind::Int64,
                other => panic!("{name} has the type {other:?}"),
            };
            (name, Tensor::from_data_size(view.data(), &shape, kind))
        });
        Tensors(tensors.collect())
    }

    pub fn get(&self, name: &str) -> Tensor {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no tensor {name}")).1.shallow_clone()
    }

    pub fn scalar(&self, name: &str) -> f32 {
        self.get(name).double_value(&[0]) as f32
    }
}
