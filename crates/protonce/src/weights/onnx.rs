//! The encoder as an ONNX graph.
//!
//! ONNX is protobuf, of which a network of convolutions needs a dozen messages. They are written out
//! here as structs with the field numbers of onnx.proto (IR version 8), so that nothing has to be
//! generated at build time.

use std::io::{self, Write};

use prost::Message;
use tch::{Device, Kind, Tensor};

use super::export::{Metadata, bytes};
use crate::encoder::{BlockKind, ResNetSpec};
use crate::pretrain::run_folder::NamedTensors;
use protonce_run::{EncoderConfig, Head, Stem};

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    /// 1 float, 2 int, 7 ints.
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    /// 1 float32.
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
const FLOAT: i32 = 1;
/// torch.nn.BatchNorm2d's.
const EPSILON: f64 = 1e-5;

/// Writes the model.
pub(super) fn write(
    out: &mut impl Write,
    metadata: &Metadata,
    tensors: &NamedTensors,
    fold: bool,
) -> io::Result<()> {
    let Metadata { encoder, views, card } = metadata;
    let mut graph = Graph { tensors, fold, nodes: Vec::new(), initializers: Vec::new() };
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
                value("features", rows(encoder.arch.width())),
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

/// A graph being built.
struct Graph<'a> {
    tensors: &'a NamedTensors,
    fold: bool,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: Some(value), r#type: 2, ..Default::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ints: values.to_vec(), r#type: 7, ..Default::default() }
}

fn float(name: &str, value: f64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), f: Some(value as f32), r#type: 1, ..Default::default() }
}

impl Graph<'_> {
    fn tensor(&self, name: &str) -> io::Result<Tensor> {
        let found = self.tensors.iter().find(|(known, _)| known == name);
        let missing = || io::Error::other(format!("the weights lack \"{name}\""));
        Ok(found.ok_or_else(missing)?.1.shallow_clone())
    }

    fn initializer(&mut self, name: &str, tensor: &Tensor) {
        self.initializers.push(TensorProto {
            dims: tensor.size(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: bytes(tensor, Kind::Float),
        });
    }

    /// A node whose one output has the node's name.
    fn node(
        &mut self,
        name: &str,
        operation: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: operation.to_owned(),
            attribute,
        });
        name.to_owned()
    }

    /// A convolution and the batch norm after it, in one node if they are folded.
    fn unit(
        &mut self,
        x: &str,
        convolution: &str,
        norm: &str,
        stride: i64,
        groups: i64,
    ) -> io::Result<String> {
        let weight_name = format!("{convolution}.weight");
        let mut weight = self.tensor(&weight_name)?;
        let size = weight.size()[2];
        let padding = size / 2;
        let attributes = vec![
            ints("kernel_shape", &[size, size]),
            ints("strides", &[stride, stride]),
            ints("pads", &[padding; 4]),
            int("group", groups),
        ];
        let statistic = |name: &str| format!("{norm}.{name}");
        let [scale, shift, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(statistic);
        if !self.fold {
            self.initializer(&weight_name, &weight);
            let x = self.node(convolution, "Conv", &[x, &weight_name], attributes);
            for name in [&scale, &shift, &mean, &variance] {
                let tensor = self.tensor(name)?;
                self.initializer(name, &tensor);
            }
            let inputs = [x.as_str(), &scale, &shift, &mean, &variance];
            let attributes = vec![float("epsilon", EPSILON)];
            return Ok(self.node(norm, "BatchNormalization", &inputs, attributes));
        }
        // γ (w·x − μ) / √(σ² + ε) + β, in float64 so that folding costs no more than one rounding.
        let double = |name: &str| Ok::<_, io::Error>(self.tensor(name)?.to_kind(Kind::Double));
        let factor = double(&scale)? / (double(&variance)? + EPSILON).sqrt();
        let bias = double(&shift)? - double(&mean)? * &factor;
        weight = weight.to_kind(Kind::Double) * factor.view([-1, 1, 1, 1]);
        let bias_name = format!("{convolution}.bias");
        self.initializer(&weight_name, &weight);
        self.initializer(&bias_name, &bias);
        Ok(self.node(convolution, "Conv", &[x, &weight_name, &bias_name], attributes))
    }

    /// images → features and embedding.
    fn encoder(&mut self, config: &EncoderConfig) -> io::Result<()> {
        let spec = ResNetSpec::of(config.arch);
        let stem_stride = match config.stem {
            Stem::ImageNet => 2,
            Stem::Small => 1,
        };
        let x = self.unit("images", "conv1", "bn1", stem_stride, 1)?;
        let mut x = self.node("relu", "Relu", &[&x], Vec::new());
        if config.stem == Stem::ImageNet {
            let attributes = vec![
                ints("kernel_shape", &[3, 3]),
                ints("strides", &[2, 2]),
                ints("pads", &[1; 4]),
            ];
            x = self.node("maxpool", "MaxPool", &[&x], attributes);
        }
        for (stage, &depth) in spec.depths.iter().enumerate() {
            for number in 0..depth {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let name = format!("layer{}.{number}", stage + 1);
                // stride and groups of each convolution
                let convolutions = match spec.block {
                    BlockKind::Bottleneck => vec![(1, 1), (stride, spec.groups), (1, 1)],
                    BlockKind::Basic => vec![(stride, 1), (1, 1)],
                };
                let first = format!("{name}.downsample.0.weight");
                let carried = match self.tensors.iter().any(|(known, _)| *known == first) {
                    true => {
                        let downsample = [0, 1].map(|part| format!("{name}.downsample.{part}"));
                        self.unit(&x, &downsample[0], &downsample[1], stride, 1)?
                    }
                    false => x.clone(),
                };
                let last = convolutions.len();
                for (unit, (stride, groups)) in (1..).zip(convolutions) {
                    let convolution = format!("{name}.conv{unit}");
                    x = self.unit(&x, &convolution, &format!("{name}.bn{unit}"), stride, groups)?;
                    if unit == last {
                        x = self.node(&format!("{name}.add"), "Add", &[&x, &carried], Vec::new());
                    }
                    x = self.node(&format!("{name}.relu{unit}"), "Relu", &[&x], Vec::new());
                }
            }
        }
        let x = self.node("avgpool", "GlobalAveragePool", &[&x], Vec::new());
        let features = self.node("features", "Flatten", &[&x], vec![int("axis", 1)]);
        let x = match config.head {
            Head::None => features,
            Head::Linear => self.linear(&features, "fc")?,
            Head::Mlp => {
                let hidden = self.linear(&features, "fc.0")?;
                let hidden = self.node("fc.1", "Relu", &[&hidden], Vec::new());
                self.linear(&hidden, "fc.2")?
            }
        };
        // The floor is torch.nn.functional.normalize's: rows of zeros stay zeros.
        let axes = vec![ints("axes", &[1]), int("keepdims", 1)];
        let length = self.node("length", "ReduceL2", &[&x], axes);
        self.initializer("floor", &Tensor::full([1], 1e-12, (Kind::Float, Device::Cpu)));
        let length = self.node("length.floored", "Max", &[&length, "floor"], Vec::new());
        self.node("embedding", "Div", &[&x, &length], Vec::new());
        Ok(())
    }

    fn linear(&mut self, x: &str, layer: &str) -> io::Result<String> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{layer}.{part}"));
        for name in [&weight, &bias] {
            let tensor = self.tensor(name)?;
            self.initializer(name, &tensor);
        }
        Ok(self.node(layer, "Gemm", &[x, &weight, &bias], vec![int("transB", 1)]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::encoder::{Encoder, Precision};
    use crate::weights::Card;
    use protonce_images::views::ViewConfig;
    use protonce_run::Architecture;

    fn model(arch: Architecture, stem: Stem, head: Head, fold: bool) -> ModelProto {
        let dim = if head == Head::None { arch.width() } else { 16 };
        let config = EncoderConfig { arch, stem, head, dim };
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
                assert_eq!(count("BatchNormalization"), if fold { 0 } else { convolutions });
                assert_eq!(count("MaxPool"), usize::from(stem == Stem::ImageNet));
            }
        }
    }
}
