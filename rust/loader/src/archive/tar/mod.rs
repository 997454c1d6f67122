//! Finds the members of a tar archive. Only headers are read.
//!
//! Supported: ustar, GNU long names, PAX `path` and `size`, sizes in base 256. Everything but regular files is skipped. An
//! archive ends at a block of zeros ([`TarReader::has_end`]); anything after it is ignored.

mod header;
mod source;

use header::{Header, Records, text};
pub use source::{FileSource, Part, Source};

use crate::error::TarError;
use crate::shards::BLOCK;

/// Of a long name or PAX records, in bytes. A damaged size must not allocate much.
const MAX_EXTENSION: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'name> {
    pub name: &'name str,
    /// Offset of its first header, which may be that of its long name.
    pub header: u64,
    pub offset: u64,
    pub size: u64,
}

#[derive(Debug)]
pub struct Damage {
    /// Offset of the first header of the member that cannot be read.
    pub header: u64,
    /// Offset of the damaged header: the same, or a later one after a long name.
    pub at: u64,
    pub error: TarError,
}

#[derive(Debug, Default)]
pub struct Scratch {
    name: String,
    extension: Vec<u8>,
}

#[derive(Debug)]
pub struct TarReader<'scratch, S> {
    source: S,
    scratch: &'scratch mut Scratch,
    next: u64,
    has_end: bool,
}

/// What extension headers say about the next member. The first one counts, as in tarfile.
#[derive(Default)]
struct Extensions {
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
    /// It applies to the next header.
    Extension,
    /// Not a regular file: skipped with its extensions.
    Skipped,
}

impl<'scratch, S: Source> TarReader<'scratch, S> {
    /// `start` must be a header.
    pub fn new(source: S, scratch: &'scratch mut Scratch, start: u64) -> Self {
        Self { source, scratch, next: start, has_end: false }
    }

    /// Offset of the next header, or of the archive's end.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Whether a block of zeros was read. After the last member, `false` means that the source just ends there.
    pub fn has_end(&self) -> bool {
        self.has_end
    }

    pub fn next_member(&mut self) -> Result<Option<Member<'_>>, Damage> {
        let (mut extensions, mut header) = (Extensions::default(), self.next);
        loop {
            let at = self.next;
            let step = self.step(&mut extensions);
            match step.map_err(|error| Damage { header, at, error })? {
                Step::End if at > header => {
                    let error = TarError::Header("no member follows its long name");
                    return Err(Damage { header, at, error });
                }
                Step::End => return Ok(None),
                Step::Extension => {}
                Step::Skipped => (extensions, header) = (Extensions::default(), self.next),
                Step::Member { offset, size } => {
                    return Ok(Some(Member { name: &self.scratch.name, header, offset, size }));
                }
            }
        }
    }

    fn step(&mut self, extensions: &mut Extensions) -> Result<Step, TarError> {
        let mut block = [0u8; BLOCK as usize];
        match self.source.read_at(&mut block, self.next)? {
            0 if self.next == 0 => return Err(TarError::Empty),
            0 => return Ok(Step::End),
            length if length < block.len() => return Err(self.truncated("a header".to_owned())),
            _ => {}
        }
        if block.iter().all(|&byte| byte == 0) {
            self.has_end = true;
            return Ok(Step::End);
        }
        let header = Header::new(&block, self.next == 0)?;
        let data = self.next + BLOCK;
        match header.kind {
            b'L' | b'x' | b'X' => {
                self.read_extension(&header, data, extensions)?;
                self.skip_data(data, header.size, "a long name")?;
                return Ok(Step::Extension);
            }
            b'K' | b'g' => {
                self.skip_data(data, header.size, "an extension")?;
                return Ok(Step::Extension);
            }
            _ => {}
        }
        if !extensions.named {
            header.name(&mut self.scratch.name);
        }
        if header.kind == b'S' || extensions.sparse {
            return Err(TarError::Sparse(self.scratch.name.clone()));
        }
        if !header.has_data() {
            self.next = data;
            return Ok(Step::Skipped);
        }
        let size = extensions.size.unwrap_or(header.size);
        self.skip_data(data, size, "")?;
        if !header.is_member() {
            return Ok(Step::Skipped);
        }
        Ok(Step::Member { offset: data, size })
    }

    fn read_extension(
        &mut self,
        header: &Header<'_>,
        data: u64,
        extensions: &mut Extensions,
    ) -> Result<(), TarError> {
        if header.size > MAX_EXTENSION {
            return Err(TarError::Header("a name or its extension is longer than 1 MiB"));
        }
        let mut bytes = std::mem::take(&mut self.scratch.extension);
        bytes.clear();
        bytes.resize(header.size as usize, 0);
        if self.source.read_at(&mut bytes, data)? < bytes.len() {
            return Err(self.truncated("a long name".to_owned()));
        }
        let records = if header.kind == b'L' {
            Records { path: Some(text(&bytes)), ..Records::default() }
        } else {
            Records::read(&bytes)?
        };
        if let Some(path) = records.path.filter(|_| !extensions.named) {
            self.scratch.name.clear();
            self.scratch.name.push_str(&path);
            extensions.named = true;
        }
        extensions.size = extensions.size.or(records.size);
        extensions.sparse |= records.sparse;
        self.scratch.extension = bytes;
        Ok(())
    }

    /// To the next header. `what` names the data in the error; it is empty for a member.
    fn skip_data(&mut self, data: u64, size: u64, what: &str) -> Result<(), TarError> {
        // The padding after the last member may be missing, as tarfile allows.
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
        TarError::Truncated { what, size: self.source.size() }
    }
}
