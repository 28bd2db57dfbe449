//! Where files belong that can be computed anew.

use std::path::PathBuf;

/// The folder `name` of this program in the user's cache folder (`XDG_CACHE_HOME`, else
/// `~/.cache`), whether or not it exists; none where there is no home.
pub fn cache_folder(name: &str) -> Option<PathBuf> {
    let set = |variable| std::env::var_os(variable).filter(|folder| !folder.is_empty());
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("protonce").join(name))
}
