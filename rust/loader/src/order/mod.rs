//! Which samples make which batch. Everything here is a pure function of the settings, so a run can resume anywhere.
//!
//! An epoch is a list of samples ([`shard_list`]): all shards in shuffled order, or shards drawn with replacement
//! ([`shard_sampler`]). Each rank reads one contiguous part of the list ([`partition`]), and shuffles it in windows
//! ([`epoch_order`]). The permutation of a window depends only on (seed, epoch, leg, rank, window), so only the windows around a
//! batch are computed. If some lengths are unknown at the beginning, a rank learns those of its own shards as it reads them
//! ([`streamed_epoch`]).
//!
//! A leg is the part of a run with one number of ranks and one batch size. When either changes within an epoch, what all parts
//! have left is a new list, which the new ranks divide in the same way. A [`Cursor`] has the epoch and its legs.
//!
//! For native images the batch size is one sample. Each step draws a sequence length and takes as many samples as the budget of
//! patches allows ([`steps`]).

mod batch_plans;
mod cursor;
mod epoch_order;
mod partition;
mod rank_epoch;
mod shard_lengths;
mod shard_list;
mod shard_sampler;
mod steps;
mod streamed_epoch;

pub(crate) use batch_plans::UpcomingWindows;
pub use batch_plans::{BatchPlan, BatchPlans};
pub use cursor::{Cursor, Leg};
pub use partition::Partition;
pub use shard_lengths::{Blocked, NeededShard, ShardLengths};
pub use shard_list::ShardList;
pub use shard_sampler::{ShardSampler, WeightedShards};
pub use steps::OrderSettings;
pub(crate) use streamed_epoch::StreamedEpoch;
