//! Cleaning of captions: plain ASCII is cleaned here, everything else by a function from outside.

use std::fmt;
use std::sync::Arc;

use super::TokenizeError;

/// With open_clip's names. All apply ftfy's fixes and unescape HTML entities twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    Lower,
    Whitespace,
    /// Replace `_` by a space, remove ASCII punctuation, lower case, collapse white space (SigLIP).
    Canonicalize,
}

/// Cleans captions as open_clip does, with all steps of one [`Clean`], lower case included: Python's differs from Rust's in the
/// Greek final sigma. The implementation comes from outside because the reference is a Python library.
pub trait CleanText: Send + Sync {
    /// In place, once per batch, those captions that need it.
    fn clean(&self, captions: &mut [String]) -> Result<(), TokenizeError>;
}

#[derive(Clone)]
pub struct Cleaning {
    pub how: Clean,
    pub cleaner: Arc<dyn CleanText>,
}

impl fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cleaning").field(&self.how).finish()
    }
}

impl Cleaning {
    /// Calls `each` with every caption's index and cleaned text, in order. `plain` is a reused buffer.
    pub(super) fn for_each(
        &self,
        captions: &[&str],
        plain: &mut String,
        mut each: impl FnMut(usize, &str) -> Result<(), TokenizeError>,
    ) -> Result<(), TokenizeError> {
        let unclean: Vec<usize> =
            (0..captions.len()).filter(|at| !is_clean(captions[*at])).collect();
        let mut cleaned: Vec<String> = unclean.iter().map(|at| captions[*at].to_owned()).collect();
        if !cleaned.is_empty() {
            self.cleaner.clean(&mut cleaned)?;
        }
        let mut next_cleaned = unclean.iter().zip(&cleaned).peekable();
        for (at, caption) in captions.iter().enumerate() {
            match next_cleaned.next_if(|(unclean, _)| **unclean == at) {
                Some((_, text)) => each(at, text)?,
                None => {
                    clean_ascii(caption, self.how, plain);
                    each(at, plain)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a caption can be cleaned here: ftfy and HTML unescaping would not change it. That is printable ASCII, tab, line feed
/// and carriage return, unless a `&` could start an HTML entity. It can't before a space or at the end.
pub fn is_clean(caption: &str) -> bool {
    let bytes = caption.as_bytes();
    // Without branches, so it compiles to SIMD. `&` is searched only if that passes.
    let plain = bytes.iter().fold(true, |plain, &byte| plain & PLAIN[usize::from(byte)]);
    plain
        && bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'&')
            .all(|(at, _)| matches!(bytes.get(at + 1), None | Some(b' ')))
}

fn clean_ascii(caption: &str, how: Clean, into: &mut String) {
    into.clear();
    if how == Clean::Canonicalize {
        let signs = |sign: char| sign.is_ascii_punctuation() && sign != '_';
        let words = caption.split(|sign: char| sign == '_' || sign.is_ascii_whitespace());
        for word in words {
            let before = into.len();
            into.push(' ');
            into.extend(word.chars().filter(|letter| !signs(*letter)));
            // A word of punctuation only is removed, with the space before it.
            if into.len() == before + 1 {
                into.truncate(before);
            }
        }
        if !into.is_empty() {
            into.remove(0);
        }
    } else if is_collapsed(caption.as_bytes()) {
        into.push_str(caption);
    } else {
        for word in caption.split_ascii_whitespace() {
            if !into.is_empty() {
                into.push(' ');
            }
            into.push_str(word);
        }
    }
    if how != Clean::Whitespace {
        into.make_ascii_lowercase();
    }
}

/// Whether all white space is single spaces between words.
fn is_collapsed(bytes: &[u8]) -> bool {
    // Without branches, as above.
    let gaps = bytes.iter().fold(false, |gaps, &byte| gaps | (byte < b' '));
    let doubled = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let doubled = doubled.fold(false, |doubled, (&a, &b)| doubled | (a == b' ' && b == b' '));
    !gaps && !doubled && bytes.first() != Some(&b' ') && bytes.last() != Some(&b' ')
}

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = true;
        byte += 1;
    }
    plain[b'\t' as usize] = true;
    plain[b'\n' as usize] = true;
    plain[b'\r' as usize] = true;
    plain
};
