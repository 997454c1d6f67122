//! Which captions need cleaning, and who cleans them.

use std::fmt;
use std::sync::Arc;

use super::TokenizeError;

/// What cleaning makes of a text besides ftfy's fixes and HTML entities, unescaped twice: the names are open_clip's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    /// White space collapsed, lower case: CLIP's.
    Lower,
    /// White space collapsed.
    Whitespace,
    /// `_` to a space, ASCII's punctuation taken out, lower case, white space collapsed: SigLIP's.
    Canonicalize,
}

/// Cleans captions as open_clip does, all steps of one kind of [`Clean`].
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

/// Which cleaning, and who does it where it is more than arithmetic on ASCII.
#[derive(Clone)]
pub struct Cleaning {
    /// The steps.
    pub how: Clean,
    /// The same steps, for any text.
    pub cleaner: Arc<dyn CleanText>,
}

impl fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cleaning").field(&self.how).finish()
    }
}

impl Cleaning {
    /// Gives `each` every caption's place and cleaned form, in order; `plain` is memory to work in.
    ///
    /// # Errors
    /// Those of the cleaner, before the first caption, and those of `each`.
    pub(super) fn for_each(
        &self,
        captions: &[&str],
        plain: &mut String,
        mut each: impl FnMut(usize, &str) -> Result<(), TokenizeError>,
    ) -> Result<(), TokenizeError> {
        let unclean: Vec<usize> = (0..captions.len())
            .filter(|at| !is_clean(captions[*at]))
            .collect();
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

/// Whether cleaning would do no more than collapse white space and change single ASCII letters and signs, which is done here.
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

/// Cleans a caption for which [`is_clean`] holds.
fn clean_ascii(caption: &str, how: Clean, into: &mut String) {
    into.clear();
    if how == Clean::Canonicalize {
        let signs = |sign: char| sign.is_ascii_punctuation() && sign != '_';
        let words = caption.split(|sign: char| sign == '_' || sign.is_ascii_whitespace());
        for word in words {
            let before = into.len();
            into.push(' ');
            into.extend(word.chars().filter(|letter| !signs(*letter)));
            // A word of nothing but signs is gone, and the space before it.
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

/// Whether single spaces between words are the only white space.
fn is_collapsed(bytes: &[u8]) -> bool {
    // Without branches, as above.
    let gaps = bytes.iter().fold(false, |gaps, &byte| gaps | (byte < b' '));
    let doubled = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let doubled = doubled.fold(false, |doubled, (&a, &b)| {
        doubled | (a == b' ' && b == b' ')
    });
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
