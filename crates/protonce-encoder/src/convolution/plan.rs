//! The algorithms that a run computes its convolutions with.
//!
//! Another algorithm rounds differently, so a run keeps the choices that it began with and comes to the
//! same bits when it is resumed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::algorithm::ConvAlgorithms;
use super::shape::{ConvShape, Pass};

/// The algorithms of an encoder's convolutions where they were chosen, by the name of the [`ConvShape`]:
/// for any number of images, since a batch may be smaller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConvPlan(pub BTreeMap<String, ConvAlgorithms>);

impl ConvPlan {
    /// The algorithms chosen for this shape, as far as they compute it; else the usual ones.
    pub fn algorithms(&self, shape: &ConvShape) -> ConvAlgorithms {
        let mut algorithms = ConvAlgorithms::usual(shape);
        if self.0.is_empty() {
            return algorithms;
        }
        if let Some(chosen) = self.0.get(&shape.to_string()) {
            for pass in Pass::ALL {
                if chosen.of(pass).computes(pass, shape) {
                    *algorithms.of_mut(pass) = chosen.of(pass);
                }
            }
        }
        algorithms
    }
}
