//! Links with libtorch as `protonce-encoder` says, so that a program finds it where it was linked from.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = std::env::var("DEP_PROTONCE_ENCODER_LINK_ARGS").unwrap_or_default();
    for argument in arguments.split('\u{1f}').filter(|argument| !argument.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
}
