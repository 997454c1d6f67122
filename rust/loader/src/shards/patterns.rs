//! Expands patterns to the list of shards.

use std::path::{Component, Path};

use super::location::Location;
use crate::config::OnMissingShard;
use crate::error::ConfigError;

const FIELD: &str = "shards";
/// Most names of one pattern: far more shards than any data set has, and few enough for memory.
const MAX_NAMES: usize = 10_000_000;
/// Most braces of one pattern: expanding them takes a part of the stack for each.
const MAX_BRACES: usize = 1000;

/// Expands the patterns to shards, in the order of the patterns. Names from a glob are sorted.
///
/// A pattern is a path, a brace pattern (`{000..012}`, `{a,b}`, nested), a glob, both, an address, `pipe:COMMAND`, or a
/// list. A list is `@FILE` or a path that ends in `.txt`: a text file with one pattern per line, relative to its folder.
///
/// # Errors
/// A pattern matches nothing, a list cannot be read, or a brace pattern is invalid; with [`OnMissingShard::Raise`] also if a
/// path does not exist.
pub fn expand(patterns: &[String], missing: OnMissingShard) -> Result<Vec<Location>, ConfigError> {
    let mut shards = Vec::new();
    for pattern in patterns {
        match list_file(pattern) {
            Some(path) => expand_list(Path::new(path), pattern, missing, &mut shards)?,
            None => expand_pattern(pattern, None, missing, &mut shards)?,
        }
    }
    Ok(shards)
}

fn list_file(pattern: &str) -> Option<&str> {
    pattern
        .strip_prefix('@')
        .or_else(|| (pattern.ends_with(".txt") && !pattern.starts_with("pipe:")).then_some(pattern))
}

fn expand_list(
    path: &Path,
    pattern: &str,
    missing: OnMissingShard,
    shards: &mut Vec<Location>,
) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(pattern, format!("the list of shards cannot be read: {error}")))?;
    let before = shards.len();
    // Some editors begin a text with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if !line.is_empty() && !line.starts_with('#') {
            expand_pattern(line, path.parent(), missing, shards).map_err(|error| {
                wrong(
                    pattern,
                    format!("line {number} of the list is {}: {}", error.value, error.rule),
                )
            })?;
        }
    }
    if shards.len() == before {
        return Err(wrong(pattern, "the list names no shard"));
    }
    Ok(())
}

fn expand_pattern(
    pattern: &str,
    folder: Option<&Path>,
    missing: OnMissingShard,
    shards: &mut Vec<Location>,
) -> Result<(), ConfigError> {
    let mut names = Vec::new();
    expand_braces(pattern, &mut names)?;
    for name in names {
        let path = match Location::of(&name) {
            Location::File(path) => folder.map_or(path.clone(), |folder| folder.join(path)),
            remote => {
                shards.push(remote);
                continue;
            }
        };
        if path.is_file() {
            shards.push(Location::File(path));
        } else if name.contains(['*', '?', '[']) {
            expand_glob(&path, pattern, shards)?;
        } else if missing == OnMissingShard::Skip {
            // It is left out later, when it cannot be opened.
            shards.push(Location::File(path));
        } else {
            let shown = path.display();
            let rule = if name.is_empty() {
                "a name is empty".to_owned()
            } else if path.is_dir() {
                format!("{shown} is a folder: name its shards, '{shown}/*.tar'")
            } else {
                format!("there is no file {shown}")
            };
            return Err(wrong(pattern, rule));
        }
    }
    Ok(())
}

fn expand_glob(path: &Path, pattern: &str, shards: &mut Vec<Location>) -> Result<(), ConfigError> {
    let text = path.to_str().ok_or_else(|| wrong(pattern, "a glob must be UTF-8"))?;
    let found = glob::glob(text).map_err(|error| wrong(pattern, format!("not a glob: {error}")))?;
    let before = shards.len();
    for entry in found {
        let entry =
            entry.map_err(|error| wrong(pattern, format!("cannot be searched: {error}")))?;
        if entry.is_file() && hidden_parts(&entry) <= hidden_parts(path) {
            shards.push(Location::File(entry));
        }
    }
    if shards.len() == before {
        return Err(wrong(pattern, "it matches no file"));
    }
    shards[before..].sort();
    Ok(())
}

/// How many parts of a path begin with a dot. A wildcard stands for none of them, as in a shell.
fn hidden_parts(path: &Path) -> usize {
    let is_hidden = |part: &Component<'_>| matches!(part, Component::Normal(name) if name.as_encoded_bytes().starts_with(b"."));
    path.components().filter(is_hidden).count()
}

fn wrong(pattern: &str, rule: impl Into<String>) -> ConfigError {
    ConfigError::new(FIELD, format!("{:?}", Location::of(pattern).to_string()), rule)
}

fn too_many(pattern: &str) -> ConfigError {
    wrong(pattern, format!("it stands for more than {MAX_NAMES} names"))
}

/// Appends all names of a brace pattern. The leftmost brace varies slowest.
///
/// # Errors
/// The braces don't match, or there are too many of them or of names.
pub fn expand_braces(pattern: &str, names: &mut Vec<String>) -> Result<(), ConfigError> {
    if pattern.matches('{').count() > MAX_BRACES {
        return Err(wrong(pattern, format!("it has more than {MAX_BRACES} braces")));
    }
    let Some(open) = pattern.find('{') else {
        if pattern.contains('}') {
            return Err(wrong(pattern, "a } has no {"));
        }
        if names.len() >= MAX_NAMES {
            return Err(too_many(pattern));
        }
        names.push(pattern.to_owned());
        return Ok(());
    };
    let close = matching_brace(pattern, open).ok_or_else(|| wrong(pattern, "a { has no }"))?;
    let (before, inside, after) =
        (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    if before.contains('}') {
        return Err(wrong(pattern, "a } has no {"));
    }
    let mut heads = Vec::new();
    match parse_range(inside) {
        Some(range) => heads.extend(range.names(pattern)?),
        None => {
            let parts = split_alternatives(inside);
            if parts.len() < 2 {
                return Err(wrong(
                    pattern,
                    format!("{{{inside}}} is neither a range a..b nor a list a,b"),
                ));
            }
            for part in parts {
                expand_braces(part, &mut heads)?;
            }
        }
    }
    let mut tails = Vec::new();
    expand_braces(after, &mut tails)?;
    if names.len().saturating_add(heads.len().saturating_mul(tails.len())) > MAX_NAMES {
        return Err(too_many(pattern));
    }
    for head in &heads {
        names.extend(tails.iter().map(|tail| format!("{before}{head}{tail}")));
    }
    Ok(())
}

fn matching_brace(pattern: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, byte) in pattern.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits at the commas outside inner braces.
fn split_alternatives(inside: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (index, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&inside[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
}

struct Range {
    first: i64,
    last: i64,
    step: u64,
    width: usize,
}

/// Expands `a..b` or `a..b..step`. If `a` or `b` has a leading zero, all numbers are padded to the wider of the two.
fn parse_range(inside: &str) -> Option<Range> {
    let mut parts = inside.split("..");
    let (first, last, step) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let padded = |text: &str| {
        let digits = text.trim_start_matches('-');
        digits.len() > 1 && digits.starts_with('0')
    };
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    Some(Range {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
        step: step.map_or(Some(1), |text| text.parse().ok().filter(|&step| step > 0))?,
        width,
    })
}

impl Range {
    fn names(&self, pattern: &str) -> Result<Vec<String>, ConfigError> {
        let count = self.first.abs_diff(self.last) / self.step;
        if count >= MAX_NAMES as u64 {
            return Err(too_many(pattern));
        }
        let width = self.width;
        let sign = if self.first <= self.last { 1i128 } else { -1 };
        Ok((0..=count)
            .map(|index| i128::from(self.first) + sign * i128::from(index) * i128::from(self.step))
            .map(|number| format!("{number:0width$}"))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        let mut names = Vec::new();
        expand_braces(pattern, &mut names).unwrap();
        names
    }

    #[test]
    fn braces_expand_as_a_shell_does() {
        for (pattern, expected) in [
            ("a.tar", vec!["a.tar"]),
            ("{8..11}", vec!["8", "9", "10", "11"]),
            ("s{008..011}.tar", vec!["s008.tar", "s009.tar", "s010.tar", "s011.tar"]),
            ("{3..1}", vec!["3", "2", "1"]),
            ("{00..10..5}", vec!["00", "05", "10"]),
            ("{-1..1}", vec!["-1", "0", "1"]),
            ("{a,b}{0..1}", vec!["a0", "a1", "b0", "b1"]),
            ("{x{1..2},y,}z", vec!["x1z", "x2z", "yz", "z"]),
            ("{{a,b},c}", vec!["a", "b", "c"]),
        ] {
            assert_eq!(names(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn unbalanced_braces_are_an_error() {
        for pattern in [
            "a{0..1",
            "a}b{0..1}",
            "a}",
            "{a}",
            "{}",
            "{0..x}",
            "{0..99999999999}",
            "{0..9999}{0..9999}",
        ] {
            let error = expand_braces(pattern, &mut Vec::new()).unwrap_err();
            assert_eq!(error.field, "shards", "{pattern}");
        }
    }

    #[test]
    fn very_many_braces_are_an_error() {
        let nested = |depth| format!("{}a{}", "{".repeat(depth), ",b}".repeat(depth));
        assert_eq!(names(&nested(MAX_BRACES)).len(), MAX_BRACES + 1);
        for pattern in [nested(100_000), "{1..1}".repeat(100_000)] {
            let error = expand_braces(&pattern, &mut Vec::new()).unwrap_err();
            assert_eq!(error.rule, "it has more than 1000 braces");
        }
    }

    #[test]
    fn patterns_globs_and_list_files_expand_to_paths() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["b-0.tar", "a-1.tar", "a-0.tar", "odd[1].tar"] {
            std::fs::write(at(name), b"").unwrap();
        }
        std::fs::write(at("bom.txt"), "\u{feff}a-1.tar\r\n").unwrap();
        std::fs::write(at("list.txt"), "# two of them\na-{0..1}.tar\n\nb-*.tar\n").unwrap();
        let found = |pattern: String| -> Vec<String> {
            let shards = expand(&[pattern], OnMissingShard::Raise).unwrap();
            let name = |shard: &Location| {
                let path = shard.plain_file().unwrap();
                path.file_name().unwrap().to_str().unwrap().to_owned()
            };
            shards.iter().map(name).collect()
        };
        assert_eq!(found(at("a-*.tar")), ["a-0.tar", "a-1.tar"]);
        assert_eq!(found(at("{b,a}-0.tar")), ["b-0.tar", "a-0.tar"]);
        assert_eq!(found(at("odd[1].tar")), ["odd[1].tar"]);
        assert_eq!(found(at("list.txt")), ["a-0.tar", "a-1.tar", "b-0.tar"]);
        assert_eq!(found(at("bom.txt")), ["a-1.tar"]);
        assert_eq!(found(format!("@{}", at("list.txt"))), ["a-0.tar", "a-1.tar", "b-0.tar"]);
        for pattern in [at("c-*.tar"), at("a-{0..2}.tar"), at("none.txt"), at("none.tar")] {
            let error = expand(std::slice::from_ref(&pattern), OnMissingShard::Raise).unwrap_err();
            assert!(error.value.contains(&pattern), "{error}");
        }
        std::fs::write(at("typo.txt"), "a-0.tar\n\nc.tar\n").unwrap();
        for (pattern, rule) in [
            (String::new(), "a name is empty".to_owned()),
            (
                at("typo.txt"),
                format!("line 3 of the list is \"c.tar\": there is no file {}", at("c.tar")),
            ),
        ] {
            let error = expand(std::slice::from_ref(&pattern), OnMissingShard::Raise).unwrap_err();
            assert_eq!((error.value, error.rule), (format!("{pattern:?}"), rule));
        }
    }

    #[test]
    fn wildcards_stand_for_no_leading_dot() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join(".data");
        std::fs::create_dir_all(root.join(".old")).unwrap();
        for name in ["a.tar", ".b.tar", ".old/a.tar"] {
            std::fs::write(root.join(name), b"").unwrap();
        }
        let found = |pattern: &str| -> Vec<Location> {
            let pattern = root.join(pattern).to_str().unwrap().to_owned();
            expand(&[pattern], OnMissingShard::Raise).unwrap()
        };
        let at = |name: &str| vec![Location::File(root.join(name))];
        assert_eq!(found("*.tar"), at("a.tar"));
        assert_eq!(found("**/*.tar"), at("a.tar"));
        assert_eq!(found(".b*"), at(".b.tar"));
        assert_eq!(found(".old/*"), at(".old/a.tar"));
    }

    #[test]
    fn wrong_patterns_are_shown_without_secrets() {
        for (pattern, shown) in [
            ("https://me:pass@h/{0..}.tar?sig=1", "\"https://h/{0..}.tar?…\""),
            ("https://me:pass@h/{a,b.tar?sig=1,2", "\"https://h/{a,b.tar?…\""),
            ("pipe:curl https://me:pass@h/{0..}.tar?sig=1", "\"pipe:curl https://h/{0..}.tar?…\""),
        ] {
            let patterns = [pattern.to_owned()];
            let error = expand(&patterns, OnMissingShard::Raise).unwrap_err();
            assert_eq!(error.value, shown);
            assert!(!error.rule.contains("pass"), "{error}");
        }
    }

    #[test]
    fn addresses_and_commands_are_not_looked_up() {
        let patterns = ["s3://b/{0..1}.tar", "pipe:cat {a,b}.tar", "none-{7,8}.tar"];
        let shards = expand(&patterns.map(str::to_owned), OnMissingShard::Skip).unwrap();
        let shown: Vec<String> = shards.iter().map(Location::to_string).collect();
        assert_eq!(
            shown,
            [
                "s3://b/0.tar",
                "s3://b/1.tar",
                "pipe:cat a.tar",
                "pipe:cat b.tar",
                "none-7.tar",
                "none-8.tar"
            ]
        );
        assert!(matches!(&shards[1], Location::Url(_)) && matches!(&shards[2], Location::Pipe(_)));
    }
}
