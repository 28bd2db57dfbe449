//! Packed files hold what they were made from, go on after a kill and notice every damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{Rgb, RgbImage};
use protonce_images::data::{DataError, Dataset};
use protonce_images::views::{
    Crops, Encoding, Loader, LoaderOptions, PackOptions, PackReport, ViewConfig, check, decode,
    measure_stats, pack,
};
use tempfile::TempDir;

fn open(path: &Path) -> Dataset {
    Dataset::open(path.to_str().unwrap()).unwrap()
}

/// Pictures in `train/CLASS` and `test/CLASS`, JPEG and PNG, and where a packed file may go.
fn pictures(count: u32) -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    for number in 0..count {
        let part = if number % 3 == 0 { "test" } else { "train" };
        let class = images.join(part).join(["cat", "dog"][number as usize % 2]);
        fs::create_dir_all(&class).unwrap();
        let picture = RgbImage::from_fn(40 + number % 7, 30 + number % 5, |x, y| {
            Rgb([(x * 6) as u8, (y * 8) as u8, (number * 31 + x + y) as u8])
        });
        let kind = if number % 4 == 0 { "png" } else { "jpg" };
        picture.save(class.join(format!("{number:03}.{kind}"))).unwrap();
    }
    let out = folder.path().join("images.pack");
    (folder, images, out)
}

const JPEG: PackOptions = PackOptions { max_side: None, encoding: Encoding::Jpeg, threads: 2 };
const RAW: PackOptions = PackOptions { encoding: Encoding::Raw, ..JPEG };

fn pack_all(dataset: &Dataset, out: &Path, options: PackOptions) -> PackReport {
    pack(dataset, out, options, |_| true).unwrap().unwrap()
}

#[test]
fn a_packed_file_gives_the_same_views_as_what_it_was_made_from() {
    let (_folder, images, out) = pictures(30);
    let views = |dataset: Dataset| {
        let views = ViewConfig::v2(24);
        let crops = Crops::Random { seed: 3, epoch: 1, views: views.pretraining_views() };
        let batches = vec![(0..dataset.len()).collect()];
        let options = LoaderOptions { views, batches, crops, threads: 2 };
        let loader = Loader::new(Arc::new(dataset), options).unwrap();
        loader.map(|batch| batch.unwrap().views).collect::<Vec<_>>()
    };
    for options in [JPEG, RAW] {
        let from = open(&images);
        let report = pack_all(&from, &out, options);
        assert_eq!((report.images, report.resumed, report.broken.len()), (30, 0, 0));
        let packed = open(&out);
        assert_eq!(packed.fingerprint(), from.fingerprint());
        assert_eq!(packed.classes(), ["test", "train"]);
        assert!(views(packed) == views(from));

        let part = |path: &Path| Dataset::open(&format!("{}#train", path.display())).unwrap();
        let (packed, from) = (part(&out), part(&images));
        assert_eq!(packed.classes(), ["cat", "dog"]);
        assert_eq!(packed.fingerprint(), from.fingerprint());
        assert!(views(packed) == views(from));
        let error = Dataset::open(&format!("{}#other", out.display())).unwrap_err();
        assert!(matches!(error, DataError::UnknownSubfolder { .. }), "{error}");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn large_images_become_smaller_and_small_ones_stay_as_they_are() {
    let (_folder, images, out) = pictures(8);
    RgbImage::from_fn(300, 150, |x, y| Rgb([x as u8, y as u8, 90]))
        .save(images.join("large.png"))
        .unwrap();
    let from = open(&images);
    pack_all(&from, &out, PackOptions { max_side: Some(100), ..JPEG });
    let packed = open(&out);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for index in 0..from.len() {
        from.read(index, &mut before).unwrap();
        packed.read(index, &mut after).unwrap();
        if from.name(index) == "large.png" {
            let image = decode(&after).unwrap();
            assert_eq!((image.width, image.height), (100, 50));
        } else {
            assert_eq!(before, after);
        }
    }
}

#[test]
fn packing_goes_on_after_a_kill_at_any_byte() {
    let (_folder, images, out) = pictures(40);
    let from = open(&images);
    let options = PackOptions { threads: 1, ..RAW };
    let partial = out.with_file_name("images.pack.partial");
    assert!(pack(&from, &out, options, |_| false).unwrap().is_none());
    assert!(!out.exists());
    let whole = fs::read(&partial).unwrap();
    pack_all(&from, &out, options);
    let expected = fs::read(&out).unwrap();
    for kept in [0, 1, 40, 64, 65, 90, 300, whole.len() / 2, whole.len() - 1, whole.len()] {
        fs::remove_file(&out).unwrap();
        fs::write(&partial, &whole[..kept]).unwrap();
        let report = pack_all(&from, &out, options);
        assert_eq!(report.resumed, if kept == whole.len() { 40 } else { 0 }, "{kept}");
        assert!(fs::read(&out).unwrap() == expected, "cut at {kept}");
        assert!(!partial.exists());
    }
    // What was begun with other settings is not continued.
    fs::remove_file(&out).unwrap();
    fs::write(&partial, &whole).unwrap();
    assert_eq!(pack_all(&from, &out, JPEG).resumed, 0);
    let error = pack(&from, &out, JPEG, |_| true).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
}

#[test]
fn every_damage_is_noticed_and_named() {
    let (folder, images, out) = pictures(12);
    let from = open(&images);
    pack_all(&from, &out, RAW);
    let whole = fs::read(&out).unwrap();
    let damaged = folder.path().join("damaged.pack");
    for length in [8, 63, 64, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&damaged, &whole[..length]).unwrap();
        let error = Dataset::open(damaged.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, DataError::BrokenPack { .. }), "{length}: {error}");
        assert!(error.to_string().contains("damaged.pack"), "{error}");
    }
    for position in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x10;
        fs::write(&damaged, &bytes).unwrap();
        let Ok(dataset) = Dataset::open(damaged.to_str().unwrap()) else { continue };
        let report = check(&dataset, 1, |_| {}).unwrap();
        // The length and checksum of a shard's images serve only packing that is interrupted.
        let in_table = (64..64 + 24 + 12 * 8).contains(&position);
        assert_eq!(report.broken.len(), usize::from(!in_table), "byte {position}");
        for broken in report.broken {
            assert!(broken.reason.contains("checksum"), "{}", broken.reason);
            assert!(broken.reason.contains(&broken.name), "{}", broken.reason);
        }
    }
    let partial = folder.path().join("unfinished.pack.partial");
    pack(&from, &folder.path().join("unfinished.pack"), RAW, |_| false).unwrap();
    let error = Dataset::open(partial.to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains("not finished"), "{error}");
}

#[test]
fn broken_images_keep_their_index_and_are_named() {
    let (_folder, images, out) = pictures(6);
    fs::write(images.join("train/cat/bad.jpg"), "no image").unwrap();
    let from = open(&images);
    let report = pack_all(&from, &out, RAW);
    assert_eq!(report.broken.len(), 1);
    assert_eq!(report.broken[0].name, "train/cat/bad.jpg");
    let packed = open(&out);
    assert_eq!(packed.fingerprint(), from.fingerprint());
    assert_eq!(check(&packed, 1, |_| {}).unwrap().broken[0].name, "train/cat/bad.jpg");
}

#[test]
fn a_list_that_names_an_image_twice_is_packed() {
    let (folder, _, out) = pictures(2);
    let list = folder.path().join("list.txt");
    let line = "images/test/cat/000.png\tcat\n";
    fs::write(&list, [line, line, "images/train/dog/001.jpg\tdog\n"].concat()).unwrap();
    let from = open(&list);
    pack_all(&from, &out, JPEG);
    let packed = open(&out);
    assert_eq!((packed.len(), packed.fingerprint()), (3, from.fingerprint()));
    assert_eq!(packed.classes(), ["cat", "dog"]);
}

#[test]
fn mean_and_deviation_are_those_of_all_pixels() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a.png", 0u8), ("b.png", 255)] {
        RgbImage::from_pixel(4, 4, Rgb([value, value / 5, value]))
            .save(folder.path().join(name))
            .unwrap();
    }
    fs::write(folder.path().join("c.png"), "broken").unwrap();
    let (mean, std) = measure_stats(&open(folder.path()), 2).unwrap().unwrap();
    for (found, expected) in mean.iter().chain(&std).zip([0.5, 0.1, 0.5, 0.5, 0.1, 0.5]) {
        assert!((found - expected).abs() < 1e-12, "{mean:?} {std:?}");
    }
    fs::remove_file(folder.path().join("b.png")).unwrap();
    assert_eq!(measure_stats(&open(folder.path()), 1), Ok(None));
}
