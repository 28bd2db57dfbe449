//! Images on web servers: the same as on a disk, whatever happens on the way.

pub mod server;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use protonce_images::data::{DataError, Dataset, StoreProblem, cache_objects};
use protonce_images::views::{
    Crops, Encoding, Loader, LoaderError, LoaderOptions, PackOptions, ViewConfig, pack,
};

use self::server::{Behaviour, Fault, Server};

/// The folder in which the tests of this process keep what they fetch.
fn cache() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        cache_objects(Some(folder.path()), Some(1 << 30));
        folder
    });
    folder.path()
}

fn serve(behaviour: Behaviour) -> Server {
    cache();
    Server::start(behaviour)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/containers").join(name)
}

/// Everything that a data set hands out.
fn contents(dataset: &Dataset) -> Vec<(String, Option<usize>, Vec<u8>)> {
    let one = |index| {
        let mut bytes = Vec::new();
        dataset.read(index, &mut bytes).unwrap();
        (dataset.name(index).to_owned(), dataset.label(index), bytes)
    };
    (0..dataset.len()).map(one).collect()
}

/// The bytes of image `number`: each has others, and they look random.
fn noise(number: u32, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An archive of images of 200 KiB each, of these numbers.
fn large_tar(images: Range<u32>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in images {
        let image = noise(number, 200 << 10);
        let mut header = tar::Header::new_ustar();
        header.set_size(image.len() as u64);
        header.set_mode(0o644);
        let name = format!("class-{}/{number:04}.png", number % 3);
        builder.append_data(&mut header, name, &image[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn assert_large(dataset: &Dataset, images: Range<u32>) {
    assert_eq!(dataset.len(), images.len());
    let mut bytes = Vec::new();
    for index in 0..dataset.len() {
        dataset.read(index, &mut bytes).unwrap();
        let number: u32 = dataset.name(index)[8..12].parse().unwrap();
        assert!(bytes == noise(number, 200 << 10), "{}", dataset.name(index));
    }
}

fn problem(result: Result<Dataset, DataError>) -> StoreProblem {
    match result {
        Err(DataError::Store(error)) => error.problem,
        other => panic!("expected an error of the store, found {other:?}"),
    }
}

#[test]
fn every_kind_of_file_is_read_on_a_server_as_on_a_disk() {
    let server = serve(Behaviour::default());
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("cls.pack");
    let images = Dataset::open(fixture("cls-000.tar").to_str().unwrap()).unwrap();
    let options = PackOptions { max_side: None, encoding: Encoding::Jpeg, threads: 1 };
    pack(&images, &packed, options, |_| true).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(fixture("")).unwrap().flatten().map(|f| f.path()).collect();
    files.push(packed);
    let mut kinds = std::collections::BTreeSet::new();
    for file in files {
        let Ok(local) = Dataset::open(file.to_str().unwrap()) else { continue };
        if file.is_dir() {
            continue;
        }
        kinds.insert(file.extension().unwrap().to_owned());
        let name = format!("/some folder/{}", file.file_name().unwrap().to_str().unwrap());
        let address = server.put(&name, fs::read(&file).unwrap());
        let remote = Dataset::open(&address).unwrap();
        assert!(remote.is_remote() && !local.is_remote());
        assert_eq!(remote.classes(), local.classes(), "{address}");
        assert!(contents(&remote) == contents(&local), "{address}");
        assert_eq!(remote.fingerprint(), local.fingerprint(), "{address}");
    }
    assert!(kinds.len() >= 4, "{kinds:?}");
}

#[test]
fn several_files_on_a_server_are_one_set() {
    let server = serve(Behaviour { signed: true, ..Behaviour::default() });
    for number in 0..3 {
        let name = format!("cls-{number:03}.tar");
        server.put(&format!("/sets/{name}"), fs::read(fixture(&name)).unwrap());
    }
    let local = Dataset::open(fixture("cls-{000..002}.tar").to_str().unwrap()).unwrap();
    for pattern in ["cls-{000..002}.tar", "{cls-000,cls-001,cls-002}.tar", "cls-00{0..2}.tar"] {
        let address = format!("{}/sets/{pattern}?sig=secret", server.address);
        let remote = Dataset::open(&address).unwrap();
        assert!(contents(&remote) == contents(&local));
        assert_eq!(remote.fingerprint(), local.fingerprint());
        assert_eq!(remote.argument(), format!("{}/sets/{pattern}", server.address));
    }
    let missing = format!("{}/sets/cls-{{000..003}}.tar?sig=secret", server.address);
    let error = Dataset::open(&missing).unwrap_err().to_string();
    assert!(error.contains("/sets/cls-003.tar: there is no such object"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_part_of_an_archive_on_a_server_is_a_data_set() {
    let server = serve(Behaviour::default());
    let address = server.put("/parts.tar", large_tar(0..6));
    for class in 0..3 {
        let part = Dataset::open(&format!("{address}#class-{class}")).unwrap();
        let names: Vec<&str> = (0..part.len()).map(|index| part.name(index)).collect();
        assert_eq!(names, [format!("{class:04}.png"), format!("{:04}.png", class + 3)]);
    }
    let error = Dataset::open(&format!("{address}#dogs")).unwrap_err().to_string();
    assert!(error.contains("has no folder \"dogs\""), "{error}");
}

#[test]
fn faults_on_the_way_change_nothing() {
    for (every, fault) in [(3, Fault::Busy), (2, Fault::Cut), (3, Fault::Dropped)] {
        let server = serve(Behaviour { fault: Some((every, fault)), ..Behaviour::default() });
        let address = server.put("/faulty.tar", large_tar(0..50));
        assert_large(&Dataset::open(&address).unwrap(), 0..50);
        assert!(server.requests() > every, "no fault has happened");
    }
}

#[test]
fn what_was_fetched_is_read_from_the_cache_unless_it_is_damaged() {
    let server = serve(Behaviour::default());
    let archive = large_tar(1000..1045);
    let address = server.put("/kept.tar", archive.clone());
    assert_large(&Dataset::open(&address).unwrap(), 1000..1045);
    let before = server.requests();
    assert_large(&Dataset::open(&address).unwrap(), 1000..1045);
    assert_eq!(server.requests() - before, 1, "more than what tells whether it has changed");

    // The second block, by what it begins with.
    let begin = &archive[4 << 20..(4 << 20) + 64];
    let blocks = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let all = blocks(cache()).into_iter().flat_map(|object| blocks(&object));
    let mut all = all.flat_map(|version| blocks(&version));
    let is_it = |block: &PathBuf| {
        let contents = fs::read(block).unwrap_or_default();
        contents.starts_with(begin) && contents.len() > 4 << 20
    };
    let block = all.find(is_it).unwrap();
    let mut contents = fs::read(&block).unwrap();
    contents[1 << 20] ^= 1;
    fs::write(&block, contents).unwrap();
    let before = server.requests();
    assert_large(&Dataset::open(&address).unwrap(), 1000..1045);
    assert_eq!(server.requests() - before, 2, "the block, and what tells whether all has changed");
}

#[test]
fn an_object_that_changes_is_noticed_and_never_mixed_with_what_it_was() {
    let server = serve(Behaviour::default());
    let folder = tempfile::tempdir().unwrap();
    // A packed file is opened by its end, so that the rest is fetched later.
    let packed = |first: u32| {
        let (tar, out) = (folder.path().join("a.tar"), folder.path().join(format!("{first}.pack")));
        fs::write(&tar, large_tar(first..first + 45)).unwrap();
        let images = Dataset::open(tar.to_str().unwrap()).unwrap();
        let options = PackOptions { max_side: None, encoding: Encoding::Jpeg, threads: 1 };
        pack(&images, &out, options, |_| true).unwrap();
        fs::read(out).unwrap()
    };
    let (before, after) = (packed(0), packed(2));
    let address = server.put("/changing.pack", before);
    let opened = Arc::new(Dataset::open(&address).unwrap());
    assert!(opened.remarks().is_empty());
    server.put("/changing.pack", after);
    let error = opened.read(25, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("/changing.pack: it has changed since it was opened"), "{error}");

    // Nor does a run leave out the images that it cannot have.
    let options = LoaderOptions {
        views: ViewConfig::v2(16),
        batches: vec![vec![25, 26]],
        crops: Crops::Centre,
        threads: 1,
    };
    let first = Loader::new(opened, options).unwrap().next();
    assert!(matches!(first, Some(Err(LoaderError::Store(_)))), "{first:?}");

    let reopened = Dataset::open(&address).unwrap();
    assert_large(&reopened, 2..47);
    let remark = format!("{address} has changed since it was last read, and is fetched again");
    assert_eq!(reopened.remarks(), [remark]);
    assert!(Dataset::open(&address).unwrap().remarks().is_empty());
}

#[test]
fn what_cannot_be_had_is_one_sentence() {
    let server = serve(Behaviour::default());
    let tar = server.put("/a.tar", large_tar(0..1));
    let at = |path: &str| Dataset::open(&format!("{}{path}", server.address));
    assert_eq!(problem(at("/b.tar")), StoreProblem::Missing);
    assert_eq!(problem(at("/*.tar")), StoreProblem::NoListing);
    server.behave(Behaviour { fault: Some((1, Fault::Denied)), ..Behaviour::default() });
    assert_eq!(problem(at("/a.tar")), StoreProblem::Denied("403 Forbidden".to_owned()));
    server.behave(Behaviour { fault: Some((1, Fault::Whole)), ..Behaviour::default() });
    assert_eq!(problem(at("/a.tar")), StoreProblem::NoRanges);
    server.behave(Behaviour { fault: Some((1, Fault::Busy)), ..Behaviour::default() });
    let busy = "503 Service Unavailable, SlowDown".to_owned();
    assert_eq!(problem(at("/a.tar")), StoreProblem::Refused(busy));
    drop(server);
    match problem(Dataset::open(&tar)) {
        StoreProblem::NoAnswer(reason) => assert!(reason.contains("refused"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_fails_while_a_file_is_listed_is_not_taken_for_a_damaged_file() {
    let files = fs::read_dir(fixture("")).unwrap().flatten().map(|file| file.path());
    let mut kinds = std::collections::BTreeSet::new();
    for file in files.filter(|file| Dataset::open(file.to_str().unwrap()).is_ok()) {
        // The first request asks what there is.
        let fault = Some((2, Fault::Denied));
        let server = serve(Behaviour { fault, ..Behaviour::default() });
        let Ok(contents) = fs::read(&file) else { continue };
        let name = file.file_name().unwrap().to_str().unwrap();
        let found = problem(Dataset::open(&server.put(&format!("/{name}"), contents)));
        assert_eq!(found, StoreProblem::Denied("403 Forbidden".to_owned()), "{name}");
        kinds.insert(file.extension().unwrap().to_owned());
    }
    assert!(kinds.len() >= 3, "{kinds:?}");
}

#[test]
fn what_is_no_data_set_is_named_as_on_a_disk() {
    let server = serve(Behaviour::default());
    for (name, contents, part) in [
        ("empty.tar", Vec::new(), "no images in http://"),
        ("list.txt", b"a.png\nb.png\n".to_vec(), "neither an archive nor a table"),
        ("a.png", b"\x89PNG\r\n\x1a\n".to_vec(), "is a single image"),
        ("a.tar.gz", b"\x1f\x8b\x08\0\0".to_vec(), "upload that"),
        ("cut.tar", large_tar(0..30)[..3 << 20].to_vec(), "is cut short"),
    ] {
        let error = Dataset::open(&server.put(&format!("/{name}"), contents)).unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[test]
fn training_reads_the_same_images_and_fetches_them_ahead() {
    let behaviour = Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() };
    let server = serve(behaviour);
    let folder = tempfile::tempdir().unwrap();
    // Pixels that differ, in a packed file of several blocks.
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..90 {
        let pixels = noise(number, 256 * 256 * 3);
        let image = image::RgbImage::from_raw(256, 256, pixels).unwrap();
        image.save(images.join(format!("{number:02}.bmp"))).unwrap();
    }
    let local = Dataset::open(images.to_str().unwrap()).unwrap();
    let out = folder.path().join("images.pack");
    let options = PackOptions { max_side: None, encoding: Encoding::Jpeg, threads: 2 };
    pack(&local, &out, options, |_| true).unwrap();
    let address = server.put("/images.pack", fs::read(&out).unwrap());
    let remote = Dataset::open(&address).unwrap();
    let order: Vec<usize> = (0..90).map(|position| position * 37 % 90).collect();
    let batches = |dataset: Dataset, threads| {
        let views = ViewConfig::v2(16);
        let crops = Crops::Random { seed: 1, epoch: 2, views: views.pretraining_views() };
        let batches = order.chunks(15).map(<[usize]>::to_vec).collect();
        let options = LoaderOptions { views, batches, crops, threads };
        Loader::new(Arc::new(dataset), options).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let fetched = batches(remote, 1);
    assert!(fetched == batches(local, 2));
    assert!(fetched.iter().all(|batch| batch.unreadable.is_empty()));
    // One thread makes views, so that it alone would have one request under way.
    assert!(server.most_under_way() >= 3, "{} at once", server.most_under_way());
}
