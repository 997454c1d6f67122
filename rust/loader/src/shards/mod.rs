//! Where shards are: paths, addresses and patterns, and what identifies a shard and a sample in it.

mod location;
mod patterns;
mod regions;
mod sample_id;
mod stamp;

pub use location::{Compression, Location, shown};
pub(crate) use location::{before_query, without_secrets};
pub use patterns::{expand, expand_braces};
pub(crate) use regions::put_varint;
pub use regions::{BLOCK, Chosen, Fingerprint, Regions, UNKNOWN_LENGTH};
pub use sample_id::SampleId;
pub(crate) use stamp::Identity;
pub use stamp::{Stamp, Version};
