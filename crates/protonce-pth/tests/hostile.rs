//! Files made to hurt: no panic, no code run, no more memory than twice the file and 64 MiB.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use protonce_pth::{Checkpoint, Dtype, Item, PthError, write_numpy, write_zip};

/// The system's allocator, which counts the bytes that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn gained(bytes: usize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn lost(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        gained(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        gained(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        lost(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both may be held.
        gained(size);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        lost(layout.size());
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens a file and reads every tensor, as an import of everything would, keeping all of them.
fn read_all(file: &[u8]) -> Result<usize, PthError> {
    let mut checkpoint = Checkpoint::new(Cursor::new(file))?;
    let mut tensors = Vec::new();
    for dict in checkpoint.state_dicts() {
        for (_, value) in dict.tensors {
            tensors.extend(checkpoint.tensor(value)?);
        }
    }
    let read: Result<Vec<Vec<u8>>, PthError> =
        tensors.iter().map(|tensor| checkpoint.read(tensor)).collect();
    Ok(read?.len())
}

/// What reading gives, and that it kept the bound.
fn bounded(file: &[u8]) -> Result<usize, PthError> {
    let before = HELD.get();
    PEAK.set(before);
    let result = catch_unwind(AssertUnwindSafe(|| read_all(file)));
    let peak = PEAK.get() - before;
    let bound = 2 * file.len() + (64 << 20);
    assert!(peak <= bound, "{peak} bytes for a file of {}", file.len());
    result.unwrap_or_else(|_| panic!("panic on {:?}", String::from_utf8_lossy(file)))
}

fn seeds() -> Vec<Vec<u8>> {
    let data = [7; 48];
    let tensor = Item::Tensor(Dtype::F32, &[3, 4], &data);
    let root = Item::Dict(vec![
        ("epoch", Item::Int(1 << 40)),
        ("model", Item::Dict(vec![("a", tensor.clone()), ("b", tensor)])),
    ]);
    let (mut zip, mut bare) = (Vec::new(), Vec::new());
    write_zip(&mut zip, "archive", &root).unwrap();
    write_numpy(&mut bare, &root).unwrap();
    let legacy = include_bytes!("tiny_legacy.pth.tar").to_vec();
    let module = include_bytes!("objects_module.pth").to_vec();
    let lightning = include_bytes!("objects_lightning.pth").to_vec();
    vec![legacy, include_bytes!("tiny_zip.pth.tar").to_vec(), zip, bare, module, lightning]
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One to six changes of the kinds that parsers trip over.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = seed.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(file.len());
        match random.below(8) {
            0 => file.truncate(at),
            1 if at < file.len() => file[at] ^= 1 << random.below(8),
            2 if at < file.len() => file[at] = random.next() as u8,
            // Sizes: all ones, the sign alone, something large.
            3 => {
                let number = [u64::MAX, 1 << 63, 1 << 31, 1 << 40][random.below(4)].to_le_bytes();
                let length = [1, 2, 4, 8][random.below(4)].min(file.len() - at);
                file[at..at + length].copy_from_slice(&number[8 - length..]);
            }
            // An instruction in a strange place.
            4 => file.insert(
                at,
                b".(012NJKMGXBCaelt)]}dsuqrhjcR\x81bQiIoP\x8a\x8b\x93\x94"[random.below(38)],
            ),
            5 => {
                let length = random.below(40).min(file.len() - at);
                file.drain(at..at + length);
            }
            // A piece of the file twice, or elsewhere.
            6 => {
                let from = random.below(file.len());
                let piece = file[from..].iter().take(1 + random.below(200)).copied();
                let piece: Vec<u8> = piece.collect();
                file.splice(at..at, piece);
            }
            _ => {
                let length = random.below(16).min(file.len() - at);
                file[at..at + length].fill(random.next() as u8);
            }
        }
        if file.is_empty() {
            break;
        }
    }
    file
}

#[test]
fn ten_thousand_mutations_neither_panic_nor_fill_memory() {
    let seeds = seeds();
    for seed in &seeds {
        assert!(bounded(seed).unwrap() >= 2);
    }
    let mut random = Random(0x5eed);
    let (mut refused, mut read) = (0, 0);
    for number in 0..10_000 {
        let file = mutate(&seeds[number % seeds.len()], &mut random);
        match bounded(&file) {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {read} still readable");
    assert!(refused > 5_000 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for seed in seeds() {
        // The legacy layout's and the bare pickle's last byte counts, as does zip's end record.
        for length in 0..seed.len() {
            assert!(bounded(&seed[..length]).is_err(), "{length} of {} bytes", seed.len());
        }
    }
}

/// A zip archive with this pickle and one storage of 16 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    // The writer makes the pickle, so another is put in its place, with a length that fits.
    let mut zip = Vec::new();
    let padding = "x".repeat(pickle.len());
    let data = [1; 16];
    let root =
        Item::Dict(vec![(&padding, Item::Int(0)), ("t", Item::Tensor(Dtype::F32, &[4], &data))]);
    write_zip(&mut zip, "a", &root).unwrap();
    let start = zip.windows(2).position(|two| two == b"\x80\x02").unwrap();
    let length = u32::from_le_bytes(zip[18..22].try_into().unwrap()) as usize;
    zip[start..start + length].fill(b'.');
    zip[start..start + pickle.len()].copy_from_slice(pickle);
    let checksum = crc32(&zip[start..start + length]);
    let central = zip.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    zip[central + 16..central + 20].copy_from_slice(&checksum.to_le_bytes());
    zip
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

/// A pickle of a dict with one tensor: its count of stored numbers, offset, shape and strides.
fn tensor_pickle(count: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let int = |number: i64| [&b"\x8a\x08"[..], &number.to_le_bytes()].concat();
    let tuple = |numbers: &[i64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&number| int(number)).collect();
        [&b"("[..], &numbers, b"t"].concat()
    };
    [
        &b"\x80\x02}X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"[..],
        b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu",
        &int(count),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89NtRs.",
    ]
    .concat()
}

#[test]
fn impossible_sizes_are_refused() {
    assert_eq!(bounded(&archive(&tensor_pickle(4, 0, &[2, 2], &[2, 1]))).unwrap(), 1);
    for (count, offset, shape, strides) in [
        (-1, 0, &[4][..], &[1][..]),
        (4, -1, &[4], &[1]),
        (4, 0, &[-4], &[1]),
        (4, 0, &[4], &[-1]),
        (i64::MAX, 0, &[4], &[1]),
        (4, i64::MAX, &[4], &[1]),
        (4, 0, &[i64::MAX], &[0]),
        (4, 0, &[1 << 20, 1 << 20, 1 << 20], &[0, 0, 0]),
        (4, 0, &[1 << 32, 1 << 32], &[1, 1]),
        (4, 0, &[2, 2], &[i64::MAX, i64::MAX]),
        (4, 0, &[5], &[1]),
        (4, 1, &[4], &[1]),
        (4, 0, &[4], &[1, 1]),
        (4, 0, &[1; 9], &[1; 9]),
        (5, 0, &[4], &[1]),
    ] {
        let file = archive(&tensor_pickle(count, offset, shape, strides));
        let error = bounded(&file).unwrap_err();
        assert!(error.to_string().contains("tensor") || error.to_string().contains("storage"));
    }
}

#[test]
fn many_views_of_one_storage_do_not_multiply_it() {
    // A thousand tensors, each as large as the file allows, of the same sixteen bytes.
    let one = tensor_pickle(4, 0, &[600], &[0]);
    let body = &one[3..one.len() - 2];
    let mut pickle = b"\x80\x02}(".to_vec();
    for _ in 0..1000 {
        pickle.extend(body);
    }
    pickle.extend(b"u.");
    let error = bounded(&archive(&pickle)).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn what_multiplies_memory_is_bounded() {
    let million = |bytes: &[u8]| bytes.repeat(1_000_000 / bytes.len());
    let nested = [million(b"]"), million(b"a")].concat();
    let bodies: [(&str, Vec<u8>); 7] = [
        ("lists", million(b"]")),
        ("nesting", nested),
        ("marks", million(b"(")),
        ("memo", [&b"N"[..], &million(b"\x94")].concat()),
        ("recalls", [&b"Nq\x00"[..], &million(b"h\x00")].concat()),
        ("copies", [&b"N"[..], &million(b"2")].concat()),
        ("laughs", {
            // Each list holds the one before ten times.
            let level = b"q\x00](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00e";
            [&b"]"[..], &level.repeat(5000)].concat()
        }),
    ];
    for (name, body) in bodies {
        let pickle = [&b"\x80\x02"[..], &body, b"."].concat();
        let result = bounded(&pickle);
        assert!(result.is_err() || name == "laughs", "{name}: {result:?}");
        assert!(bounded(&archive(&pickle)).is_err() || name == "laughs", "{name}");
    }
    // Modules that share others, each of which holds the one before twenty times and leads back to it.
    let names = (b'a'..b'u').map(|letter| [b"X\x01\x00\x00\x00", &[letter][..], b"h\x00"].concat());
    let members: Vec<u8> = names.flatten().collect();
    let module = [
        &b"cother\nModule\n)Rq\x01}X\x08\x00\x00\x00_modules}("[..],
        &members,
        b"X\x01\x00\x00\x00zh\x01usbq\x00",
    ]
    .concat();
    let modules = [&b"\x80\x02}X\x01\x00\x00\x00m]q\x00"[..], &module.repeat(2000), b"s."].concat();
    assert_eq!(bounded(&modules).unwrap(), 0);
    // Dicts one in another behind long keys.
    let key = [&b"X\x64\x00\x00\x00"[..], &[b'k'; 100]].concat();
    let dicts = [&b"\x80\x02"[..], &[&b"}"[..], &key].concat().repeat(60_000), b"N"].concat();
    let dicts = [&dicts[..], &b"s".repeat(60_000), b"."].concat();
    assert_eq!(bounded(&dicts).unwrap(), 0);
    // Nesting that is within the number of objects must not overflow the thread's stack either.
    let nested = [&b"\x80\x02"[..], &b"]".repeat(200_000), &b"a".repeat(199_999), b"."].concat();
    assert_eq!(bounded(&nested).unwrap(), 0);
}

#[test]
fn archives_that_lie_are_refused() {
    let good = archive(&tensor_pickle(4, 0, &[4], &[1]));
    assert!(bounded(&good).is_ok());
    let end = good.len() - 22;
    let central = good.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    let change = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        bounded(&file).map_err(|error| error.to_string()).expect_err("refused")
    };
    // A compressed entry: what a zip bomb is made of.
    assert!(change(central + 10, &8_u16.to_le_bytes()).contains("compressed"));
    assert!(change(central + 8, &1_u16.to_le_bytes()).contains("encrypted"));
    assert!(change(central + 24, &0xffff_fff0_u32.to_le_bytes()).contains("two lengths"));
    change(central + 20, &[0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff]);
    change(central + 42, &0x7fff_ffff_u32.to_le_bytes());
    change(central + 28, &u16::MAX.to_le_bytes());
    // A table of contents of four gigabytes, or beyond the end.
    change(end + 12, &0xffff_fff0_u32.to_le_bytes());
    change(end + 16, &0xffff_fff0_u32.to_le_bytes());
    // 64-bit sizes without the record that has them.
    change(end + 12, &u32::MAX.to_le_bytes());
    // A number that changed under its checksum.
    let data = good.windows(16).position(|bytes| bytes == [1; 16]).unwrap();
    assert!(change(data, &[2]).contains("checksum"));
}

#[test]
fn a_call_inside_an_archive_is_named_and_not_made() {
    let folder = std::env::temp_dir().join(format!("protonce-pth-{}", std::process::id()));
    let pickle = format!("\u{2}cos\nmkdir\n({}\n.", folder.display());
    let mut call = b"\x80\x02cos\nmkdir\n(X".to_vec();
    let path = folder.to_str().unwrap();
    call.extend((path.len() as u32).to_le_bytes());
    call.extend(path.as_bytes());
    call.extend(b"tR.");
    let error = bounded(&archive(&call)).unwrap_err().to_string();
    assert!(error.contains("os.mkdir") && error.contains("nothing was executed"), "{error}");
    assert!(!folder.exists(), "{pickle}");
}
