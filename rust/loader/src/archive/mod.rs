//! Reads shards: tar headers, samples by their keys, an index of where samples are, and the members of one sample.

mod grouping;
pub mod index;
mod raw_members;
mod reader;
mod scan;
pub mod tar;

pub use grouping::{IMAGE_EXTENSIONS, Sample, Span};
pub use raw_members::RawMembers;
pub use reader::read_sample_headers;
pub(crate) use reader::{OpenFiles, Reader, WantedMembers};
pub use scan::{Scan, scan, scan_file};
