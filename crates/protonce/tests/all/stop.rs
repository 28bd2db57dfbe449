//! A run that is asked to stop within an E-step stops there, and goes on to the same bits.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use protonce::pretrain::{Outcome, Request, Setup, Start, pretrain};
use protonce::world::World;
use protonce_images::data::Dataset;
use protonce_run::{Checkpoint, Config, Event, Progress, Task};
use tch::Device;

use crate::images;

/// Something that is asked of a run as soon as it tells of a task of the E-step before an epoch.
type Asked = (Request, Task, usize);

/// Begins a run in `out` or goes on with it. Gives what became of it, and how often it told of a task
/// after something was asked.
fn train(
    config: &Config,
    dataset: &Arc<Dataset>,
    out: &Path,
    asked: Option<Asked>,
) -> (Outcome, usize) {
    let last = Checkpoint::find(out).map(|folder| Checkpoint::read(&folder).unwrap());
    let setup = Setup {
        config,
        dataset: dataset.clone(),
        out,
        start: if last.is_some() { Start::Resume } else { Start::Fresh },
        device: Device::Cpu,
        world: World::alone(),
    };
    let mut epoch = last.map_or(0, |last| last.state.epoch);
    let (mut waiting, mut after) = (asked, 0);
    let request = Cell::new(Request::GoOn);
    let outcome = pretrain(
        setup,
        &mut |progress| match progress {
            Progress::Event(Event::Epoch { epoch: done, .. }) => epoch = done + 1,
            Progress::Task { task, .. } => {
                after += usize::from(asked.is_some() && waiting.is_none());
                if let Some((what, ..)) = waiting.take_if(|at| (at.1, at.2) == (task, epoch)) {
                    request.set(what);
                }
            }
            _ => {}
        },
        &|| request.replace(Request::GoOn),
    );
    (outcome.unwrap(), after)
}

#[test]
fn an_e_step_can_be_stopped_and_its_run_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Arc::new(images(&folder.path().join("data")));
    let settings = "base-channels = 16\nstem = 'imagenet'\nimage-size = 16\nbatch-size = 8\nqueue = 50\n\
                    clusters = [2, 4]\nwarmup-epochs = 1\nepochs = 4\nsave-every = 3\ntune = 'off'\n\
                    warm-start = true\nthreads = 1\n";
    let layers = [Config::preset("small").unwrap(), settings.parse().unwrap()];
    let config = Config::resolve(layers).unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    assert_eq!(train(&config, &dataset, &whole, None), (Outcome::Finished, 0));

    use Task::{Clustering, Embedding};
    for at in [(Embedding, 1), (Clustering, 1), (Clustering, 2), (Embedding, 3), (Clustering, 4)] {
        let found = train(&config, &dataset, &stopped, Some((Request::Stop, at.0, at.1)));
        assert_eq!(found, (Outcome::Stopped, 0), "{at:?}");
        let last = Checkpoint::read(&Checkpoint::find(&stopped).unwrap()).unwrap();
        assert_eq!((last.state.epoch, last.state.step), (at.1, 0), "{at:?}");
    }
    assert_eq!(train(&config, &dataset, &stopped, None).0, Outcome::Finished);

    // What can only be done between two steps waits for the next one.
    let saved = folder.path().join("saved");
    let found = train(&config, &dataset, &saved, Some((Request::Save, Clustering, 2)));
    assert_eq!(found.0, Outcome::Finished);
    let log = fs::read_to_string(saved.join("events.jsonl")).unwrap();
    assert!(log.contains("epoch-0002-step-000001"), "{log}");

    for run in [&stopped, &saved] {
        for file in ["encoder.safetensors", "training.safetensors"] {
            let read = |run| fs::read(Checkpoint::find(run).unwrap().join(file)).unwrap();
            assert!(read(run) == read(&whole), "{} of {}", file, run.display());
        }
        for number in 1..5 {
            let file = format!("prototypes/epoch-{number:04}.safetensors");
            let read = |run: &Path| fs::read(run.join(&file)).unwrap();
            assert!(read(run) == read(&whole), "{} of {}", file, run.display());
        }
    }
}
