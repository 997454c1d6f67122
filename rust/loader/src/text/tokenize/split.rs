//! Splits cleaned text into words for byte-pair encoding, as CLIP's regular expression does.
//!
//! The expression ignores case. Its alternatives, in order: `<start_of_text>`, `<end_of_text>`, the contractions `'s 't 're
//! 've 'm 'll 'd`, a run of letters, one number, a run of anything else except white space. Character classes come from
//! `unicode-properties`. A package with older Unicode tables takes newer characters for punctuation.

use std::ops::Range;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// In the order of their ids.
pub(super) const SPECIALS: [&str; 2] = ["<start_of_text>", "<end_of_text>"];

/// It also matches s if case is ignored, and has no lower-case form of its own.
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

/// The words of `text`, as byte ranges.
pub(super) struct Words<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Words<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The class and the byte length of the character at `at`. `None` at the end.
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

    /// The end of the run of `class` that continues at `at`.
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
        // The only mark that folds to a letter. Ignoring case, Python's `regex` counts it neither as a letter nor as a
        // non-letter, so it separates words.
        _ if letter == '\u{345}' => Class::Gap,
        _ => Class::Other,
    }
}

/// The length of the contraction at the start of `text`, which starts with an apostrophe.
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

/// The length of the special token at the start of `text`. Each s may be a long s.
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
