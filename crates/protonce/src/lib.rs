//! Prototypical Contrastive Learning (Li, Zhou, Xiong & Hoi, ICLR 2021,
//! <https://arxiv.org/abs/2005.04966>): image representations without labels.
//!
//! The modules are the steps of the method, in the order data passes through them. Reading their
//! opening paragraphs in that order is reading the paper.

pub mod data;
pub mod views;

pub mod encoder;

pub mod prototypes;

pub mod contrast;

pub mod pretrain;

pub mod transfer;

pub mod embeddings;

pub mod report;

pub mod device;
pub mod world;

mod widest;
