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
fn patterns_globs_and_list_files_expand_to_paths() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["b-0.tar", "a-1.tar", "a-0.tar", "odd[1].tar"] {
        std::fs::write(at(name), b"").unwrap();
    }
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
