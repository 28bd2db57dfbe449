//! Compiles this package's C++, and says how programs find libtorch where it was linked from.
//!
//! torch-sys tells where libtorch is. Link arguments of a build script reach only the targets of its
//! own package, so they are also handed on, as `DEP_PROTONCE_ENCODER_LINK_ARGS`, to the build scripts of
//! packages that depend on this one.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    let libraries = std::fs::canonicalize(&libraries).unwrap_or_else(|_| libraries.into());
    if !for_clippy() {
        compile(&libraries);
    }
    let arguments = link_arguments(&libraries);
    for argument in &arguments {
        println!("cargo::rustc-link-arg={argument}");
    }
    // The separator that Cargo itself puts between arguments, in CARGO_ENCODED_RUSTFLAGS.
    println!("cargo::metadata=link_args={}", arguments.join("\u{1f}"));
}

/// Whether this is for Clippy, which links nothing and has build scripts run for itself: what is compiled
/// for it is compiled again for everything else.
fn for_clippy() -> bool {
    let wrapper = std::env::var_os("RUSTC_WORKSPACE_WRAPPER").unwrap_or_default();
    Path::new(&wrapper).file_stem().is_some_and(|name| name == "clippy-driver")
}

/// What a program that contains this library is linked with.
fn link_arguments(libraries: &Path) -> Vec<String> {
    let rpath = |folder: &Path| format!("-Wl,-rpath,{}", folder.display());
    let mut arguments = vec![rpath(libraries)];
    search(libraries);
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return arguments;
    }
    // The wheel keeps NVIDIA's runtime libraries beside torch/, not inside it.
    let packages = libraries.parent().and_then(Path::parent).unwrap_or(libraries);
    for package in std::fs::read_dir(packages.join("nvidia")).into_iter().flatten().flatten() {
        let folder = package.path().join("lib");
        if folder.is_dir() {
            search(&folder);
            arguments.push(rpath(&folder));
        }
    }
    // A CPU set-up carries a libtorch whose CUDA half was left out: what only that half
    // defines is never called, and must not stop the link.
    arguments.push("-Wl,--unresolved-symbols=ignore-in-shared-libs".to_owned());
    if libraries.join("libtorch_cuda.so").exists() {
        // No symbol of libtorch_cuda is named from here: it registers its kernels when loaded.
        // Without --no-as-needed the linker drops it and CUDA is silently missing.
        let kept = ["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"];
        arguments.extend(kept.map(str::to_owned));
    }
    arguments
}

/// Libraries are looked for in `folder`, by dependent packages too.
fn search(folder: &Path) {
    println!("cargo::rustc-link-search=native={}", folder.display());
}

/// Compiles the half of the bridge to libtorch's autograd that is C++.
fn compile(libraries: &Path) {
    let source = Path::new("src/autograd.cpp");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let home = std::env::var("LIBTORCH_INCLUDE").map(Into::into);
    let home = home.unwrap_or_else(|_| libraries.parent().unwrap_or(libraries).to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(home.join("include"))
        .include(home.join("include/torch/csrc/api/include"))
        // at::parallel_for is a template: without OpenMP here it would run on one thread.
        .flag_if_supported("-fopenmp")
        .file(source)
        .compile("protonce_autograd");
}
