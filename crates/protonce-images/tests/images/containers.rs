//! Shards, zip files and tables as the programs write them that people make them with
//! (`fixtures/containers.py`).

use std::fs;
use std::path::{Path, PathBuf};

use protonce_images::data::{DataError, Dataset};
use protonce_images::views::{Encoding, PackOptions, decode, pack};

fn at(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/containers").join(name)
}

fn open(name: &str) -> Dataset {
    Dataset::open(at(name).to_str().unwrap()).unwrap()
}

/// The number of the picture that an image is, and the text of its label.
fn contents(dataset: &Dataset) -> Vec<(String, u8, String)> {
    let mut bytes = vec![7; 1000];
    let one = |index| {
        dataset.read(index, &mut bytes).unwrap();
        let image = decode(&bytes).unwrap();
        assert_eq!((image.width, image.height), (6, 4));
        let number = image.pixels[0] / 10;
        assert_eq!(image.pixels[..3], [10 * number, 200 - 10 * number, 7 * number]);
        let label = dataset.label(index).map_or("", |label| &dataset.classes()[label]);
        (dataset.name(index).to_owned(), number, label.to_owned())
    };
    (0..dataset.len()).map(one).collect()
}

fn numbers(dataset: &Dataset) -> Vec<u8> {
    contents(dataset).into_iter().map(|(_, number, _)| number).collect()
}

fn labels(dataset: &Dataset) -> Vec<String> {
    contents(dataset).into_iter().map(|(_, _, label)| label).collect()
}

#[test]
fn several_tars_are_one_set() {
    let pattern = |pattern: &str| open(pattern);
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let name = format!("cls-{number:03}.tar");
        fs::copy(at(&name), folder.path().join(name)).unwrap();
    }
    let sets = [
        pattern("cls-{000..002}.tar"),
        pattern("cls-*.tar"),
        pattern("cls-00[012].tar"),
        pattern("{cls-000,cls-001,cls-002}.tar"),
        Dataset::open(folder.path().to_str().unwrap()).unwrap(),
    ];
    for set in &sets {
        assert_eq!(numbers(set), (0..10).collect::<Vec<_>>());
        assert_eq!(set.name(9), "cls-002.tar/000009.png");
        assert_eq!(set.classes(), ["0", "1", "2"]);
        assert_eq!(set.labels(), Some((0..10).map(|number| number % 3).collect()));
        assert_eq!(set.fingerprint(), sets[0].fingerprint());
        assert!(set.remarks().is_empty(), "{:?}", set.remarks());
    }
    // What lies beside the shards is named.
    for (name, remark) in [("README.md", "README.md"), ("other.zip", "other.zip")] {
        fs::write(folder.path().join(name), "").unwrap();
        let set = Dataset::open(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(set.len(), 10);
        assert!(set.remarks()[0].contains(remark), "{:?}", set.remarks());
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    // A shard that is missing among those that are spelled out is named.
    let error = Dataset::open(at("cls-{000..003}.tar").to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("cls-003.tar does not exist"), "{error}");
    let error = Dataset::open(at("none-*.tar").to_str().unwrap()).unwrap_err();
    assert!(matches!(error, DataError::Missing { .. }), "{error}");
    let error = Dataset::open(at("../j*.py").to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no archive or table"), "{error}");
}

#[test]
fn a_subfolder_of_several_tars_is_that_of_each() {
    let folder = tempfile::tempdir().unwrap();
    for shard in ["a", "b"] {
        let mut tar = tar::Builder::new(
            fs::File::create(folder.path().join(format!("{shard}.tar"))).unwrap(),
        );
        for name in ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            tar.append_data(&mut header, name, &[][..]).unwrap();
        }
        tar.into_inner().unwrap();
    }
    let pattern = folder.path().join("*.tar#train");
    let set = Dataset::open(pattern.to_str().unwrap()).unwrap();
    let names: Vec<&str> = (0..set.len()).map(|index| set.name(index)).collect();
    assert_eq!(names, ["a.tar/cat/1.png", "a.tar/dog/2.png", "b.tar/cat/1.png", "b.tar/dog/2.png"]);
    assert_eq!(
        (set.classes(), set.labels()),
        (&["cat", "dog"].map(str::to_owned)[..], Some(vec![0, 1, 0, 1]))
    );
    let pattern = folder.path().join("{a,b}.tar#valid");
    let error = Dataset::open(pattern.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("has no folder \"valid\"") && error.contains("\"train\""), "{error}");
}

#[test]
fn labels_of_webdataset_are_read() {
    let one = open("cls-001.tar");
    assert_eq!(labels(&one), ["1", "2", "0", "1"]);
    assert_eq!(one.name(0), "000004.png");
    // JSON with a label, and without: then the folder is it.
    assert_eq!(labels(&open("json.tar")), ["cat", "dog", "emu", "cat", "part"]);
    // Two images a sample; the name of the class says more than its number.
    let both = open("both.tar");
    assert_eq!(numbers(&both), [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]);
    let expected = ["cat", "cat", "dog", "dog", "emu", "emu", "cat", "cat", "dog", "dog"];
    assert_eq!(labels(&both), expected);
}

#[test]
fn sparse_tars_of_all_kinds_are_named_as_such() {
    for kind in ["gnu", "pax00", "pax01", "pax10"] {
        let name = at(&format!("sparse-{kind}.tar"));
        let error = Dataset::open(name.to_str().unwrap()).unwrap_err();
        assert!(
            matches!(&error, DataError::SparseArchive { name, .. } if name == "hole.png"),
            "{kind}: {error}"
        );
        assert!(error.to_string().contains("without --sparse"), "{error}");
    }
}

#[test]
fn zip_files_are_read_in_place() {
    for (name, first) in [
        ("stored.zip", "cat/0 ä.png"),
        ("deflated.zip", "cat/0 ä.png"),
        ("finder.zip", "cat/0.png"),
    ] {
        let dataset = Dataset::open(&format!("{}#pets", at(name).display())).unwrap();
        assert_eq!(dataset.classes(), ["cat", "dog", "emu"], "{name}");
        let contents = contents(&dataset);
        assert_eq!(contents[0], (first.to_owned(), 0, "cat".to_owned()), "{name}");
        for (image, number, label) in &contents {
            let (folder, file) = image.split_once('/').unwrap();
            assert!(file.starts_with(&number.to_string()) && folder == label, "{image}");
        }
        let notes = dataset.remarks().iter().any(|remark| remark.contains("notes.txt"));
        assert_eq!(notes, name != "finder.zip");
    }
    for (name, words) in [("encrypted.zip", "encrypted"), ("bzip2.zip", "compressed otherwise")] {
        let error = Dataset::open(at(name).to_str().unwrap()).unwrap_err();
        assert!(matches!(error, DataError::UnsupportedZip { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn damaged_zip_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.zip");
    for name in ["stored.zip", "deflated.zip", "finder.zip"] {
        let whole = fs::read(at(name)).unwrap();
        fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let error = Dataset::open(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, DataError::BrokenZip { .. }), "{error}");
        // A byte of the first image.
        let begin = whole.windows(4).position(|four| four == b".png").unwrap() + 20;
        let mut damaged = whole.clone();
        damaged[begin] ^= 0x55;
        fs::write(&path, damaged).unwrap();
        let dataset = Dataset::open(path.to_str().unwrap()).unwrap();
        let failed = (0..dataset.len())
            .filter_map(|index| dataset.read(index, &mut Vec::new()).err())
            .collect::<Vec<_>>();
        assert!(matches!(&failed[..], [DataError::CorruptImage { .. }]), "{name}: {failed:?}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn tables_of_datasets_have_their_images_and_class_names() {
    let table = open("datasets.parquet");
    let expected: Vec<(String, u8, String)> = (0..12)
        .map(|n| {
            let class = if n < 10 { ["emu", "dog", "cat"][n % 3] } else { "" };
            (format!("{n:02}-photo {n}.png"), n as u8, class.to_owned())
        })
        .collect();
    assert_eq!(contents(&table), expected);
    assert_eq!(Dataset::open_labelled(table.argument()).unwrap().len(), 10);

    for name in ["parts/train-*.parquet", "parts/train-0000{0..1}-of-00002.parquet", "parts"] {
        let parts = open(name);
        assert_eq!(numbers(&parts), (0..12).collect::<Vec<_>>());
        assert_eq!(parts.name(7), "train-00001-of-00002.parquet/1");
        assert_eq!(labels(&parts)[..4], ["cat", "dog", "emu", "cat"]);
    }
    let error = Dataset::open(&format!("{}#train", table.argument())).unwrap_err();
    assert!(matches!(error, DataError::UnknownSubfolder { .. }), "{error}");
}

#[cfg(feature = "parquet")]
#[test]
fn tables_with_plain_columns_are_read_page_by_page() {
    let table = open("pandas.parquet");
    assert_eq!(numbers(&table), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(labels(&table), ["", "dog", "emu", "cat", "dog", "emu", "cat"]);
    for name in ["pages.parquet", "dictionary.parquet", "version2.parquet"] {
        let table = open(name);
        assert_eq!(numbers(&table), (0..60).map(|n| n % 20).collect::<Vec<_>>(), "{name}");
        assert_eq!(labels(&table), (0..60).map(|n| (n % 4).to_string()).collect::<Vec<_>>());
        // From the last to the first, and by many threads.
        let backwards: Vec<usize> = (0..60).rev().collect();
        let expected: Vec<u8> = (0..60).rev().map(|n| n % 20).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(numbers(&table.select(&backwards)), expected));
            }
        });
    }
}

#[cfg(feature = "parquet")]
#[test]
fn tables_that_cannot_be_used_say_why() {
    let error = Dataset::open(at("textonly.parquet").to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("has no images but \"text\", \"n\""), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.parquet");
    let whole = fs::read(at("datasets.parquet")).unwrap();
    for kept in [10, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..kept]).unwrap();
        let error = Dataset::open(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("damaged or cut short"), "{error}");
    }
}

#[test]
fn everything_can_be_packed() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = vec!["cls-*.tar", "json.tar", "both.tar", "stored.zip", "deflated.zip"];
    if cfg!(feature = "parquet") {
        sets.extend(["datasets.parquet", "parts", "pages.parquet"]);
    }
    for (number, name) in sets.into_iter().enumerate() {
        let dataset = open(name);
        let out = folder.path().join(format!("{number}.pack"));
        let options = PackOptions { max_side: None, encoding: Encoding::Jpeg, threads: 2 };
        let report = pack(&dataset, &out, options, |_| true).unwrap().unwrap();
        assert!(report.broken.is_empty(), "{:?}", report.broken);
        let packed = Dataset::open(out.to_str().unwrap()).unwrap();
        assert_eq!(contents(&packed), contents(&dataset), "{name}");
        assert_eq!(packed.fingerprint(), dataset.fingerprint());
    }
}

#[test]
fn compressed_tars_are_refused_with_the_command_that_unpacks() {
    let folder = tempfile::tempdir().unwrap();
    for (name, head, command) in [
        ("images.tar.gz", &b"\x1f\x8b\x08"[..], "`gzip -dk '"),
        ("images.tgz", b"\x1f\x8b\x08", "`gzip -dk '"),
        ("images.tar.zst", b"\x28\xb5\x2f\xfd", "`zstd -d '"),
        ("images.tar.xz", b"\xfd7zXZ\0", "`xz -dk '"),
        ("images.tar.bz2", b"BZh9", "`bzip2 -dk '"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, head).unwrap();
        let error = Dataset::open(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains(command) && error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_container_of_which_only_the_name_is_left_is_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for (name, sentence) in [
        ("a.zip", "is not a zip file that can be read"),
        #[cfg(feature = "parquet")]
        ("b.parquet", "is damaged or cut short"),
    ] {
        for content in ["", "an/image.jpg\n", "\0\u{1}binary"] {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let error = Dataset::open(path.to_str().unwrap()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{content:?}: {error}");
        }
    }
    // What a file holds counts, whatever its name.
    for name in ["a.tar", "a.parquet", "a.zip.download"] {
        let path = folder.path().join(name);
        fs::copy(at("deflated.zip"), &path).unwrap();
        assert!(!Dataset::open(path.to_str().unwrap()).unwrap().is_empty());
    }
}
