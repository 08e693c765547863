//! Polling, with a host in memory.

use std::sync::Arc;

use jiff::SignedDuration;
use workflows_core::{
    ErrorKind, Store, Tenant,
    conformance::{ScmCall, ScriptedScm},
    store::ObservationQuery,
};
use workflows_scm::poll::{FirstSight, RefPoller};

use crate::poll_support::Bench;

/// Longer than the interval and its jitter.
const A_WHILE: SignedDuration = SignedDuration::from_secs(67);

fn poller() -> RefPoller {
    RefPoller::every(SignedDuration::from_mins(1)).unwrap()
}

fn bench() -> (ScriptedScm, Bench) {
    let scm = ScriptedScm::new();
    let bench = Bench::new("scm", Arc::new(scm.clone()));
    (scm, bench)
}

#[tokio::test]
async fn the_first_sight_is_recorded_and_runs_nothing() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller());
    bench.through().await;
    assert_eq!(bench.heard().await, [""; 0]);
    repo.push("ann", "main", &[("a", "2")]);
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn the_first_sight_is_news_when_it_is_asked_for() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    repo.tag("ann", "v1", "main");
    bench.want(&[("api", &["refs/heads/", "refs/tags/"])]);
    bench.start(poller().first_sight(FirstSight::Run));
    bench.through().await;
    assert_eq!(bench.heard().await, ["created refs/heads/main", "created refs/tags/v1"]);
}

#[tokio::test]
async fn every_change_of_a_ref_is_one_event_with_before_and_after() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    repo.push("ann", "release/1", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/", "refs/tags/"])]);
    bench.start(poller());
    bench.through().await;

    let before = repo.head("main");
    repo.push("ann", "main", &[("a", "2")]);
    repo.push("ann", "main", &[("a", "3")]);
    repo.push("ann", "main", &[("a", "4")]);
    bench.after(A_WHILE).await;
    let events = bench.events().await;
    assert_eq!(events.len(), 1, "three pushes between two looks are one event");
    assert_eq!(events[0].base.as_ref().unwrap().sha, before);
    assert_eq!(events[0].head.as_ref().unwrap().sha, repo.head("main"));

    repo.push("ann", "feature/x", &[("b", "1")]);
    repo.tag("ann", "v1", "main");
    bench.after(A_WHILE).await;
    repo.force_push("ann", "main", &[("a", "5")]);
    bench.after(A_WHILE).await;
    repo.delete_branch("ann", "feature/x");
    bench.after(A_WHILE).await;
    repo.push("ann", "feature/x", &[("b", "2")]);
    bench.after(A_WHILE).await;
    assert_eq!(
        bench.heard().await,
        [
            "updated refs/heads/main",
            "created refs/heads/feature/x",
            "created refs/tags/v1",
            "forced refs/heads/main",
            "deleted refs/heads/feature/x",
            "created refs/heads/feature/x",
        ]
    );
}

#[tokio::test]
async fn without_history_a_moved_branch_is_an_updated_one() {
    let scm = ScriptedScm::new().without(workflows_core::Capability::History);
    let mut bench = Bench::new("scm", Arc::new(scm.clone()));
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/main"])]);
    bench.start(poller());
    bench.through().await;
    repo.force_push("ann", "main", &[("a", "2")]);
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn an_idle_look_is_one_listing_and_writes_nothing() {
    let (scm, mut bench) = bench();
    scm.create("api").push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/", "refs/heads/main", "refs/tags/"])]);
    bench.start(poller());
    bench.through().await;
    let position = bench.store.position().await.unwrap();
    scm.forget_calls();
    for _ in 0..3 {
        bench.after(A_WHILE).await;
    }
    assert_eq!(scm.calls(ScmCall::Refs), 3);
    let others = scm
        .all_calls()
        .into_iter()
        .filter(|(call, _)| !matches!(call, ScmCall::Refs | ScmCall::Connect));
    assert_eq!(others.count(), 0);
    assert_eq!(bench.store.position().await.unwrap(), position);
    let recorded = bench.store.observations(ObservationQuery::of(Tenant::default())).await.unwrap();
    assert_eq!(recorded.items.len(), 1);
}

#[tokio::test]
async fn a_webhook_and_a_poll_of_one_push_are_one_event() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller());
    bench.through().await;

    let webhook = repo.push("ann", "main", &[("a", "2")]);
    bench.store.admit(vec![webhook], None).await.unwrap();
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);

    let late_webhook = repo.push("ann", "main", &[("a", "3")]);
    bench.after(A_WHILE).await;
    bench.store.admit(vec![late_webhook], None).await.unwrap();
    assert_eq!(bench.heard().await, ["updated refs/heads/main"; 2]);
}

#[tokio::test]
async fn what_happened_while_nobody_looked_is_found_after_a_restart() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller());
    bench.through().await;
    bench.stop().await;
    repo.push("ann", "main", &[("a", "2")]);
    bench.start(poller());
    bench.through().await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn refs_under_a_newly_watched_prefix_run_nothing_at_first() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    repo.push("ann", "other", &[("a", "1")]);
    repo.tag("ann", "v1", "main");
    bench.want(&[("api", &["refs/heads/main"])]);
    bench.start(poller().first_sight(FirstSight::Run));
    bench.through().await;
    assert_eq!(bench.heard().await, ["created refs/heads/main"]);

    repo.push("ann", "main", &[("a", "2")]);
    bench.want(&[("api", &["refs/heads/", "refs/tags/"])]);
    bench.through().await;
    assert_eq!(
        bench.heard().await,
        ["created refs/heads/main", "updated refs/heads/main"],
        "what was watched already is still compared"
    );
    repo.push("ann", "other", &[("a", "2")]);
    repo.tag("ann", "v2", "main");
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await[2..], ["updated refs/heads/other", "created refs/tags/v2"]);
}

#[tokio::test]
async fn what_is_wanted_is_followed_at_once() {
    let (scm, mut bench) = bench();
    for name in ["one", "two"] {
        scm.create(name).push("ann", "main", &[("a", "1")]);
    }
    bench.start(poller());
    bench.want(&[("one", &["refs/heads/"])]);
    assert_eq!(bench.look().await.what, "default/scm:one");
    bench.want(&[("one", &["refs/heads/"]), ("two", &["refs/heads/"])]);
    assert_eq!(bench.look().await.what, "default/scm:two");
    bench.want(&[("two", &["refs/heads/"])]);
    scm.forget_calls();
    for _ in 0..3 {
        bench.after(A_WHILE).await;
    }
    assert_eq!(scm.calls(ScmCall::Refs), 3, "{:?}", scm.all_calls());
    bench.want(&[("two", &[])]);
    bench.stop().await;
}

#[tokio::test]
async fn failures_are_told_and_the_wait_grows_until_a_look_gets_through() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller());
    bench.through().await;
    scm.go_down();
    repo.push("ann", "main", &[("a", "2")]);
    let mut waits = Vec::new();
    bench.clock.advance(A_WHILE);
    for _ in 0..6 {
        let (kind, wait) = bench.look().await.failure.unwrap();
        assert_eq!(kind, ErrorKind::Transient);
        waits.push(wait);
        bench.clock.advance(wait);
    }
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[0] >= SignedDuration::from_mins(2), "{waits:?}");
    assert!(waits[5] >= SignedDuration::from_mins(30), "{waits:?}");
    assert!(waits[5] <= SignedDuration::from_mins(33), "{waits:?}");
    assert!(bench.look().await.failure.is_some());
    scm.come_back();
    bench.after(SignedDuration::from_mins(33)).await;
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn when_the_host_says_until_when_the_whole_connection_waits() {
    use workflows_core::Clock;
    let (scm, mut bench) = bench();
    for name in ["one", "two", "three"] {
        scm.create(name).push("ann", "main", &[("a", "1")]);
    }
    let until = bench.clock.now() + SignedDuration::from_hours(1);
    let limited = ErrorKind::RateLimited { until: Some(until) };
    scm.fail_next(ScmCall::Refs, limited, "slow down");
    let all: [(&str, &[&str]); 3] =
        [("one", &["refs/heads/"]), ("two", &["refs/heads/"]), ("three", &["refs/heads/"])];
    bench.want(&all);
    bench.start(poller().concurrency(1));
    let told = bench.look().await;
    assert_eq!(told.failure, Some((limited, SignedDuration::from_hours(1))));
    bench.clock.advance(SignedDuration::from_mins(59));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(bench.is_quiet());
    assert_eq!(scm.calls(ScmCall::Refs), 1);
    bench.clock.advance(SignedDuration::from_mins(1));
    for _ in 0..3 {
        bench.through().await;
    }
}

#[tokio::test]
async fn a_repository_that_hangs_holds_up_no_other() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"]), ("hung", &["refs/heads/"])]);
    bench.start(poller().concurrency(2).timeout(SignedDuration::from_mins(5)));
    assert_eq!(bench.look().await.what, "default/scm:api");
    for _ in 0..4 {
        bench.clock.advance(A_WHILE);
        assert_eq!(bench.look().await.what, "default/scm:api");
    }
    bench.clock.advance(A_WHILE);
    let mut looks = [bench.look().await, bench.look().await];
    looks.sort_by(|one, other| one.what.cmp(&other.what));
    assert_eq!(looks[0].failure, None);
    assert_eq!(looks[1].what, "default/scm:hung");
    assert_eq!(looks[1].failure.unwrap().0, ErrorKind::Transient);
}

#[tokio::test]
async fn an_idle_repository_is_looked_at_less_often_when_that_is_asked_for() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller().slowing_to(SignedDuration::from_mins(30)).unwrap());
    bench.through().await;
    let day = SignedDuration::from_hours(24);
    bench.after(day).await;
    scm.forget_calls();
    bench.clock.advance(SignedDuration::from_mins(29));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scm.calls(ScmCall::Refs), 0);
    repo.push("ann", "main", &[("a", "2")]);
    bench.after(SignedDuration::from_mins(4)).await;
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["updated refs/heads/main"]);
}

#[tokio::test]
async fn thousands_of_refs_are_taken_in_at_first_sight() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    for number in 0..2_500 {
        repo.tag("ann", &format!("v{number}"), "main");
    }
    bench.want(&[("api", &["refs/tags/"])]);
    bench.start(poller());
    bench.through().await;
    repo.tag("ann", "last", "main");
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["created refs/tags/last"]);
}

#[test]
fn an_interval_under_a_second_is_refused() {
    let error = RefPoller::every(SignedDuration::from_millis(999)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = poller().slowing_to(SignedDuration::from_secs(59)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn only_branches_that_match_are_looked_at_and_another_pattern_runs_nothing_at_first() {
    let (scm, mut bench) = bench();
    let repo = scm.create("api");
    repo.push("ann", "main", &[("a", "1")]);
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller().only_branches("release/*").unwrap());
    bench.through().await;
    repo.push("ann", "release/1", &[("a", "1")]);
    repo.push("ann", "other", &[("a", "1")]);
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, ["created refs/heads/release/1"]);

    bench.stop().await;
    bench.start(poller());
    bench.through().await;
    assert_eq!(bench.heard().await, ["created refs/heads/release/1"]);

    let error = poller().only_branches("[").unwrap_err();
    assert!(error.to_string().starts_with("set up polling: "), "{error}");
}
