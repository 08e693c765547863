//! How often GitHub is called for what happens, counted.

use std::sync::Arc;

use futures::TryStreamExt;
use jiff::SignedDuration;
use workflows_core::{
    EventKind, Run, RunPhase, RunStatus, ScmDriver, TaskStatus, Tenant,
    repo::StatusState,
    sink::TaskPhase,
    store::{StatusQuery, StatusRecord},
};
use workflows_github_standin::{Fault, Role};
use workflows_scm::poll::{PullRequestPoller, RefPoller};

use crate::{
    github_world::{As, GitHub},
    poll_support::Bench,
    process::{Outside, Process, SECRET, until},
};

const GRAPHQL: &str = "POST /graphql";
const MINT: &str = "POST /app/installations/{installation_id}/access_tokens";
const MAKE_CHECK: &str = "POST /repos/{owner}/{repo}/check-runs";
const CHANGE_CHECK: &str = "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}";
const COMPARE: &str = "GET /repos/{owner}/{repo}/compare/{basehead}";
const PERMISSION: &str = "GET /repos/{owner}/{repo}/collaborators/{username}/permission";

fn workflow(name: &str, more: &str) -> String {
    format!(
        "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: {{ name: {name} }}
spec:
  triggers:
  - {{ name: pull-request, on: pull_request{more} }}
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: {{ steps: [{{ name: run, image: none, script: 'true' }}] }}
"
    )
}

/// A repository with workflows for pull requests, and a program that hears of them.
struct World {
    outside: Outside<GitHub>,
    process: Process,
}

impl World {
    /// `warm`: a pull request was seen before, so that the connection is made and there is a token.
    async fn with(workflows: &[(&str, &str)], warm: bool) -> Self {
        let github = GitHub::with_app();
        let As::App(app) = &github.known_as else { unreachable!("it is an App") };
        // What is sent is handed over by the tests.
        app.hook("http://127.0.0.1:9/", SECRET);
        let files: Vec<(String, String)> = workflows
            .iter()
            .map(|(name, more)| (format!(".tekton/{name}.yaml"), workflow(name, more)))
            .collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        github.repo.push("main", &files);
        let outside = Outside::of(github);
        let process = outside.start();
        let world = Self { outside, process };
        if warm {
            world.outside.site.repo.push("first", &[("first", "1")]);
            world.outside.site.repo.open_pull_request("First", "first", "main");
            world.hears().await;
            world.run_ends(workflows.len()).await;
        }
        world.outside.calls();
        world
    }

    /// The program hears of the last change of a pull request.
    async fn hears(&self) {
        self.outside.site.hub.settle().await;
        let sent = self.outside.site.hub.deliveries();
        let sent = sent.iter().rev().find(|one| one.event == "pull_request").unwrap();
        self.process.receives(&sent.headers, &sent.body).await;
    }

    /// Waits until GitHub shows so many runs as going on or ended, and lets those end well that go on,
    /// after some time. Returns when GitHub shows that.
    async fn run_ends(&self, runs: usize) {
        until("the runs are shown", async || {
            let all = self.outside.runs().await;
            let is_begun = |run: &Run| self.shown(run).is_some_and(|shown| shown != "queued");
            all.len() == runs && all.iter().all(is_begun)
        })
        .await;
        self.outside.passes(SignedDuration::from_mins(1));
        for run in self.outside.runs().await {
            if !run.state.is_terminal() {
                self.outside.sink.set_phase(&run.key, RunPhase::Succeeded);
            }
        }
        // Until the ledger knows, so that no call is under way any more.
        until("the ends are shown", async || {
            let query = StatusQuery::of(Tenant::default());
            let statuses = self.outside.store.statuses(query).await.unwrap().items;
            let is_shown = |one: &StatusRecord| {
                one.shown.as_ref().is_some_and(|shown| shown.state == StatusState::Success)
            };
            statuses.len() == runs && statuses.iter().all(is_shown)
        })
        .await;
    }

    /// The conclusion or else the status of a run's check.
    fn shown(&self, run: &Run) -> Option<String> {
        let commit = run.commit.as_ref()?;
        let checks = self.outside.site.repo.checks(commit.as_str());
        let check = checks.into_iter().find(|check| check.external_id == run.key.as_str())?;
        Some(check.conclusion.unwrap_or(check.status))
    }
}

/// Sorts the calls: those for check runs, and the others.
fn apart(calls: Vec<String>) -> (Vec<String>, Vec<String>) {
    calls.into_iter().partition(|call| call.contains("check-runs"))
}

#[tokio::test]
async fn a_pull_request_takes_seven_calls_from_nothing_and_four_after_that() {
    let world = World::with(&[("ci", "")], false).await;
    let repo = &world.outside.site.repo;
    repo.push("topic", &[("a", "1")]);
    repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    world.run_ends(1).await;
    let (of_checks, others) = apart(world.outside.calls());
    // The second token is the run's own, to clone with.
    assert_eq!(others, [MINT, "GET /repos/{owner}/{repo}", GRAPHQL, MINT]);
    assert!(of_checks.len() <= 3, "{of_checks:#?}");
    assert_eq!(of_checks[0], MAKE_CHECK);
    assert!(of_checks[1..].iter().all(|call| call == CHANGE_CHECK), "{of_checks:#?}");

    repo.push("topic", &[("a", "2")]);
    world.hears().await;
    world.run_ends(2).await;
    let (of_checks, others) = apart(world.outside.calls());
    assert_eq!(others, [GRAPHQL]);
    assert!(of_checks.len() <= 3, "{of_checks:#?}");
    world.process.stop().await;
}

#[tokio::test]
async fn changed_files_are_one_call_and_a_further_run_three() {
    let paths = ", paths: { exclude: ['docs/**'] }";
    let world = World::with(&[("ci", paths), ("lint", paths)], true).await;
    let repo = &world.outside.site.repo;
    // The base goes on meanwhile, and the branch is rewritten.
    repo.push("main", &[("meanwhile", "1")]);
    repo.push("topic", &[("a", "1")]);
    repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    world.run_ends(4).await;
    let (of_checks, mut others) = apart(world.outside.calls());
    others.sort();
    assert_eq!(others, [COMPARE, GRAPHQL]);
    assert!(of_checks.len() <= 6, "{of_checks:#?}");
    world.process.stop().await;
}

#[tokio::test]
async fn what_somebody_may_is_asked_once_a_minute() {
    let world = World::with(&[("ci", "")], true).await;
    let repo = &world.outside.site.repo;
    repo.set_role("bob", Some(Role::Write));
    let fork = repo.as_user("bob").fork();
    fork.push("patch", &[("a", "1")]);
    repo.as_user("bob").open_pull_request("From afar", "bob:patch", "main");
    for (number, expected) in [(2, vec![PERMISSION, GRAPHQL]), (3, vec![GRAPHQL])] {
        world.hears().await;
        until("it runs", async || world.outside.runs().await.len() == number).await;
        let (_, mut others) = apart(world.outside.calls());
        others.sort();
        assert_eq!(others, expected);
        fork.push("patch", &[("a", "2")]);
    }
    world.process.stop().await;
}

#[tokio::test]
async fn one_round_trip_lies_between_an_event_and_its_run_and_none_where_the_directory_is_known() {
    let world = World::with(&[("ci", "")], true).await;
    let repo = &world.outside.site.repo;
    let hub = &world.outside.site.hub;
    // Nobody waits for a check: there is no answer to it.
    hub.fail("* *check-runs*", 100, Fault::Hang);
    repo.push("topic", &[("a", "1")]);
    let number = repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    until("it is created", async || world.outside.sink.created().len() == 2).await;
    assert_eq!(apart(world.outside.calls()).1, [GRAPHQL]);

    repo.close(number);
    world.hears().await;
    repo.reopen(number);
    world.hears().await;
    until("it is created again", async || world.outside.sink.created().len() == 3).await;
    assert_eq!(apart(world.outside.calls()).1, [""; 0]);
    hub.mend();
    world.process.stop().await;
}

#[tokio::test]
async fn progress_is_shown_at_most_once_in_half_a_minute() {
    let world = World::with(&[("ci", "")], true).await;
    let repo = &world.outside.site.repo;
    repo.push("topic", &[("a", "1")]);
    repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    let run = async || {
        let runs = world.outside.runs().await;
        runs.into_iter().find(|run| !run.state.is_terminal())
    };
    until("it is shown", async || {
        run().await.is_some_and(|run| world.shown(&run).is_some_and(|one| one == "in_progress"))
    })
    .await;
    let key = run().await.unwrap().key;
    world.outside.calls();
    let (seconds, every) = (300, 5);
    for turn in 0..seconds / every {
        let mut status = RunStatus::new(RunPhase::Running);
        status.tasks = (0..=turn).map(task).collect();
        world.outside.sink.set_status(&key, status);
        until("the ledger knows", async || {
            run().await.is_some_and(|run| run.tasks.len() == usize::try_from(turn).unwrap() + 1)
        })
        .await;
        world.outside.passes(SignedDuration::from_secs(every));
        // What is due is due now.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (of_checks, others) = apart(world.outside.calls());
    assert_eq!(others, [""; 0]);
    // At both ends of the time, and every half minute between them.
    let most = usize::try_from(seconds / 30).unwrap() + 1;
    assert!((2..=most).contains(&of_checks.len()), "{} in {seconds} s", of_checks.len());
    assert!(of_checks.iter().all(|call| call == CHANGE_CHECK));
    world.process.stop().await;
}

fn task(number: i64) -> TaskStatus {
    TaskStatus {
        name: format!("task-{number}").into(),
        phase: TaskPhase::Succeeded,
        message: String::new(),
        started_at: None,
        finished_at: None,
        link: None,
        steps: Vec::new(),
    }
}

#[tokio::test]
async fn comments_are_all_found_and_cost_nothing_where_there_is_none() {
    const COMMENTS: &str = "GET /repos/{owner}/{repo}/issues/comments";
    let github = GitHub::with_app();
    github.repo.push("topic", &[("a", "1")]);
    let number = github.repo.open_pull_request("Do it", "topic", "main");
    let driver = github.driver();
    let connection = driver.connect(&"github".into(), "acme/api").await.unwrap();
    let feed = connection.comment_feed().unwrap();
    let since = github.clock_now();
    let read = async || -> Vec<String> {
        let found: Vec<_> = feed.comments_since(since).try_collect().await.unwrap();
        found.iter().map(|one| one.comment.body.clone()).collect()
    };
    assert_eq!(read().await, [""; 0]);
    let left = || driver.budget()[0].resources[0].remaining;
    let before = left();
    assert_eq!(read().await, [""; 0]);
    assert_eq!(left(), before, "nothing was new, which costs nothing");
    let mut said = Vec::new();
    for count in 1..=130 {
        github.later(1);
        said.push(format!("comment {count}"));
        github.repo.as_user("ann").comment(number, &said[count - 1]);
        if [1, 4, 5, 6, 130].contains(&count) {
            assert_eq!(read().await, said);
        }
    }
    assert!(github.hub.count(COMMENTS) > 0);
}

#[tokio::test]
async fn an_idle_look_is_one_request_for_each_kind_of_thing_and_costs_nothing_of_the_hour() {
    let github = GitHub::with_token();
    for number in 0..12 {
        let branch = format!("topic/{number}");
        github.repo.push(&branch, &[("a", &number.to_string())]);
        let number = github.repo.open_pull_request("A change", &branch, "main");
        github.repo.comment(number, "hello");
        github.later(300);
    }
    github.later(3_600);
    let minute = SignedDuration::from_mins(1);
    let mut refs = Bench::over(github.clock.clone());
    refs.drive("github", Arc::new(github.driver()));
    refs.want(&[("acme/api", &["refs/heads/main"])]);
    let mut pulls = Bench::over(github.clock.clone());
    pulls.drive("github", Arc::new(github.driver()));
    pulls.kinds = vec![EventKind::PULL_REQUEST, EventKind::COMMENT];
    pulls.want(&[("acme/api", &[])]);
    refs.start(RefPoller::every(minute).unwrap());
    pulls.start(PullRequestPoller::every(minute).unwrap());
    refs.through().await;
    pulls.through().await;
    // The first look is another one than those that follow.
    github.later(70);
    refs.through().await;
    pulls.through().await;
    github.hub.forget_calls();
    for _ in 0..3 {
        github.later(70);
        refs.through().await;
        pulls.through().await;
        let mut calls: Vec<(String, u16)> = github
            .hub
            .calls()
            .into_iter()
            .map(|call| (format!("{} {}", call.method, call.path), call.status))
            .collect();
        github.hub.forget_calls();
        calls.sort();
        let expected = [
            ("GET /repos/acme/api/git/matching-refs/heads/main".to_owned(), 304),
            ("GET /repos/acme/api/pulls".to_owned(), 304),
        ];
        assert_eq!(calls, expected);
    }
    // A change that is no comment is asked about twice, and then it is over.
    let pull_requests = |github: &GitHub| {
        let calls = github.hub.calls();
        github.hub.forget_calls();
        let of = calls.iter().filter(|call| !call.path.contains("/git/"));
        let mut of: Vec<String> = of.map(|call| format!("{} {}", call.path, call.status)).collect();
        of.sort();
        of
    };
    let repo = &github.repo;
    let changes: [&dyn Fn(); 3] =
        [&|| repo.label(12, "bug"), &|| drop(repo.push("topic/11", &[("b", "2")])), &|| {
            repo.close(12)
        }];
    for change in changes {
        github.later(300);
        change();
        for _ in 0..2 {
            github.later(70);
            refs.through().await;
            pulls.through().await;
        }
        assert_eq!(pull_requests(&github).len(), 6, "the list, and comments of both kinds");
        for _ in 0..2 {
            github.later(70);
            refs.through().await;
            pulls.through().await;
            assert_eq!(pull_requests(&github), ["/repos/acme/api/pulls 304"]);
        }
    }
    // Many that changed at once are two requests from then on, which cost as little.
    for number in 1..=12 {
        github.repo.label(number, "bug");
    }
    for _ in 0..2 {
        github.later(70);
        pulls.through().await;
        refs.through().await;
    }
    github.hub.forget_calls();
    github.later(70);
    pulls.through().await;
    let statuses: Vec<u16> = github
        .hub
        .calls()
        .into_iter()
        .filter(|call| call.path.ends_with("/pulls"))
        .map(|call| call.status)
        .collect();
    assert_eq!(statuses, [304, 304]);
    refs.stop().await;
    pulls.stop().await;
}
