//! Cuts cleaned text into the words that byte-pair encoding works on, as CLIP's regular expression does.
//!
//! The expression, matched without regard to case: `<start_of_text>`, `<end_of_text>`, the contractions `'s 't 're 've 'm 'll
//! 'd`, a run of letters, one number, or a run of anything else that is not white space. Read from the left, the first
//! alternative that fits wins. The classes are Unicode's as the crate `unicode-properties` has them; what a package with older
//! tables of Unicode does not know yet, it takes for a sign.

use std::ops::Range;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The special tokens, in the order of their ids.
pub(super) const SPECIALS: [&str; 2] = ["<start_of_text>", "<end_of_text>"];

/// Matched without regard to case, the letter s is also this one, which has no lower case of its own.
const LONG_S: &str = "ſ";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Gap,
    Other,
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        let ascii = byte as u8;
        classes[byte] = match ascii {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b' ' | b'\t'..=b'\r' => Class::Gap,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// The words of `text`, as ranges of its bytes.
pub(super) struct Words<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Words<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The class of the character at `at`, and its length in bytes; nothing at the end.
    #[inline]
    fn class(&self, at: usize) -> Option<(Class, usize)> {
        match self.text.as_bytes().get(at) {
            None => None,
            Some(&byte) if byte < 128 => Some((ASCII[usize::from(byte)], 1)),
            Some(_) => self.text[at..]
                .chars()
                .next()
                .map(|letter| (class_beyond_ascii(letter), letter.len_utf8())),
        }
    }

    /// The end of the run of `class` that goes on at `at`.
    #[inline]
    fn run(&self, class: Class, mut at: usize) -> usize {
        while let Some((next, width)) = self.class(at) {
            if next != class {
                break;
            }
            at += width;
        }
        at
    }
}

impl Iterator for Words<'_> {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.run(Class::Gap, self.at);
        let (class, width) = self.class(start)?;
        let end = match class {
            Class::Letter => self.run(class, start + width),
            Class::Other => match self.text.as_bytes()[start] {
                b'\'' => contraction(&self.text[start..]),
                b'<' => special(&self.text[start..]),
                _ => None,
            }
            .map_or_else(|| self.run(class, start + width), |length| start + length),
            Class::Number | Class::Gap => start + width,
        };
        self.at = end;
        Some(start..end)
    }
}

fn class_beyond_ascii(letter: char) -> Class {
    match letter.general_category_group() {
        GeneralCategoryGroup::Letter => Class::Letter,
        GeneralCategoryGroup::Number => Class::Number,
        _ if letter.is_whitespace() => Class::Gap,
        // The one mark whose case folding is a letter. Without regard to case Python's `regex` finds it in neither the letters nor
        // their complement, so no word has it and it parts words.
        _ if letter == '\u{345}' => Class::Gap,
        _ => Class::Other,
    }
}

/// The length of the contraction at the start of `text`, which begins with an apostrophe.
fn contraction(text: &str) -> Option<usize> {
    let rest = &text[1..];
    if rest.starts_with(LONG_S) {
        return Some(1 + LONG_S.len());
    }
    match rest.as_bytes() {
        [b's' | b't' | b'm' | b'd' | b'S' | b'T' | b'M' | b'D', ..] => Some(2),
        [b'r' | b'v' | b'R' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => Some(3),
        _ => None,
    }
}

/// The length of the special token at the start of `text`, each of its letters s possibly a long one.
fn special(text: &str) -> Option<usize> {
    SPECIALS.iter().find_map(|special| {
        let mut rest = text;
        for letter in special.chars() {
            let same = |other: char| other.eq_ignore_ascii_case(&letter);
            rest = match rest.strip_prefix(same) {
                Some(rest) => rest,
                None if letter == 's' => rest.strip_prefix(LONG_S)?,
                None => return None,
            };
        }
        Some(text.len() - rest.len())
    })
}
