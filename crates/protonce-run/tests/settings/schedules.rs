//! What changes from step to step.

use protonce_run::{Config, Position};

#[test]
fn the_weight_of_prototypes_rises_over_the_epochs_that_it_is_given() {
    let v2 = Config::resolve([Config::preset("v2").unwrap()]).unwrap();
    let config = Config { prototype_weight: 0.5, warmup_epochs: 3, ..v2 };
    let weight = |ramp, epoch, step| {
        let config = Config { prototype_ramp: ramp, ..config.clone() };
        config.weight_of_prototypes(Position { epoch, step, steps: 10 })
    };
    assert_eq!(weight(0, 3, 0), 0.5);
    assert_eq!(weight(2, 3, 0), 0.5 / 20.0);
    assert_eq!(weight(2, 4, 0), 0.5 * 11.0 / 20.0);
    assert_eq!(weight(2, 4, 9), 0.5);
    assert_eq!(weight(2, 60, 0), 0.5);
}
