//! Tests: known answers, errors, and comparisons with `serde_json`.

use super::*;

fn fails(text: &str) -> String {
    JsonText::parse(text.as_bytes()).unwrap_err().to_string()
}

/// Parses a text and applies `look`.
fn read<T>(text: &str, look: impl FnOnce(Json<'_>) -> T) -> T {
    look(JsonText::parse(text.as_bytes()).unwrap().value())
}

#[test]
fn values_are_found_in_the_text() {
    let text = "\u{feff} {\"a\": [1, -2.5e1 , \"x\"], \"b\" :{\"c\":null,\"\\u0063\":\"d\"}, \"e\":[ ],\"f\":{ }} \n";
    let text = JsonText::parse(text.as_bytes()).unwrap();
    let json = text.value();
    let list: Vec<Json<'_>> = json.get("a").unwrap().elements().collect();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0].as_number(), Some(1.0));
    assert_eq!(list[1].as_number(), Some(-25.0));
    assert_eq!(list[1].as_str(), None);
    assert_eq!(list[2].as_str().as_deref(), Some("x"));
    assert_eq!(list[2].as_number(), None);
    // The last of equal keys counts, even if it is written with escapes.
    let last = json.get("b").unwrap().get("c").unwrap();
    assert_eq!(last.as_str().as_deref(), Some("d"));
    assert_eq!(json.get("e").unwrap().elements().count(), 0);
    assert_eq!(json.get("f").unwrap().elements().count(), 0);
    assert!(json.get("z").is_none() && list[2].get("x").is_none());
    let kinds = "[{}, [], \"\", true, null, 0, NaN]";
    let kinds = read(kinds, |list| list.elements().map(Json::kind).collect::<Vec<_>>());
    assert_eq!(
        kinds,
        ["an object", "a list", "a string", "true or false", "null", "a number", "a number"]
    );
}

#[test]
fn json_written_by_python_is_read() {
    let number = |text: &str| read(text, |json| json.as_number().unwrap());
    assert!(number("NaN").is_nan());
    assert_eq!(number("-Infinity"), f64::NEG_INFINITY);
    assert_eq!(number("Infinity"), f64::INFINITY);
    assert_eq!(number("-0.0e+2"), 0.0);
    assert_eq!(number("-100000000000000000000"), -1e20);
    let text = |text: &str| read(text, |json| json.as_str().unwrap().into_owned());
    assert_eq!(text(r#""\"\\\/\b\f\n\r\té""#), "\"\\/\u{8}\u{c}\n\r\té");
    assert_eq!(text(r#""\u00e9\ud83d\ude00!""#), "é😀!");
    for (written, meant) in [
        (r#""\ud83d \ude00\ud83d""#, "\u{fffd} \u{fffd}\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\uDE00\\ud83d\né\uD83d\n""#, "\u{fffd}\\ud83d\né\u{fffd}\n"),
    ] {
        assert_eq!(text(written), meant);
    }
    // Also in a value that is not read, and in a key.
    let found =
        read(r#"{"a": "\udfff", "b\ud83d": 1}"#, |json| json.get("b\u{fffd}").unwrap().as_number());
    assert_eq!(found, Some(1.0));
}

#[test]
fn invalid_json_is_refused_with_its_position() {
    for (text, at) in [("", 0), ("[1}", 2), ("{a:1}", 1), ("\"\\ud83d\\", 8), ("true false", 5)] {
        let error = fails(text);
        assert!(error.ends_with(&format!(" at index {at}")), "{text:?}: {error}");
    }
    assert!(matches!(JsonText::parse(b"\"\xff\""), Err(JsonError::Utf8(_))));
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(JsonText::parse(deep(200).as_bytes()).is_ok());
    assert!(fails(&deep(100_000)).starts_with("recursion limit"));
}
