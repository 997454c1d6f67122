//! Known answers, places of errors, and another parser beside this one.

use super::*;
use proptest::prelude::*;

fn fails(text: &str) -> (usize, &'static str) {
    let error = Json::parse(text.as_bytes()).unwrap_err();
    (error.at, error.rule)
}

#[test]
fn values_are_found_in_place() {
    let text = "\u{feff} {\"a\": [1, -2.5e1 , \"x\"], \"b\" :{\"c\":null,\"\\u0063\":\"d\"}, \"e\":[ ],\"f\":{ }} \n";
    let json = Json::parse(text.as_bytes()).unwrap();
    let list: Vec<Json<'_>> = json.get("a").unwrap().elements().collect();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0].as_number(), Some(1.0));
    assert_eq!(list[1].as_number(), Some(-25.0));
    assert_eq!(list[1].as_text(), None);
    assert_eq!(list[2].as_text().as_deref(), Some("x"));
    // Of equal keys the last counts, however it is written.
    assert_eq!(
        json.get("b")
            .unwrap()
            .get("c")
            .unwrap()
            .as_text()
            .as_deref(),
        Some("d")
    );
    assert_eq!(json.get("e").unwrap().elements().count(), 0);
    assert_eq!(json.get("f").unwrap().members().count(), 0);
    assert!(json.get("z").is_none() && list[2].get("x").is_none());
    let kinds = "[{}, [], \"\", true, null, 0, NaN]";
    let kinds: Vec<&str> = Json::parse(kinds.as_bytes())
        .unwrap()
        .elements()
        .map(Json::kind)
        .collect();
    assert_eq!(
        kinds,
        [
            "an object",
            "a list",
            "a text",
            "true or false",
            "null",
            "a number",
            "a number"
        ]
    );
}

#[test]
fn what_python_writes_is_read() {
    let number = |text: &str| Json::parse(text.as_bytes()).unwrap().as_number().unwrap();
    assert!(number("NaN").is_nan());
    assert_eq!(number("-Infinity"), f64::NEG_INFINITY);
    assert_eq!(number("Infinity"), f64::INFINITY);
    assert_eq!(number("-0.0e+2"), 0.0);
    let text = |text: &str| {
        let json = Json::parse(text.as_bytes()).unwrap();
        json.as_text().unwrap().into_owned()
    };
    assert_eq!(text(r#""\"\\\/\b\f\n\r\té""#), "\"\\/\u{8}\u{c}\n\r\té");
    assert_eq!(text(r#""\u00e9\ud83d\ude00!""#), "é😀!");
    assert_eq!(
        text(r#""\ud83d \ude00\ud83d""#),
        "\u{fffd} \u{fffd}\u{fffd}"
    );
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (text, at) in [
        ("", 0),
        ("  ", 2),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("[1}", 2),
        ("{\"a\" 1}", 5),
        ("{a:1}", 1),
        ("{\"a\":}", 5),
        ("{\"a\":1,}", 7),
        ("\"a", 2),
        ("\"\t\"", 1),
        ("\"\\x\"", 1),
        ("\"\\u12g4\"", 1),
        ("\"\\u12", 1),
        ("01", 1),
        ("1.", 2),
        ("-", 1),
        ("1e+", 3),
        (".5", 0),
        ("nul", 0),
        ("[", 1),
        ("true false", 5),
    ] {
        assert_eq!(fails(text).0, at, "{text:?}");
    }
    assert_eq!(
        Json::parse(b"\"\xff\"").unwrap_err().to_string(),
        "byte 1: not UTF-8"
    );
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Json::parse(deep(512).as_bytes()).is_ok());
    assert!(fails(&deep(100_000)).1.starts_with("too many lists"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_to_another_parser(text in "[\\[\\]{}\",:0-9eE.+\\-ntrue \\\\ud8c0é]{0,24}|\\{(\"[ab]\":(1|\"\\\\u00e9\"|\\[null,[0-9]\\]),?){0,3}\\}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        let ours = Json::parse(text.as_bytes());
        // The other one knows no half pairs, and no numbers beyond f64's.
        if !text.contains("\\u") && !text.contains(['e', 'E']) {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", text);
        }
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert!(same(ours, &theirs), "{:?}", text);
        }
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
        let written = serde_json::to_string(&text).unwrap();
        let json = Json::parse(written.as_bytes()).unwrap();
        let read = json.as_text().unwrap();
        prop_assert_eq!(&*read, text.as_str());
    }
}

fn same(ours: Json<'_>, theirs: &serde_json::Value) -> bool {
    match theirs {
        serde_json::Value::String(text) => ours.as_text().as_deref() == Some(text),
        serde_json::Value::Number(number) => ours.as_number() == number.as_f64(),
        serde_json::Value::Array(items) => {
            ours.elements().count() == items.len()
                && ours
                    .elements()
                    .zip(items)
                    .all(|(ours, theirs)| same(ours, theirs))
        }
        serde_json::Value::Object(items) => items
            .iter()
            .all(|(key, theirs)| ours.get(key).is_some_and(|ours| same(ours, theirs))),
        _ => ours.as_text().is_none() && ours.as_number().is_none(),
    }
}
