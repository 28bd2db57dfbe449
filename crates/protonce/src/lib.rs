//! Prototypical Contrastive Learning (Li, Zhou, Xiong & Hoi, ICLR 2021,
//! <https://arxiv.org/abs/2005.04966>): image representations without labels.
//!
//! To use an encoder, whether trained here or published elsewhere, in a program of your own:
//!
//! ```
//! use std::{path::Path, sync::Arc};
//!
//! use protonce_images::data::Dataset;
//! use protonce_encoder::{Output, Precision, extract};
//! use protonce_images::views::{Crops, Loader, LoaderOptions};
//! use protonce::weights::Weights;
//!
//! fn embed(weights: &Path, images: &str) -> Result<tch::Tensor, Box<dyn std::error::Error>> {
//!     let weights = Weights::read(weights)?; // a run folder, a safetensors file or a .pth
//!     let encoder = weights.load(Precision::Float32, tch::Device::Cpu)?;
//!     let images = Arc::new(Dataset::open(images)?);
//!     let all: Vec<usize> = (0..images.len()).collect();
//!     let batches = all.chunks(256).map(<[usize]>::to_vec).collect();
//!     let views = weights.views.clone();
//!     let options = LoaderOptions { views, batches, crops: Crops::Centre, threads: 0 };
//!     let mut loader = Loader::new(images, options)?;
//!     Ok(extract(&encoder, &mut loader, Output::Embeddings, &mut |_| ())?.rows)
//! }
//! # // A fresh encoder and an image stand in for yours.
//! # use protonce_encoder::Encoder;
//! # use protonce_run::{Architecture, EncoderConfig, Head, Stem};
//! # use protonce::weights::{Card, Export, Target, export};
//! # let folder = tempfile::tempdir().unwrap();
//! # let (arch, stem, head) = (Architecture::ResNet18, Stem::Small, Head::Mlp);
//! # let encoder = EncoderConfig { arch, stem, head, dim: 128, ..Default::default() };
//! # let network = Encoder::new(&encoder, Precision::Float32, tch::Device::Cpu, 0);
//! # let tensors = network.parameters().named_tensors();
//! # let views = protonce_images::views::ViewConfig::v2(32);
//! # let card = Card::default();
//! # let weights = Weights { encoder, views, tensors, card, left_out: Vec::new(), notes: Vec::new() };
//! # let options = Export { target: Target::Safetensors, head: true, fold: false, licence: None };
//! # let file = folder.path().join("encoder.safetensors");
//! # export(&weights, &Vec::new(), &options, &file).unwrap();
//! # image::RgbImage::new(9, 9).save(folder.path().join("image.png")).unwrap();
//! # let rows = embed(&file, folder.path().to_str().unwrap()).unwrap();
//! # assert_eq!(rows.size(), [1, 128]);
//! ```
//!
//! The modules are the steps of the method, in the order data passes through them. Reading their
//! opening paragraphs in that order is reading the paper.

pub mod prototypes;

pub mod contrast;

pub mod pretrain;

pub mod transfer;

pub mod weights;

pub mod embeddings;

pub mod device;
pub mod tensors;
pub mod world;
