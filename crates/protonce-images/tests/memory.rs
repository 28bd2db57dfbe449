//! What the pipeline allocates: nothing for an image in steady state, no more for more images, and
//! within a bound whatever a file claims to be.
//!
//! One test, since all share the counting allocator.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use protonce_images::data::Dataset;
use protonce_images::views::{
    Crops, Decoder, Encoding, Image, Loader, LoaderOptions, PackOptions, Renderer, View,
    ViewConfig, ViewParameters, ViewRandom, pack,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was allocated at once while `work` ran, beyond what was there before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

fn picture(number: u32) -> RgbImage {
    RgbImage::from_fn(60 + number % 9, 50 - number % 7, |x, y| {
        Rgb([(x * 4) as u8, (y * 5) as u8, (number * 31 + x * y) as u8])
    })
}

fn open(path: &Path) -> Arc<Dataset> {
    Arc::new(Dataset::open(path.to_str().unwrap()).unwrap())
}

fn loader(dataset: &Arc<Dataset>, size: usize, plan: Vec<Vec<usize>>) -> Loader {
    let views = ViewConfig::v2(size);
    let crops = Crops::Random { seed: 0, epoch: 0, views: views.pretraining_views() };
    let options = LoaderOptions { views, batches: plan, crops, threads: 2 };
    Loader::new(Arc::clone(dataset), options).unwrap()
}

#[test]
fn memory_is_bounded() {
    an_index_takes_little_for_an_image();
    nothing_is_allocated_for_an_image();
    a_million_images_take_no_more_than_a_thousand();
    damaged_images_neither_panic_nor_hang_nor_fill_memory();
}

/// Names, labels and places together, in shards of tiny images with labels; vectors that grow need
/// twice the room for a moment.
fn an_index_takes_little_for_an_image() {
    const IMAGES: usize = 40_000;
    let folder = tempfile::tempdir().unwrap();
    for shard in 0..4 {
        let file = fs::File::create(folder.path().join(format!("shard-{shard:03}.tar"))).unwrap();
        let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
        for number in 0..IMAGES / 4 {
            for (extension, contents) in [("cls", number % 1000), ("jpg", number)] {
                let contents = contents.to_string();
                let mut header = tar::Header::new_ustar();
                header.set_size(contents.len() as u64);
                let name = format!("{number:06}.{extension}");
                tar.append_data(&mut header, name, contents.as_bytes()).unwrap();
            }
        }
        tar.into_inner().unwrap();
    }
    let path = folder.path().join("*.tar");
    let mut dataset = None;
    let peak = peak_of(|| dataset = Some(open(&path)));
    let dataset = dataset.unwrap();
    assert_eq!((dataset.len(), dataset.classes().len()), (IMAGES, 1000));
    assert!(peak / IMAGES < 300, "{} bytes an image", peak / IMAGES);
}

fn nothing_is_allocated_for_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..64 {
        picture(number).save(images.join(format!("{number:02}.jpg"))).unwrap();
    }
    for encoding in [Encoding::Jpeg, Encoding::Raw] {
        let file = folder.path().join(format!("{encoding:?}.pack"));
        let options = PackOptions { max_side: None, encoding, threads: 1 };
        pack(&open(&images), &file, options, |_| true).unwrap().unwrap();
        let dataset = open(&file);
        let (warm, counted) = (20, 100);
        let mut loader = loader(&dataset, 32, vec![(0..64).collect(); warm + counted]);
        let mut before = 0;
        for number in 0..warm + counted {
            if number == warm {
                before = ALLOCATIONS.load(Ordering::Relaxed);
            }
            let batch = loader.next().unwrap().unwrap();
            loader.recycle(batch);
        }
        let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // A batch has a few lists of its own; its 64 images have nothing.
        assert!(made < 12 * counted, "{made} allocations for {counted} batches of {encoding:?}");
    }
}

fn a_million_images_take_no_more_than_a_thousand() {
    let folder = tempfile::tempdir().unwrap();
    picture(1).save(folder.path().join("a.jpg")).unwrap();
    let peak = |images: usize| {
        // The synthetic index: one picture under a line for each image.
        let list = folder.path().join("list.txt");
        fs::write(&list, "a.jpg\n".repeat(images)).unwrap();
        let dataset = open(&list);
        assert_eq!(dataset.len(), images);
        let plan: Vec<Vec<usize>> =
            (0..images).collect::<Vec<_>>().chunks(50).map(<[usize]>::to_vec).collect();
        peak_of(|| {
            // Tiny views, so that how far threads happen to run ahead hardly matters.
            let mut loader = loader(&dataset, 8, plan);
            for _ in 0..20 {
                let batch = loader.next().unwrap().unwrap();
                loader.recycle(batch);
            }
        })
    };
    let (few, many) = (peak(1000), peak(1_000_000));
    assert!(many < few + (1 << 20), "{few} bytes for a thousand, {many} for a million");
}

/// The bound: an image of the most pixels allowed (400 MB) in a decoder that holds it twice.
const BOUND: usize = 1 << 30;

fn damaged_images_neither_panic_nor_hang_nor_fill_memory() {
    const FORMATS: [ImageFormat; 6] = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Tiff,
    ];
    let mut originals: Vec<Vec<u8>> = Vec::new();
    for (number, format) in FORMATS.into_iter().enumerate() {
        let mut bytes = std::io::Cursor::new(Vec::new());
        DynamicImage::from(picture(number as u32)).write_to(&mut bytes, format).unwrap();
        originals.push(bytes.into_inner());
    }
    // JPEG is what nearly all images are.
    originals.extend([originals[0].clone(), originals[0].clone()]);
    originals.push(b"P6\n3 2\n255\nabcdefghijklmnopqr".to_vec());
    let config = ViewConfig::v2(32);
    let (mut decoder, mut image) = (Decoder::default(), Image::default());
    let mut renderer = Renderer::new(&config);
    let (mut readable, mut slowest) = (0, Duration::ZERO);
    let peak = peak_of(|| {
        for number in 0..10_000u64 {
            let mut random = ViewRandom::new(9, 0, number, View::Query);
            let mut bytes = originals[random.below(originals.len())].clone();
            match number % 5 {
                0 => {
                    for _ in 0..=random.below(8) {
                        let bit = random.below(bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                }
                1 => bytes.truncate(random.below(bytes.len())),
                // A header of one format on the body of another.
                2 => {
                    let other = &originals[random.below(originals.len())];
                    let length = random.below(40).min(bytes.len()).min(other.len());
                    bytes[..length].copy_from_slice(&other[..length]);
                }
                // Sizes that are absurd: large numbers anywhere among the headers.
                3 => {
                    let place = random.below(bytes.len().min(400) - 4);
                    let value =
                        [0xffff_ffffu32, 0x7fff_ffff, 0x2ee0_2ee0, 0x0000_2ee0][random.below(4)];
                    bytes[place..place + 4].copy_from_slice(&value.to_be_bytes());
                }
                _ => {
                    let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
                    let length = random.below(bytes.len() - from.max(to));
                    bytes.copy_within(from..from + length, to);
                }
            }
            let begin = Instant::now();
            if decoder.decode(&bytes, &mut image).is_ok() {
                readable += 1;
                let parameters =
                    ViewParameters::draw(&config, image.width, image.height, &mut random);
                renderer.training(&image, &parameters);
            }
            slowest = slowest.max(begin.elapsed());
        }
    });
    eprintln!("{readable} of 10 000 readable, slowest {slowest:?}, peak {} MB", peak >> 20);
    assert!(readable > 1000 && readable < 9500, "{readable}");
    assert!(peak < BOUND, "{peak} bytes");
    // Nothing that should take microseconds may take a minute.
    assert!(slowest < Duration::from_secs(60), "{slowest:?}");

    // A real bomb: 10 000 × 10 000 pixels in a few kilobytes, and one of a pixel too many.
    let bomb = |side: u32| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&vec![0; side.div_ceil(8) as usize * side as usize]).unwrap();
        writer.finish().unwrap();
        bytes
    };
    let (large, larger) = (bomb(10_000), bomb(12_000));
    let peak = peak_of(|| {
        let mut image = Image::default();
        decoder.decode(&large, &mut image).unwrap();
    });
    assert!(peak < BOUND, "{peak} bytes");
    let peak = peak_of(|| assert!(decoder.decode(&larger, &mut image).is_err()));
    assert!(peak < 1 << 20, "{peak} bytes for an image that is refused");
}
