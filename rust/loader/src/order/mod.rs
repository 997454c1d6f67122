//! Which samples make which batch: pure functions of the configuration, so that a run can begin anywhere.
//!
//! An epoch is a list of samples ([`shard_list`]): its shards, in an order drawn for it or drawn with replacement ([`shard_sampler`]), end to
//! end. Each rank reads one contiguous
//! part of it ([`partition`]), so that it needs few shards, in windows of which each is permuted ([`epoch`]). A window's
//! permutation is drawn from (seed, epoch, leg, rank, window) alone: finding the batch at any place takes the windows that
//! it lies in and no look at those before. Where a run stands is a [`Cursor`]: the epoch and its legs.
//!
//! Where the lengths of shards are not known beforehand, a rank reads its own shards one after the other and finds out
//! ([`unknown_lengths`]).
//!
//! A leg is what a run did with one number of ranks and one batch size. When either changes within an epoch, what all the
//! parts have left, end to end, is a new list, which the new ranks divide in the same way. So a list is a list of shards, or
//! what a leg left of another list.

mod cursor;
mod epoch;
mod lengths;
mod partition;
mod plan;
mod rank_epoch;
mod rules;
mod shard_list;
mod shard_sampler;
mod unknown_lengths;

pub use cursor::{Cursor, Leg};
pub use epoch::{EpochOrder, Window};
pub use lengths::{Lengths, Needed};
pub use partition::Division;
pub use plan::{BatchPlan, Route, Scout, Step, Visit};
pub use rules::Rules;
pub use shard_list::ShardList;
pub use shard_sampler::{Draws, Source};
pub(crate) use unknown_lengths::Streamed;
