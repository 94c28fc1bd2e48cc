//! The built filter: where it is, read and compiled once.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::{env, fs};
use wasmi::{Config, Engine, Module};

/// The bytes of the built filter. `PACELINE_WASM` names another file than the
/// one that `make build` leaves in Cargo's target directory.
pub(crate) fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let path = path();
        fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "cannot read the built filter {}: {error}. Run `make build` first.",
                path.display()
            )
        })
    })
}

/// The compiled filter, shared by all VMs.
pub(crate) fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        let mut config = Config::default();
        config.consume_fuel(true);
        Module::new(&Engine::new(&config), bytes()).expect("the built filter is valid WebAssembly")
    })
}

fn path() -> PathBuf {
    if let Some(path) = env::var_os("PACELINE_WASM") {
        return path.into();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let wasm = "wasm32-wasip1/release/paceline.wasm";
    root.join(target).join(wasm)
}
