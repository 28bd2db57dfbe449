//! Folders, archives and lists, as a user has them on disk.

use std::fs;
use std::path::{Path, PathBuf};

use protonce_images::data::{DataError, Dataset};
use tempfile::TempDir;

/// Files by name; the contents are the name, since nothing here decodes.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        write(folder.path(), name);
    }
    folder
}

fn write(folder: &Path, name: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, name).unwrap();
}

fn archive(folder: &Path, names: &[&str]) -> PathBuf {
    let path = folder.join("images.tar");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    for name in names {
        append(&mut builder, name, name.as_bytes());
    }
    builder.into_inner().unwrap();
    path
}

fn append(builder: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, bytes).unwrap();
}

fn open(path: impl AsRef<Path>) -> Dataset {
    Dataset::open(path.as_ref().to_str().unwrap()).unwrap()
}

fn open_part(path: impl AsRef<Path>, part: &str) -> Result<Dataset, DataError> {
    Dataset::open(&format!("{}#{part}", path.as_ref().display()))
}

fn names(dataset: &Dataset) -> Vec<&str> {
    (0..dataset.len()).map(|index| dataset.name(index)).collect()
}

fn contents(dataset: &Dataset, index: usize) -> String {
    let mut bytes = b"what was there before, and longer than the file".to_vec();
    dataset.read(index, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

const PETS: [&str; 5] = ["dog/2.jpg", "cat/b.PNG", "cat/B.png", "dog/10.jpeg", "cat/deep/c.webp"];
const PETS_IN_ORDER: [&str; 5] =
    ["cat/B.png", "cat/b.PNG", "cat/deep/c.webp", "dog/10.jpeg", "dog/2.jpg"];

#[test]
fn folder_archive_and_list_give_the_same_data() {
    let files = folder(&PETS);
    let outside = tempfile::tempdir().unwrap();
    let tar = archive(outside.path(), &PETS);
    let list = files.path().join("list.txt");
    let lines: Vec<String> =
        PETS.iter().map(|name| format!("{name}\t{}\r\n", &name[..3])).collect();
    fs::write(&list, lines.concat()).unwrap();

    let fingerprint = open(files.path()).fingerprint();
    for dataset in [open(files.path()), open(tar), open(list)] {
        assert_eq!(names(&dataset), PETS_IN_ORDER);
        assert_eq!(dataset.classes(), ["cat", "dog"]);
        assert_eq!(dataset.labels(), Some(vec![0, 0, 0, 1, 1]));
        assert_eq!(dataset.fingerprint(), fingerprint);
        for (index, name) in PETS_IN_ORDER.iter().enumerate() {
            assert_eq!(&contents(&dataset, index), name);
        }
    }
}

#[test]
fn only_visible_images_count() {
    let files = folder(&["a.jpg", ".hidden.jpg", ".git/b.jpg", "notes.txt", "c.TIFF", "jpg"]);
    assert_eq!(names(&open(files.path())), ["a.jpg", "c.TIFF"]);
    let outside = tempfile::tempdir().unwrap();
    let tar = archive(outside.path(), &["x/a.jpg", "x/._a.jpg", ".git/b.jpg", "notes.txt"]);
    assert_eq!(names(&open(tar)), ["x/a.jpg"]);
}

#[test]
fn images_directly_in_the_root_have_no_label() {
    let dataset = open(folder(&["a.jpg", "b.jpg"]).path());
    assert!(dataset.classes().is_empty());
    assert_eq!((dataset.label(0), dataset.labels()), (None, None));

    let dataset = open(folder(&["a.jpg", "cat/b.jpg"]).path());
    assert_eq!((dataset.label(0), dataset.label(1), dataset.labels()), (None, Some(0), None));
}

#[test]
fn a_subfolder_becomes_the_root() {
    let all = ["train/cat/1.jpg", "train/dog/2.jpg", "training/3.jpg", "test/cat/4.jpg"];
    let files = folder(&all);
    let outside = tempfile::tempdir().unwrap();
    let tar = archive(outside.path(), &all);
    let list = files.path().join("list.txt");
    fs::write(&list, "./train/dog/2.jpg\tdog\ntrain/cat/1.jpg\tcat\ntest/cat/4.jpg\tcat\n")
        .unwrap();
    for path in [files.path(), &tar, &list] {
        let dataset = open_part(path, "train").unwrap();
        assert_eq!(names(&dataset), ["cat/1.jpg", "dog/2.jpg"]);
        assert_eq!(dataset.classes(), ["cat", "dog"]);
        assert_eq!(contents(&dataset, 1), "train/dog/2.jpg");
        assert_eq!(names(&open_part(path, "/train/cat/").unwrap()), ["1.jpg"]);

        for missing in ["valid", "trai", "../train"] {
            let error = open_part(path, missing).unwrap_err();
            assert!(matches!(error, DataError::UnknownSubfolder { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("\"train\"") && message.contains(missing), "{message}");
        }
    }
}

#[test]
fn a_path_may_contain_a_hash() {
    let files = folder(&["a#b/cat/1.jpg", "a#b/#1.jpg"]);
    let hashed = files.path().join("a#b");
    assert_eq!(names(&open(&hashed)), ["#1.jpg", "cat/1.jpg"]);
    assert_eq!(names(&open_part(&hashed, "cat").unwrap()), ["1.jpg"]);
    assert_eq!(names(&open_part(&hashed, "").unwrap()).len(), 2);
    assert_eq!(names(&open_part(files.path(), "a#b").unwrap()).len(), 2);
}

#[cfg(unix)]
#[test]
fn linked_folders_are_entered_once_and_cycles_end() {
    use std::os::unix::fs::symlink;
    let files = folder(&["real/1.jpg"]);
    let elsewhere = folder(&["2.jpg", "sub/3.jpg"]);
    symlink(elsewhere.path(), files.path().join("linked")).unwrap();
    symlink(files.path(), files.path().join("real/up")).unwrap();
    symlink(files.path().join("real"), files.path().join("alias")).unwrap();
    symlink(elsewhere.path(), elsewhere.path().join("sub/again")).unwrap();
    symlink(files.path().join("real/1.jpg"), files.path().join("real/file.jpg")).unwrap();
    let dataset = open(files.path());
    assert_eq!(
        names(&dataset),
        ["linked/2.jpg", "linked/sub/3.jpg", "real/1.jpg", "real/file.jpg"]
    );
    assert_eq!(contents(&dataset, 3), "real/1.jpg");
}

#[test]
fn long_names_in_archives_are_kept() {
    let long = format!("{}/{}.jpg", "folder".repeat(20), "name".repeat(50));
    let outside = tempfile::tempdir().unwrap();
    let path = archive(outside.path(), &[&long, "short/a.jpg"]);
    let dataset = open(path);
    assert_eq!(names(&dataset), [long.as_str(), "short/a.jpg"]);
    assert_eq!(contents(&dataset, 0), long);
}

#[test]
fn pax_names_in_archives_are_kept() {
    let long = format!("{}/é.jpg", "folder".repeat(30));
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("pax.tar");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    builder.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    append(&mut builder, "short.jpg", b"bytes");
    builder.into_inner().unwrap();
    let dataset = open(path);
    assert_eq!(names(&dataset), [long.as_str()]);
    assert_eq!(contents(&dataset, 0), "bytes");
}

#[test]
fn archives_with_links_and_repeated_names_read_as_unpacked() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("updated.tar");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    append(&mut builder, "./cat/a.jpg", b"old");
    append(&mut builder, "cat/a.jpg", b"new");
    for (kind, name, target) in [
        (tar::EntryType::Link, "cat/hard.jpg", "cat/a.jpg"),
        (tar::EntryType::Symlink, "dog/soft.jpg", "../cat/a.jpg"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    builder.into_inner().unwrap();
    let dataset = open(path);
    assert_eq!(names(&dataset), ["cat/a.jpg", "cat/hard.jpg", "dog/soft.jpg"]);
    for index in 0..3 {
        assert_eq!(contents(&dataset, index), "new");
    }
}

#[test]
fn an_archive_that_is_cut_short_names_the_first_image_missing() {
    let outside = tempfile::tempdir().unwrap();
    let path = archive(outside.path(), &["a.jpg", "b.jpg"]);
    let bytes = fs::read(&path).unwrap();
    // Header, contents, header, half of the contents.
    fs::write(&path, &bytes[..512 * 3 + 2]).unwrap();
    let error = Dataset::open(path.to_str().unwrap()).unwrap_err();
    assert!(
        matches!(&error, DataError::TruncatedArchive { name, .. } if name == "b.jpg"),
        "{error}"
    );
    // In the middle of a header.
    fs::write(&path, &bytes[..512 * 2 + 100]).unwrap();
    let error = Dataset::open(path.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, DataError::BrokenArchive { .. }), "{error}");
}

#[test]
fn what_is_no_data_set_is_named_with_what_was_expected() {
    let files = folder(&["empty/notes.txt", "empty/more.md", "photo.jpg", "blank.txt"]);
    let at = |name: &str| files.path().join(name);
    fs::create_dir(at("bare")).unwrap();
    fs::write(at("blank.txt"), "\n \n").unwrap();
    fs::write(at("data.tar.gz"), b"\x1f\x8b\x08rest").unwrap();
    fs::write(at("noise.tar"), [b"noise".repeat(200), vec![7; 24]].concat()).unwrap();
    fs::write(at("weights.bin"), [0, 1, 2, 3]).unwrap();
    for (name, words) in [
        ("nowhere", &["does not exist", "check the path"][..]),
        ("nowhere#train", &["nowhere does not exist"]),
        ("empty", &["no images in", "jpg", "2 other files such as \"more.md\""]),
        ("bare", &["no images in", "found nothing"]),
        ("blank.txt", &["no images in", "not one line"]),
        ("photo.jpg", &["a single image", "pass the folder"]),
        ("data.tar.gz", &["a gzip file", "unpack it first"]),
        ("noise.tar", &["not a tar archive"]),
        ("weights.bin", &["a binary file"]),
    ] {
        let message = Dataset::open(at(name).to_str().unwrap()).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{name}: {message}");
        }
        assert!(!message.contains('\n'), "{message}");
    }
    assert!(matches!(Dataset::open(""), Err(DataError::Missing { .. })));
    assert!(matches!(Dataset::open("#"), Err(DataError::Missing { .. })));
}

#[test]
fn a_file_that_disappears_is_an_error_that_names_it() {
    let files = folder(&["a.jpg", "b.jpg"]);
    let dataset = open(files.path());
    fs::remove_file(files.path().join("a.jpg")).unwrap();
    let message = dataset.read(0, &mut Vec::new()).unwrap_err().to_string();
    assert!(message.contains("a.jpg"), "{message}");
    assert_eq!(contents(&dataset, 1), "b.jpg");
}

#[test]
fn lists_take_absolute_paths_and_lines_without_labels() {
    let files = folder(&["x/1.jpg", "x/2.jpg"]);
    let list = files.path().join("x/list.txt");
    let absolute = files.path().join("x/1.jpg");
    fs::write(&list, format!("\u{feff}2.jpg\n{}\tone\n", absolute.display())).unwrap();
    let dataset = open(list);
    assert_eq!(names(&dataset), [absolute.to_str().unwrap(), "2.jpg"]);
    assert_eq!((dataset.label(0), dataset.label(1)), (Some(0), None));
    assert_eq!(contents(&dataset, 0), "x/1.jpg");
    assert_eq!(contents(&dataset, 1), "x/2.jpg");
}

#[test]
fn per_class_takes_the_first_of_each() {
    let dataset = open(folder(&PETS).path());
    assert_eq!(names(&dataset.per_class(1)), ["cat/B.png", "dog/10.jpeg"]);
    assert_eq!(names(&dataset.per_class(9)), PETS_IN_ORDER);
    assert!(dataset.per_class(0).is_empty());
    assert_eq!(dataset.per_class(1).classes(), ["cat", "dog"]);
    let unlabelled = open(folder(&["a.jpg", "b.jpg", "c.jpg"]).path());
    assert_eq!(names(&unlabelled.per_class(2)), ["a.jpg", "b.jpg"]);
}

#[test]
fn selections_of_an_archive_read_the_right_images() {
    let outside = tempfile::tempdir().unwrap();
    let dataset = open(archive(outside.path(), &PETS)).select(&[4, 0, 4]);
    assert_eq!(names(&dataset), ["dog/2.jpg", "cat/B.png", "dog/2.jpg"]);
    assert_eq!(contents(&dataset, 2), "dog/2.jpg");
    assert_eq!(contents(&dataset, 1), "cat/B.png");
}

#[test]
fn the_fingerprint_sees_names_labels_and_order() {
    let files = folder(&["1.jpg", "2.jpg"]);
    let list = files.path().join("list.txt");
    let fingerprint = |text: &str| {
        fs::write(&list, text).unwrap();
        open(&list).fingerprint()
    };
    let base = fingerprint("1.jpg\ta\n2.jpg\tb\n");
    assert_eq!(base.len(), 16);
    assert_eq!(base, fingerprint("2.jpg\tb\n1.jpg\ta\n"));
    for other in ["1.jpg\ta\n2.jpg\ta\n", "1.jpg\n2.jpg\n", "1.jpg\ta\n3.jpg\tb\n", "1.jpg\ta\n"] {
        assert_ne!(base, fingerprint(other), "{other}");
    }
}

#[test]
fn many_threads_read_one_archive() {
    let outside = tempfile::tempdir().unwrap();
    let all: Vec<String> = (0..300).map(|number| format!("c{}/{number}.jpg", number % 7)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let dataset = open(archive(outside.path(), &all));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for index in 0..dataset.len() {
                    assert_eq!(contents(&dataset, index), dataset.name(index));
                }
            });
        }
    });
}
