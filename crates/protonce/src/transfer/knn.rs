//! Weighted k-nearest-neighbour classification (Wu et al. 2018, §3.4) and retrieval, which need no
//! training and so tell at any moment of a run how good the representation is.

use serde::Serialize;
use tch::{Kind, Tensor};

use protonce_encoder::normalise_rows;

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

/// How often the first k images found hold one of the query's class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recall {
    /// Images found.
    pub k: i64,
    /// Share of queries, in percent.
    pub recall: f64,
}

/// Classifies each query by its nearest rows of the bank.
///
/// `bank`: [n, dim] features of labelled images, `bank_labels`: int64 \[n\] in 0..`classes`;
/// `queries`: [m, dim], `query_labels`: int64 \[m\]. Rows need not be normalised. A k above n means
/// all of the bank.
pub fn knn_accuracy(
    options: &Knn,
    (bank, bank_labels): (&Tensor, &Tensor),
    (queries, query_labels): (&Tensor, &Tensor),
    classes: i64,
) -> Vec<KnnAccuracy> {
    let mut correct = vec![0.0; options.neighbours.len()];
    nearest(bank, queries, most(&options.neighbours), &mut |start, similarity, neighbour| {
        let (length, found) = (similarity.size()[0], similarity.size()[1]);
        let vote = bank_labels.index_select(0, &neighbour.view([-1])).view_as(neighbour);
        let weight = (similarity / options.temperature).exp();
        let truth = query_labels.narrow(0, start, length);
        for (&k, correct) in options.neighbours.iter().zip(&mut correct) {
            let k = k.clamp(1, found);
            let score = Tensor::zeros([length, classes], (Kind::Double, bank.device()));
            let score = score.scatter_add(1, &vote.narrow(1, 0, k), &weight.narrow(1, 0, k));
            let right = score.argmax(1, false).eq_tensor(&truth);
            *correct += right.sum(Kind::Double).double_value(&[]);
        }
    });
    let percent = 100.0 / queries.size()[0].max(1) as f64;
    let counts = options.neighbours.iter().zip(correct);
    counts.map(|(&k, correct)| KnnAccuracy { k, top1: correct * percent }).collect()
}

/// Looks each query up in the bank; arguments as for [`knn_accuracy`].
pub fn recall(
    counts: &[i64],
    (bank, bank_labels): (&Tensor, &Tensor),
    (queries, query_labels): (&Tensor, &Tensor),
) -> Vec<Recall> {
    let mut hits = vec![0.0; counts.len()];
    nearest(bank, queries, most(counts), &mut |start, similarity, neighbour| {
        let (length, found) = (similarity.size()[0], similarity.size()[1]);
        let label = bank_labels.index_select(0, &neighbour.view([-1])).view_as(neighbour);
        let same = label.eq_tensor(&query_labels.narrow(0, start, length).unsqueeze(1));
        for (&k, hits) in counts.iter().zip(&mut hits) {
            let any = same.narrow(1, 0, k.clamp(1, found)).any_dim(1, false);
            *hits += any.sum(Kind::Double).double_value(&[]);
        }
    });
    let percent = 100.0 / queries.size()[0].max(1) as f64;
    counts.iter().zip(hits).map(|(&k, hits)| Recall { k, recall: hits * percent }).collect()
}

/// The `count` rows of the bank most similar to each query, the most similar first: cosine
/// similarities, float64 [m, count], and row numbers, int64 [m, count]. Never more than the bank has.
pub fn neighbours(bank: &Tensor, queries: &Tensor, count: i64) -> (Tensor, Tensor) {
    let (mut similarities, mut rows) = (Vec::new(), Vec::new());
    nearest(bank, queries, count, &mut |_, similarity, neighbour| {
        similarities.push(similarity.shallow_clone());
        rows.push(neighbour.shallow_clone());
    });
    (Tensor::cat(&similarities, 0), Tensor::cat(&rows, 0))
}

fn most(counts: &[i64]) -> i64 {
    counts.iter().copied().max().unwrap_or(1)
}

/// Exact search, a block of queries at a time against the whole bank. `visit` is handed a block's first
/// query, its similarities [block, count] in float64 and its neighbours [block, count].
///
/// float32 products find a few candidates more than asked for, and float64 ones put them in order:
/// two rows that float32 cannot tell apart would otherwise change places.
fn nearest(
    bank: &Tensor,
    queries: &Tensor,
    count: i64,
    visit: &mut dyn FnMut(i64, &Tensor, &Tensor),
) {
    // Similarities held at a time, and numbers of candidates' rows: these should stay in the
    // processor's cache.
    const BLOCK: i64 = 1 << 24;
    const ROWS: i64 = 1 << 20;
    const SPARE: i64 = 32;
    let _guard = tch::no_grad_guard();
    let (bank_size, dim) = (bank.size()[0], bank.size()[1]);
    let query_count = queries.size()[0];
    let count = count.clamp(1, bank_size);
    let candidates = (count + SPARE).min(bank_size);
    let block = (BLOCK / bank_size).max(1);
    let group = (ROWS / (candidates * dim).max(1)).max(1);
    let (unit_bank, unit_queries) = (normalise_rows(bank), normalise_rows(queries));
    // The floor is that of `normalise_rows`.
    let length_of = |rows: &Tensor| {
        let squares = rows.to_kind(Kind::Double).square();
        squares.sum_dim_intlist([1].as_slice(), false, Kind::Double).sqrt().clamp_min(1e-12)
    };
    let (bank_length, query_length) = (length_of(bank), length_of(queries));
    for start in (0..query_count).step_by(block as usize) {
        let length = block.min(query_count - start);
        let similarity = unit_queries.narrow(0, start, length).matmul(&unit_bank.tr());
        let (_, candidate) = similarity.topk(candidates, 1, true, false);
        let mut exact = Vec::new();
        for first in (0..length).step_by(group as usize) {
            let number = group.min(length - first);
            let chosen = candidate.narrow(0, first, number).reshape([-1]);
            // rows [group, candidates, dim] times queries [group, dim, 1].
            let rows = bank.index_select(0, &chosen).to_kind(Kind::Double);
            let query = queries.narrow(0, start + first, number).to_kind(Kind::Double);
            let product = rows.view([number, candidates, dim]).bmm(&query.unsqueeze(2));
            let lengths = bank_length.index_select(0, &chosen).view([number, candidates]);
            let own = query_length.narrow(0, start + first, number).unsqueeze(1);
            exact.push(product.squeeze_dim(2) / (lengths * own));
        }
        let (similarity, rank) = Tensor::cat(&exact, 0).topk(count, 1, true, true);
        visit(start, &similarity, &candidate.gather(1, &rank, false));
    }
}
