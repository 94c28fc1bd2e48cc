//! The built filter, made to trap.

use std::fs;

use lab::gateway::filter_module;
use tempfile::NamedTempFile;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

const UNREACHABLE: u8 = 0x00;
const NOP: u8 = 0x01;
const END: u8 = 0x0b;
const NO_LOCALS: u8 = 0x00;

/// The real module, with the body of one exported function replaced by a trap.
/// Nothing else changes, not even its size, so all that runs before the trap is
/// what users run.
pub(crate) fn trapping_in(function: &str) -> NamedTempFile {
    let path = filter_module().unwrap_or_else(|error| panic!("{error}"));
    let mut module = fs::read(path).unwrap();
    let body = body_of(&module, function);
    let (first, last) = (body.start, body.end - 1);
    module[body].fill(NOP);
    module[first] = NO_LOCALS;
    module[first + 1] = UNREACHABLE;
    module[last] = END;
    wasmparser::validate(&module).expect("a valid module");

    let file = NamedTempFile::with_suffix(".wasm").unwrap();
    fs::write(file.path(), module).unwrap();
    file
}

/// Where the body of an exported function lies, its locals included.
fn body_of(module: &[u8], function: &str) -> std::ops::Range<usize> {
    let (mut imported, mut exported, mut bodies) = (0, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::ImportSection(imports) => {
                imported = imports
                    .into_iter()
                    .filter(|import| matches!(import.as_ref().unwrap().ty, TypeRef::Func(_)))
                    .count();
            }
            Payload::ExportSection(exports) => {
                exported = exports
                    .into_iter()
                    .map(Result::unwrap)
                    .filter(|export| export.kind == ExternalKind::Func)
                    .collect();
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.range()),
            _ => {}
        }
    }
    let named = exported.iter().find(|export| export.name == function);
    let index = named
        .unwrap_or_else(|| panic!("no export {function}"))
        .index;
    // The linker may fold equal functions into one; then others would trap too.
    let sharing = exported
        .iter()
        .filter(|export| export.index == index)
        .count();
    assert_eq!(sharing, 1, "{function} shares its body with another export");
    bodies[index as usize - imported].clone()
}
