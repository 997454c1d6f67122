//! Tests: known answers and errors of tokenizers from a file.

use std::io::Write;

use tempfile::NamedTempFile;

use super::tests::encode;
use super::*;

/// A `tokenizer.json` of single letters with `[CLS] … [SEP]` around, and `extra` at its top level.
fn letters_json(extra: &str, pad_token: &str) -> String {
    let letters = ('a'..='e').enumerate().map(|(at, letter)| format!("\"{letter}\": {}", at + 4));
    let vocab = letters.collect::<Vec<_>>().join(", ");
    format!(
        r#"{{"version": "1.0", {extra} "added_tokens": [], "normalizer": {{"type": "Lowercase"}},
        "pre_tokenizer": {{"type": "Whitespace"}},
        "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}}, "decoder": null,
        "model": {{"type": "WordLevel", "unk_token": "[UNK]",
                   "vocab": {{"{pad_token}": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, {vocab}}}}}}}"#
    )
}

fn written(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn truncation_keeps_the_special_tokens_of_a_tokenizer_file() {
    let file = written(&letters_json("", "[PAD]"));
    let tokenizer = Tokenizer::from_file(file.path(), 5, None, None).unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.vocab_size(), tokenizer.context_length()), (0, 9, 5));
    let rows = encode(&tokenizer, &["A b", "a b c d e", "", "zebra"]);
    assert_eq!(rows, [[1, 4, 5, 2, 0], [1, 4, 5, 6, 2], [1, 2, 0, 0, 0], [1, 3, 2, 0, 0]]);
}

#[test]
fn padding_and_truncation_follow_the_tokenizer_file() {
    let padding = r#""padding": {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null, "pad_id": 3,
        "pad_type_id": 0, "pad_token": "[UNK]"},
        "truncation": {"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0},"#;
    let file = written(&letters_json(padding, "[PAD]"));
    let tokenizer = Tokenizer::from_file(file.path(), 5, None, None).unwrap();
    assert_eq!(encode(&tokenizer, &["a", "a b c d"]), [[3, 3, 1, 4, 2], [1, 5, 6, 7, 2]]);
    let given = Tokenizer::from_file(file.path(), 5, Some(0), None).unwrap();
    assert_eq!(encode(&given, &["a"]), [[0, 0, 1, 4, 2]]);
    let padding = given.padding();
    assert_eq!((padding.id, padding.left), (0, true));
}

#[test]
fn what_is_wrong_with_a_tokenizer_file_is_named() {
    let file = written(&letters_json("", "nothing"));
    let refused = |length, pad_id| Tokenizer::from_file(file.path(), length, pad_id, None);
    assert!(matches!(refused(8, None), Err(TokenizeError::File { .. })));
    for (length, pad_id, field) in [(8, 9, "tokenizer.pad_id"), (2, 0, "tokenizer.context_length")]
    {
        let error = refused(length, Some(pad_id)).unwrap_err();
        assert!(matches!(&error, TokenizeError::Config(error) if error.field == field), "{error}");
    }
    for path in [written("{}").path(), "/nowhere/t.json".as_ref()] {
        let error = Tokenizer::from_file(path, 8, None, None).unwrap_err();
        assert!(matches!(error, TokenizeError::File { .. }), "{error}");
    }
}
