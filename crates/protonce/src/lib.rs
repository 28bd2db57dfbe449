//! Prototypical Contrastive Learning (Li et al., ICLR 2021): image representations without labels.
//!
//! The modules are the steps of the method, in the order data passes through them.

pub mod data;
pub mod report;
pub mod views;
