//! One of several replicas holds the Lease.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use workflows_core::{ManualClock, SharedClock};
use workflows_k8s::LeaseHolder;
use workflows_kube_standin::{Cluster, Fault};

use crate::world::TEAM;

/// A replica, with a clock that all replicas share.
struct Replica {
    holder: LeaseHolder,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn replica(cluster: &Cluster, clock: &ManualClock, name: &str) -> Replica {
    let shared: SharedClock = Arc::new(clock.clone());
    let holder = LeaseHolder::new(cluster.client(), TEAM, "sources", name).clock(shared);
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (holder, stop) = (holder.clone(), stop.clone());
        async move { holder.run(stop).await }
    });
    Replica { holder, stop, task }
}

impl Replica {
    /// Waits until it holds the Lease, or does not, while the clock goes on.
    async fn comes_to(&self, clock: &ManualClock, holds: bool) {
        let mut receiver = self.holder.holds();
        for _ in 0..200 {
            if *receiver.borrow_and_update() == holds {
                return;
            }
            let waited =
                tokio::time::timeout(std::time::Duration::from_millis(50), receiver.changed());
            if waited.await.is_err() {
                clock.advance(SignedDuration::from_secs(5));
            }
        }
        panic!("it does not come to {holds}");
    }
}

#[tokio::test]
async fn one_holds_it_and_another_takes_over() {
    let cluster = Cluster::start().await;
    cluster.namespace(TEAM);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let one = replica(&cluster, &clock, "one");
    one.comes_to(&clock, true).await;
    let two = replica(&cluster, &clock, "two");
    for _ in 0..10 {
        clock.advance(SignedDuration::from_secs(5));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let both = *one.holder.holds().borrow() && *two.holder.holds().borrow();
        assert!(!both, "two hold it");
    }
    // One that ends gives it back.
    one.stop.cancel();
    one.task.await.unwrap();
    two.comes_to(&clock, true).await;
    // One that dies does not, and it ends by itself.
    two.task.abort();
    let three = replica(&cluster, &clock, "three");
    three.comes_to(&clock, true).await;
}

#[tokio::test]
async fn who_ends_does_not_wait_for_a_server_that_does_not_answer() {
    let cluster = Cluster::stand_in("the server does not answer").await;
    cluster.namespace(TEAM);
    let holder = LeaseHolder::new(cluster.client(), TEAM, "sources", "one");
    let holder = holder.length(SignedDuration::from_secs(3));
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (holder, stop) = (holder.clone(), stop.clone());
        async move { holder.run(stop).await }
    });
    holder.holds().wait_for(|holds| *holds).await.unwrap();
    cluster.fail("leases", 1000, Fault::Slow(std::time::Duration::from_secs(3600)));
    stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), task);
    ended.await.expect("it ends all the same").unwrap();
}

#[tokio::test]
async fn who_cannot_renew_it_does_not_hold_it_for_ever() {
    let cluster = Cluster::start().await;
    cluster.namespace(TEAM);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let one = replica(&cluster, &clock, "one");
    one.comes_to(&clock, true).await;
    cluster.fail("PUT", 1000, Fault::unavailable());
    one.comes_to(&clock, false).await;
}
