//! Where what is fetched from object stores and web servers is kept.

use std::path::PathBuf;

use clap::Args;
use protonce_images::data::cache_objects;

/// Flags of every command, since all that take DATA take addresses.
#[derive(Args)]
pub struct CacheFlags {
    /// Folder that keeps what is fetched of DATA in object stores (s3://, gs://, az://) and on web servers,
    /// so that it is fetched once; unless said, protonce/objects in your cache folder.
    #[arg(long, global = true, value_name = "DIR", help_heading = "Object stores")]
    cache_dir: Option<PathBuf>,
    /// Gigabytes that are kept there at most. With room for all of DATA, training fetches each image once
    /// and not once an epoch.
    #[arg(
        long, global = true, value_name = "GB", default_value_t = 20, help_heading = "Object stores",
        value_parser = clap::value_parser!(u64).range(2..=1_000_000)
    )]
    cache_size: u64,
}

impl CacheFlags {
    /// Keeps objects as was asked for.
    pub fn apply(&self) {
        cache_objects(self.cache_dir.as_deref(), Some(self.cache_size * 1_000_000_000));
    }
}
