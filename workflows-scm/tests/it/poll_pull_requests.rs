//! Polling pull requests, their labels and their comments.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use workflows_core::{
    Capabilities, Capability, CommitId, ConnectionName, ErrorKind, EventKind, RepoConnection,
    RepoRef, Result, ScmDriver, Store,
    conformance::{ScmCall, ScriptedRepo, ScriptedScm},
    event::{PullRequest, PullRequestState, Revision},
    repo::{ChangedFile, Directory, ListOptions, PullRequests, ReadLimit, RefPosition, RepoLinks},
};
use workflows_scm::poll::{FirstSight, PullRequestPoller, RefPoller};

use crate::poll_support::Bench;

const A_WHILE: SignedDuration = SignedDuration::from_secs(70);

fn poller() -> PullRequestPoller {
    PullRequestPoller::every(SignedDuration::from_mins(1)).unwrap()
}

fn bench() -> (ScriptedScm, ScriptedRepo, Bench) {
    let scm = ScriptedScm::new();
    let mut bench = Bench::new("scm", Arc::new(scm.clone()));
    bench.kinds = vec![EventKind::PULL_REQUEST];
    let repo = scm.create("api");
    repo.set_time("2026-01-01T00:00:00Z".parse().unwrap());
    repo.push("ann", "main", &[("a", "1")]);
    repo.push("ann", "next", &[("a", "2")]);
    bench.want(&[("api", &[])]);
    (scm, repo, bench)
}

fn opened(repo: &ScriptedRepo, branch: &str) -> u64 {
    repo.push("ann", branch, &[("b", branch)]);
    repo.open_pull_request("ann", branch, "main").0
}

#[tokio::test]
async fn what_is_open_at_first_sight_is_recorded_and_what_changes_then_is_heard() {
    let (_, repo, mut bench) = bench();
    let old = opened(&repo, "old");
    repo.label("ann", old, "bug");
    repo.comment("ann", old, "/test");
    bench.start(poller());
    bench.through().await;
    assert_eq!(bench.heard().await, Vec::<String>::new());

    repo.push_to_pull_request(old, &[("b", "more")]);
    bench.after(A_WHILE).await;
    let new = opened(&repo, "new");
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.draft = true);
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.draft = false);
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.base.reference = "refs/heads/next".into());
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.state = PullRequestState::Closed);
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.state = PullRequestState::Open);
    bench.after(A_WHILE).await;
    repo.edit_pull_request("ann", new, |one| one.state = PullRequestState::Merged);
    bench.after(A_WHILE).await;
    let (old, new) = (format!("pull/{old}"), format!("pull/{new}"));
    assert_eq!(
        bench.heard().await,
        [
            format!("updated {old}"),
            format!("opened {new}"),
            format!("drafted {new}"),
            format!("ready {new}"),
            format!("retargeted {new}"),
            format!("closed {new}"),
            format!("reopened {new}"),
            format!("merged {new}"),
        ]
    );
    bench.stop().await;
}

#[tokio::test]
async fn labels_are_compared_one_by_one() {
    let (_, repo, mut bench) = bench();
    let number = opened(&repo, "topic");
    repo.label("ann", number, "old");
    bench.start(poller());
    bench.through().await;
    repo.label("ann", number, "bench");
    repo.unlabel("ann", number, "old");
    bench.after(A_WHILE).await;
    repo.unlabel("ann", number, "bench");
    bench.after(A_WHILE).await;
    repo.label("ann", number, "bench");
    bench.after(A_WHILE).await;
    let label = |name: &str| format!("pull/{number}/label/{name}");
    assert_eq!(
        bench.heard().await,
        [
            format!("labeled {}", label("bench")),
            format!("unlabeled {}", label("old")),
            format!("unlabeled {}", label("bench")),
            format!("labeled {}", label("bench")),
        ]
    );
    bench.stop().await;
}

#[tokio::test]
async fn new_comments_are_heard_with_the_pull_request_and_edited_ones_are_not() {
    let (_, repo, mut bench) = bench();
    let number = opened(&repo, "topic");
    repo.comment("ann", number, "before");
    bench.start(poller());
    bench.through().await;
    repo.comment("ann", number, "/test");
    bench.after(A_WHILE).await;
    repo.edit_last_comment("/test harder");
    bench.after(A_WHILE).await;
    repo.comment("bob", number, "/cancel");
    bench.after(A_WHILE).await;
    let events = bench.events().await;
    let said: Vec<_> = events
        .iter()
        .map(|event| {
            let comment = event.comment.as_ref().unwrap();
            let number = event.pull_request.as_ref().map(|one| one.number);
            (comment.author.as_ref(), comment.body.as_str(), number)
        })
        .collect();
    assert_eq!(said, [("ann", "/test", Some(number)), ("bob", "/cancel", Some(number))]);
    bench.stop().await;
}

#[tokio::test]
async fn what_is_written_in_the_second_of_a_comment_that_was_read_is_heard_too() {
    let (scm, repo, mut bench) = bench();
    let number = opened(&repo, "topic");
    bench.start(poller());
    bench.through().await;
    let second = "2026-01-01T00:10:00Z".parse().unwrap();
    repo.set_time(second);
    repo.comment("ann", number, "one");
    bench.after(A_WHILE).await;
    repo.set_time(second);
    repo.comment("bob", number, "two");
    bench.after(A_WHILE).await;
    let said: Vec<_> = bench
        .events()
        .await
        .iter()
        .map(|event| (event.comment.as_ref().unwrap().body.clone(), event.occurred_at))
        .collect();
    assert_eq!(said[0].1, said[1].1, "{said:?}");
    assert_eq!((&*said[0].0, &*said[1].0), ("one", "two"));
    // Nothing is asked for when both looks are done.
    scm.forget_calls();
    bench.after(A_WHILE).await;
    bench.after(A_WHILE).await;
    assert_eq!(scm.calls(ScmCall::CommentsSince), 0);
    assert_eq!(bench.events().await.len(), 2);
    bench.stop().await;
}

#[tokio::test]
async fn comments_that_a_limit_holds_back_hold_up_no_pull_request() {
    let (scm, repo, mut bench) = bench();
    let number = opened(&repo, "topic");
    bench.start(poller());
    bench.through().await;
    repo.push_to_pull_request(number, &[("b", "more")]);
    repo.comment("ann", number, "/test");
    let until = Some(Timestamp::MAX);
    scm.fail_next(ScmCall::CommentsSince, ErrorKind::RateLimited { until }, "slow down");
    bench.after(A_WHILE).await;
    assert_eq!(bench.heard().await, [format!("updated pull/{number}")]);
    bench.after(A_WHILE).await;
    let events = bench.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[1].comment.as_ref().unwrap().body.as_str(), "/test");
    bench.stop().await;
}

#[tokio::test]
async fn a_look_at_a_repository_where_nothing_happens_is_one_listing() {
    let (scm, repo, mut bench) = bench();
    opened(&repo, "topic");
    bench.start(poller());
    bench.through().await;
    let position = bench.store.position().await.unwrap();
    scm.forget_calls();
    for _ in 0..3 {
        bench.after(A_WHILE).await;
    }
    let calls: Vec<_> = scm.all_calls().into_iter().map(|(call, _)| call).collect();
    assert_eq!(calls, [ScmCall::PullRequestsChangedSince; 3]);
    assert_eq!(bench.store.position().await.unwrap(), position);
    bench.stop().await;
}

#[tokio::test]
async fn what_happened_while_nobody_looked_is_found_and_old_closed_ones_are_no_news() {
    let (_, repo, mut bench) = bench();
    let closed = opened(&repo, "closed");
    repo.edit_pull_request("ann", closed, |one| one.state = PullRequestState::Closed);
    let open = opened(&repo, "open");
    bench.start(poller());
    bench.through().await;
    bench.stop().await;

    bench.clock.advance(SignedDuration::from_hours(5));
    repo.set_time("2026-01-01T04:00:00Z".parse().unwrap());
    repo.comment("ann", closed, "it was a pity");
    repo.push_to_pull_request(open, &[("b", "more")]);
    let new = opened(&repo, "new");
    repo.edit_pull_request("ann", new, |one| one.state = PullRequestState::Merged);
    bench.start(poller());
    bench.through().await;
    let mut heard = bench.heard().await;
    heard.sort();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[0].starts_with("created comment/"), "{heard:?}");
    assert_eq!(heard[1..], [format!("merged pull/{new}"), format!("updated pull/{open}")]);
    bench.stop().await;
}

#[tokio::test]
async fn the_first_look_runs_what_is_open_when_it_is_told_so() {
    let (_, repo, mut bench) = bench();
    let number = opened(&repo, "topic");
    bench.start(poller().first_sight(FirstSight::Run));
    bench.through().await;
    assert_eq!(bench.heard().await, [format!("opened pull/{number}")]);
    bench.stop().await;
}

#[tokio::test]
async fn a_repository_of_which_nobody_needs_pull_requests_is_not_looked_at() {
    let (scm, _, mut bench) = bench();
    bench.kinds = vec![EventKind::PUSH];
    bench.want(&[("api", &["refs/heads/"])]);
    bench.start(poller());
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scm.all_calls(), []);
    bench.stop().await;
}

#[tokio::test]
async fn a_host_without_pull_requests_is_told_as_a_failure() {
    let scm = ScriptedScm::new().without(Capability::PullRequests);
    let mut bench = Bench::new("scm", Arc::new(scm.clone()));
    bench.kinds = vec![EventKind::LABEL];
    scm.create("api");
    bench.want(&[("api", &[])]);
    bench.start(poller());
    let (kind, _) = bench.look().await.failure.unwrap();
    assert_eq!(kind, ErrorKind::Unsupported);
    bench.stop().await;
}

#[tokio::test]
async fn a_webhook_and_a_look_at_the_same_fact_are_one_event() {
    let (_, repo, mut bench) = bench();
    bench.start(poller());
    bench.through().await;
    let mut told = Vec::new();
    repo.push("ann", "topic", &[("b", "1")]);
    let (number, opened) = repo.open_pull_request("ann", "topic", "main");
    told.push(opened);
    // The webhook comes before the look, and again after it under another id.
    bench.store.admit(told.clone(), None).await.unwrap();
    bench.after(A_WHILE).await;
    told.push(repo.label("ann", number, "bug"));
    told.push(repo.comment("ann", number, "hello"));
    told.push(repo.edit_pull_request("ann", number, |one| one.state = PullRequestState::Closed));
    // The look comes before the webhooks.
    bench.after(A_WHILE).await;
    let keys = |events: Vec<workflows_core::Event>| -> Vec<String> {
        events.iter().map(|event| event.key.to_string()).collect()
    };
    let looked = keys(bench.events().await);
    for (place, mut observation) in told.into_iter().enumerate() {
        bench.store.admit(vec![observation.clone()], None).await.unwrap();
        observation.delivery = format!("another delivery {place}").into();
        bench.store.admit(vec![observation], None).await.unwrap();
    }
    assert_eq!(keys(bench.events().await), looked);
    assert_eq!(looked.len(), 4, "{looked:?}");
    bench.stop().await;
}

// --- ten thousand repositories -------------------------------------------------------------------

/// A host on which repositories have pull requests that change at known times, and which counts its
/// requests by minute.
#[derive(Debug, Clone)]
struct Busy {
    clock: workflows_core::ManualClock,
    /// How often something happens in a repository; in the others nothing does.
    active: Arc<BTreeMap<String, SignedDuration>>,
    requests: Arc<Mutex<BTreeMap<i64, usize>>>,
}

const BEGIN: &str = "2026-01-01T00:00:00Z";

impl Busy {
    fn now(&self) -> Timestamp {
        use workflows_core::Clock;
        self.clock.now()
    }

    fn begin() -> Timestamp {
        BEGIN.parse().unwrap()
    }

    /// When something last happened in a repository.
    fn changed(&self, repo: &str) -> Timestamp {
        match self.active.get(repo) {
            Some(every) => {
                let passed = self.now().duration_since(Self::begin());
                let times = passed.as_secs() / every.as_secs();
                Self::begin() + *every * i32::try_from(times).unwrap()
            }
            None => Self::begin() - SignedDuration::from_hours(24 * 30),
        }
    }
}

#[async_trait]
impl ScmDriver for Busy {
    fn host(&self) -> &str {
        "busy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of([Capability::PullRequests])
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        let repo = RepoRef { connection: connection.clone(), id: repo.into(), name: repo.into() };
        Ok(Arc::new(BusyRepo { host: self.clone(), repo }))
    }
}

#[derive(Debug)]
struct BusyRepo {
    host: Busy,
    repo: RepoRef,
}

impl BusyRepo {
    fn request(&self) {
        let minute = self.host.now().as_second() / 60;
        *self.host.requests.lock().unwrap().entry(minute).or_default() += 1;
    }

    fn pull_request(&self) -> PullRequest {
        let updated_at = self.host.changed(&self.repo.name);
        let head: CommitId = format!("{:040x}", updated_at.as_second()).parse().unwrap();
        PullRequest {
            number: 1,
            title: String::new(),
            author: "ann".into(),
            draft: false,
            state: PullRequestState::Open,
            head: Revision::new(head, "refs/heads/topic"),
            base: Revision::new("1".repeat(40).parse().unwrap(), "refs/heads/main"),
            fork: false,
            labels: Vec::new(),
            url: None,
            updated_at,
        }
    }
}

#[async_trait]
impl PullRequests for BusyRepo {
    async fn get(&self, _: u64) -> Result<PullRequest> {
        self.request();
        Ok(self.pull_request())
    }

    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        self.request();
        let one = self.pull_request();
        let known = since.is_some_and(|since| one.updated_at < since);
        stream::iter((!known).then_some(Ok(one))).boxed()
    }
}

#[async_trait]
impl RepoConnection for BusyRepo {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        RepoLinks::default()
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        Ok("refs/heads/main".into())
    }

    async fn resolve(&self, _: &str) -> Result<CommitId> {
        Ok(self.pull_request().base.sha)
    }

    fn refs(&self, _: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        stream::empty().boxed()
    }

    async fn read_file(&self, _: &CommitId, _: &str, _: ReadLimit) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn list_directory(&self, _: &CommitId, _: &str, _: ListOptions) -> Result<Directory> {
        Ok(Directory::default())
    }

    fn changed_files(
        &self,
        _: Option<&CommitId>,
        _: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        stream::empty().boxed()
    }

    fn pull_requests(&self) -> Option<&dyn PullRequests> {
        Some(self)
    }
}

/// Ten thousand repositories behind one credential, of which one in fifty is active (something
/// happens every three to six minutes), for two and a half hours of the clock: GitHub's limit of 900
/// requests a minute is kept, what happens in active ones is seen within a minute, and the idle ones
/// are looked at within half an hour.
#[tokio::test]
async fn ten_thousand_repositories_behind_one_credential_are_kept_up_with() {
    const REPOSITORIES: usize = 10_000;
    let clock = workflows_core::ManualClock::at(Busy::begin());
    let names: Vec<String> = (0..REPOSITORIES).map(|number| format!("org/r{number}")).collect();
    let active: BTreeMap<String, SignedDuration> = names
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 50 == 0)
        .map(|(number, name)| (name.clone(), SignedDuration::from_secs(160 + (number as i64 / 50))))
        .collect();
    let host = Busy { clock, active: Arc::new(active), requests: Arc::default() };
    let mut bench = Bench::new("busy", Arc::new(host.clone()));
    bench.kinds = vec![EventKind::PULL_REQUEST];
    let host = Busy { clock: bench.clock.clone(), ..host };
    bench.drive("busy", Arc::new(host.clone()));
    let wanted: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[] as _)).collect();
    bench.want(&wanted);
    let poller = PullRequestPoller::every(SignedDuration::from_secs(45))
        .unwrap()
        .slowing_to(SignedDuration::from_mins(27))
        .unwrap();
    bench.start(poller);

    let minutes = 150;
    let mut last_look: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut longest_gap = SignedDuration::ZERO;
    for _ in 0..minutes * 60 {
        bench.clock.advance(SignedDuration::from_secs(1));
        // Everything that is due ends before time goes on.
        let now = host.now();
        for told in bench.all_looks().await {
            assert_eq!(told.failure, None, "{told:?}");
            let gap = last_look.insert(told.what, now).map(|last| now.duration_since(last));
            if now.duration_since(Busy::begin()) > SignedDuration::from_mins(60) {
                longest_gap = longest_gap.max(gap.unwrap_or_default());
            }
        }
    }
    bench.stop().await;

    let requests = host.requests.lock().unwrap().clone();
    let busiest = *requests.values().max().unwrap();
    let settled: Vec<usize> = requests.values().copied().skip(60).collect();
    let average = settled.iter().sum::<usize>() / settled.len();
    let mut slowest = SignedDuration::ZERO;
    let after_start = Busy::begin() + SignedDuration::from_mins(60);
    let mut seen = 0;
    for event in bench.all_events().await {
        if event.occurred_at >= after_start {
            seen += 1;
            slowest = slowest.max(event.received_at.duration_since(event.occurred_at));
        }
    }
    println!(
        "{REPOSITORIES} repositories, {} active: busiest minute {busiest} requests, on average \
         {average}; {seen} changes, the slowest seen after {slowest:#}; longest time between two \
         looks {longest_gap:#}",
        host.active.len(),
    );
    assert_eq!(last_look.len(), REPOSITORIES);
    assert!(busiest <= 900, "{busiest}");
    assert!(slowest <= SignedDuration::from_secs(60), "{slowest:#}");
    assert!(longest_gap <= SignedDuration::from_mins(30), "{longest_gap:#}");
    // Nothing that happened after the start was missed, but for the last minute.
    let expected: i64 = host
        .active
        .values()
        .map(|every| (minutes * 60 - 60) / every.as_secs() - (60 * 60 - 1) / every.as_secs())
        .sum();
    assert!(seen >= expected, "{seen} of {expected}");
}

#[test]
fn intervals_are_checked() {
    let second = SignedDuration::from_secs(1);
    assert!(PullRequestPoller::every(SignedDuration::from_millis(999)).is_err());
    assert!(PullRequestPoller::every(second * 10).unwrap().slowing_to(second).is_err());
    assert!(RefPoller::every(SignedDuration::from_millis(999)).is_err());
}
