//! What a batch holds of one sample besides its pixels.

use super::bad_samples::Tally;
use crate::archive::RawMembers;
use crate::error::Error;
use crate::shards::SampleId;
use crate::text::captions::Caption;

/// What a slot holds besides its pixels.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The sample that came to stand here; `None` where it was bad and nothing took its place.
    pub sample: Option<SampleId>,
    /// Its key.
    pub key: String,
    /// One caption a slot of captions.
    pub captions: Vec<Caption>,
    /// Its members that are kept.
    pub kept: RawMembers,
    /// Samples that were tried for this slot.
    pub tally: Tally,
    /// What must end the run at this slot's batch.
    pub fatal: Option<Error>,
}
