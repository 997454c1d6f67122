//! Any text as a brace pattern: names or an error, never more names than the pattern's ranges and lists allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_loader::shards::expand_braces;

fuzz_target!(|pattern: &str| {
    // Patterns of millions of names are right, and only take time and memory.
    let long = |digits: &str| digits.len() > 2;
    let many = pattern.matches('{').count() > 4 || pattern.len() > 80;
    if many || pattern.split(|letter: char| !letter.is_ascii_digit()).any(long) {
        return;
    }
    let mut names = Vec::new();
    if expand_braces(pattern, &mut names).is_ok() {
        assert!(!names.is_empty());
        assert!(names.iter().all(|name| !name.contains(['{', '}'])));
        if !pattern.contains('{') {
            assert_eq!(names, [pattern]);
        }
    }
});
