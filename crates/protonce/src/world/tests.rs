//! Threads of this process stand for processes: each has a world of its own, and real connections.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::{Launch, World, WorldError};

/// What each of `size` processes comes to.
fn in_processes<R: Send>(size: usize, work: impl Fn(&World) -> R + Sync) -> Vec<R> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let work = &work;
                scope.spawn(move || {
                    let launch = Launch {
                        rank,
                        size,
                        local_rank: rank,
                        local_size: size,
                        host: "127.0.0.1".to_owned(),
                        port,
                        served: false,
                        session: String::new(),
                    };
                    let world = World::join(&launch, Duration::from_secs(60)).unwrap();
                    let done = work(&world);
                    // The store ends with process 0.
                    world.gather_values(&[0u8]).ok();
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_is_gathered_comes_in_the_order_of_the_processes() {
    for size in [2, 3] {
        for gathered in in_processes(size, |world| {
            let own: Vec<u32> = (0..world.rank() as u32 * 3).collect();
            let words = format!("{} says", world.rank());
            let first = world.is_first().then(|| {
                vec![
                    ("ints".to_owned(), Tensor::from_slice(&[1i64, -2, 3]).view([3, 1])),
                    ("none".to_owned(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
                ]
            });
            let tensors = world.tensors_of_first(first).unwrap();
            assert_eq!(tensors[0].1, Tensor::from_slice(&[1i64, -2, 3]).view([3, 1]));
            assert_eq!((tensors[1].0.as_str(), tensors[1].1.size()), ("none", vec![0, 4]));
            (world.gather_values(&own).unwrap(), world.gather_words(&words).unwrap())
        }) {
            let values: Vec<Vec<u32>> = (0..size as u32).map(|n| (0..n * 3).collect()).collect();
            let words: Vec<String> = (0..size).map(|n| format!("{n} says")).collect();
            assert_eq!(gathered, (values, words));
        }
    }
}

#[test]
fn every_process_gets_the_rows_that_it_wants_in_its_order() {
    let held = [0..2, 2..2, 2..7];
    let wanted = [vec![6, 0, 3], vec![1, 1, 5, 2], vec![]];
    let row = |number: usize| [number as f32, 10.0 * number as f32];
    let dealt = in_processes(3, |world| {
        let own: Vec<f32> = held[world.rank()].clone().flat_map(row).collect();
        let lengths: Vec<usize> = held.iter().map(|range| range.len()).collect();
        let rows = Tensor::from_slice(&own).view([lengths[world.rank()] as i64, 2]);
        let all = world.rows_in_first(&rows, &lengths).unwrap();
        let dealt = world.deal(&own, 2, &held, &wanted).unwrap();
        (dealt, all)
    });
    for ((dealt, all), (rank, wanted)) in dealt.into_iter().zip(wanted.iter().enumerate()) {
        assert_eq!(dealt, wanted.iter().flat_map(|&number| row(number)).collect::<Vec<f32>>());
        let expected: Vec<f32> = (0..7).flat_map(row).collect();
        let expected = (rank == 0).then(|| Tensor::from_slice(&expected).view([7, 2]));
        assert_eq!(all, expected);
    }
}

#[test]
fn gradients_are_added_from_the_last_group_to_the_first() {
    // Sums that depend on the order; a length that two and three processes do not divide.
    let groups: Vec<Tensor> = (0..6)
        .map(|group| {
            let values = (0..11).map(|place| 10f32.powi((group * 7 + place) % 13 - 6) / 3.0);
            Tensor::from_slice(&values.collect::<Vec<f32>>())
        })
        .collect();
    let backwards = |groups: &[Tensor]| {
        let groups = groups.iter().rev().map(Tensor::shallow_clone);
        groups.reduce(|sum, group| sum + group).unwrap()
    };
    let forwards = groups.iter().map(Tensor::shallow_clone).reduce(|a, b| a + b).unwrap();
    assert_ne!(backwards(&groups), forwards, "the order does not matter here");
    for counts in [&[3, 3][..], &[2, 2, 2], &[6, 0], &[1, 0, 1]] {
        let used: usize = counts.iter().sum();
        let groups = &groups[..used];
        // Tensors are not shared by threads: values are.
        let values: Vec<Vec<f32>> =
            groups.iter().map(|group| super::floats(group).unwrap()).collect();
        for sum in in_processes(counts.len(), |world| {
            let first: usize = counts[..world.rank()].iter().sum();
            let own: Vec<Tensor> = values[first..first + counts[world.rank()]]
                .iter()
                .map(|values| Tensor::from_slice(values))
                .collect();
            let like = Tensor::zeros([11], (Kind::Float, Device::Cpu));
            super::floats(&world.sum(&own, counts, &like).unwrap()).unwrap()
        }) {
            assert_eq!(sum, super::floats(&backwards(groups)).unwrap(), "{counts:?}");
        }
    }
}

#[test]
fn what_differs_and_what_goes_wrong_is_said_in_every_process() {
    let said = in_processes(3, |world| {
        let own = if world.rank() == 2 { "Tuesday" } else { "Monday" };
        let error = world.agree(&[("day", own.to_owned())]).unwrap_err();
        world.leave_with_error(&error.to_string());
        error.to_string()
    });
    let differs = "process 2 has another day than process 0, \"Tuesday\" where that has \"Monday\": all \
                   must be the same";
    let ended = format!("process 2 has ended: {differs}");
    assert_eq!(said, [&ended, &ended, differs]);

    let said = in_processes(2, |world| {
        let words = world.first_says("words", || -> Result<String, WorldError> {
            Err(WorldError::Environment("no words".to_owned()))
        });
        let error = words.unwrap_err();
        world.leave_with_error(&error.to_string());
        error.to_string()
    });
    assert_eq!(said[1], format!("process 0 has ended: {}", said[0]));

    // In the midst of an exchange.
    let said = in_processes(2, |world| {
        if world.rank() == 1 {
            world.leave_with_error("disk full");
            return String::new();
        }
        world.gather_values(&[0u8]).unwrap_err().to_string()
    });
    assert_eq!(said[0], "process 1 has ended: disk full");
}

#[test]
fn groups_that_cannot_be_dealt_are_refused_with_the_numbers_that_can() {
    for said in in_processes(2, |world| {
        world.check_groups(4).unwrap();
        world.check_groups(9).unwrap_err().to_string()
    }) {
        assert!(said.ends_with("cannot be dealt evenly to 2 processes: start 1, 3 or 9"), "{said}");
    }
}
