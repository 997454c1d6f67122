//! Reads a sample's JSON in place with `jiter`: it builds no tree, and a value is a part of the text.
//!
//! It accepts what Python's `json.loads` accepts: `NaN` and `Infinity` are numbers, and the last of equal keys counts. Half of
//! a surrogate pair, which `jiter` rejects and a `str` cannot hold, becomes U+FFFD.

use std::borrow::Cow;
use std::iter;

use jiter::{Jiter, JiterError};

use crate::error::JsonError;

#[derive(Debug)]
pub struct JsonText<'t>(Cow<'t, str>);

impl<'t> JsonText<'t> {
    /// White space around the value and a byte order mark are allowed.
    pub fn parse(bytes: &'t [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if check(text).is_ok() {
            return Ok(Self(Cow::Borrowed(text)));
        }
        let repaired = replace_lone_surrogates(text);
        check(&repaired)?;
        Ok(Self(Cow::Owned(repaired)))
    }

    pub fn value(&self) -> Json<'_> {
        Json { text: self.0.trim_matches([' ', '\t', '\n', '\r']) }
    }
}

/// A part of a checked text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'t> {
    text: &'t str,
}

impl<'t> Json<'t> {
    pub fn kind(self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    pub fn is_list(self) -> bool {
        self.text.starts_with('[')
    }

    pub fn is_string(self) -> bool {
        self.text.starts_with('"')
    }

    /// `None` for other types.
    pub fn as_str(self) -> Option<Cow<'t, str>> {
        let inside = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if !inside.contains('\\') {
            return Some(Cow::Borrowed(inside));
        }
        let mut reader = reader(self.text);
        Some(Cow::Owned(reader.next_str().ok()?.to_owned()))
    }

    /// `None` for other types.
    pub fn as_number(self) -> Option<f64> {
        reader(self.text).next_float().ok()
    }

    pub fn get(self, key: &str) -> Option<Self> {
        let mut reader = reader(self.text);
        let mut found = None;
        let mut name = reader.next_object().ok()?;
        while let Some(current) = name {
            let wanted = current == key;
            let value = self.next_value(&mut reader)?;
            if wanted {
                found = Some(value);
            }
            name = reader.next_key().ok()?;
        }
        found
    }

    /// Empty for other types.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let mut reader = reader(self.text);
        let mut more = matches!(reader.next_array(), Ok(Some(_)));
        iter::from_fn(move || {
            let value = more.then(|| self.next_value(&mut reader)).flatten();
            more = more && matches!(reader.array_step(), Ok(Some(_)));
            value
        })
    }

    /// The next value of `reader`, which reads this value.
    fn next_value(self, reader: &mut Jiter<'_>) -> Option<Self> {
        // Skips the white space before the value.
        reader.peek().ok()?;
        let begin = reader.current_index();
        reader.next_skip().ok()?;
        Some(Self { text: &self.text[begin..reader.current_index()] })
    }
}

fn reader(text: &str) -> Jiter<'_> {
    Jiter::new(text.as_bytes()).with_allow_inf_nan()
}

fn check(text: &str) -> Result<(), JiterError> {
    let mut reader = reader(text);
    reader.next_skip()?;
    reader.finish()
}

/// Replaces each escape of half a surrogate pair by `\ufffd`.
fn replace_lone_surrogates(text: &str) -> String {
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        repaired.push_str(&rest[..at]);
        rest = &rest[at..];
        let is_high = |escape| matches!(utf16_unit(escape), Some(0xD800..=0xDBFF));
        let is_low = |escape| matches!(utf16_unit(escape), Some(0xDC00..=0xDFFF));
        let (kept, length) = if is_high(rest) && rest.get(6..).is_some_and(is_low) {
            (&rest[..12], 12)
        } else if is_high(rest) || is_low(rest) {
            ("\\ufffd", 6)
        } else {
            // Skip the escaped character too: an escaped backslash starts no escape.
            let end = rest.char_indices().nth(2);
            let end = end.map_or(rest.len(), |(end, _)| end);
            (&rest[..end], end)
        };
        repaired.push_str(kept);
        rest = &rest[length..];
    }
    repaired.push_str(rest);
    repaired
}

fn utf16_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
