//! Bytes of an archive → where its members lie. Only headers are read; the members' bytes stay where they are.
//!
//! Understood: ustar, GNU long names, PAX `path` and `size`, sizes in base 256. What is no regular file is passed over.
//! The end is a block of zeros or the end of the file; what lies behind a block of zeros does not count.

mod header;
mod source;

use header::{Header, Records, text};
pub use source::{FileSource, Part, Source};

use crate::error::TarError;
use crate::shards::BLOCK;

/// Bytes of a long name or of PAX records, at most: names are short, and a damaged size must not take the memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// A regular file of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'name> {
    /// Its name as the archive has it.
    pub name: &'name str,
    /// Where its first header begins: that of a long name, if it has one.
    pub header: u64,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many they are.
    pub size: u64,
}

/// What is wrong with an archive, and where.
#[derive(Debug)]
pub struct Damage {
    /// Where the first header of the member begins that cannot be read.
    pub header: u64,
    /// Where the header begins that is wrong: the same, or one of those that follow a long name.
    pub at: u64,
    /// What is wrong.
    pub error: TarError,
}

/// Memory of a reader, which may be used for the next one.
#[derive(Debug, Default)]
pub struct Scratch {
    name: String,
    extension: Vec<u8>,
}

/// Reads an archive's headers, member by member.
#[derive(Debug)]
pub struct TarReader<'scratch, S> {
    source: S,
    scratch: &'scratch mut Scratch,
    next: u64,
}

/// What extension headers say about the member behind them; of several the first is right, as in tarfile.
#[derive(Default)]
struct Extended {
    named: bool,
    size: Option<u64>,
    sparse: bool,
}

enum Step {
    End,
    Member {
        offset: u64,
        size: u64,
    },
    /// An extension: it belongs to the header that follows.
    Extension,
    /// Something that is no regular file, with its extensions.
    Passed,
}

impl<'scratch, S: Source> TarReader<'scratch, S> {
    /// A reader of what begins at `start`, which must be a header.
    pub fn new(source: S, scratch: &'scratch mut Scratch, start: u64) -> Self {
        Self {
            source,
            scratch,
            next: start,
        }
    }

    /// Where the next header is looked for; after the last member, where the archive's end was found.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next regular file, or nothing at the end of the archive.
    ///
    /// # Errors
    /// What is wrong and where; the reader should not be asked again.
    pub fn next_member(&mut self) -> Result<Option<Member<'_>>, Damage> {
        let (mut extended, mut header) = (Extended::default(), self.next);
        loop {
            let at = self.next;
            let step = self.step(&mut extended);
            match step.map_err(|error| Damage { header, at, error })? {
                Step::End => return Ok(None),
                Step::Extension => {}
                Step::Passed => (extended, header) = (Extended::default(), self.next),
                Step::Member { offset, size } => {
                    return Ok(Some(Member {
                        name: &self.scratch.name,
                        header,
                        offset,
                        size,
                    }));
                }
            }
        }
    }

    fn step(&mut self, extended: &mut Extended) -> Result<Step, TarError> {
        let mut block = [0u8; BLOCK as usize];
        match self.source.read_at(&mut block, self.next)? {
            0 if self.next == 0 => return Err(TarError::Empty),
            0 => return Ok(Step::End),
            length if length < block.len() => return Err(self.truncated("a header".to_owned())),
            _ => {}
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(Step::End);
        }
        let header = Header::new(&block, self.next == 0)?;
        let data = self.next + BLOCK;
        match header.kind {
            b'L' | b'x' | b'X' => {
                self.read_extension(&header, data, extended)?;
                self.pass(data, header.size, "a long name")?;
                return Ok(Step::Extension);
            }
            b'K' | b'g' => {
                self.pass(data, header.size, "an extension")?;
                return Ok(Step::Extension);
            }
            _ => {}
        }
        if !extended.named {
            header.name(&mut self.scratch.name);
        }
        if header.kind == b'S' || extended.sparse {
            return Err(TarError::Sparse(self.scratch.name.clone()));
        }
        if !header.has_data() {
            self.next = data;
            return Ok(Step::Passed);
        }
        let size = extended.size.unwrap_or(header.size);
        self.pass(data, size, "")?;
        if !header.is_member() {
            return Ok(Step::Passed);
        }
        Ok(Step::Member { offset: data, size })
    }

    fn read_extension(
        &mut self,
        header: &Header<'_>,
        data: u64,
        extended: &mut Extended,
    ) -> Result<(), TarError> {
        if header.size > MAX_EXTENSION {
            return Err(TarError::Header(
                "a name or its extension is longer than 1 MiB",
            ));
        }
        let mut bytes = std::mem::take(&mut self.scratch.extension);
        bytes.clear();
        bytes.resize(header.size as usize, 0);
        if self.source.read_at(&mut bytes, data)? < bytes.len() {
            return Err(self.truncated("a long name".to_owned()));
        }
        let records = if header.kind == b'L' {
            Records {
                path: Some(text(&bytes)),
                ..Records::default()
            }
        } else {
            Records::read(&bytes)?
        };
        if let Some(path) = records.path.filter(|_| !extended.named) {
            self.scratch.name.clear();
            self.scratch.name.push_str(&path);
            extended.named = true;
        }
        extended.size = extended.size.or(records.size);
        extended.sparse |= records.sparse;
        self.scratch.extension = bytes;
        Ok(())
    }

    /// Goes on to the header behind `size` bytes of data, which must be there. `what` they are, for the error; nothing for
    /// a member.
    fn pass(&mut self, data: u64, size: u64, what: &str) -> Result<(), TarError> {
        // The last member's padding may be missing, as tarfile allows.
        let next = data.checked_add(size).and_then(|end| {
            let next = end.checked_next_multiple_of(BLOCK)?;
            Some((end, next))
        });
        match next.filter(|(end, _)| *end <= self.source.end()) {
            Some((_, next)) => {
                self.next = next;
                Ok(())
            }
            None if what.is_empty() => {
                let what = format!("member {:?} of {size} bytes", self.scratch.name);
                Err(self.truncated(what))
            }
            None => Err(self.truncated(what.to_owned())),
        }
    }

    fn truncated(&self, what: String) -> TarError {
        TarError::Truncated {
            what,
            size: self.source.size(),
        }
    }
}
