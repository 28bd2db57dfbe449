//! How fast views are made: `cargo bench -p protonce-images --bench views [-- WORD]`, where WORD picks
//! the data sets whose argument contains it.
//! `-- --race DATA SIZE THREADS` prints the two-view images per second of one data set alone, the best of
//! some passes (`benches/views_speed.py` races them with other pipelines).
//!
//! Reads the data sets in `PROTONCE_SHARED` (default: `shared` beside the checkout).

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protonce_images::data::Dataset;
use protonce_images::views::{
    CropBox, Crops, Decoder, Image, Jitter, JitterStep, Loader, LoaderOptions, Renderer,
    ViewConfig, ViewParameters,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [race, data, size, threads] = &arguments[..]
        && race == "--race"
    {
        return self::race(data, size.parse()?, threads.parse()?);
    }
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let shared = std::env::var_os("PROTONCE_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    for (name, image_size, images) in
        [("data/cifar10.tar#train", 32, 20_000), ("data/photos.tar", 224, 400)]
    {
        if !name.contains(&wanted) {
            continue;
        }
        let argument = shared.join(name).display().to_string();
        let begin = Instant::now();
        let dataset = match Dataset::open(&argument) {
            Ok(dataset) => Arc::new(dataset),
            Err(error) => {
                println!("SKIPPED {name}: {error}");
                continue;
            }
        };
        println!("{name}: {} images, opened in {:.3?}", dataset.len(), begin.elapsed());
        stages(&dataset, image_size)?;
        for config in [ViewConfig::v1(image_size), ViewConfig::v2(image_size)] {
            for threads in [1, 2] {
                two_views(&dataset, &config, images, threads)?;
            }
        }
    }
    Ok(())
}

fn race(data: &str, size: usize, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    const PASSES: usize = 5;
    let dataset = Arc::new(Dataset::open(data)?);
    let count = if size < 64 { 20_000 } else { 400 };
    let indices: Vec<usize> = (0..count * PASSES).map(|i| i * 7919 % dataset.len()).collect();
    let plan = indices.chunks(if size < 64 { 250 } else { 50 }).map(<[usize]>::to_vec).collect();
    // One loader throughout, as in training: memory is fetched from the system in the first pass.
    let mut loader = Loader::new(dataset, two_random(&ViewConfig::v2(size), plan, threads))?;
    let mut best: f64 = 0.0;
    for _ in 0..PASSES {
        let begin = Instant::now();
        let mut seen = 0;
        while seen < count
            && let Some(batch) = loader.next()
        {
            let batch = batch?;
            seen += batch.indices.len();
            loader.recycle(batch);
        }
        best = best.max(seen as f64 / begin.elapsed().as_secs_f64());
    }
    println!("{best:.1}");
    Ok(())
}

/// Options for the random views of pretraining.
fn two_random(config: &ViewConfig, batches: Vec<Vec<usize>>, threads: usize) -> LoaderOptions {
    let crops = Crops::Random { seed: 0, epoch: 0, views: config.pretraining_views() };
    LoaderOptions { views: config.clone(), batches, crops, threads }
}

/// Images per second through the loader, two views each.
fn two_views(
    dataset: &Arc<Dataset>,
    config: &ViewConfig,
    images: usize,
    threads: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let indices: Vec<usize> = (0..images).map(|i| i * 7919 % dataset.len()).collect();
    let plan = indices.chunks(64).map(<[usize]>::to_vec).collect();
    let begin = Instant::now();
    let mut loader = Loader::new(Arc::clone(dataset), two_random(config, plan, threads))?;
    let mut seen = 0;
    let mut first = None;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        first.get_or_insert_with(|| begin.elapsed());
        seen += batch.indices.len();
        loader.recycle(batch);
    }
    let rate = seen as f64 / begin.elapsed().as_secs_f64();
    println!(
        "  {:?} two views, {} px, {threads} threads: {rate:8.0} images/s (first batch after {:.1?})",
        config.augmentations,
        config.image_size,
        first.unwrap_or_default()
    );
    Ok(())
}

/// Microseconds per image for each stage on one thread; the best of a few passes.
fn stages(dataset: &Dataset, image_size: usize) -> Result<(), Box<dyn std::error::Error>> {
    const PASSES: usize = 5;
    let count = dataset.len().min(if image_size < 64 { 5000 } else { 200 });
    let mut encoded = vec![Vec::new(); count];
    let mut images = vec![Image::default(); count];
    let per_image = |elapsed: Duration| elapsed.as_secs_f64() * 1e6 / count as f64;

    let begin = Instant::now();
    for (index, bytes) in encoded.iter_mut().enumerate() {
        dataset.read(index, bytes)?;
    }
    println!("  read        {:8.1} µs", per_image(begin.elapsed()));
    let mut decoder = Decoder::default();
    let begin = Instant::now();
    for (bytes, image) in encoded.iter().zip(&mut images) {
        decoder.decode(bytes, image)?;
    }
    println!("  decode      {:8.1} µs", per_image(begin.elapsed()));

    let mut renderer = Renderer::new(&ViewConfig::v2(image_size));
    let mut normalised = vec![0.0; image_size * image_size * 3];
    let plain = ViewParameters {
        crop: CropBox { left: 0, top: 0, width: 0, height: 0 },
        jitter: Jitter::default(),
        grey: false,
        blur: None,
        solarise: false,
        flip: false,
    };
    let with = |step| {
        let mut jitter = Jitter::default();
        jitter.push(step);
        ViewParameters { jitter, ..plain }
    };
    let mut crop_alone = 0.0;
    for (stage, parameters) in [
        ("crop", plain),
        ("brightness", with(JitterStep::Brightness(1.2))),
        ("contrast", with(JitterStep::Contrast(1.2))),
        ("saturation", with(JitterStep::Saturation(1.2))),
        ("hue", with(JitterStep::Hue(0.1))),
        ("grey", ViewParameters { grey: true, ..plain }),
        ("blur", ViewParameters { blur: Some(1.0), ..plain }),
        ("flip", ViewParameters { flip: true, ..plain }),
    ] {
        let mut best = Duration::MAX;
        for _ in 0..PASSES {
            let begin = Instant::now();
            for image in &images {
                let crop = CropBox::whole(image);
                black_box(renderer.training(image, &ViewParameters { crop, ..parameters }));
            }
            best = best.min(begin.elapsed());
        }
        let time = per_image(best) - crop_alone;
        println!("  {stage:<11} {time:8.1} µs");
        if stage == "crop" {
            crop_alone = time;
        }
    }
    let begin = Instant::now();
    for _ in &images {
        renderer.normalise_into(black_box(&mut normalised));
    }
    println!("  normalise   {:8.1} µs", per_image(begin.elapsed()));
    Ok(())
}
