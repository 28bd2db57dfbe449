//! The benchmarks of the field, laid out as their authors publish them but smaller.

use std::fs;
use std::path::Path;

use protonce_images::data::{Benchmark, Dataset, Labelled, Splits, open_benchmark};
use protonce_images::views::decode;

fn open(folder: &Path) -> Splits {
    open_benchmark(folder.to_str().unwrap()).unwrap()
}

fn refused(folder: &Path) -> String {
    open_benchmark(folder.to_str().unwrap()).unwrap_err().to_string()
}

fn single(labelled: Labelled) -> Dataset {
    match labelled {
        Labelled::Single(dataset) => dataset,
        Labelled::Multiple(_) => panic!("one label an image"),
    }
}

fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// The bytes of an image of `side` pixels whose pixel (x, y) is (x, y, `blue`), channel after channel.
fn planes(side: u8, blue: u8, by_columns: bool) -> Vec<u8> {
    let place = |first: u8, second: u8| match by_columns {
        true => (first, second),
        false => (second, first),
    };
    let plane = |value: &dyn Fn(u8, u8) -> u8| -> Vec<u8> {
        let pairs = (0..side).flat_map(|first| (0..side).map(move |second| (first, second)));
        pairs.map(|(first, second)| place(first, second)).map(|(x, y)| value(x, y)).collect()
    };
    [plane(&|x, _| x), plane(&|_, y| y), plane(&|_, _| blue)].concat()
}

/// Checks the pixels of an image made by [`planes`].
fn shows(dataset: &Dataset, index: usize, side: usize, blue: u8) {
    let mut bytes = Vec::new();
    dataset.read(index, &mut bytes).unwrap();
    let image = decode(&bytes).unwrap();
    assert_eq!((image.width, image.height), (side, side));
    for (place, pixel) in image.pixels.chunks_exact(3).enumerate() {
        assert_eq!(pixel, [(place % side) as u8, (place / side) as u8, blue], "pixel {place}");
    }
}

fn cifar10(root: &Path) {
    let image = |label: u8, blue: u8| [vec![label], planes(32, blue, false)].concat();
    for number in 1..=5u8 {
        let batch = [image(number, 10 * number), image(0, 10 * number + 1)].concat();
        write(root.join(format!("data_batch_{number}.bin")), batch);
    }
    write(root.join("test_batch.bin"), [image(9, 200), image(3, 201), image(3, 202)].concat());
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    write(root.join("batches.meta.txt"), names);
}

#[test]
fn cifar_10_in_its_binary_version() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(&folder.path().join("cifar-10-batches-bin"));
    let splits = open(folder.path());
    assert_eq!(splits.benchmark, Benchmark::Cifar10);
    let (train, test) = (single(splits.train), single(splits.test));
    assert_eq!((train.len(), test.len()), (10, 3));
    let class = |set: &Dataset, index| set.classes()[set.label(index).unwrap()].clone();
    assert_eq!((class(&train, 0), class(&train, 9)), ("automobile".into(), "airplane".into()));
    assert_eq!((class(&test, 0), class(&test, 1)), ("truck".into(), "cat".into()));
    shows(&train, 0, 32, 10);
    shows(&train, 9, 32, 51);
    shows(&test, 2, 32, 202);
    // A selection still finds its pixels.
    shows(&train.select(&[7]), 0, 32, 41);
}

#[test]
fn cifar_100_goes_by_its_fine_labels() {
    let folder = tempfile::tempdir().unwrap();
    let image = |fine: u8, blue: u8| [vec![7, fine], planes(32, blue, false)].concat();
    write(folder.path().join("train.bin"), [image(1, 3), image(0, 4)].concat());
    write(folder.path().join("test.bin"), image(1, 5));
    write(folder.path().join("fine_label_names.txt"), "apple\nbaby\n");
    let splits = open(folder.path());
    assert_eq!(splits.benchmark, Benchmark::Cifar100);
    let train = single(splits.train);
    assert_eq!(train.labels().unwrap(), [1, 0]);
    shows(&train, 1, 32, 4);
}

#[test]
fn stl_10_whose_pixels_go_by_columns() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("stl10_binary");
    for (set, labels) in [("train", vec![2, 1]), ("test", vec![1])] {
        let images: Vec<u8> = (0..labels.len()).flat_map(|n| planes(96, n as u8, true)).collect();
        write(root.join(format!("{set}_X.bin")), images);
        write(root.join(format!("{set}_y.bin")), labels);
    }
    write(root.join("class_names.txt"), "airplane\nbird\n");
    let splits = open(folder.path());
    assert_eq!(splits.benchmark, Benchmark::Stl10);
    let train = single(splits.train);
    assert_eq!(train.labels().unwrap(), [1, 0]);
    shows(&train, 1, 96, 1);

    write(root.join("test_y.bin"), [1, 2]);
    assert!(refused(folder.path()).contains("1 images and 2 labels"));
    write(root.join("test_y.bin"), [3]);
    assert!(refused(folder.path()).contains("of 2 classes"));
}

#[test]
fn voc07_with_difficult_and_absent_labels() {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("VOCdevkit/VOC2007/ImageSets/Main");
    write(lists.join("trainval.txt"), "000012\n000005\n000007\n");
    write(lists.join("bird_trainval.txt"), "000012  1\n000005 -1\n000007  0\n");
    write(lists.join("cat_trainval.txt"), "000012  1\n000005  1\n000007 -1\n");
    write(lists.join("bird_test.txt"), "000001  1\n000002 -1\n");
    // An image that one class's list leaves out is not of that class.
    write(lists.join("cat_test.txt"), "000002  1\n");
    let splits = open(folder.path());
    assert_eq!(splits.benchmark, Benchmark::Voc07);
    let (Labelled::Multiple(train), Labelled::Multiple(test)) = (splits.train, splits.test) else {
        panic!("several labels an image");
    };
    assert_eq!(train.classes, ["bird", "cat"]);
    let names: Vec<&str> = (0..3).map(|image| train.images.name(image)).collect();
    assert_eq!(names, ["000005.jpg", "000007.jpg", "000012.jpg"]);
    assert_eq!(train.positive, [[false, false, true], [true, false, true]]);
    assert_eq!(test.positive, [[true, false], [false, true]]);
    // The folder above and the folder itself are the same benchmark.
    assert_eq!(open(&folder.path().join("VOCdevkit/VOC2007")).benchmark, Benchmark::Voc07);

    write(lists.join("cat_test.txt"), "000002 yes\n");
    assert!(refused(folder.path()).contains("1, 0 or -1"));
    fs::remove_file(lists.join("cat_test.txt")).unwrap();
    assert!(refused(folder.path()).contains("cat_test.txt"));
}

#[test]
fn places205_by_its_lists() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("images256/a/abbey/one.jpg"), "");
    write(folder.path().join("train_places205.csv"), "a/abbey/one.jpg 0\nb/bar/indoor/x.jpg 9\n");
    write(folder.path().join("val_places205.csv"), "a/abbey/two.jpg 0\n");
    let splits = open(folder.path());
    assert_eq!(splits.benchmark, Benchmark::Places205);
    let train = single(splits.train);
    assert_eq!(train.classes(), ["a/abbey", "b/bar/indoor"]);
    let mut bytes = Vec::new();
    assert!(train.read(0, &mut bytes).is_ok(), "the image lies in images256");

    fs::remove_dir_all(folder.path().join("images256")).unwrap();
    assert!(refused(folder.path()).contains("not its images"));
}

#[test]
fn folders_named_by_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let wnids = [
        "n01440764",
        "n02102040",
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ];
    for wnid in wnids {
        write(folder.path().join(format!("train/{wnid}/a.JPEG")), "");
        write(folder.path().join(format!("val/{wnid}/b.JPEG")), "");
    }
    assert_eq!(open(folder.path()).benchmark, Benchmark::Imagenette);
    write(folder.path().join("train/n09999999/a.JPEG"), "");
    assert_eq!(open(folder.path()).benchmark, Benchmark::Other);
}

#[test]
fn what_is_none_of_them_is_told_what_they_look_like() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&folder.path().join("missing")).contains("does not exist"));
    let text = refused(folder.path());
    for word in ["VOCdevkit", "train_X.bin", "data_batch_1.bin", "train/CLASS", "places205"] {
        assert!(text.contains(word), "\"{word}\" is missing in: {text}");
    }
    // Images of the validation set without their classes.
    write(folder.path().join("train/n01440764/a.JPEG"), "");
    write(folder.path().join("val/b.JPEG"), "");
    assert!(refused(folder.path()).contains("one folder a class"));
    // Pickles are code.
    write(folder.path().join("cifar-10-batches-py/data_batch_1"), "");
    assert!(refused(folder.path()).contains("binary version"));
}

#[test]
fn a_batch_that_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(folder.path());
    write(folder.path().join("data_batch_3.bin"), vec![0; 3073 + 100]);
    let text = refused(folder.path());
    assert!(text.contains("data_batch_3.bin") && text.contains("3173 bytes"), "{text}");
}
