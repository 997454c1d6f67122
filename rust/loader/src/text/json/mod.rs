//! A sample's json, read in place: nothing is built, values are places in the text.
//!
//! What Python's `json.loads` takes is taken, so `NaN` and `Infinity` too: programs that write metadata in Python write them.
//! Half of a surrogate pair, which no text may hold, becomes U+FFFD. Of equal keys the last one counts.

use std::borrow::Cow;
use std::iter;

use crate::error::JsonError;

/// Lists and objects inside one another, at most: reading uses the stack.
const MAX_DEPTH: usize = 512;

/// A list and an object may be followed by these.
const SPACES: [u8; 4] = *b" \t\n\r";

/// A value: the part of a json text that it is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'t> {
    text: &'t str,
}

impl<'t> Json<'t> {
    /// The value that the bytes are, white space and a byte order mark around it apart.
    ///
    /// # Errors
    /// The bytes are not one value of json in UTF-8.
    pub fn parse(bytes: &'t [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
            at: error.valid_up_to(),
            rule: "not UTF-8",
        })?;
        let mark = text.len() - text.trim_start_matches('\u{feff}').len();
        let mut scanner = Scanner { text, at: mark };
        scanner.spaces();
        let begin = scanner.at;
        scanner.value(0)?;
        let end = scanner.at;
        scanner.spaces();
        if scanner.at < text.len() {
            return Err(scanner.wrong("something stands behind the value"));
        }
        Ok(Self {
            text: &text[begin..end],
        })
    }

    /// What kind of value it is, for messages.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// Whether it is a list.
    #[must_use]
    pub fn is_list(self) -> bool {
        self.text.starts_with('[')
    }

    /// Whether it is a text.
    #[must_use]
    pub fn is_text(self) -> bool {
        self.text.starts_with('"')
    }

    /// Where it begins and ends in the value that it was found in.
    #[must_use]
    pub fn place_in(self, whole: Json<'_>) -> (usize, usize) {
        let begin = self.text.as_ptr() as usize - whole.text.as_ptr() as usize;
        (begin, begin + self.text.len())
    }

    /// The value at a place that [`Self::place_in`] gave for this one.
    #[must_use]
    pub fn part(self, begin: usize, end: usize) -> Self {
        Self {
            text: &self.text[begin..end],
        }
    }

    /// The text that it is, if it is one.
    #[must_use]
    pub fn as_text(self) -> Option<Cow<'t, str>> {
        let inside = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inside))
    }

    /// The number that it is, if it is one.
    #[must_use]
    pub fn as_number(self) -> Option<f64> {
        match self.text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        }
    }

    /// The value of a key of an object.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        self.members()
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .last()
    }

    /// The elements of a list; of anything else none.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        self.items('[').map(|(_, value)| value)
    }

    /// The keys and values of an object; of anything else none.
    pub fn members(self) -> impl Iterator<Item = (Cow<'t, str>, Self)> {
        self.items('{')
            .map(|(key, value)| (unescape(key.unwrap_or_default()), value))
    }

    /// What stands between the brackets, keys as they are written.
    fn items(self, open: char) -> impl Iterator<Item = (Option<&'t str>, Self)> {
        let mut scanner = Scanner {
            text: self.text,
            at: 1,
        };
        let mut more = self.text.starts_with(open) && !scanner.at_end_of_items();
        iter::from_fn(move || {
            // The text was checked as a whole, so that nothing is wrong here.
            let item = more.then(|| scanner.item(open == '{', 0).ok()).flatten();
            more = item.is_some() && scanner.comma().unwrap_or(false);
            item
        })
    }
}

/// A text being read.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, rule: &'static str) -> JsonError {
        JsonError { at: self.at, rule }
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(|byte| SPACES.contains(&byte)) {
            self.at += 1;
        }
    }

    /// Steps over one value.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("too many lists and objects inside one another"));
        }
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                self.at += 1;
                let mut more = !self.at_end_of_items();
                while more {
                    self.item(open == b'{', depth + 1)?;
                    more = self.comma()?;
                }
                let close = if open == b'{' { b'}' } else { b']' };
                if self.peek() != Some(close) {
                    return Err(self.wrong("a list or an object has no end"));
                }
                self.at += 1;
                Ok(())
            }
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => self.number(),
            _ => self.word(),
        }
    }

    /// Steps over white space; whether a closing bracket follows.
    fn at_end_of_items(&mut self) -> bool {
        self.spaces();
        matches!(self.peek(), Some(b']' | b'}'))
    }

    /// Steps over an element, or a key and its value, and the white space behind it.
    fn item(
        &mut self,
        keyed: bool,
        depth: usize,
    ) -> Result<(Option<&'t str>, Json<'t>), JsonError> {
        let key = if keyed {
            let key = self.string()?;
            self.spaces();
            if self.peek() != Some(b':') {
                return Err(self.wrong("a key is followed by a colon"));
            }
            self.at += 1;
            self.spaces();
            Some(key)
        } else {
            None
        };
        let begin = self.at;
        self.value(depth)?;
        let text = &self.text[begin..self.at];
        self.spaces();
        Ok((key, Json { text }))
    }

    /// Steps over a comma and the white space behind it, if there is one.
    fn comma(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.spaces();
                Ok(true)
            }
            Some(b']' | b'}') => Ok(false),
            _ => Err(self.wrong("a comma or the end of the list or object is missing")),
        }
    }

    /// Steps over a text; gives what stands between its quotes.
    fn string(&mut self) -> Result<&'t str, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a key must be a text"));
        }
        self.at += 1;
        let begin = self.at;
        loop {
            match self.peek() {
                None => return Err(self.wrong("a text has no end")),
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..b' ') => return Err(self.wrong("a text holds a control character")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(&self.text[begin..self.at - 1])
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..]
                if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) =>
            {
                6
            }
            _ => return Err(self.wrong("not an escape sequence")),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        // A number does not go on behind a first 0: what follows is the next thing, and wrong.
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.wrong("a number has digits"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.wrong("a number has digits behind its point"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.wrong("an exponent has digits"));
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - begin
    }

    fn word(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let words = ["true", "false", "null", "NaN", "Infinity", "-Infinity"];
        let word = words.iter().find(|word| rest.starts_with(**word));
        self.at += word.ok_or_else(|| self.wrong("a value is missing"))?.len();
        Ok(())
    }
}

/// The text that stands written between quotes.
fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    let mut units = Vec::new();
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        // Both halves of a pair must stand together.
        units.clear();
        while let Some(unit) = unit(rest) {
            units.push(unit);
            rest = &rest[6..];
        }
        if units.is_empty() {
            text.push(match rest.as_bytes().get(1) {
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                other => other.map_or('\u{fffd}', |byte| char::from(*byte)),
            });
            rest = rest.get(2..).unwrap_or_default();
        }
        let whole = char::decode_utf16(units.iter().copied());
        text.extend(whole.map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)));
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The UTF-16 unit that an escape sequence at the beginning of `text` names.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
