//! The nodes and weights of the encoder's graph.

use std::io;

use tch::{Device, Kind, Tensor};

use super::messages::{AttributeProto, NodeProto, TensorProto};
use crate::tensors::{NamedTensors, bytes};
use protonce_encoder::{BlockKind, ResNetSpec};
use protonce_run::{EncoderConfig, Head, Stem};

/// float32, in the numbers of onnx.proto.
pub(super) const FLOAT: i32 = 1;
/// torch.nn.BatchNorm2d's.
const EPSILON: f64 = 1e-5;
/// What a batch norm consists of: γ, β, μ and σ².
const STATISTICS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// A graph that is being built.
pub(super) struct Graph<'a> {
    tensors: &'a NamedTensors,
    fold: bool,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
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

impl<'a> Graph<'a> {
    /// An empty graph of `tensors`; `fold` folds batch norm into the convolutions.
    pub(super) fn new(tensors: &'a NamedTensors, fold: bool) -> Graph<'a> {
        Graph { tensors, fold, nodes: Vec::new(), initializers: Vec::new() }
    }

    fn tensor(&self, name: &str) -> io::Result<Tensor> {
        let found = self.tensors.iter().find(|(known, _)| known == name);
        let missing = || io::Error::other(format!("the weights lack \"{name}\""));
        Ok(found.ok_or_else(missing)?.1.shallow_clone())
    }

    fn initializer(&mut self, name: &str, tensor: &Tensor) -> io::Result<()> {
        self.initializers.push(TensorProto {
            dims: tensor.size(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: bytes(&tensor.to_kind(Kind::Float)).map_err(io::Error::other)?,
        });
        Ok(())
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
        if !self.fold {
            self.initializer(&weight_name, &weight)?;
            let x = self.node(convolution, "Conv", &[x, &weight_name], attributes);
            return self.batch_norm(&x, norm);
        }
        let (factor, bias) = self.affine(norm)?;
        weight = weight.to_kind(Kind::Double) * factor.view([-1, 1, 1, 1]);
        let bias_name = format!("{convolution}.bias");
        self.initializer(&weight_name, &weight)?;
        self.initializer(&bias_name, &bias)?;
        Ok(self.node(convolution, "Conv", &[x, &weight_name, &bias_name], attributes))
    }

    /// A batch norm in a node of its own.
    fn batch_norm(&mut self, x: &str, norm: &str) -> io::Result<String> {
        let names = STATISTICS.map(|statistic| format!("{norm}.{statistic}"));
        for name in &names {
            let tensor = self.tensor(name)?;
            self.initializer(name, &tensor)?;
        }
        let [scale, shift, mean, variance] = &names;
        let inputs = [x, scale, shift, mean, variance];
        Ok(self.node(norm, "BatchNormalization", &inputs, vec![float("epsilon", EPSILON)]))
    }

    /// The factor and the bias that a batch norm comes to: γ (x − μ) / √(σ² + ε) + β, in float64 so that
    /// folding costs no more than one rounding.
    fn affine(&self, norm: &str) -> io::Result<(Tensor, Tensor)> {
        let double = |statistic: &str| {
            Ok::<_, io::Error>(self.tensor(&format!("{norm}.{statistic}"))?.to_kind(Kind::Double))
        };
        let [scale, shift, mean, variance] = STATISTICS.map(double);
        let factor = scale? / (variance? + EPSILON).sqrt();
        let bias = shift? - mean? * &factor;
        Ok((factor, bias))
    }

    /// images → features and embedding.
    pub(super) fn encoder(&mut self, config: &EncoderConfig) -> io::Result<()> {
        let spec = ResNetSpec::of(config);
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
            Head::MlpBn => {
                let hidden = self.normalised_linear(&features, "fc.0", "fc.1")?;
                let hidden = self.node("fc.2", "Relu", &[&hidden], Vec::new());
                self.linear(&hidden, "fc.3")?
            }
        };
        // The floor is torch.nn.functional.normalize's: rows of zeros stay zeros.
        let axes = vec![ints("axes", &[1]), int("keepdims", 1)];
        let length = self.node("length", "ReduceL2", &[&x], axes);
        self.initializer("floor", &Tensor::full([1], 1e-12, (Kind::Float, Device::Cpu)))?;
        let length = self.node("length.floored", "Max", &[&length, "floor"], Vec::new());
        self.node("embedding", "Div", &[&x, &length], Vec::new());
        Ok(())
    }

    fn linear(&mut self, x: &str, layer: &str) -> io::Result<String> {
        let [weight, bias] = ["weight", "bias"].map(|part| self.tensor(&format!("{layer}.{part}")));
        self.gemm(x, layer, &weight?, &bias?)
    }

    /// A linear layer and the batch norm after it, in one node if they are folded.
    fn normalised_linear(&mut self, x: &str, layer: &str, norm: &str) -> io::Result<String> {
        if !self.fold {
            let x = self.linear(x, layer)?;
            return self.batch_norm(&x, norm);
        }
        let (factor, shift) = self.affine(norm)?;
        let [weight, bias] = ["weight", "bias"].map(|part| {
            Ok::<_, io::Error>(self.tensor(&format!("{layer}.{part}"))?.to_kind(Kind::Double))
        });
        self.gemm(x, layer, &(weight? * factor.unsqueeze(1)), &(bias? * &factor + shift))
    }

    fn gemm(&mut self, x: &str, layer: &str, weight: &Tensor, bias: &Tensor) -> io::Result<String> {
        let names = ["weight", "bias"].map(|part| format!("{layer}.{part}"));
        for (name, tensor) in names.iter().zip([weight, bias]) {
            self.initializer(name, tensor)?;
        }
        Ok(self.node(layer, "Gemm", &[x, &names[0], &names[1]], vec![int("transB", 1)]))
    }
}
