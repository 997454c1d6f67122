//! Tests: known answers and errors of tokenizers from a file.

use std::path::{Path, PathBuf};

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

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir()
            .join(format!("prolip-tokenize-{}-{name}.json", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn truncation_keeps_the_special_tokens_of_a_tokenizer_file() {
    let file = TempFile::new("specials", &letters_json("", "[PAD]"));
    let tokenizer = Tokenizer::from_file(&file.0, 5, None, None).unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.vocab_size(), tokenizer.context_length()), (0, 9, 5));
    let rows = encode(&tokenizer, &["A b", "a b c d e", "", "zebra"]);
    assert_eq!(rows, [[1, 4, 5, 2, 0], [1, 4, 5, 6, 2], [1, 2, 0, 0, 0], [1, 3, 2, 0, 0]]);
}

#[test]
fn padding_and_truncation_follow_the_tokenizer_file() {
    let padding = r#""padding": {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null, "pad_id": 3,
        "pad_type_id": 0, "pad_token": "[UNK]"},
        "truncation": {"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0},"#;
    let file = TempFile::new("padding", &letters_json(padding, "[PAD]"));
    let tokenizer = Tokenizer::from_file(&file.0, 5, None, None).unwrap();
    assert_eq!(encode(&tokenizer, &["a", "a b c d"]), [[3, 3, 1, 4, 2], [1, 5, 6, 7, 2]]);
    let given = Tokenizer::from_file(&file.0, 5, Some(0), None).unwrap();
    assert_eq!(encode(&given, &["a"]), [[0, 0, 1, 4, 2]]);
    let padding = given.padding();
    assert_eq!((padding.id, padding.left), (0, true));
}

#[test]
fn errors_of_a_tokenizer_file_name_it_and_the_rule() {
    let file = TempFile::new("errors", &letters_json("", "nothing"));
    let name = file.0.display().to_string();
    let refused = |length, pad_id| {
        Tokenizer::from_file(&file.0, length, pad_id, None).unwrap_err().to_string()
    };
    assert!(refused(8, None).starts_with(&format!("tokenizer {name}: no padding id: give pad_id")));
    assert!(refused(8, Some(9)).starts_with("tokenizer.pad_id: "));
    assert!(refused(2, Some(0)).starts_with("tokenizer.context_length: "));
    let broken = TempFile::new("broken", "{}");
    let error = Tokenizer::from_file(&broken.0, 8, None, None).unwrap_err().to_string();
    assert!(error.contains("broken.json: not a Hugging Face tokenizer.json"), "{error}");
    let missing = Tokenizer::from_file(Path::new("/nowhere/t.json"), 8, None, None).unwrap_err();
    assert!(missing.to_string().starts_with("tokenizer /nowhere/t.json: cannot read the file"));
}
