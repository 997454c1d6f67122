//! Expands patterns to the list of shards.

use std::path::Path;

use glob::MatchOptions;

use super::location::Location;
use crate::config::OnMissingShard;
use crate::error::ConfigError;

const FIELD: &str = "shards";
/// Of one pattern: more than any data set has, and few enough for memory.
const MAX_NAMES: usize = 10_000_000;

/// Expands the patterns in order. Names from a glob are sorted. A pattern is a path, a brace pattern (`{000..012}`, `{a,b}`,
/// nested), a glob, both, an address, `pipe:COMMAND`, or a list: `@FILE`, or a path that ends in `.txt`. A list is a text file
/// with one pattern per line, relative to its folder.
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
            // Left out later, when it cannot be opened.
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
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let found = glob::glob_with(text, options)
        .map_err(|error| wrong(pattern, format!("not a glob: {error}")))?;
    let before = shards.len();
    for entry in found {
        let entry =
            entry.map_err(|error| wrong(pattern, format!("cannot be searched: {error}")))?;
        if entry.is_file() {
            shards.push(Location::File(entry));
        }
    }
    if shards.len() == before {
        return Err(wrong(pattern, "it matches no file"));
    }
    shards[before..].sort();
    Ok(())
}

fn wrong(pattern: &str, rule: impl Into<String>) -> ConfigError {
    ConfigError::new(FIELD, format!("{:?}", Location::of(pattern).to_string()), rule)
}

fn too_many(pattern: &str) -> ConfigError {
    wrong(pattern, format!("it stands for more than {MAX_NAMES} names"))
}

pub fn expand_braces(pattern: &str, names: &mut Vec<String>) -> Result<(), ConfigError> {
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

/// At the commas outside inner braces.
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

/// `a..b` or `a..b..step`. If `a` or `b` has a leading zero, all numbers are padded to the wider of the two.
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
#[path = "patterns_tests.rs"]
mod tests;
