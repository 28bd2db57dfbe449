//! The loader as training uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use image::{Rgb, RgbImage};
use protonce_images::data::Dataset;
use protonce_images::views::{
    Batch, Crops, KeyViews, Loader, LoaderError, LoaderOptions, Renderer, View, ViewConfig,
    ViewParameters, ViewRandom, check, decode,
};
use tempfile::TempDir;

/// `count` small pictures of different sizes in two classes.
fn pictures(count: u32) -> (TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        let class = folder.path().join(if number % 2 == 0 { "even" } else { "odd" });
        fs::create_dir_all(&class).unwrap();
        let picture = RgbImage::from_fn(20 + number, 30 - number % 9, |x, y| {
            Rgb([(x * 9) as u8, (y * 7) as u8, (number * 31 + x * y) as u8])
        });
        picture.save(class.join(format!("{number:03}.png"))).unwrap();
    }
    let dataset = open(folder.path());
    (folder, dataset)
}

fn open(path: &Path) -> Arc<Dataset> {
    Arc::new(Dataset::open(path.to_str().unwrap()).unwrap())
}

fn plan(images: usize, batch: usize) -> Vec<Vec<usize>> {
    let order: Vec<usize> = (0..images).map(|i| i * 7 % images).collect();
    order.chunks(batch).map(<[usize]>::to_vec).collect()
}

fn batches(loader: Loader) -> Vec<Batch> {
    loader.map(|batch| batch.unwrap()).collect()
}

/// The pretraining views of `views` in epoch `epoch`.
fn random(
    dataset: &Arc<Dataset>,
    views: ViewConfig,
    batches: Vec<Vec<usize>>,
    (seed, epoch): (u64, u64),
    threads: usize,
) -> Loader {
    let crops = Crops::Random { seed, epoch, views: views.pretraining_views() };
    let options = LoaderOptions { views, batches, crops, threads };
    Loader::new(Arc::clone(dataset), options).unwrap()
}

/// Centre crops.
fn centre(
    dataset: &Arc<Dataset>,
    views: ViewConfig,
    batches: Vec<Vec<usize>>,
    threads: usize,
) -> Result<Loader, LoaderError> {
    let options = LoaderOptions { views, batches, crops: Crops::Centre, threads };
    Loader::new(Arc::clone(dataset), options)
}

fn training(dataset: &Arc<Dataset>, plan: Vec<Vec<usize>>, seed: u64, epoch: u64) -> Vec<Batch> {
    batches(random(dataset, ViewConfig::v2(16), plan, (seed, epoch), 2))
}

#[test]
fn the_bits_of_batches_are_those_on_record() {
    #[derive(serde::Deserialize)]
    struct Case {
        preset: String,
        settings: serde_json::Map<String, serde_json::Value>,
        seed: u64,
        epoch: u64,
        batch_size: usize,
        /// Of each view of each batch.
        checksums: Vec<Vec<u32>>,
    }
    // The Python package is held to the same record.
    let text = include_str!("../fixtures/loader_checksums.json");
    let (_folder, dataset) = pictures(23);
    for case in serde_json::from_str::<Vec<Case>>(text).unwrap() {
        let preset = if case.preset == "v1" { ViewConfig::v1(224) } else { ViewConfig::v2(224) };
        let mut views = serde_json::to_value(preset).unwrap();
        views.as_object_mut().unwrap().extend(case.settings);
        let views = serde_json::from_value(views).unwrap();
        let order: Vec<usize> = (0..23).collect();
        let plan = protonce_images::batches(&order, case.batch_size);
        let found: Vec<Vec<u32>> =
            batches(random(&dataset, views, plan, (case.seed, case.epoch), 2))
                .into_iter()
                .map(|batch| {
                    batch
                        .views
                        .iter()
                        .chain(&batch.local_views)
                        .map(|view| checksum(view))
                        .collect()
                })
                .collect();
        assert_eq!(found, case.checksums);
    }
}

fn checksum(view: &[f32]) -> u32 {
    let bytes: Vec<u8> = view.iter().flat_map(|value| value.to_le_bytes()).collect();
    crc32fast::hash(&bytes)
}

#[test]
fn polling_gives_the_batches_that_waiting_gives() {
    let (_folder, dataset) = pictures(23);
    for (size, batch, threads) in [(16, 5, 2), (33, 1, 1), (8, 30, 3)] {
        let views = ViewConfig::v2(size);
        let loader = || random(&dataset, views.clone(), plan(23, batch), (7, 3), threads);
        let mut polled = Vec::new();
        let mut polling = loader();
        loop {
            match polling.poll(Duration::from_micros(50)) {
                Poll::Pending => {}
                Poll::Ready(Some(batch)) => polled.push(batch.unwrap()),
                Poll::Ready(None) => break,
            }
        }
        assert!(polled == batches(loader()));
        assert!(matches!(polling.poll(Duration::ZERO), Poll::Ready(None)));
    }
    // Nothing can be ready at once: the threads have only just begun.
    let views = ViewConfig::v2(1024);
    let mut loader = random(&dataset, views, plan(23, 23), (7, 3), 1);
    assert!(matches!(loader.poll(Duration::ZERO), Poll::Pending));
    assert_eq!(
        loader.poll(Duration::MAX).map(|batch| batch.unwrap().unwrap().indices.len()),
        Poll::Ready(23)
    );
}

#[test]
fn memory_can_be_handed_back_while_the_loader_is_elsewhere_and_after_its_end() {
    let (_folder, dataset) = pictures(23);
    let views = ViewConfig { local_views: 2, local_size: 8, ..ViewConfig::v2(16) };
    let loader = || random(&dataset, views.clone(), plan(23, 4), (7, 3), 2);
    let untouched = batches(loader());
    let recycling = loader();
    let recycler = recycling.recycler();
    let mut used = Vec::new();
    for (batch, expected) in recycling.zip(&untouched) {
        let batch = batch.unwrap();
        assert!(batch == *expected);
        used.push(batch.views[0].as_ptr());
        let recycler = recycler.clone();
        std::thread::spawn(move || recycler.recycle(batch)).join().unwrap();
    }
    used.sort_unstable();
    used.dedup();
    assert!(used.len() < untouched.len(), "no memory was used a second time");
    untouched.into_iter().for_each(|batch| recycler.recycle(batch));
}

#[test]
fn batches_are_bit_identical_whatever_the_number_of_threads() {
    let (_folder, dataset) = pictures(23);
    let run = |threads| batches(random(&dataset, ViewConfig::v2(16), plan(23, 5), (7, 3), threads));
    let once = run(1);
    assert_eq!(once.len(), 5);
    assert_eq!(once[4].indices.len(), 3);
    for batch in &once {
        assert_eq!(batch.views.len(), 2);
        assert_eq!(batch.views[0].len(), batch.indices.len() * 16 * 16 * 3);
    }
    for threads in [1, 2, 3, 8, 0] {
        assert!(run(threads) == once, "{threads} threads");
    }
}

#[test]
fn a_view_depends_on_seed_epoch_image_and_view_alone() {
    let (_folder, dataset) = pictures(8);
    let base = training(&dataset, vec![vec![5, 2, 7]], 1, 1);
    let [query, key] = &base[0].views[..] else { panic!("two views") };
    assert!(query != key);
    // Elsewhere in another batch: the same views.
    let length = 16 * 16 * 3;
    let moved = training(&dataset, vec![vec![0], vec![7, 5]], 1, 1);
    for view in 0..2 {
        assert!(moved[1].views[view][length..] == base[0].views[view][..length]);
        assert!(moved[1].views[view][..length] == base[0].views[view][2 * length..]);
    }
    assert!(training(&dataset, vec![vec![5, 2, 7]], 1, 2)[0].views[0] != *query);
    assert!(training(&dataset, vec![vec![5, 2, 7]], 2, 1)[0].views[0] != *query);
}

#[test]
fn views_are_what_the_renderer_makes() {
    let (_folder, dataset) = pictures(4);
    let config = ViewConfig::v1(24);
    let mut renderer = Renderer::new(&config);
    let mut bytes = Vec::new();
    dataset.read(3, &mut bytes).unwrap();
    let image = decode(&bytes).unwrap();
    let mut expected = vec![0.0; 24 * 24 * 3];

    let plan = vec![vec![3]];
    let loader = centre(&dataset, config.clone(), plan.clone(), 1).unwrap();
    let batch = &batches(loader)[0];
    assert_eq!(batch.views.len(), 1);
    renderer.evaluation(&image);
    renderer.normalise_into(&mut expected);
    assert!(batch.views[0] == expected);

    let batch = &batches(random(&dataset, config.clone(), plan, (9, 8), 1))[0];
    for (number, view) in [View::Query, View::Key].into_iter().enumerate() {
        let mut random = ViewRandom::new(9, 8, 3, view);
        let parameters = ViewParameters::draw(&config, image.width, image.height, &mut random);
        let pixel = renderer.training(&image, &parameters).samples[0];
        renderer.normalise_into(&mut expected);
        assert!(batch.views[number] == expected);
        let first = (f32::from(pixel) / 255.0 - 0.485) / 0.229;
        assert!((expected[0] - first).abs() < 1e-6);
    }
}

#[test]
fn weak_key_views_are_cropped_and_mirrored_only() {
    let (_folder, dataset) = pictures(4);
    let strong =
        ViewConfig { grey_probability: 1.0, jitter_probability: 1.0, ..ViewConfig::v2(16) };
    let weak = ViewConfig { key_views: KeyViews::Weak, ..strong.clone() };
    let views = |config: &ViewConfig| {
        batches(random(&dataset, config.clone(), vec![vec![2]], (5, 1), 1)).remove(0).views
    };
    let (strong, weak_views) = (views(&strong), views(&weak));
    assert!(strong[0] == weak_views[0] && strong[1] != weak_views[1]);

    let mut bytes = Vec::new();
    dataset.read(2, &mut bytes).unwrap();
    let image = decode(&bytes).unwrap();
    let plain = ViewConfig {
        jitter_probability: 0.0,
        grey_probability: 0.0,
        blur_probability: 0.0,
        ..ViewConfig::v2(16)
    };
    let mut random = ViewRandom::new(5, 1, 2, View::Key);
    let parameters = ViewParameters::draw(&plain, image.width, image.height, &mut random);
    let mut renderer = Renderer::new(&plain);
    renderer.training(&image, &parameters);
    let mut expected = vec![0.0; 16 * 16 * 3];
    renderer.normalise_into(&mut expected);
    assert!(weak_views[1] == expected);
}

#[test]
fn the_views_asked_for_are_made_and_small_ones_kept_apart() {
    let (_folder, dataset) = pictures(6);
    let views = ViewConfig { local_views: 2, local_size: 8, ..ViewConfig::v2(16) };
    let whole = batches(random(&dataset, views.clone(), vec![vec![4, 1]], (7, 3), 2)).remove(0);
    assert_eq!((whole.views.len(), whole.local_views.len()), (2, 2));
    assert!(whole.local_views.iter().all(|view| view.len() == 2 * 8 * 8 * 3));
    assert!(whole.local_views[0] != whole.local_views[1]);

    // Each is the same without the others, in any order, and whatever memory it is made in.
    let asked = vec![View::Local(1), View::Key];
    let crops = Crops::Random { seed: 7, epoch: 3, views: asked };
    let options = LoaderOptions { views, batches: vec![vec![4, 1]; 9], crops, threads: 2 };
    let mut loader = Loader::new(dataset, options).unwrap();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        assert!(batch.views == whole.views[1..]);
        assert!(batch.local_views == whole.local_views[1..]);
        loader.recycle(batch);
    }
}

#[test]
fn images_that_cannot_be_read_are_left_out_and_named() {
    let (folder, whole) = pictures(10);
    let name = |index| whole.name(index).to_owned();
    let path = |index| folder.path().join(whole.name(index));
    fs::write(path(3), "no image").unwrap();
    fs::write(path(4), "").unwrap();
    fs::remove_file(path(8)).unwrap();
    let damaged = training(&whole, vec![vec![3, 1, 4, 2, 8], vec![8, 3], vec![5]], 0, 0);
    assert_eq!(damaged[0].indices, [1, 2]);
    let reported: Vec<_> =
        damaged[0].unreadable.iter().map(|u| (u.index, u.name.clone())).collect();
    assert_eq!(reported, [(3, name(3)), (4, name(4)), (8, name(8))]);
    assert!(
        damaged[0]
            .unreadable
            .iter()
            .all(|u| u.reason.contains("expected") || u.reason.contains("cannot read"))
    );
    assert!(damaged[1].indices.is_empty() && damaged[1].views[0].is_empty());
    assert_eq!(damaged[1].unreadable.len(), 2);

    // The others' views are those they have in a batch without gaps.
    let healthy = training(&whole, vec![vec![1, 2], vec![5]], 0, 0);
    assert!(damaged[0].views == healthy[0].views);
    assert!(damaged[2] == healthy[1]);
}

#[test]
fn a_dropped_loader_leaves_no_thread_behind() {
    let (_folder, dataset) = pictures(6);
    for taken in [0, 1, 3] {
        let plan = vec![vec![0, 1, 2, 3, 4, 5]; 10_000];
        let mut loader = random(&dataset, ViewConfig::v2(16), plan, (0, 0), 4);
        for _ in 0..taken {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
        // Every thread holds the data set: with the threads gone, this handle is the only one.
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}

#[test]
fn a_finished_loader_stays_finished() {
    let (_folder, dataset) = pictures(2);
    let plan = vec![vec![0], vec![], vec![1]];
    let mut loader = centre(&dataset, ViewConfig::v2(8), plan, 3).unwrap();
    assert_eq!(loader.next().unwrap().unwrap().indices, [0]);
    let empty = loader.next().unwrap().unwrap();
    assert!(empty.indices.is_empty() && empty.views == [Vec::<f32>::new()]);
    assert_eq!(loader.next().unwrap().unwrap().indices, [1]);
    assert!(loader.next().is_none() && loader.next().is_none());
}

#[test]
fn recycled_memory_leaves_no_trace() {
    let (_folder, dataset) = pictures(11);
    let fresh = training(&dataset, plan(11, 4), 5, 0);
    let mut loader = random(&dataset, ViewConfig::v2(16), plan(11, 4), (5, 0), 2);
    let mut count = 0;
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        assert!(batch == fresh[count]);
        count += 1;
        loader.recycle(batch);
    }
    assert_eq!(count, 3);
    assert!(loader.waited() > std::time::Duration::ZERO);
}

#[test]
fn what_cannot_be_loaded_is_refused_at_the_start() {
    let (_folder, dataset) = pictures(2);
    let start = |config, index| centre(&dataset, config, vec![vec![0], vec![index]], 1);
    let error = start(ViewConfig::v2(16), 2).unwrap_err();
    assert!(matches!(error, LoaderError::IndexOutOfRange { index: 2, length: 2 }), "{error}");
    let error = start(ViewConfig { image_size: 0, ..ViewConfig::v2(16) }, 1).unwrap_err();
    assert!(error.to_string().contains("image-size"), "{error}");
}

#[test]
fn check_counts_classes_formats_sizes_and_broken_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("cat")).unwrap();
    fs::create_dir_all(at("dog")).unwrap();
    RgbImage::from_pixel(10, 40, Rgb([9, 9, 9])).save(at("cat/grey.png")).unwrap();
    RgbImage::from_pixel(30, 20, Rgb([1, 200, 3])).save(at("cat/green.jpg")).unwrap();
    RgbImage::from_pixel(20, 60, Rgb([1, 2, 3])).save(at("dog/dark.gif")).unwrap();
    fs::write(at("dog/bad.jpg"), b"\xff\xd8\xff").unwrap();
    RgbImage::new(5, 5).save(at("loose.bmp")).unwrap();
    let dataset = open(folder.path());
    let calls = std::sync::atomic::AtomicUsize::new(0);
    for threads in [1, 3] {
        let report = check(&dataset, threads, |_| {
            calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let report = report.unwrap();
        assert_eq!((report.images, report.readable, report.unlabelled), (5, 4, 1));
        let classes: Vec<_> =
            report.classes.iter().map(|class| (class.name.as_str(), class.images)).collect();
        assert_eq!(classes, [("cat", 2), ("dog", 2)]);
        assert_eq!(report.formats.len(), 4);
        assert_eq!(report.grey, 2);
        let sizes = report.sizes.unwrap();
        assert_eq!((sizes.width.min, sizes.width.median, sizes.width.max), (5, 10, 30));
        assert_eq!((sizes.height.min, sizes.height.median, sizes.height.max), (5, 20, 60));
        assert_eq!(report.broken.len(), 1);
        assert_eq!(report.broken[0].name, "dog/bad.jpg");
        assert!(serde_json::to_string(&report).unwrap().contains("\"median\""));
    }
    assert_eq!(calls.into_inner(), 10);
}

/// A data set of real images, or none, said loudly. It must be there where `PROTONCE_SHARED` says so.
fn real(name: &str) -> Option<Arc<Dataset>> {
    let named = std::env::var_os("PROTONCE_SHARED").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = named.clone().unwrap_or_else(beside).join("data").join(name);
    if named.is_none() && !path.exists() {
        eprintln!(
            "SKIPPED: {} is absent; set PROTONCE_SHARED to the folder that holds data/{name}",
            path.display()
        );
        return None;
    }
    let part = if name == "cifar10.tar" { "#train" } else { "" };
    Some(Arc::new(Dataset::open(&format!("{}{part}", path.display())).unwrap()))
}

#[test]
fn real_photographs_are_all_readable() {
    let Some(dataset) = real("photos.tar") else { return };
    let report = check(&dataset, 0, |_| {}).unwrap();
    assert_eq!((report.readable, report.broken), (dataset.len(), Vec::new()));
}

#[test]
fn real_classes_are_found_and_loaded() {
    let Some(dataset) = real("cifar10.tar") else { return };
    assert_eq!((dataset.len(), dataset.classes().len()), (50_000, 10));
    let some = Arc::new(dataset.per_class(3));
    assert_eq!(some.len(), 30);
    let loader = random(&some, ViewConfig::v2(32), plan(30, 8), (0, 0), 2);
    assert!(batches(loader).iter().all(|batch| batch.unreadable.is_empty()));
}
