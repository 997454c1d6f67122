//! The rules of the house: which room may use which, and no cycles between rooms or between the files of a room.
//!
//! A file *uses* another if one of its paths (`use crate::…`, `use super::…`, or `crate::…` in the code) leads there.
//! Re-exports are followed to the file that defines the name. Tests may use anything.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, by floor: a room may use those on lower floors, and none on its own or above.
const FLOORS: [&[&str]; 5] = [
    &["pipeline"],
    &["order", "archive", "image", "text"],
    &["remote"],
    &["shards"],
    &["config", "error", "rng", "buffer", "os"],
];

/// The ground floor's rooms may use each other in this direction alone.
const GROUND: [(&str, &str); 1] = [("config", "error")];

/// A module path such as `["image", "decode", "png"]`.
type Module = Vec<String>;

/// The modules of the crate: for each its source without comments and test modules.
struct Crate {
    sources: BTreeMap<Module, String>,
}

impl Crate {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = BTreeMap::new();
        for path in files(&root) {
            let relative = path.strip_prefix(&root).unwrap().with_extension("");
            let parts = relative.iter().map(|part| part.to_str().unwrap().to_owned());
            let mut module: Module = parts.collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let is_test = module.last().is_some_and(|name| name.ends_with("tests"));
            if !is_test && module != ["lib"] {
                sources.insert(module, without_tests(&fs::read_to_string(&path).unwrap()));
            }
        }
        Self { sources }
    }

    /// The module that a path leads to from `from`, re-exports followed; `None` where it leads out of the crate.
    fn resolve(&self, from: &[String], path: &[String]) -> Option<Module> {
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => (from.split_last()?.1.to_vec(), &path[1..]),
            // A path that begins with a child module's name.
            name if self.child(from, name).is_some() => (from.to_vec(), path),
            _ => return None,
        };
        while let Some((name, behind)) = rest.split_first() {
            if name == "super" {
                module.pop();
            } else if let Some(child) = self.child(&module, name) {
                module = child;
            } else {
                return Some(self.follow(&module, name).unwrap_or(module));
            }
            rest = behind;
        }
        Some(module)
    }

    fn child(&self, module: &[String], name: &str) -> Option<Module> {
        let child: Module = module.iter().cloned().chain([name.to_owned()]).collect();
        self.sources.contains_key(&child).then_some(child)
    }

    /// Where a name comes from that a module imports or exports again.
    fn follow(&self, module: &[String], name: &str) -> Option<Module> {
        let source = self.sources.get(module)?;
        let mut imports = uses(source).into_iter().filter(|_| name != "*");
        let path = imports.find(|path| path.last().is_some_and(|last| last == name))?;
        self.resolve(module, &path)
    }

    /// What each module uses.
    fn edges(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of_module = |(module, source): (&Module, &String)| {
            let mut found = BTreeSet::new();
            for path in uses(source).into_iter().chain(inline_paths(source)) {
                found.extend(self.resolve(module, &path));
            }
            found.remove(module);
            found
        };
        let modules = self.sources.iter();
        modules.map(|entry| (entry.0, of_module(entry))).collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A source without comments and without what follows `#[cfg(test)] mod … {`, which stands last in a file.
fn without_tests(source: &str) -> String {
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let lines: Vec<&str> = source.lines().filter(|line| !is_comment(line)).collect();
    let begins_tests = |at: &usize| {
        let mut behind = lines[*at..].iter().skip_while(|line| line.starts_with("#["));
        let module = behind.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'));
        lines[*at] == "#[cfg(test)]" && module
    };
    let end = (0..lines.len()).find(begins_tests).unwrap_or(lines.len());
    lines[..end].join("\n")
}

/// The paths of all `use` statements, with braces spelled out.
fn uses(source: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for tree in split_uses(source).0 {
        spell_out(tree, &[], &mut found);
    }
    found
}

/// What the `use` statements of a source name, and the code between them.
fn split_uses(source: &str) -> (Vec<&str>, String) {
    let (mut trees, mut code) = (Vec::new(), String::new());
    let mut rest = source;
    while !rest.is_empty() {
        let line = rest.split_inclusive('\n').next().unwrap();
        match (used(line), rest.find(';')) {
            (Some(tree), Some(end)) => {
                let start = line.len() - tree.len();
                trees.push(&rest[start..end]);
                rest = &rest[end + 1..];
            }
            _ => {
                code.push_str(line);
                rest = &rest[line.len()..];
            }
        }
    }
    (trees, code)
}

/// The rest of a line that begins a `use` statement.
fn used(line: &str) -> Option<&str> {
    let words = line.trim_start();
    match words.strip_prefix("pub") {
        // `pub use`, `pub(crate) use`, `pub(in crate::image) use`.
        Some(rest) => {
            let (visibility, tree) = rest.split_once("use ")?;
            let plain = visibility.trim().is_empty() || visibility.trim_end().ends_with(')');
            (plain && visibility.ends_with(' ')).then_some(tree)
        }
        None => words.strip_prefix("use "),
    }
}

fn spell_out(tree: &str, before: &[String], found: &mut Vec<Module>) {
    let (head, braces) = match tree.find('{') {
        Some(open) => (&tree[..open], Some(&tree[open + 1..tree.rfind('}').unwrap()])),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let parts = head.split("::").map(str::trim).filter(|part| !part.is_empty());
    let mut path = before.to_vec();
    path.extend(parts.map(str::to_owned));
    let Some(inside) = braces else {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        return found.push(path);
    };
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[start..at].trim().is_empty() {
                    spell_out(&inside[start..at], &path, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// All other paths in the code but those in `pub(in …)`.
fn inline_paths(source: &str) -> Vec<Module> {
    let code = split_uses(source).1;
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default();
    let parts = parts.map(|part| part.split_once(')').map_or("", |(_, rest)| rest));
    let words = std::iter::once(first).chain(parts);
    let words = words.flat_map(|part| part.split(|letter| !is_path(letter)));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with(':'));
    paths.map(|word| word.split("::").map(str::to_owned).collect()).collect()
}

/// A cycle among the nodes, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<&str>> {
    fn visit<'a>(
        node: &'a str,
        edges: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(at) = path.iter().position(|&before| before == node) {
            return Some(path[at..].to_vec());
        }
        if !done.insert(node) {
            return None;
        }
        path.push(node);
        let next = edges.get(node).into_iter().flatten();
        let found = next.into_iter().find_map(|next| visit(next, edges, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|node| visit(node, edges, &mut Vec::new(), &mut done))
}

#[test]
fn rooms_import_only_from_lower_floors() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let krate = Crate::read();
    let mut wrong = BTreeSet::new();
    for (module, used) in krate.edges() {
        let room = &module[0];
        let Some(here) = floor(room) else {
            wrong.insert(format!("{room} is not on the list of rooms"));
            continue;
        };
        for other in used.iter().filter_map(|other| other.first()) {
            let below = floor(other).is_some_and(|there| there > here);
            let ground = GROUND.contains(&(room.as_str(), other.as_str()));
            if other != room && !below && !ground {
                wrong.insert(format!("{} uses {other}", module.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_of_a_room_form_no_cycle() {
    let krate = Crate::read();
    let mut edges = BTreeMap::new();
    for (module, used) in krate.edges() {
        let used = used.iter().map(|other| other.join("::")).collect();
        edges.insert(module.join("::"), used);
    }
    // Rooms cannot form one, as the other test shows, so this looks at all files at once.
    assert_eq!(cycle(&edges), None);
}

#[test]
fn only_one_file_uses_operating_system_apis() {
    let words = ["std::os::", "cfg(unix)", "cfg(windows)", "rustix"];
    let krate = Crate::read();
    let asking: Vec<String> = krate
        .sources
        .iter()
        .filter(|(_, source)| words.iter().any(|word| source.contains(word)))
        .map(|(module, _)| module.join("::"))
        .collect();
    assert_eq!(asking, ["os"]);
}

#[test]
fn paths_in_use_lines_and_code_are_found() {
    let source = "pub use a::{self, b::{C, D as E}, f};\nuse super::super::g::*;\nlet x = crate::h::i(super::j::K);";
    let found: Vec<String> =
        uses(source).iter().chain(&inline_paths(source)).map(|path| path.join("::")).collect();
    let expected =
        ["a", "a::b::C", "a::b::D", "a::f", "super::super::g::*", "crate::h::i", "super::j::K"];
    assert_eq!(found, expected);
}
