//! Bytes of an archive → where its members lie. Only headers are read; the members' bytes stay where they are.
//!
//! Understood: ustar, GNU long names, PAX `path` and `size`, sizes in base 256. What is no regular file is passed over.
//! The end is a block of zeros or the end of the file; what lies behind a block of zeros does not count.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::TarError;

const BLOCK: u64 = 512;
/// Bytes of a long name or of PAX records, at most: names are short, and a damaged size must not take the memory.
const MAX_EXTENSION: u64 = 1 << 20;
/// Bytes read at once: several headers of small members, not much waste between large ones.
const WINDOW: usize = 16 * 1024;

/// A regular file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name as the archive has it.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many they are.
    pub size: u64,
}

/// An error and the offset of the header it belongs to.
pub type PlacedError = (u64, TarError);

/// Reads an archive's headers, member by member.
#[derive(Debug)]
pub struct TarReader<'file> {
    file: &'file File,
    size: u64,
    next: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'file> TarReader<'file> {
    /// A reader at the archive's beginning.
    ///
    /// # Errors
    /// The file cannot be examined or has no bytes.
    pub fn new(file: &'file File) -> Result<Self, PlacedError> {
        let size = file.metadata().map_err(|error| (0, error.into()))?.len();
        if size == 0 {
            return Err((0, TarError::Empty));
        }
        Ok(Self {
            file,
            size,
            next: 0,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// The next regular file, or nothing at the end of the archive.
    ///
    /// # Errors
    /// What is wrong and where; the reader should not be asked again.
    pub fn next_member(&mut self) -> Result<Option<Member>, PlacedError> {
        let mut extended = Extended::default();
        loop {
            let at = self.next;
            match self.step(&mut extended).map_err(|error| (at, error))? {
                Step::End => return Ok(None),
                Step::Member(member) => return Ok(Some(member)),
                Step::Passed => {}
            }
        }
    }

    fn step(&mut self, extended: &mut Extended) -> Result<Step, TarError> {
        if self.next == self.size {
            return Ok(Step::End);
        }
        let mut block = [0u8; BLOCK as usize];
        self.fill(self.next, &mut block, "a header")?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(Step::End);
        }
        check_sum(&block, self.next)?;
        let kind = block[156];
        let data = self.next + BLOCK;
        let mut size = number(&block[124..136])?;
        if is_member(kind) {
            size = extended.size.unwrap_or(size);
        }
        let name = header_name(&block);
        let end = data
            .checked_add(size)
            .filter(|&end| end <= self.size)
            .ok_or_else(|| TarError::Truncated {
                what: format!(
                    "the {size} bytes of {:?}",
                    extended.name.as_deref().unwrap_or(&name)
                ),
                size: self.size,
            })?;
        // The last member's padding may be missing, as tarfile allows.
        self.next = end.next_multiple_of(BLOCK).min(self.size);
        match kind {
            b'L' => extended.name = Some(text(&self.extension(data, size)?)),
            b'x' => extended.read_records(&self.extension(data, size)?)?,
            b'K' | b'g' => {}
            _ => return finish_member(kind, name, data, size, std::mem::take(extended)),
        }
        Ok(Step::Passed)
    }

    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::Header(
                "a name or its extension is longer than 1 MiB",
            ));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(offset, &mut bytes, "a long name")?;
        Ok(bytes)
    }

    fn fill(&mut self, offset: u64, into: &mut [u8], what: &str) -> Result<(), TarError> {
        if offset + into.len() as u64 > self.size {
            return Err(TarError::Truncated {
                what: what.to_owned(),
                size: self.size,
            });
        }
        if into.len() > WINDOW {
            return Ok(self.file.read_exact_at(into, offset)?);
        }
        let inside = offset >= self.window_start
            && offset + into.len() as u64 <= self.window_start + self.window.len() as u64;
        if !inside {
            let length = (self.size - offset).min(WINDOW as u64) as usize;
            self.window.resize(length, 0);
            self.window_start = offset;
            self.file.read_exact_at(&mut self.window, offset)?;
        }
        let start = (offset - self.window_start) as usize;
        into.copy_from_slice(&self.window[start..start + into.len()]);
        Ok(())
    }
}

enum Step {
    End,
    Member(Member),
    Passed,
}

/// What extension headers say about the member behind them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Extended {
    /// PAX records: "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.
    fn read_records(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        const DAMAGED: TarError = TarError::Header("PAX records cannot be read");
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|&byte| byte == b' ').ok_or(DAMAGED)?;
            let length: usize = parse(&bytes[..space]).ok_or(DAMAGED)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(DAMAGED);
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or(DAMAGED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(text(value)),
                b"size" => self.size = Some(parse(value).ok_or(DAMAGED)?),
                _ => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
            bytes = &bytes[length..];
        }
        Ok(())
    }
}

fn finish_member(
    kind: u8,
    name: String,
    offset: u64,
    size: u64,
    extended: Extended,
) -> Result<Step, TarError> {
    let name = extended.name.unwrap_or(name);
    if kind == b'S' || extended.sparse {
        return Err(TarError::Sparse(name));
    }
    // Before directories had a type of their own, a slash at the end of the name said it.
    let directory = kind == 0 && name.ends_with('/');
    if is_member(kind) && !directory {
        Ok(Step::Member(Member { name, offset, size }))
    } else {
        Ok(Step::Passed)
    }
}

/// Regular files: the old type, the type of today, and contiguous files.
fn is_member(kind: u8) -> bool {
    matches!(kind, 0 | b'0' | b'7')
}

fn check_sum(block: &[u8; BLOCK as usize], offset: u64) -> Result<(), TarError> {
    if offset == 0 {
        let magic: [(&[u8], &'static str); 3] = [
            (b"\x1f\x8b", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"BZh", "bzip2"),
        ];
        if let Some((_, name)) = magic.iter().find(|(magic, _)| block.starts_with(magic)) {
            return Err(TarError::Compressed(name));
        }
    }
    let expected = number(&block[148..156])?;
    let field = 148..156;
    let sum = |value: fn(u8) -> i64| -> i64 {
        let bytes = block.iter().enumerate();
        bytes
            .map(|(index, &byte)| {
                if field.contains(&index) {
                    32
                } else {
                    value(byte)
                }
            })
            .sum()
    };
    // Some old archivers added the bytes as signed numbers.
    let (unsigned, signed) = (sum(i64::from), sum(|byte| i64::from(byte as i8)));
    if i64::try_from(expected).is_ok_and(|expected| expected == unsigned || expected == signed) {
        return Ok(());
    }
    Err(TarError::Checksum {
        found: unsigned.unsigned_abs(),
        expected,
    })
}

/// An octal number, or one in base 256 where the first bit is set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    const DAMAGED: TarError = TarError::Header("a number is not one");
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // The first byte is only the mark: a number of more than 64 bits, or a negative one, cannot be a size.
        if field[0] != 0x80 {
            return Err(DAMAGED);
        }
        return field[1..].iter().try_fold(0u64, |sum, &byte| {
            sum.checked_mul(256)
                .map(|sum| sum + u64::from(byte))
                .ok_or(DAMAGED)
        });
    }
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    digits.iter().try_fold(0u64, |sum, &byte| match byte {
        b'0'..=b'7' => sum
            .checked_mul(8)
            .map(|sum| sum + u64::from(byte - b'0'))
            .ok_or(DAMAGED),
        _ => Err(DAMAGED),
    })
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn header_name(block: &[u8; BLOCK as usize]) -> String {
    let name = text(&block[..100]);
    // Only POSIX archives use these bytes for the beginning of a long name.
    let prefix = if &block[257..263] == b"ustar\0" {
        text(&block[345..500])
    } else {
        String::new()
    };
    if prefix.is_empty() {
        name
    } else {
        format!("{prefix}/{name}")
    }
}

/// The text up to the first zero; bytes that are not UTF-8 become U+FFFD, the same for the same name.
fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
