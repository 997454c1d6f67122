//! Tests: cleaning of plain ASCII, and words that keep their capitals.

use std::path::PathBuf;
use std::sync::Arc;

use super::tests::{Broken, encode, with};
use super::*;

/// A `tokenizer.json` whose ids are ASCII codes.
fn ascii() -> (tempfile::TempDir, PathBuf) {
    let vocab: serde_json::Map<String, serde_json::Value> =
        (b' '..=b'~').map(|letter| (char::from(letter).to_string(), letter.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": vocab},
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    (folder, path)
}

#[test]
fn ascii_is_cleaned_without_the_python_cleaner() {
    let (_folder, path) = ascii();
    let read = |how: Option<Clean>, caption: &str| -> String {
        let cleaning = how.map(|how| with(how, Arc::new(Broken)));
        let tokenizer = Tokenizer::from_file(&path, 40, Some(126), cleaning).unwrap();
        assert_eq!(tokenizer.cleans(), how.is_some());
        let row = &encode(&tokenizer, &[caption])[0];
        let text = row.iter().map(|id| char::from(*id as u8));
        text.take_while(|letter| *letter != '~').collect()
    };
    for (caption, lower, whitespace, canonicalize) in [
        ("A  b", "a b", "A b", "a b"),
        (" A-b,_C ", "a-b,_c", "A-b,_C", "ab c"),
        ("a\tb\r\n", "a b", "a b", "a b"),
        ("\na", "a", "a", "a"),
        ("a , b & ", "a , b &", "a , b &", "a b"),
        ("_._", "_._", "_._", ""),
        ("It's #1!", "it's #1!", "It's #1!", "its 1"),
        ("", "", "", ""),
    ] {
        assert_eq!(read(Some(Clean::Lower), caption), lower, "{caption:?}");
        assert_eq!(read(Some(Clean::Whitespace), caption), whitespace, "{caption:?}");
        assert_eq!(read(Some(Clean::Canonicalize), caption), canonicalize, "{caption:?}");
    }
    assert_eq!(read(None, "  A_b "), "  A_b ");
}

#[test]
fn tokenizer_config_json_takes_precedence_over_the_tokenizer_file() {
    let (folder, path) = ascii();
    let beside = |text: &str| {
        std::fs::write(folder.path().join("tokenizer_config.json"), text).unwrap();
        Tokenizer::from_file(&path, 4, None, None)
    };
    let ids = |text: &str| encode(&beside(text).unwrap(), &["ab", "abcdef"]).concat();
    let row = |text: &str| text.bytes().map(i32::from).collect::<Vec<_>>();
    assert_eq!(ids(r##"{"pad_token": "#"}"##), row("ab##abcd"));
    assert_eq!(
        ids(r##"{"pad_token": {"content": "#", "lstrip": false}, "padding_side": "left"}"##),
        row("##ababcd")
    );
    assert_eq!(
        ids(r##"{"pad_token": "#", "truncation_side": "left", "padding_side": "right"}"##),
        row("ab##cdef")
    );
    // This file only counts where no argument overrides it.
    std::fs::write(folder.path().join("tokenizer_config.json"), r##"{"pad_token": "#"}"##).unwrap();
    let given = Tokenizer::from_file(&path, 4, Some(33), None).unwrap();
    assert_eq!(given.pad_id(), 33);
    for text in ["{", "{}"] {
        assert!(matches!(beside(text), Err(TokenizeError::File { .. })), "{text}");
    }
}
