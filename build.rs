//! How the filter is linked, and the status page packed.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = "src/status/page.html";

fn main() -> Result<(), Box<dyn Error>> {
    link();
    pack_page(Path::new(&env::var("OUT_DIR")?))
}

/// Packs the page, and says what it may do: nothing but run its own script, take its own
/// style and ask its own origin.
fn pack_page(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PAGE}");
    let page: String = fs::read_to_string(PAGE)?
        .lines()
        .map(|line| line.trim_start().to_owned() + "\n")
        .collect();
    let [script, style] = [hash_of(&page, "script")?, hash_of(&page, "style")?];
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    fs::write(out.join("page.policy"), policy)?;
    let packed = fs::File::create(out.join("page.html.gz"))?;
    let mut packer = flate2::write::GzEncoder::new(packed, flate2::Compression::best());
    packer.write_all(page.as_bytes())?;
    packer.finish()?;
    Ok(())
}

/// The hash of what stands in the only element of this name, for a content security policy.
fn hash_of(page: &str, element: &str) -> Result<String, String> {
    let (_, rest) = page.split_once(&format!("<{element}>")).ok_or(element)?;
    let (text, rest) = rest.split_once(&format!("</{element}>")).ok_or(element)?;
    if rest.contains(&format!("<{element}")) {
        return Err(format!("{PAGE} has two elements {element}"));
    }
    Ok(format!(
        "'sha256-{}'",
        STANDARD.encode(Sha256::digest(text))
    ))
}

fn link() {
    println!("cargo::rerun-if-changed=build.rs");
    // The linker pads every address in the code to five bytes, for tools that would
    // move things later. Nothing does: without the padding the file is 25 KB
    // smaller, and the code the same. It takes a file without debug information.
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    let is_filter = is("CARGO_CFG_TARGET_FAMILY", "wasm");
    if is_filter && is("PROFILE", "release") && is("DEBUG", "false") {
        println!("cargo::rustc-cdylib-link-arg=--strip-debug");
        println!("cargo::rustc-cdylib-link-arg=--compress-relocations");
    }
}
