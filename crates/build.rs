//! Lets every program, test and benchmark find libtorch where it was linked from, and compiles the
//! library's C++.
//!
//! torch-sys says where that is, but link arguments of a build script reach only the targets of
//! its own package, so both packages run this one script.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=../build.rs");
    let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    let libraries = std::fs::canonicalize(&libraries).unwrap_or_else(|_| libraries.into());
    compile(&libraries);
    rpath(&libraries);
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // The wheel keeps NVIDIA's runtime libraries beside torch/, not inside it.
    let packages = libraries.parent().and_then(Path::parent).unwrap_or(&libraries);
    for package in std::fs::read_dir(packages.join("nvidia")).into_iter().flatten().flatten() {
        let folder = package.path().join("lib");
        if folder.is_dir() {
            rpath(&folder);
        }
    }
    // A CPU set-up carries a libtorch whose CUDA half was left out: what only that half
    // defines is never called, and must not stop the link.
    println!("cargo:rustc-link-arg=-Wl,--unresolved-symbols=ignore-in-shared-libs");
    if libraries.join("libtorch_cuda.so").exists() {
        // No symbol of libtorch_cuda is named from here: it registers its kernels when loaded.
        // Without --no-as-needed the linker drops it and CUDA is silently missing.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}

fn rpath(folder: &Path) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    println!("cargo:rustc-link-search=native={}", folder.display());
}

/// Compiles this package's C++, if it has any.
fn compile(libraries: &Path) {
    let source = Path::new("src/encoder/autograd.cpp");
    if !source.exists() {
        return;
    }
    println!("cargo:rerun-if-changed={}", source.display());
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
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
