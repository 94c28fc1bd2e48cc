//! No circle of files: a file imports none that imports it, be it through others.
//!
//! A file that two others need each other for is two files in one, or lacks a third that both can import.
//! Counted is every path that begins with `crate`, `super` or `self`, in imports, code and the arguments of
//! macros. It leads to the file of the longest module in it, so what `mod.rs` defines or re-exports leads to
//! `mod.rs`. Not counted are modules and imports for tests alone, and a module's children by their bare names,
//! as in `pub use child::Name`: that is how a module gathers what lies below it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, ItemMod, ItemUse, Macro, Token, UseTree, VisRestricted, token};

/// The crates that have no circles: where their sources are, from the root of the repository, and the file that
/// each begins with.
const CRATES: &[(&str, &str)] = &[
    ("lab/src", "lib.rs"),
    ("lab/src", "main.rs"),
    ("src", "lib.rs"),
    ("cli/src", "main.rs"),
];

#[test]
fn no_files_import_each_other_in_a_circle() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (directory, root) in CRATES {
        let circles = circles_in(&read_sources(&repository.join(directory)), root);
        assert!(circles.is_empty(), "in {directory}: {}", describe(&circles));
    }
}

/// The text of each source file, by its path in the tree.
type Sources = BTreeMap<PathBuf, String>;

/// The names on the way from the crate to a module or an item; none for the crate itself.
type Names = Vec<String>;

/// Some files each of which leads to all others, with the imports among them.
type Circle = BTreeSet<(PathBuf, PathBuf)>;

fn read_sources(root: &Path) -> Sources {
    let mut sources = Sources::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    sources
}

fn describe(circles: &[Circle]) -> String {
    let mut text = format!("{} circles of files", circles.len());
    for circle in circles {
        text.push('\n');
        for (from, to) in circle {
            write!(text, "\n    {} imports {}", from.display(), to.display()).unwrap();
        }
    }
    text
}

/// A file of the crate, and the paths in it.
struct Module {
    file: PathBuf,
    paths: BTreeSet<Names>,
}

fn circles_in(sources: &Sources, root: &str) -> Vec<Circle> {
    let modules = modules_of(sources, root);
    let imports: BTreeMap<&Names, BTreeSet<&Names>> = modules
        .iter()
        .map(|(name, module)| {
            let imported = module.paths.iter().filter_map(|path| find(&modules, path));
            (name, imported.filter(|other| *other != name).collect())
        })
        .collect();
    let leads_to: BTreeMap<&Names, BTreeSet<&Names>> = imports
        .keys()
        .map(|name| (*name, all_imported(&imports, name)))
        .collect();

    let mut circles: BTreeMap<BTreeSet<&Names>, Circle> = BTreeMap::new();
    for (from, imported) in &imports {
        for to in imported.iter().filter(|to| leads_to[*to].contains(from)) {
            let back = leads_to[from].iter().copied();
            let members = back.filter(|other| leads_to[other].contains(from));
            circles
                .entry(members.collect())
                .or_default()
                .insert((modules[*from].file.clone(), modules[*to].file.clone()));
        }
    }
    circles.into_values().collect()
}

/// The module of the longest part of the path that names one.
fn find<'a>(modules: &'a BTreeMap<Names, Module>, path: &[String]) -> Option<&'a Names> {
    (0..=path.len()).rev().find_map(|length| {
        let (name, _) = modules.get_key_value(path.get(..length)?)?;
        Some(name)
    })
}

/// All modules that one imports, itself or through others.
fn all_imported<'a>(
    imports: &BTreeMap<&'a Names, BTreeSet<&'a Names>>,
    from: &Names,
) -> BTreeSet<&'a Names> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(module) = pending.pop() {
        for imported in &imports[module] {
            if reached.insert(*imported) {
                pending.push(imported);
            }
        }
    }
    reached
}

/// The modules that are files, from the crate's root on as the compiler finds them; without those for tests alone.
fn modules_of(sources: &Sources, root: &str) -> BTreeMap<Names, Module> {
    let mut modules = BTreeMap::new();
    let mut declared = vec![Names::new()];
    while let Some(name) = declared.pop() {
        let candidates = match name.is_empty() {
            true => vec![PathBuf::from(root)],
            false => {
                let path: PathBuf = name.iter().collect();
                vec![path.with_extension("rs"), path.join("mod.rs")]
            }
        };
        let found = candidates.iter().find(|file| sources.contains_key(*file));
        let file = found.unwrap_or_else(|| panic!("none of {candidates:?}"));
        let syntax = syn::parse_file(&sources[file])
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Reader::new(name.clone());
        reader.visit_file(&syntax);
        declared.append(&mut reader.declared);
        let module = Module {
            file: file.clone(),
            paths: reader.paths,
        };
        modules.insert(name, module);
    }
    modules
}

/// Collects the paths of a file, and the modules that it declares in files of their own.
struct Reader {
    /// The file's, or the one inside of it that is being read.
    module: Names,
    declared: Vec<Names>,
    /// From the crate on.
    paths: BTreeSet<Names>,
}

impl Reader {
    fn new(module: Names) -> Self {
        Self {
            module,
            declared: Vec::new(),
            paths: BTreeSet::new(),
        }
    }

    fn add(&mut self, path: &[String]) {
        let mut full = match path.first().map(String::as_str) {
            Some("crate") => Names::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        let up = path.iter().filter(|name| *name == "super").count();
        full.truncate(full.len().saturating_sub(up));
        let is_name = |name: &&String| !["crate", "self", "super"].contains(&name.as_str());
        full.extend(path.iter().filter(is_name).cloned());
        self.paths.insert(full);
    }

    fn add_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(renamed) => self.add(&with(&renamed.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|it| self.add_tree(it, before)),
            _ => self.add(before),
        }
    }

    /// What a macro gets need not be Rust: its tokens are searched for paths.
    fn add_tokens(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        while !input.is_empty() {
            if input.peek(Token![crate]) || input.peek(Token![super]) || input.peek(Token![self]) {
                let mut path = vec![Ident::parse_any(input)?.to_string()];
                while input.peek(Token![::]) && input.peek3(Ident::peek_any) {
                    input.parse::<Token![::]>()?;
                    path.push(Ident::parse_any(input)?.to_string());
                }
                self.add(&path);
                continue;
            }
            let inside;
            if input.peek(token::Paren) {
                syn::parenthesized!(inside in input);
            } else if input.peek(token::Brace) {
                syn::braced!(inside in input);
            } else if input.peek(token::Bracket) {
                syn::bracketed!(inside in input);
            } else {
                input.step(|cursor| match cursor.token_tree() {
                    Some((_, rest)) => Ok(((), rest)),
                    None => Err(cursor.error("no token")),
                })?;
                continue;
            }
            self.add_tokens(&inside)?;
        }
        Ok(())
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        match item.content {
            Some(_) => visit::visit_item_mod(self, item),
            None => self.declared.push(self.module.clone()),
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add_tree(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.add(&names.collect::<Names>());
        visit::visit_path(self, path);
    }

    /// Who may see an item is no import.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    fn visit_macro(&mut self, call: &'ast Macro) {
        visit::visit_macro(self, call);
        call.parse_body_with(|input: ParseStream<'_>| self.add_tokens(input))
            .unwrap();
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        let condition = it.parse_args::<syn::Path>();
        it.path().is_ident("cfg") && condition.is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// The imports that are part of a circle, of a tree of these files, the crate's root first.
fn imports_in_circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources = files
        .iter()
        .map(|(file, text)| (PathBuf::from(file), (*text).to_owned()))
        .collect();
    let line = |(from, to): &(PathBuf, PathBuf)| format!("{} {}", from.display(), to.display());
    circles_in(&sources, files[0].0)
        .iter()
        .map(|circle| circle.iter().map(line).collect())
        .collect()
}

#[test]
fn a_tree_without_circles_has_none() {
    let files = [
        (
            "lib.rs",
            "pub mod shop; mod price; pub use shop::Shop; use price::Price;",
        ),
        (
            "shop/mod.rs",
            "mod till; pub use till::Till; use crate::price::Price; pub struct Shop(Till, Price);
             #[cfg(test)] mod tests;",
        ),
        (
            "shop/till.rs",
            "// use super::Shop;
             /// Of a [`Shop`](super::Shop), as in `use crate::shop::Shop`.
             pub(in crate::shop) struct Till(crate::price::Price);
             #[cfg(test)] mod tests { use crate::shop::Shop; }",
        ),
        ("shop/tests.rs", "use super::*;"),
        (
            "price.rs",
            "pub struct Price; impl Price { fn of(&self) { self.0; } }",
        ),
    ];
    assert_eq!(imports_in_circles(&files), [[""; 0]; 0]);
}

#[test]
fn circles_are_found_however_they_are_written() {
    let back = [
        "use crate::b::B;",
        "use crate::b;",
        "use super::b::*;",
        "use crate::{c::C, b::{self, B as Other}};",
        "fn f() -> crate::b::B { todo!() }",
        "fn f() { super::b::f::<u8>(); }",
        "fn f() -> Vec<Option<crate::b::B>> { todo!() }",
        "fn f() { println!(\"{}\", g(crate::b::X)); }",
        "fn f() { json!({ \"key\": [super::b::X] }); }",
        "macro_rules! b { () => { $crate::b::X }; }",
        "mod inside { use super::super::b::B; }",
        "#[cfg(target_os = \"linux\")] use crate::b::B;",
    ];
    for text in back {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", text),
            ("b.rs", "use crate::a::A; use crate::c::C;"),
            ("c.rs", ""),
        ];
        let expected = [["a.rs b.rs", "b.rs a.rs"]];
        assert_eq!(imports_in_circles(&files), expected, "{text}");
    }
}

#[test]
fn circles_through_other_files_are_told_apart() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; use crate::d::D;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
        ("d/mod.rs", "mod e; use self::e::E;"),
        ("d/e.rs", "use super::D;"),
    ];
    let expected = [
        vec!["a.rs b.rs", "b.rs c.rs", "c.rs a.rs"],
        vec!["d/e.rs d/mod.rs", "d/mod.rs d/e.rs"],
    ];
    assert_eq!(imports_in_circles(&files), expected);
}

#[test]
fn each_crate_of_a_tree_has_modules_of_its_own() {
    let files = [
        ("main.rs", "mod cli;"),
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::a::A;"),
        ("cli/mod.rs", "mod one; mod two;"),
        ("cli/one.rs", "use super::two::Two;"),
        ("cli/two.rs", "use crate::cli::one::One; use lab::a::A;"),
    ];
    let expected = [["cli/one.rs cli/two.rs", "cli/two.rs cli/one.rs"]];
    assert_eq!(imports_in_circles(&files), expected);
    let [main, lib, ..] = files;
    let mut library = files;
    library[0] = lib;
    library[1] = main;
    assert_eq!(imports_in_circles(&library), [["a.rs b.rs", "b.rs a.rs"]]);
}
