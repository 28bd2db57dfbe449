//! The encoder as an ONNX graph: tensors and shapes go in, a model of opset 17 comes out.
//!
//! ONNX is protobuf, of which a network of convolutions needs a dozen messages. They are written out
//! here as structs, so that nothing has to be generated at build time.

mod graph;
mod messages;

use std::io::{self, Write};

use prost::Message;

use super::metadata::Metadata;
use crate::tensors::NamedTensors;
use graph::{FLOAT, Graph};
use messages::{
    Dimension, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShape,
    TensorType, TypeProto, ValueInfoProto,
};

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// Writes the model.
pub(super) fn write(
    out: &mut impl Write,
    metadata: &Metadata,
    tensors: &NamedTensors,
    fold: bool,
) -> io::Result<()> {
    let Metadata { encoder, views, card } = metadata;
    let mut graph = Graph::new(tensors, fold);
    graph.encoder(encoder)?;
    let dimension = |value: Option<i64>, name: &str| Dimension {
        dim_value: value,
        dim_param: value.is_none().then(|| name.to_owned()),
    };
    let value = |name: &str, dim: Vec<Dimension>| {
        let tensor_type = TensorType { elem_type: FLOAT, shape: Some(TensorShape { dim }) };
        ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        }
    };
    let batch = || dimension(None, "batch");
    let images =
        vec![batch(), dimension(Some(3), ""), dimension(None, "height"), dimension(None, "width")];
    let rows = |width: i64| vec![batch(), dimension(Some(width), "")];
    let property = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
    let numbers = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "protonce".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(GraphProto {
            node: graph.nodes,
            name: encoder.arch.to_string(),
            initializer: graph.initializers,
            input: vec![value("images", images)],
            output: vec![
                value("features", rows(encoder.width())),
                value("embedding", rows(encoder.dim)),
            ],
        }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: vec![
            property("resize_short_side", views.eval_resize.to_string()),
            property("interpolation", "bilinear, antialiased".to_owned()),
            property("center_crop", views.image_size.to_string()),
            property("color", "RGB in [0, 1]".to_owned()),
            property("mean", numbers(&views.mean)),
            property("std", numbers(&views.std)),
            property("card", serde_json::to_string(card)?),
        ],
    };
    out.write_all(&model.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::weights::Card;
    use protonce_encoder::{Encoder, Precision};
    use protonce_images::views::ViewConfig;
    use protonce_run::{Architecture, EncoderConfig, Head, Stem};
    use tch::Device;

    fn model(arch: Architecture, stem: Stem, head: Head, fold: bool) -> ModelProto {
        let mut config = EncoderConfig { arch, stem, head, dim: 16, ..Default::default() };
        if head == Head::None {
            config.dim = config.width();
        }
        let encoder = Encoder::new(&config, Precision::Float32, Device::Cpu, 0);
        let tensors = encoder.parameters().named_tensors();
        let views = ViewConfig::v2(32);
        let metadata = Metadata { encoder: config, views, card: Card::default() };
        let mut bytes = Vec::new();
        write(&mut bytes, &metadata, &tensors, fold).unwrap();
        ModelProto::decode(&bytes[..]).unwrap()
    }

    /// That real runtimes compute the right numbers is for `scripts/check_exports.py`.
    #[test]
    fn every_input_is_made_before_it_is_used() {
        for (arch, stem, head) in [
            (Architecture::ResNet18, Stem::Small, Head::Mlp),
            (Architecture::ResNet18, Stem::Small, Head::MlpBn),
            (Architecture::ResNet50, Stem::ImageNet, Head::Linear),
            (Architecture::ResNeXt50x32x4d, Stem::ImageNet, Head::None),
        ] {
            for fold in [false, true] {
                let graph = model(arch, stem, head, fold).graph.unwrap();
                let mut known: HashSet<String> = HashSet::from(["images".to_owned()]);
                for tensor in &graph.initializer {
                    let numbers: i64 = tensor.dims.iter().product();
                    assert_eq!(tensor.raw_data.len() as i64, 4 * numbers, "{}", tensor.name);
                    assert!(known.insert(tensor.name.clone()), "{} twice", tensor.name);
                }
                for node in &graph.node {
                    assert!(node.input.iter().all(|input| known.contains(input)), "{node:?}");
                    assert!(node.output.iter().all(|output| known.insert(output.clone())));
                }
                assert!(graph.output.iter().all(|output| known.contains(&output.name)));
                let count =
                    |operation| graph.node.iter().filter(|node| node.op_type == operation).count();
                let convolutions = if arch == Architecture::ResNet18 { 20 } else { 53 };
                assert_eq!(count("Conv"), convolutions);
                let norms = convolutions + usize::from(head == Head::MlpBn);
                assert_eq!(count("BatchNormalization"), if fold { 0 } else { norms });
                assert_eq!(count("MaxPool"), usize::from(stem == Stem::ImageNet));
            }
        }
    }
}
