//! Links the program as `protonce` says, so that it finds libtorch where it was linked from.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = std::env::var("DEP_PROTONCE_LINK_ARGS").unwrap_or_default();
    for argument in arguments.split('\u{1f}').filter(|argument| !argument.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
}
