//! How well decisions put the images of a class before the others.

/// The area under a class's precision–recall curve, precision made non-increasing first, as the
/// published code computes it; between 0 and 1. Of equal decisions the later image counts first.
///
/// None without an image of the class: there is no recall then.
pub fn average_precision(decisions: &[f64], positive: &[bool]) -> Option<f64> {
    let total = positive.iter().filter(|&&positive| positive).count();
    if total == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..decisions.len()).collect();
    order.sort_by(|&a, &b| decisions[b].total_cmp(&decisions[a]).then(b.cmp(&a)));
    let mut found = 0;
    let precision: Vec<f64> = order
        .iter()
        .enumerate()
        .map(|(rank, &image)| {
            found += usize::from(positive[image]);
            found as f64 / (rank + 1) as f64
        })
        .collect();
    // Recall grows by the same amount at each image of the class, and nowhere else.
    let mut best = 0.0f64;
    let mut area = 0.0;
    for (&image, &precision) in order.iter().zip(&precision).rev() {
        best = best.max(precision);
        if positive[image] {
            area += best;
        }
    }
    Some(area / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_follows_the_published_curve() {
        // Ranked: right, wrong, right, wrong. Recall 1/2 at precision 1, recall 1 at 2/3.
        let decisions = [0.9, 0.8, 0.7, 0.6];
        let found = average_precision(&decisions, &[true, false, true, false]).unwrap();
        assert!((found - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        // Precision is made non-increasing: a late run of right images lifts the earlier one.
        let found = average_precision(&decisions, &[false, true, true, true]).unwrap();
        assert!((found - 0.75).abs() < 1e-12);
        assert_eq!(average_precision(&decisions, &[false; 4]), None);
        // Of equal decisions the later one comes first.
        assert_eq!(average_precision(&[1.0, 1.0], &[false, true]), Some(1.0));
        assert_eq!(average_precision(&[1.0, 1.0], &[true, false]), Some(0.5));
    }
}
