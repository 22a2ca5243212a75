//! The structure of the source: arrows run downwards only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// The modules of the crate from the top down: each may name only those below it.
const LAYERS: [&str; 20] = [
    "fuzzing",
    "client",
    "cli",
    "server",
    "grpc",
    "write",
    "read",
    "profile",
    "store",
    "migration",
    "entity",
    "error",
    "value",
    "scope",
    "queue",
    "trace",
    "metrics",
    "telemetry",
    "pb",
    "clock",
];

/// Modules of the crate, such as `["store", "save"]`.
type Module = Vec<String>;

#[test]
fn no_module_names_one_above_it() {
    let rank = |module: &str| {
        LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} has no layer"))
    };
    for (from, targets) in arrows() {
        for to in targets.iter().filter(|to| to[0] != from[0]) {
            assert!(rank(&from[0]) < rank(&to[0]), "{} names {}", from.join("::"), to.join("::"));
        }
    }
}

#[test]
fn no_files_of_a_folder_name_each_other_in_a_circle() {
    let arrows = arrows();
    for start in arrows.keys().filter(|module| module.len() > 1) {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            // A folder's own file speaks for the folder: its parts may use what they share there.
            for to in arrows[module].iter().filter(|to| to.len() > 1 && to[0] == start[0]) {
                assert_ne!(to, start, "a circle through {}", module.join("::"));
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
    }
}

/// What is pure stays so: no connection, no gRPC, no clock.
#[test]
fn the_rules_of_profiles_know_no_connection_no_grpc_and_no_clock() {
    for (from, targets) in arrows().iter().filter(|(from, _)| from[0] == "profile") {
        for to in targets {
            assert!(["profile", "entity", "error", "value"].contains(&to[0].as_str()), "{from:?} names {to:?}");
        }
    }
}

/// A program that only calls the service needs nothing of it.
#[test]
fn the_client_knows_the_messages_and_nothing_of_the_server() {
    for (from, targets) in arrows().iter().filter(|(from, _)| from[0] == "client") {
        for to in targets {
            assert!(["client", "pb", "clock"].contains(&to[0].as_str()), "{from:?} names {to:?}");
        }
    }
}

/// The modules that each module names by `crate::` and `super::`.
fn arrows() -> BTreeMap<Module, BTreeSet<Module>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    collect(&root, &root, &mut files);
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let arrows = files.into_iter().map(|(module, path)| {
        let text = fs::read_to_string(&path).expect("a source file");
        let mut names = Names { module: module.clone(), found: Vec::new() };
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        names.visit_file(&file);
        let targets = names.found.into_iter().filter_map(|mut path| {
            while !modules.contains(&path) {
                path.pop()?;
            }
            (path != module).then_some(path)
        });
        (module.clone(), targets.collect())
    });
    arrows.collect()
}

/// The files of the library by the module that they are.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let relative = path.strip_prefix(root).expect("below the root").with_extension("");
        let mut module: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        module.pop_if(|last| last == "mod");
        if !matches!(module[0].as_str(), "main" | "lib") {
            files.insert(module, path);
        }
    }
}

/// Gathers the paths of a file that begin with `crate` or `super`.
struct Names {
    module: Module,
    found: Vec<Module>,
}

impl Names {
    fn add(&mut self, path: &[String]) {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let mut named = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super") => self.module[..self.module.len().saturating_sub(supers)].to_vec(),
            _ => return,
        };
        named.extend(path.iter().skip(supers.max(1)).cloned());
        self.found.push(named);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
        }
    }
}

impl Visit<'_> for Names {
    fn visit_item_mod(&mut self, module: &syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&parts);
        visit::visit_path(self, path);
    }
}
