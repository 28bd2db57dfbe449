//! Images in object stores: found by their addresses, fetched once, and nothing secret is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::images::write_classes;
use crate::resume::last_checkpoint;
use crate::server::{Behaviour, Server};
use crate::{protonce, refuse, succeed, tiny_pretrain};

/// The command, which finds S3 at the server.
fn in_store(mut command: Command, server: &Server, cache: &Path) -> Command {
    command.env("AWS_ENDPOINT", &server.address);
    command.env("AWS_ACCESS_KEY_ID", "somebody");
    command.env("AWS_SECRET_ACCESS_KEY", "topsecret");
    command.arg("--cache-dir").arg(cache);
    command
}

/// An archive of the images in `folder`, each under the name of its class.
fn archive(folder: &Path) -> Vec<u8> {
    let tar = folder.with_extension("tar");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(folder).arg(".").status();
    assert!(made.unwrap().success());
    fs::read(tar).unwrap()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let below = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flat_map(below).collect()
}

#[test]
fn a_bucket_is_searched_by_patterns_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { signed: true, ..Behaviour::default() });
    for shard in 0..3 {
        let images = folder.path().join(format!("images-{shard}"));
        write_classes(&images, &["a", "b"], 2 + shard);
        server.put(&format!("/bucket/sets/shard-{shard:02}.tar"), archive(&images));
    }
    server.put("/bucket/sets/notes.txt", b"not an archive".to_vec());
    server.put("/bucket/other/deep/a.tar", archive(&folder.path().join("images-0")));
    let cache = folder.path().join("cache");
    let check =
        |address: &str| in_store(protonce(&["data", "check", address, "--json"]), &server, &cache);
    for (address, images) in [
        ("s3://bucket/sets/shard-00.tar", 4),
        ("s3://bucket/sets/shard-00.tar#a", 2),
        ("s3://bucket/sets/shard-{00..02}.tar", 18),
        ("s3://bucket/sets/*.tar", 18),
        ("s3://bucket/*/shard-0[12].tar", 14),
        ("s3://bucket/sets/", 18),
        ("s3://bucket", 22),
    ] {
        let report: Value = serde_json::from_slice(&succeed(check(address)).stdout).unwrap();
        assert_eq!(report["readable"], images, "{address}: {report}");
        assert_eq!(report["broken"], Value::Array(Vec::new()));
    }
    for (address, sentence) in [
        ("s3://bucket/sets/shard-03.tar", "shard-03.tar: there is no such object"),
        ("s3://bucket/sets/shard-{00..03}.tar", "shard-03.tar: there is no such object"),
        ("s3://bucket/none/*.tar", "no .tar, .zip or .parquet is called so"),
        ("s3://nowhere/", "there is no such bucket"),
        ("s4://bucket/a.tar", "its scheme is unknown; expected s3://BUCKET/KEY"),
    ] {
        let said = refuse(check(address), 1);
        assert!(said.contains(sentence) && said.lines().count() == 1, "{address}: {said}");
    }
    let mut anonymous = check("s3://bucket/sets/");
    anonymous.env("AWS_SKIP_SIGNATURE", "true");
    let said = refuse(anonymous, 1);
    assert!(said.contains("permission is denied (403 Forbidden, AccessDenied)"), "{said}");
}

#[test]
fn a_run_on_what_is_fetched_has_the_same_bits_and_keeps_no_signature() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_classes(&at("images"), &["a", "b", "c"], 14);
    let server = Server::start(Behaviour { signed: true, ..Behaviour::default() });
    server.put("/images.tar", archive(&at("images")));
    let (tar, cache) = (at("images.tar"), at("cache"));
    let address = format!("{}/images.tar?sig=secret", server.address);
    let settings = ["--epochs", "2", "--stats", "auto"];
    succeed(tiny_pretrain(tar.to_str().unwrap(), &at("local"), &settings));
    let remote = |more: &[&str]| {
        let more = [&settings[..], more].concat();
        let mut command = tiny_pretrain(&address, &at("remote"), &more);
        command.arg("--cache-dir").arg(&cache);
        command
    };
    let begun = succeed(remote(&["--max-steps", "7"]));
    assert!(!crate::stderr(&begun).contains("sig="), "{}", crate::stderr(&begun));
    succeed(remote(&["--resume"]));
    assert!(last_checkpoint(&at("local")) == last_checkpoint(&at("remote")), "the weights differ");
    assert!(!files(&cache).is_empty());
    for file in files(&at("remote")) {
        let contents = fs::read(&file).unwrap();
        let secret = contents.windows(6).any(|bytes| bytes == b"secret");
        assert!(!secret, "{} has the signature", file.display());
    }
    let kept = fs::read_to_string(at("remote/config.toml")).unwrap();
    assert!(kept.contains(&format!("data = \"{}/images.tar\"", server.address)), "{kept}");
}
