//! The checkpoints of a run, `checkpoints/`: which of them counts, which is whole, and how one more is
//! added.
//!
//! A checkpoint is written beside its place and renamed; then `checkpoints/last`, a file with its name,
//! is replaced. In earlier versions `last` was a link to the checkpoint, of which copies have made a
//! folder, a file with the link's text, or nothing; all of these are understood.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use protonce_disk::sync_folder;

use crate::checkpoint::{Checkpoint, CheckpointState, ENCODER, STATE, TRAINING};
use crate::error::{read_error, write_error};
use crate::paths::{
    checkpoints_folder, last_file, numbered_names, position_in_name, position_name, prototypes_file,
};
use crate::{RunError, TensorData, checksums, write_file};

/// The folder of the last checkpoint of the run in `run`: the one that `last` names, else the newest.
pub(crate) fn last(run: &Path) -> Option<PathBuf> {
    candidates(run).into_iter().next()
}

/// The checkpoint that the run in `run` goes on from: the last one, or the newest other one where that is
/// not whole, with a sentence that says so. None where there are no checkpoints.
///
/// # Errors
/// [`RunError::NoneWhole`] when there are checkpoints, and none is whole.
pub(crate) fn last_whole(run: &Path) -> Result<Option<(Checkpoint, Vec<String>)>, RunError> {
    let mut remarks = Vec::new();
    let mut newest = None;
    for folder in candidates(run) {
        match Checkpoint::verified(&folder) {
            Ok(checkpoint) => {
                let place = folder.strip_prefix(run).unwrap_or(&folder).display();
                if newest.is_some() {
                    remarks.push(format!("going on from {place}, the newest whole checkpoint"));
                } else if named(run).is_none() {
                    remarks.push(format!(
                        "checkpoints/last names no checkpoint: going on from {place}, the newest"
                    ));
                }
                return Ok(Some((checkpoint, remarks)));
            }
            Err(error) => {
                remarks.push(error.to_string());
                newest.get_or_insert(error);
            }
        }
    }
    match newest {
        Some(error) => Err(RunError::NoneWhole { run: run.to_owned(), reason: error.to_string() }),
        None => Ok(None),
    }
}

/// Whether there is anything that looks like a checkpoint.
pub(crate) fn any(run: &Path) -> bool {
    !candidates(run).is_empty()
}

/// The folders of all checkpoints, the one that counts first, then by age, the newest first.
fn candidates(run: &Path) -> Vec<PathBuf> {
    let folder = checkpoints_folder(run);
    let numbered = numbered_names(&folder).into_iter().rev().map(|(_, name)| folder.join(name));
    let mut found: Vec<PathBuf> = Vec::new();
    // What a copy made of a link may be whole where the checkpoint itself is not.
    let last = Some(last_file(run)).filter(|last| last.join(STATE).exists());
    for folder in named(run).into_iter().chain(last).chain(numbered.filter(|one| one.is_dir())) {
        if !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

/// The folder that `last` stands for, if it is there.
fn named(run: &Path) -> Option<PathBuf> {
    let last = last_file(run);
    let name = match last.is_dir() {
        true => {
            let state = Checkpoint::read(&last).ok()?.state;
            position_name(state.epoch, state.step)
        }
        false => {
            let mut name = String::new();
            File::open(&last).ok()?.take(1 << 10).read_to_string(&mut name).ok()?;
            // A link's text may have more of the path.
            let name = name.trim_end_matches(['/', '\n', '\r']);
            name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned()
        }
    };
    position_in_name(&name)?;
    let folder = checkpoints_folder(run).join(name);
    match folder.is_dir() {
        true => Some(folder),
        // A copy may have kept nothing but what the link led to.
        false => last.is_dir().then_some(last),
    }
}

/// Writes a checkpoint of the run in `run`, makes it the last one and removes what it replaces: earlier
/// ones that were only passing, and of the others all but the newest `keep` (0: keeps all). `prototypes`
/// is the epoch whose E-step's prototypes it needs.
pub(crate) fn write<E: AsRef<str>, T: AsRef<str>>(
    run: &Path,
    state: &CheckpointState,
    encoder: &[(E, impl TensorData)],
    training: &[(T, impl TensorData)],
    prototypes: Option<usize>,
    keep: usize,
) -> Result<(), RunError> {
    let checkpoints = checkpoints_folder(run);
    let name = position_name(state.epoch, state.step);
    let scratch = checkpoints.join(format!(".{name}"));
    let target = checkpoints.join(&name);
    let failed = |source| write_error(&target)(source);
    remove_folder(&scratch).map_err(failed)?;
    fs::create_dir(&scratch).map_err(failed)?;
    crate::write_tensors(&scratch.join(ENCODER), encoder, None)?;
    crate::write_tensors(&scratch.join(TRAINING), training, None)?;
    let text = serde_json::to_vec_pretty(state).map_err(read_error(&target))?;
    write_file(&scratch.join(STATE), &text)?;
    let mut files = [ENCODER, TRAINING, STATE].map(str::to_owned).to_vec();
    if let Some(file) = prototypes.map(|epoch| prototypes_file(run, epoch)) {
        let inside = file.strip_prefix(run).unwrap_or(&file);
        files.push(format!("../../{}", inside.display()));
    }
    checksums::write(&scratch, &target, &files)?;
    sync_folder(&scratch).map_err(failed)?;
    // A resumed run may come to the same point again, with the same contents.
    remove_folder(&target).map_err(failed)?;
    fs::rename(&scratch, &target).map_err(failed)?;
    sync_folder(&checkpoints).map_err(failed)?;
    let last = last_file(run);
    if last.is_dir() && !last.is_symlink() {
        remove_folder(&last).map_err(failed)?;
    }
    write_file(&last, format!("{name}\n").as_bytes())?;
    for old in replaced(&checkpoints, (state.epoch, state.step), state.passing, keep) {
        remove_folder(&checkpoints.join(old)).map_err(failed)?;
    }
    Ok(())
}

/// The names of the checkpoints that one at `position` replaces. Those after it are of a run that went
/// back to an earlier one: it comes there again.
fn replaced(
    checkpoints: &Path,
    position: (usize, usize),
    passing: bool,
    keep: usize,
) -> Vec<String> {
    let mut names = numbered_names(checkpoints);
    names.retain(|(other, _)| *other < position);
    let is_passing = |((_, step), name): &((usize, usize), String)| {
        let state = || Checkpoint::read(&checkpoints.join(name)).map(|one| one.state.passing);
        *step > 0 || state().unwrap_or(false)
    };
    let (mut old, mut lasting): (Vec<_>, Vec<_>) = names.into_iter().partition(is_passing);
    if keep > 0 {
        let kept = if passing { keep } else { keep - 1 };
        lasting.truncate(lasting.len().saturating_sub(kept));
        old.append(&mut lasting);
    }
    old.into_iter().map(|(_, name)| name).collect()
}

/// Removes a folder if it exists. It is renamed first: half a checkpoint must not look like one.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let doomed = folder.with_file_name(format!(".removed-{}", name.trim_start_matches('.')));
    if folder != doomed {
        if doomed.exists() {
            fs::remove_dir_all(&doomed)?;
        }
        fs::rename(folder, &doomed)?;
    }
    fs::remove_dir_all(&doomed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::{config_file, events_file};
    use crate::{Config, EncoderConfig, Event, Opened, RawTensor, RunFolder, read_events};
    use protonce_images::views::ViewConfig;

    /// A kind of change to a file, and what makes it.
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));

    fn config() -> Config {
        Config::resolve([Config::preset("small").unwrap()]).unwrap()
    }

    fn begun(run: &Path) -> RunFolder {
        RunFolder::create(run, &config(), &()).unwrap().folder
    }

    /// Saves as training does; what the tensors hold tells the position.
    fn save(run: &mut RunFolder, (epoch, step): (usize, usize), passing: bool, keep: usize) {
        let path = run.checkpoint_path(epoch, step);
        run.record(&Event::Checkpoint { epoch, step, path }).unwrap();
        let config = config();
        let state = CheckpointState {
            epoch,
            step,
            queue_position: 0,
            unreadable: Vec::new(),
            passing,
            epoch_sums: vec![0.1 + 0.2, f64::NAN, 1e300 / 3.0],
            unlogged_sums: Vec::new(),
            epoch_so_far: Default::default(),
            epoch_logged: Default::default(),
            events: run.events_length(),
            data_fingerprint: "images".to_owned(),
            encoder: EncoderConfig { ..config.encoder },
            views: ViewConfig { ..config.views },
        };
        let tensor = RawTensor::i64s(&[2], &[epoch as i64, step as i64]);
        let tensors = [("position", tensor)];
        let prototypes = (step > 0).then_some(epoch);
        if prototypes.is_some() {
            run.save_prototypes(epoch, &[]).unwrap();
        }
        run.save(&state, &tensors, &tensors, prototypes, keep).unwrap();
    }

    /// A run with checkpoints after 1 and 2 epochs and in the third.
    fn three(run: &Path) {
        let mut folder = begun(run);
        save(&mut folder, (1, 0), false, 0);
        save(&mut folder, (2, 0), false, 0);
        save(&mut folder, (2, 5), true, 0);
    }

    /// The position from which a run goes on, and what is said.
    fn resumed(run: &Path) -> ((usize, usize), String) {
        let Opened { checkpoint, remarks, folder } = RunFolder::resume(run).unwrap();
        let checkpoint = checkpoint.unwrap();
        let stored = checkpoint.training().unwrap().i64s("position", &[None]).unwrap();
        let position = (checkpoint.state.epoch, checkpoint.state.step);
        assert_eq!(stored, [position.0 as i64, position.1 as i64]);
        assert!(folder.events_length() <= checkpoint.state.events);
        (position, remarks.join("; "))
    }

    fn names(run: &Path) -> Vec<(usize, usize)> {
        numbered_names(&checkpoints_folder(run)).into_iter().map(|(position, _)| position).collect()
    }

    #[test]
    fn the_newest_checkpoint_is_named_by_a_file_and_its_numbers_keep_every_bit() {
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        assert_eq!(fs::read_to_string(last_file(run.path())).unwrap(), "epoch-0002-step-000005\n");
        assert!(!last_file(run.path()).is_symlink());
        let checkpoint = Checkpoint::read(&last(run.path()).unwrap()).unwrap();
        let expected = [0.1 + 0.2, f64::NAN, 1e300 / 3.0].map(f64::to_bits);
        assert_eq!(
            checkpoint.state.epoch_sums.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(resumed(run.path()), ((2, 5), String::new()));
        for path in ["", "checkpoints/last", "checkpoints/epoch-0002-step-000005"] {
            assert_eq!(Checkpoint::find(&run.path().join(path)), last(run.path()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_of_earlier_versions_and_all_that_copies_make_of_it_are_understood() {
        let copies: [Change; 7] = [
            ("the link", &|last| std::os::unix::fs::symlink("epoch-0002", last).unwrap()),
            ("a link that leads nowhere", &|last| {
                std::os::unix::fs::symlink("/nowhere/epoch-0002", last).unwrap();
            }),
            ("nothing", &|_| ()),
            ("its text", &|last| fs::write(last, "epoch-0002").unwrap()),
            ("its text with a path", &|last| fs::write(last, "checkpoints/epoch-0002").unwrap()),
            ("an empty file", &|last| fs::write(last, "").unwrap()),
            ("a folder", &|last| {
                fs::create_dir(last).unwrap();
                for name in [ENCODER, TRAINING, STATE] {
                    fs::copy(last.with_file_name("epoch-0002").join(name), last.join(name))
                        .unwrap();
                }
            }),
        ];
        for (kind, copy) in copies {
            let run = tempfile::tempdir().unwrap();
            let mut folder = begun(run.path());
            save(&mut folder, (1, 0), false, 0);
            save(&mut folder, (2, 0), false, 0);
            drop(folder);
            for name in ["epoch-0001", "epoch-0002"] {
                let sums = checkpoints_folder(run.path()).join(name).join("SHA256SUMS");
                fs::remove_file(sums).unwrap();
            }
            let last_file = last_file(run.path());
            fs::remove_file(&last_file).unwrap();
            copy(&last_file);
            let (position, said) = resumed(run.path());
            assert_eq!(position, (2, 0), "{kind}");
            let missing = ["nothing", "an empty file", "a link that leads nowhere"].contains(&kind);
            assert_eq!(!said.is_empty(), missing, "{kind}: {said}");

            // It goes on for as long as it likes.
            for epoch in 3..6 {
                let mut folder = RunFolder::resume(run.path()).unwrap().folder;
                save(&mut folder, (epoch, 0), false, 2);
                drop(folder);
                assert_eq!(resumed(run.path()), ((epoch, 0), String::new()), "{kind}");
            }
            assert_eq!(names(run.path()), [(4, 0), (5, 0)], "{kind}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_a_link_serves_where_the_checkpoint_is_damaged_or_gone() {
        for gone in [false, true] {
            let run = tempfile::tempdir().unwrap();
            three(run.path());
            let last = last_file(run.path());
            let checkpoint = checkpoints_folder(run.path()).join("epoch-0002-step-000005");
            fs::remove_file(&last).unwrap();
            fs::rename(&checkpoint, &last).unwrap();
            if !gone {
                fs::create_dir(&checkpoint).unwrap();
            }
            let (position, _) = resumed(run.path());
            assert_eq!(position, (2, 5));
            let mut folder = RunFolder::resume(run.path()).unwrap().folder;
            save(&mut folder, (3, 0), false, 0);
            assert!(last.is_file());
        }
    }

    #[test]
    fn damage_of_any_file_is_noticed_and_the_newest_whole_checkpoint_serves() {
        let damages: [Change; 4] = [
            ("cut short", &|file| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
            }),
            ("a bit flipped", &|file| {
                let mut bytes = fs::read(file).unwrap();
                let end = bytes.len() - 1;
                bytes[end] ^= 1;
                fs::write(file, bytes).unwrap();
            }),
            ("emptied", &|file| fs::write(file, "").unwrap()),
            ("removed", &|file| fs::remove_file(file).unwrap()),
        ];
        let prototypes = "../../prototypes/epoch-0002.safetensors";
        for file in [ENCODER, TRAINING, STATE, prototypes] {
            for (kind, damage) in damages {
                let run = tempfile::tempdir().unwrap();
                three(run.path());
                let checkpoint = last(run.path()).unwrap();
                damage(&checkpoint.join(file));
                let (position, said) = resumed(run.path());
                assert_eq!(position, (2, 0), "{file} {kind}");
                let name = file.rsplit('/').next().unwrap();
                assert!(said.contains(name), "{file} {kind}: {said}");
                assert!(said.contains("going on from checkpoints/epoch-0002"), "{said}");
            }
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_written_anew_when_the_run_comes_there_again() {
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        fs::write(last(run.path()).unwrap().join(TRAINING), "").unwrap();
        let mut folder = RunFolder::resume(run.path()).unwrap().folder;
        save(&mut folder, (2, 5), true, 0);
        drop(folder);
        assert_eq!(resumed(run.path()), ((2, 5), String::new()));
        // Where it was resumed there is nothing to be written.
        let mut folder = RunFolder::resume(run.path()).unwrap().folder;
        let before = fs::metadata(last(run.path()).unwrap().join(STATE)).unwrap().modified();
        save(&mut folder, (2, 5), true, 0);
        let after = fs::metadata(last(run.path()).unwrap().join(STATE)).unwrap().modified();
        assert_eq!(before.unwrap(), after.unwrap());
    }

    #[test]
    fn what_only_passes_is_replaced_and_of_the_others_as_many_are_kept_as_are_asked_for() {
        let saved = [
            ((1, 0), false),
            ((1, 3), true),
            ((1, 6), true),
            ((2, 0), true),
            ((2, 4), true),
            ((3, 0), false),
            ((4, 0), false),
            ((4, 2), true),
        ];
        for (keep, expected) in [
            (0, vec![(1, 0), (3, 0), (4, 0), (4, 2)]),
            (1, vec![(4, 0), (4, 2)]),
            (2, vec![(3, 0), (4, 0), (4, 2)]),
        ] {
            let run = tempfile::tempdir().unwrap();
            let mut folder = begun(run.path());
            for (position, passing) in saved {
                save(&mut folder, position, passing, keep);
            }
            assert_eq!(names(run.path()), expected, "keep {keep}");
            save(&mut folder, (5, 0), false, keep);
            let lasting = expected.iter().filter(|(_, step)| *step == 0).chain([&(5, 0)]);
            let lasting: Vec<_> = lasting.copied().collect();
            let kept = if keep == 0 { lasting.len() } else { keep };
            assert_eq!(names(run.path()), lasting[lasting.len() - kept..], "keep {keep}");
        }
    }

    #[test]
    fn nothing_that_training_made_is_overwritten_by_a_start() {
        let says = |run: &Path, words: &[&str]| {
            let config = config();
            for said in [
                RunFolder::vacant(run).unwrap_err().to_string(),
                RunFolder::create(run, &config, &()).err().unwrap().to_string(),
            ] {
                assert!(words.iter().all(|word| said.contains(word)), "{said}");
            }
        };
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        says(run.path(), &["already holds a run", "--resume"]);
        // Copied without its settings, and then without its log, and with the log alone.
        fs::remove_file(config_file(run.path())).unwrap();
        says(run.path(), &["no config.toml", "another --out"]);
        let log = fs::read(events_file(run.path())).unwrap();
        fs::remove_file(events_file(run.path())).unwrap();
        says(run.path(), &["no config.toml"]);
        fs::remove_dir_all(checkpoints_folder(run.path())).unwrap();
        RunFolder::vacant(run.path()).unwrap();
        fs::write(events_file(run.path()), log).unwrap();
        says(run.path(), &["no config.toml"]);
    }

    #[test]
    fn a_run_that_has_lost_its_checkpoints_does_not_begin_again() {
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        let refused = |words: &str| {
            let before = fs::read(events_file(run.path())).unwrap();
            let said = RunFolder::resume(run.path()).err().unwrap().to_string();
            assert!(said.contains(words), "{said}");
            assert_eq!(fs::read(events_file(run.path())).unwrap(), before);
        };
        for (_, name) in numbered_names(&checkpoints_folder(run.path())) {
            fs::write(checkpoints_folder(run.path()).join(name).join(STATE), "{").unwrap();
        }
        refused("no whole checkpoint");
        fs::remove_dir_all(checkpoints_folder(run.path())).unwrap();
        refused("tells in events.jsonl of a checkpoint");

        // One that was killed while it wrote its first checkpoint has none to lose.
        let run = tempfile::tempdir().unwrap();
        let mut folder = begun(run.path());
        let path = folder.checkpoint_path(1, 0);
        folder.record(&Event::Checkpoint { epoch: 1, step: 0, path }).unwrap();
        drop(folder);
        assert!(RunFolder::resume(run.path()).unwrap().checkpoint.is_none());
    }

    #[test]
    fn who_opens_a_run_and_does_nothing_loses_nothing() {
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        let mut folder = RunFolder::resume(run.path()).unwrap().folder;
        let event = Event::Checkpoint { epoch: 9, step: 9, path: String::new() };
        folder.record(&event).unwrap();
        drop(folder);
        let before = fs::read(events_file(run.path())).unwrap();
        let mut folder = RunFolder::resume(run.path()).unwrap().folder;
        assert_eq!(fs::read(events_file(run.path())).unwrap(), before);
        folder.record(&event).unwrap();
        assert_eq!(fs::read(events_file(run.path())).unwrap(), before);
        drop(folder);

        // Cut short, as by a full disk: whole lines are kept, and it is said.
        for kept in [before.len() / 2, 10, 0] {
            fs::write(events_file(run.path()), &before[..kept]).unwrap();
            let (position, said) = resumed(run.path());
            assert!(position == (2, 5) && said.contains("events.jsonl is shorter"), "{said}");
            let mut folder = RunFolder::resume(run.path()).unwrap().folder;
            folder.record(&event).unwrap();
            let lines = before[..kept].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(read_events(run.path()).unwrap().len(), lines + 1);
        }
    }

    #[test]
    fn one_process_at_a_time_trains_and_others_read() {
        let run = tempfile::tempdir().unwrap();
        let folder = begun(run.path());
        let said = RunFolder::resume(run.path()).err().unwrap().to_string();
        assert!(said.contains(&format!("process {} on", std::process::id())), "{said}");
        read_events(run.path()).unwrap();
        RunFolder::settings(run.path()).unwrap();
        drop(folder);
        RunFolder::resume(run.path()).unwrap();
    }

    #[test]
    fn hidden_files_of_others_stay_when_half_written_ones_are_swept() {
        let run = tempfile::tempdir().unwrap();
        three(run.path());
        let checkpoints = checkpoints_folder(run.path());
        let others = [".git", ".gitignore", ".DS_Store"].map(|name| run.path().join(name));
        let ours = [
            run.path().join(".config.toml.123"),
            checkpoints.join(".last.77"),
            checkpoints.join(".last"),
            checkpoints.join(".epoch-0003"),
            checkpoints.join(".removed-epoch-0001"),
            run.path().join("prototypes/.epoch-0002.safetensors.5"),
        ];
        for path in others.iter().chain(&ours) {
            fs::create_dir(path).unwrap();
        }
        resumed(run.path());
        assert!(others.iter().all(|path| path.exists()));
        assert!(ours.iter().all(|path| !path.exists()));
    }
}
