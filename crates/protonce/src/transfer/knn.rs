//! Weighted k-nearest-neighbour classification (Wu et al. 2018, §3.4), which needs no training and
//! so tells at any moment of a run how good the representation is.

use serde::Serialize;
use tch::{Kind, Tensor};

use crate::encoder::normalise_rows;

/// The options of a weighted kNN.
#[derive(Debug, Clone)]
pub struct Knn {
    /// Neighbours that vote; each entry is an evaluation of its own.
    pub neighbours: Vec<i64>,
    /// A neighbour of cosine similarity s votes with weight exp(s / temperature).
    pub temperature: f64,
}

impl Default for Knn {
    fn default() -> Knn {
        Knn { neighbours: vec![20, 200], temperature: 0.07 }
    }
}

/// The accuracy of one number of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KnnAccuracy {
    /// Neighbours that voted.
    pub k: i64,
    /// Share of queries classified right, in percent.
    pub top1: f64,
}

/// Classifies each query by its nearest rows of the bank.
///
/// `bank`: [n, dim] features of labelled images, `bank_labels`: int64 [n] in 0..`classes`;
/// `queries`: [m, dim], `query_labels`: int64 [m]. Rows need not be normalised. A k above n means
/// all of the bank.
pub fn knn_accuracy(
    options: &Knn,
    (bank, bank_labels): (&Tensor, &Tensor),
    (queries, query_labels): (&Tensor, &Tensor),
    classes: i64,
) -> Vec<KnnAccuracy> {
    // Similarities held at a time: a block of queries against the whole bank.
    const BLOCK: i64 = 1 << 24;
    let _guard = tch::no_grad_guard();
    let (bank, queries) = (normalise_rows(bank), normalise_rows(queries));
    let (bank_size, query_count) = (bank.size()[0], queries.size()[0]);
    let most = options.neighbours.iter().copied().max().unwrap_or(1).clamp(1, bank_size);
    let block = (BLOCK / bank_size).max(1);
    let mut correct = vec![0.0; options.neighbours.len()];
    for start in (0..query_count).step_by(block as usize) {
        let length = block.min(query_count - start);
        let similarity = queries.narrow(0, start, length).matmul(&bank.tr());
        let (similarity, neighbour) = similarity.topk(most, 1, true, true);
        let vote = bank_labels.index_select(0, &neighbour.view([-1])).view_as(&neighbour);
        let weight = (similarity / options.temperature).exp();
        let truth = query_labels.narrow(0, start, length);
        for (&k, correct) in options.neighbours.iter().zip(&mut correct) {
            let k = k.clamp(1, most);
            let score = Tensor::zeros([length, classes], (Kind::Float, bank.device()));
            let score = score.scatter_add(1, &vote.narrow(1, 0, k), &weight.narrow(1, 0, k));
            let right = score.argmax(1, false).eq_tensor(&truth);
            *correct += right.sum(Kind::Double).double_value(&[]);
        }
    }
    let percent = 100.0 / query_count.max(1) as f64;
    options
        .neighbours
        .iter()
        .zip(correct)
        .map(|(&k, correct)| KnnAccuracy { k, top1: correct * percent })
        .collect()
}
