//! Where a panic happened.
//!
//! Enters: every panic of the process, as its hook sees it. Leaves: for the one that ends the program,
//! file and line of the code of ours that met it. What is printed stays one sentence; with
//! `RUST_BACKTRACE=1` Rust's own message and its backtrace come first.
//!
//! tch panics where libtorch refuses something, and the line within tch tells nothing; so the place is
//! looked for in the backtrace whenever the panic itself is in other people's code.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the hook saw last.
static LAST: Mutex<Option<Panic>> = Mutex::new(None);

struct Panic {
    file: String,
    line: u32,
    backtrace: Backtrace,
}

/// From here on panics are recorded rather than printed: some are no more than a damaged image, and the
/// others end in one sentence of `main`.
pub fn record() {
    let rusts = std::panic::take_hook();
    let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |panic| {
        if wanted {
            rusts(panic);
        }
        see(panic);
    }));
}

fn see(panic: &PanicHookInfo<'_>) {
    let Some(location) = panic.location() else { return };
    // `std::thread::scope` panics because one of its threads has: that one is of interest.
    if panic.payload().downcast_ref::<&str>() == Some(&"a scoped thread panicked") {
        return;
    }
    let (file, line) = (location.file().to_owned(), location.line());
    // Names and lines are looked up when it is printed.
    let backtrace = Backtrace::force_capture();
    *last() = Some(Panic { file, line, backtrace });
}

fn last() -> MutexGuard<'static, Option<Panic>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `FILE:LINE` of the last panic, if there was one.
pub fn place() -> Option<String> {
    let last = last();
    let Panic { file, line, backtrace } = last.as_ref()?;
    if is_ours(file) {
        return Some(format!("{}:{line}", short(file)));
    }
    let found = frame_of_ours(&backtrace.to_string());
    Some(found.unwrap_or_else(|| format!("{}:{line}", short(file))))
}

/// The innermost frame of ours in a printed backtrace, which has a line `at FILE:LINE:COLUMN` for each.
fn frame_of_ours(backtrace: &str) -> Option<String> {
    backtrace
        .lines()
        .filter_map(|line| line.trim().strip_prefix("at ")?.rsplit_once(':'))
        .map(|(place, _column)| place)
        .find(|place| is_ours(place) && !place.contains("protonce-cli/src/panics.rs"))
        .map(|place| short(place).to_owned())
}

/// Whether a file belongs to one of this workspace's packages, `…/protonce-NAME[-VERSION]/src/…`.
fn is_ours(file: &str) -> bool {
    let parts: Vec<&str> = file.split(['/', '\\']).collect();
    parts.windows(2).any(|pair| {
        pair[0].starts_with("protonce") && ["src", "tests", "benches"].contains(&pair[1])
    })
}

/// A path from its package on: what lies above says where the program was compiled.
fn short(file: &str) -> &str {
    match file.rfind("/src/") {
        Some(end) => &file[file[..end].rfind('/').map_or(0, |slash| slash + 1)..],
        None => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    /// The place of what `work` panics with. The hook belongs to the whole process, so one test does
    /// everything.
    fn place_of(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
        assert!(catch_unwind(work).is_err());
        place().unwrap()
    }

    #[test]
    fn a_panic_is_placed_in_our_code_wherever_it_was_raised() {
        record();
        let line = line!() + 1;
        let found = place_of(|| panic!("here"));
        assert_eq!(found, format!("protonce-cli/src/panics.rs:{line}"));

        // Within the standard library, with its caller's place.
        let line = line!() + 1;
        let found = place_of(|| _ = Vec::<u8>::new().remove(0));
        assert_eq!(found, format!("protonce-cli/src/panics.rs:{line}"));

        // On another thread, whose end the scope makes a panic of its own.
        let line = line!() + 3;
        let found = place_of(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| panic!("there"));
            })
        });
        assert_eq!(found, format!("protonce-cli/src/panics.rs:{line}"));

        // Within tch: not its generated wrappers, but the function that called them.
        let [query, key] =
            [3, 4].map(|dim| tch::Tensor::zeros([2, dim], (tch::Kind::Float, tch::Device::Cpu)));
        let misfits = std::panic::AssertUnwindSafe((query, key));
        let found = place_of(|| {
            let (query, key) = &*misfits;
            drop(protonce::contrast::info_nce(query, key, key, None, 0.2));
        });
        assert!(found.starts_with("protonce/src/contrast/mod.rs:"), "{found}");
    }
}
