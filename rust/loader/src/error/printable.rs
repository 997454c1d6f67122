//! Makes text safe for messages: names in archives, addresses and answers of servers may have line breaks and terminal codes.

use std::fmt;

/// Shows text with its control characters escaped (`\n`, `\u{1b}`), so that it stays on one line and cannot control a terminal.
/// Readable characters of any language stay as they are.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'text>(pub &'text str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((place, letter)) =
            rest.char_indices().find(|(_, letter)| is_control(*letter))
        {
            write!(formatter, "{}{}", &rest[..place], letter.escape_default())?;
            rest = &rest[place + letter.len_utf8()..];
        }
        formatter.write_str(rest)
    }
}

fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
