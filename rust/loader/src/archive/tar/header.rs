//! The fields of a tar header block, and PAX records.

use std::borrow::Cow;

use crate::error::TarError;
use crate::shards::BLOCK;

#[derive(Debug)]
pub(super) struct Header<'block> {
    block: &'block [u8; BLOCK as usize],
    pub kind: u8,
    pub size: u64,
}

impl<'block> Header<'block> {
    /// `first` says whether it is the first block of the archive.
    pub fn new(block: &'block [u8; BLOCK as usize], first: bool) -> Result<Self, TarError> {
        check_sum(block, first).map_err(|error| match error {
            TarError::Checksum { .. } | TarError::Header(_) if first => {
                TarError::NotAnArchive(Box::new(error))
            }
            error => error,
        })?;
        Ok(Self { block, kind: block[156], size: number(&block[124..136])? })
    }

    /// A regular or contiguous file. In very old archives a slash at the end of the name marks a directory.
    pub fn is_member(&self) -> bool {
        match self.kind {
            0 => !text(&self.block[..100]).ends_with('/'),
            b'0' | b'7' => true,
            _ => false,
        }
    }

    /// Links, devices and directories have none, whatever their size field says, as in tarfile.
    pub fn has_data(&self) -> bool {
        match self.kind {
            0 => self.is_member(),
            b'1'..=b'6' => false,
            _ => true,
        }
    }

    pub fn name(&self, out: &mut String) {
        out.clear();
        // Only POSIX archives use these bytes as the prefix of a long name.
        if &self.block[257..263] == b"ustar\0" {
            let prefix = text(&self.block[345..500]);
            if !prefix.is_empty() {
                out.push_str(&prefix);
                out.push('/');
            }
        }
        out.push_str(&text(&self.block[..100]));
    }
}

#[derive(Debug, Default)]
pub(super) struct Records<'bytes> {
    pub path: Option<Cow<'bytes, str>>,
    pub size: Option<u64>,
    pub sparse: bool,
}

impl<'bytes> Records<'bytes> {
    /// Parses records of the form "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.
    pub fn read(mut bytes: &'bytes [u8]) -> Result<Self, TarError> {
        const DAMAGED: TarError = TarError::Header("PAX records cannot be read");
        let mut records = Self::default();
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|&byte| byte == b' ').ok_or(DAMAGED)?;
            let length: usize = parse(&bytes[..space]).ok_or(DAMAGED)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(DAMAGED);
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(DAMAGED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                // Without slashes at its end, as in tarfile.
                b"path" => {
                    let end = value.iter().rposition(|&byte| byte != b'/');
                    records.path = Some(text(&value[..end.map_or(0, |last| last + 1)]));
                }
                b"size" => records.size = Some(parse(value).ok_or(DAMAGED)?),
                _ => records.sparse |= key.starts_with(b"GNU.sparse."),
            }
            bytes = &bytes[length..];
        }
        Ok(records)
    }
}

fn check_sum(block: &[u8; BLOCK as usize], first: bool) -> Result<(), TarError> {
    if first {
        let magic: [(&[u8], &'static str); 3] =
            [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];
        if let Some((_, name)) = magic.iter().find(|(magic, _)| block.starts_with(magic)) {
            return Err(TarError::Compressed(name));
        }
    }
    let expected = number(&block[148..156])?;
    // The checksum itself counts as spaces.
    let rest = block[..148].iter().chain(&block[156..]);
    let found = 256 + rest.map(|&byte| u64::from(byte)).sum::<u64>();
    if expected == found {
        return Ok(());
    }
    Err(TarError::Checksum { found, expected })
}

/// Octal, or base 256 if the first bit is set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    const DAMAGED: TarError = TarError::Header("a number is not one");
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // The first byte is only the marker. A size is not negative and has at most 64 bits.
        if field[0] != 0x80 {
            return Err(DAMAGED);
        }
        return field[1..].iter().try_fold(0u64, |sum, &byte| {
            sum.checked_mul(256).map(|sum| sum + u64::from(byte)).ok_or(DAMAGED)
        });
    }
    let digits = before_zero(field).trim_ascii();
    digits.iter().try_fold(0u64, |sum, &byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum + u64::from(byte - b'0')).ok_or(DAMAGED),
        _ => Err(DAMAGED),
    })
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Up to the first zero. Bytes that are not UTF-8 are escaped as `\xe9`, so different names stay different.
pub(super) fn text(field: &[u8]) -> Cow<'_, str> {
    let bytes = before_zero(field);
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(2 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    Cow::Owned(text)
}

fn before_zero(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0);
    &field[..end.unwrap_or(field.len())]
}
