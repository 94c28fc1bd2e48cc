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
    written(&module)
}

/// The real module, which traps at the beginning of an exported function if that
/// parameter of it has that value.
pub(crate) fn trapping_where(function: &str, parameter: u8, value: usize) -> NamedTempFile {
    const LOCAL_GET: u8 = 0x20;
    const I32_CONST: u8 = 0x41;
    const I32_EQ: u8 = 0x46;
    const IF_EMPTY: [u8; 2] = [0x04, 0x40];
    let path = filter_module().unwrap_or_else(|error| panic!("{error}"));
    let module = fs::read(path).unwrap();
    let body = body_of(&module, function);
    let code = code_of(&module, &body);
    let mut check = vec![LOCAL_GET, parameter, I32_CONST];
    check.extend(leb128(value));
    // The constant is signed.
    assert_eq!(check.last().unwrap() & 0x40, 0, "{value} would be negative");
    check.push(I32_EQ);
    check.extend(IF_EMPTY);
    check.extend([UNREACHABLE, END]);

    // The sizes of the section and of the function stand before them.
    let section = code_section_of(&module);
    let grown = leb128(body.len() + check.len());
    let size = leb128(body.len());
    assert!(module[..body.start].ends_with(&size), "a padded size");
    let more = check.len() + grown.len() - size.len();
    let section_size = leb128(section.len());
    assert!(
        module[..section.start].ends_with(&section_size),
        "a padded size"
    );
    let pieces = [
        &module[..section.start - section_size.len()],
        &leb128(section.len() + more),
        &module[section.start..body.start - size.len()],
        &grown,
        &module[body.start..code],
        &check,
        &module[code..],
    ];
    written(&pieces.concat())
}

/// Where the code of a function begins, behind the declaration of its locals.
fn code_of(module: &[u8], body: &std::ops::Range<usize>) -> usize {
    let reader = wasmparser::BinaryReader::new(&module[body.clone()], body.start);
    let body = wasmparser::FunctionBody::new(reader);
    body.get_operators_reader().unwrap().original_position()
}

/// Where the functions are.
fn code_section_of(module: &[u8]) -> std::ops::Range<usize> {
    let mut payloads = Parser::new(0).parse_all(module);
    let section = payloads.find_map(|payload| match payload.unwrap() {
        Payload::CodeSectionStart { range, .. } => Some(range),
        _ => None,
    });
    section.expect("a section of code")
}

/// The shortest form, which is what linkers write of sizes that they know.
fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn written(module: &[u8]) -> NamedTempFile {
    wasmparser::validate(module).expect("a valid module");
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
