//! Maps of rows whose neighbourhoods are known.

use protonce_map::{lay_out, principal_plane};

/// Points around three corners of a cube, `each` at every corner; of length 1.
fn corners(each: usize) -> Vec<f32> {
    let mut rows = Vec::new();
    for row in 0..3 * each {
        let mut point = [0.03 * (row % 7) as f32, 0.02 * (row % 5) as f32, 0.01 * (row % 3) as f32];
        point[row / each] += 1.0;
        let length = point.iter().map(|value| value * value).sum::<f32>().sqrt();
        rows.extend(point.map(|value| value / length));
    }
    rows
}

/// The 45 nearest others of each row, or all where there are fewer.
fn nearest(rows: &[f32], dim: usize) -> Vec<Vec<(usize, f32)>> {
    let rows: Vec<&[f32]> = rows.chunks_exact(dim).collect();
    let similarity = |a: usize, b: usize| rows[a].iter().zip(rows[b]).map(|(a, b)| a * b).sum();
    (0..rows.len())
        .map(|row| {
            let others = (0..rows.len()).filter(|&other| other != row);
            let mut others: Vec<_> = others.map(|other| (other, similarity(row, other))).collect();
            others.sort_by(|a: &(usize, f32), b| b.1.total_cmp(&a.1));
            others.truncate(45);
            others
        })
        .collect()
}

#[test]
fn the_map_keeps_groups_together() {
    let rows = corners(60);
    let map = lay_out(&rows, 3, &nearest(&rows, 3), &mut |_| {}).unwrap();
    assert!(map.iter().all(|&(x, y)| (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y)));
    let distance = |a: usize, b: usize| (map[a].0 - map[b].0).hypot(map[a].1 - map[b].1);
    let right = (0..180).filter(|&point| {
        let nearest = (0..180)
            .filter(|&other| other != point)
            .min_by(|&a, &b| distance(point, a).total_cmp(&distance(point, b)));
        nearest.unwrap() / 60 == point / 60
    });
    assert!(right.count() > 170);
}

#[test]
fn the_first_plane_is_that_of_the_two_widest_directions_and_always_the_same() {
    // Wide along (3, 4, 0) / 5, half as wide along the third axis, narrow across both.
    let rows: Vec<f32> = (0..400)
        .flat_map(|row| {
            let angle = f64::from(row) * std::f64::consts::TAU / 400.0;
            let (far, near) = (2.0 * angle.cos(), angle.sin());
            let across = 0.01 * (7.0 * angle).sin();
            [0.6 * far - 0.8 * across, 0.8 * far + 0.6 * across, near].map(|v| v as f32 + 5.0)
        })
        .collect();
    let plane = principal_plane(&rows, 3).unwrap();
    // The widest direction is the second coordinate; signs are free.
    let scale = 1e-4 / (1.25f32).sqrt();
    for (row, point) in plane.chunks_exact(2).enumerate() {
        let angle = row as f32 * std::f32::consts::TAU / 400.0;
        let expected = [angle.sin().abs() * scale, 2.0 * angle.cos().abs() * scale];
        for (found, expected) in point.iter().zip(expected) {
            assert!((found.abs() - expected).abs() < 2e-6, "{row}: {found}, not {expected}");
        }
    }
    assert_eq!(plane, principal_plane(&rows, 3).unwrap());
    let line: Vec<f32> = (0..20u8).map(f32::from).collect();
    assert!(principal_plane(&line, 1).unwrap().chunks_exact(2).all(|point| point[1] == 0.0));
}

#[test]
fn rows_that_are_all_the_same_or_too_few_have_no_map() {
    let same = [1.0, 0.0].repeat(50);
    assert!(lay_out(&same, 2, &nearest(&same, 2), &mut |_| {}).is_none());
    assert!(lay_out(&[1.0, 0.0], 2, &[Vec::new()], &mut |_| {}).is_none());
}
