//! k-means against faiss on the same embeddings.

use std::path::PathBuf;

use protonce_kmeans::{HostPoints, KMeans, Metric};
use safetensors::SafeTensors;

/// Reads the reference numbers from the folder in `PROTONCE_FIXTURES`, or else from `tests/fixtures`.
fn load() -> Vec<u8> {
    let folder = std::env::var_os("PROTONCE_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let path = folder.join("kmeans.safetensors");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("the fixture {} cannot be read: {error}", path.display()))
}

#[test]
fn clustering_is_as_good_as_faiss() {
    let bytes = load();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let tensor = file.tensor(name).unwrap();
        let bytes = tensor.data();
        match tensor.dtype() {
            safetensors::Dtype::F32 => {
                let values = bytes.as_chunks::<4>().0.iter();
                values.map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
            }
            safetensors::Dtype::F64 => {
                bytes.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
            }
            other => panic!("{name} has the type {other:?}"),
        }
    };
    let values: Vec<f32> = floats("embeddings").into_iter().map(|value| value as f32).collect();
    let dim = file.tensor("embeddings").unwrap().shape()[1];
    let points = HostPoints::new(values, dim, Metric::Euclidean).unwrap();
    for clusters in [100, 400] {
        let reference = floats(&format!("objective.{clusters}"))[0];
        let found = KMeans::default().fit(&points, clusters).unwrap().objective;
        println!("k {clusters}: objective {found:.1}, faiss {reference:.1}");
        assert!(found <= 1.02 * reference, "k {clusters}: {found} against {reference}");
    }
}
