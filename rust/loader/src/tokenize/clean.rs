//! Which captions need cleaning, and who cleans them.

use super::TokenizeError;

/// Cleans captions as open_clip's CLIP tokenizer does: ftfy's fixes, HTML entities unescaped twice, white space collapsed,
/// lower case.
///
/// It is given from outside because its reference is a Python library. Nothing changes the text afterwards, so an
/// implementation does all of it, lower case included (Python's lower case knows the final sigma).
pub trait CleanText: Send + Sync {
    /// Replaces each caption by its cleaned form. Called once a batch, with the captions that need it.
    ///
    /// # Errors
    /// Whatever keeps the implementation from cleaning; it fails the batch.
    fn clean(&self, captions: &mut [String]) -> Result<(), TokenizeError>;
}

/// Whether cleaning would do no more than collapse white space and lower ASCII letters, which the encoder does itself.
///
/// True for printable ASCII, tab, line feed and carriage return, as long as no `&` could begin an HTML entity: one followed by
/// a space, or by nothing, cannot. ftfy's fixes concern other characters only.
pub fn is_clean(caption: &str) -> bool {
    let bytes = caption.as_bytes();
    // One pass without branches, which compiles to SIMD; `&` is looked for only where it matters.
    let plain = bytes
        .iter()
        .fold(true, |plain, &byte| plain & PLAIN[usize::from(byte)]);
    plain
        && bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'&')
            .all(|(at, _)| matches!(bytes.get(at + 1), None | Some(b' ')))
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
