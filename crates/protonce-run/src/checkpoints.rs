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
