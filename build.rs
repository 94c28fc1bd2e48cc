//! How the filter is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The linker pads every address in the code to five bytes, for tools that would
    // move things later. Nothing does: without the padding the file is 25 KB
    // smaller, and the code the same. It takes a file without debug information.
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    if is("CARGO_CFG_TARGET_FAMILY", "wasm") && is("PROFILE", "release") && is("DEBUG", "false") {
        println!("cargo::rustc-cdylib-link-arg=--strip-debug");
        println!("cargo::rustc-cdylib-link-arg=--compress-relocations");
    }
}
