//! Where each file of a run lies in its folder, and what its name says.
//!
//! Checkpoints and prototypes are named by epoch and step. They are put in order by these numbers and
//! not as text, in which epoch 10000 comes before epoch 9999.

use std::fs;
use std::path::{Path, PathBuf};

/// The settings, `config.toml`. A folder that has this file is a run.
pub fn config_file(run: &Path) -> PathBuf {
    run.join("config.toml")
}

/// The log, `events.jsonl`.
pub fn events_file(run: &Path) -> PathBuf {
    run.join("events.jsonl")
}

/// How convolutions are computed, `convolutions.json`.
pub fn convolutions_file(run: &Path) -> PathBuf {
    run.join("convolutions.json")
}

/// The folder of the event files for TensorBoard.
pub fn tensorboard_folder(run: &Path) -> PathBuf {
    run.join("tensorboard")
}

/// The folder of all checkpoints.
pub fn checkpoints_folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The file that names the newest checkpoint, `checkpoints/last`.
pub fn last_file(run: &Path) -> PathBuf {
    checkpoints_folder(run).join("last")
}

/// The file that is locked by the process that trains, `lock`.
pub fn lock_file(run: &Path) -> PathBuf {
    run.join("lock")
}

/// The folder of the prototypes and embeddings of the E-steps.
pub fn prototypes_folder(run: &Path) -> PathBuf {
    run.join("prototypes")
}

/// The file of the E-step that began `epoch`, `prototypes/epoch-NNNN.safetensors`.
pub fn prototypes_file(run: &Path, epoch: usize) -> PathBuf {
    prototypes_folder(run).join(format!("{}.safetensors", position_name(epoch, 0)))
}

/// The embeddings of the newest E-step, `prototypes/embeddings.safetensors`.
pub fn embeddings_file(run: &Path) -> PathBuf {
    prototypes_folder(run).join("embeddings.safetensors")
}

/// The files of the E-steps of the run in `run`, `prototypes/epoch-NNNN.safetensors`, each with its
/// epoch, oldest first; none when there are none yet.
pub fn prototype_files(run: &Path) -> Vec<(usize, PathBuf)> {
    let folder = prototypes_folder(run);
    let names = numbered_names(&folder).into_iter();
    let names = names.filter(|(_, name)| name.ends_with(".safetensors"));
    names.map(|((epoch, _), name)| (epoch, folder.join(name))).collect()
}

/// The epoch of an E-step's file: 20 of `…/epoch-0020.safetensors`. None of any other name.
pub fn epoch_of(file: &Path) -> Option<usize> {
    let name = file.file_name()?.to_str()?;
    match position_in_name(name.strip_suffix(".safetensors")?)? {
        (epoch, 0) => Some(epoch),
        _ => None,
    }
}

/// The name of what was written after `epoch` epochs and `step` steps of the next.
pub(crate) fn position_name(epoch: usize, step: usize) -> String {
    match step {
        0 => format!("epoch-{epoch:04}"),
        step => format!("epoch-{epoch:04}-step-{step:06}"),
    }
}

/// The epoch and step that a name tells, as `epoch-0020`, `epoch-0020-step-000300` or
/// `epoch-0020.safetensors`.
pub(crate) fn position_in_name(name: &str) -> Option<(usize, usize)> {
    let name = name.strip_suffix(".safetensors").unwrap_or(name);
    let (epoch, step) = name.strip_prefix("epoch-")?.split_once("-step-").unzip();
    let epoch = epoch.or_else(|| name.strip_prefix("epoch-"))?;
    Some((epoch.parse().ok()?, step.map_or(Ok(0), str::parse).ok()?))
}

/// Names in a folder that tell an epoch, oldest first.
pub(crate) fn numbered_names(folder: &Path) -> Vec<((usize, usize), String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((position_in_name(&name)?, name)))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_number() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("prototypes");
        fs::create_dir(&folder).unwrap();
        for epoch in [10_000, 9_999, 2, 100_000] {
            fs::write(folder.join(format!("{}.safetensors", position_name(epoch, 0))), "").unwrap();
        }
        for other in ["embeddings.safetensors", ".epoch-0003.safetensors", "epoch-x.safetensors"] {
            fs::write(folder.join(other), "").unwrap();
        }
        let epochs: Vec<usize> =
            prototype_files(run.path()).into_iter().map(|(epoch, _)| epoch).collect();
        assert_eq!(epochs, [2, 9_999, 10_000, 100_000]);
        assert_eq!(position_in_name(&position_name(10_000, 7)), Some((10_000, 7)));
        assert_eq!(position_in_name("last"), None);
        assert_eq!(epoch_of(&prototypes_file(run.path(), 20)), Some(20));
        assert_eq!(epoch_of(&embeddings_file(run.path())), None);
    }
}
