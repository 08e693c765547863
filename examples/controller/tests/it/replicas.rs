//! Two controllers at one ledger in Postgres, one of them frozen for a while.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::deployed::{World, free_port, lease};

/// For how long one is frozen at least, unless `WORKFLOWS_FROZEN_SECONDS` says otherwise: until the
/// other has the Lease it is in any case.
const FROZEN: u64 = 0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_frozen_does_nothing_twice() {
    let Some(url) = workflows_test_postgres::url("one_that_was_frozen_does_nothing_twice") else {
        return;
    };
    let world = World::new().await;
    let ledger = ("POSTGRES_URL", url.as_str());
    let one = world.start("one", world.port, ledger);
    one.ready().await;
    let two = world.start("two", free_port(), ledger);
    two.ready().await;
    let mut commits = Vec::new();
    for number in 0..10 {
        let branch = format!("before-{number}");
        commits.push(world.repo.push(&branch, &[("a", &branch)]));
    }
    world.conclude(&commits).await;
    let holder = lease(&world).expect("one of them holds the lease");

    // The one that holds the lease freezes with work in its hands. It is the other's port that GitHub
    // reaches, or the frozen one's: then deliveries are found in the log.
    let frozen = if holder == "one" { &one } else { &two };
    let mut since = Instant::now();
    for number in 0..10 {
        let branch = format!("frozen-{number}");
        commits.push(world.repo.push(&branch, &[("a", &branch)]));
        if number == 5 {
            frozen.signal(Signal::STOP);
            since = Instant::now();
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while lease(&world).as_deref() == Some(&holder) {
        assert!(Instant::now() < deadline, "nobody takes the lease over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let at_least =
        std::env::var("WORKFLOWS_FROZEN_SECONDS").ok().and_then(|text| text.parse().ok());
    let at_least = Duration::from_secs(at_least.unwrap_or(FROZEN));
    tokio::time::sleep(at_least.saturating_sub(since.elapsed())).await;
    frozen.signal(Signal::CONT);
    world.conclude(&commits).await;
    for commit in &commits {
        assert_eq!(world.runs_of(commit), 1, "{commit} has one run");
    }
    assert!(one.terminate() && two.terminate(), "both end well\n{}", world.logs());
}
