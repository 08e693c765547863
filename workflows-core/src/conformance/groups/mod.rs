//! The promises of concurrency groups, checked over any [`Store`] with random interleavings of
//! several engines that share it.
//!
//! A history is played by three engines over one ledger. At every call of the ledger an engine
//! waits for its turn; whose turn it is, who dies, whose answer is lost, who stands still until its
//! leases are over, what arrives, ends and is commanded meanwhile, and where the clock jumps, is
//! decided by a seed. After each commit the ledger is read, and a model says whether what changed
//! was allowed.

mod dice;
mod model;
mod replica;
mod workflows;
mod world;

use std::{ops::Range, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use self::world::World;
use crate::{ManualClock, SharedClock, Store};

/// How many histories share a store.
const SHARED: usize = 50;

/// Plays one random history for each seed and checks after every commit that
///
/// - a queue never has more runs under way than its limit, in the ledger and where they execute,
///   and lets them go on in the order of intake;
/// - who is admitted is the newest of its groups that replace, by the order of the fact, and the
///   older ones are told to end in the same commit, and have been told before it is created;
/// - nobody is told to end, or superseded, by a run that is older;
/// - no more runs wait than a queue lets wait, none is given up before its limit, and nobody waits
///   for nothing;
/// - runs of a workflow that is held wait;
/// - what has ended stays as it is, and no run is created twice;
///
/// and at the end of each history that every run has come to an end without waiting for a time
/// limit, that the newest run of a branch was not superseded, and that no work is left.
///
/// `open` makes an empty store that decides about leases by the given clock; every fifty histories
/// share one, each in a repository of its own.
///
/// # Panics
///
/// When a promise is broken: with the seed, and the history that led there. The seed alone leads
/// there again.
pub async fn keep_their_promises<F>(open: F, seeds: Range<u64>)
where
    F: AsyncFn(SharedClock) -> Arc<dyn Store>,
{
    let seeds: Vec<u64> = seeds.collect();
    for seeds in seeds.chunks(SHARED) {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(400_000));
        let store = open(Arc::new(clock.clone())).await;
        let mut world = World::new(store, clock);
        for seed in seeds {
            world.play(*seed).await;
        }
    }
}
