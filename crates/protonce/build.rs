//! Compiles this package's C++, and links with libtorch as `protonce-encoder` says, so that a program finds it
//! where it was linked from.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = std::env::var("DEP_PROTONCE_ENCODER_LINK_ARGS").unwrap_or_default();
    for argument in arguments.split('\u{1f}').filter(|argument| !argument.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
    if let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB")
        && !for_clippy()
    {
        compile(&std::fs::canonicalize(&libraries).unwrap_or_else(|_| libraries.into()));
    }
}

/// Whether this is for Clippy, which links nothing and has build scripts run for itself: what is compiled
/// for it is compiled again for everything else.
fn for_clippy() -> bool {
    let wrapper = std::env::var_os("RUSTC_WORKSPACE_WRAPPER").unwrap_or_default();
    Path::new(&wrapper).file_stem().is_some_and(|name| name == "clippy-driver")
}

/// Compiles the half of the bridge to libtorch's c10d that is C++.
fn compile(libraries: &Path) {
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo::rerun-if-changed=src/world/c10d.cpp");
    let home = std::env::var("LIBTORCH_INCLUDE").map(Into::into);
    let home: PathBuf = home.unwrap_or_else(|_| libraries.parent().unwrap_or(libraries).to_owned());
    let mut c10d = cc::Build::new();
    c10d.cpp(true)
        .std("c++17")
        .warnings(false)
        .include(home.join("include"))
        .include(home.join("include/torch/csrc/api/include"))
        .file("src/world/c10d.cpp");
    let headers = home.join("include/torch/csrc/distributed/c10d");
    if headers.join("ProcessGroupGloo.hpp").exists() {
        // Behind real headers of gloo, where there are some.
        println!("cargo::rerun-if-changed=src/world/gloo");
        c10d.define("PROTONCE_GLOO", None).flag("-idirafter").flag("src/world/gloo");
    }
    let nvidia = nvidia_headers(libraries);
    let has = |header: &str| nvidia.iter().any(|folder| folder.join(header).exists());
    let needed = ["nccl.h", "cuda_runtime_api.h", "crt/host_defines.h", "nv/target"];
    if needed.into_iter().all(has) && libraries.join("libtorch_cuda.so").exists() {
        c10d.define("PROTONCE_NCCL", None).includes(nvidia);
    }
    c10d.compile("protonce_c10d");
}

/// Folders of the headers that NVIDIA's wheels keep beside torch/.
fn nvidia_headers(libraries: &Path) -> Vec<PathBuf> {
    let packages = libraries.parent().and_then(Path::parent).unwrap_or(libraries);
    let found = std::fs::read_dir(packages.join("nvidia")).into_iter().flatten().flatten();
    found.map(|package| package.path().join("include")).filter(|folder| folder.is_dir()).collect()
}
