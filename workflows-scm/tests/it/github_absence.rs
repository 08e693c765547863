//! A program that is away for an hour while things happen at GitHub.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use workflows_core::{RunPhase, RunState, engine::EngineBuilder};
use workflows_github_standin::Role;
use workflows_scm::{
    github::GitHubDriver,
    poll::{PullRequestPoller, RefPoller},
    webhook::{DeliverySweep, WebhookReceiver},
};

use crate::{
    github_process::{Outside, SECRET, until},
    github_world::{As, CONTEXT, GitHub},
};

const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: push, on: push }
  - { name: tag, on: tag }
  - { name: pull-request, on: pull_request }
  - { name: bench, on: comment, command: /bench }
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: none, script: 'true' }] }
";

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// With looking alone.
fn looking(builder: EngineBuilder, _: &GitHubDriver, _: &WebhookReceiver) -> EngineBuilder {
    builder
        .repository("github", "acme/api")
        .source(Arc::new(RefPoller::every(MINUTE).unwrap()))
        .source(Arc::new(PullRequestPoller::every(MINUTE).unwrap()))
}

/// With an App's log besides what its webhook brings.
fn reading_the_log(
    builder: EngineBuilder,
    driver: &GitHubDriver,
    receiver: &WebhookReceiver,
) -> EngineBuilder {
    let log = Arc::new(driver.app_deliveries().unwrap());
    let sweep = DeliverySweep::of_log(receiver.clone(), log).every(MINUTE).unwrap();
    builder.source(Arc::new(sweep))
}

/// What an hour without the program left behind.
struct Left {
    /// `trigger commit` of what is relevant still.
    relevant: BTreeSet<String>,
    /// The same of what others have overtaken since.
    overtaken: BTreeSet<String>,
    /// The head of a stranger's pull request.
    waiting: String,
}

/// An hour of GitHub's time.
fn an_hour_passes(github: &GitHub) -> Left {
    let five = || github.clock.advance(MINUTE * 5);
    let repo = github.repo.as_user("alice");
    let first = repo.push("main", &[("a", "1")]);
    five();
    let main = repo.push("main", &[("a", "2")]);
    five();
    let older = repo.push("topic", &[("b", "1")]);
    five();
    let number = repo.open_pull_request("Do it", "topic", "main");
    five();
    let head = repo.push("topic", &[("b", "2")]);
    five();
    repo.label(number, "bug");
    repo.tag("v1", &main);
    five();
    let fork = github.repo.as_user("mallory").fork();
    let waiting = fork.push("patch", &[("c", "1")]);
    github.repo.as_user("mallory").open_pull_request("Trust me", "mallory:patch", "main");
    five();
    repo.push("short", &[("d", "1")]);
    five();
    repo.delete_branch("short");
    five();
    let closed = repo.push("closed", &[("e", "1")]);
    let away = repo.open_pull_request("Never mind", "closed", "main");
    five();
    repo.close(away);
    five();
    repo.comment(number, "/bench");
    five();
    let set = |all: &[(&str, &String)]| {
        all.iter().map(|(trigger, commit)| format!("{trigger} {commit}")).collect()
    };
    Left {
        relevant: set(&[
            ("push", &main),
            ("push", &head),
            ("push", &closed),
            ("pull-request", &head),
            ("tag", &main),
            ("bench", &head),
        ]),
        overtaken: set(&[("push", &first), ("push", &older), ("pull-request", &older)]),
        waiting,
    }
}

/// Lets a program run, stops it for an hour, and starts it again. Returns `trigger commit` of each run
/// that came of the hour.
async fn come_back(
    outside: &Outside,
    kind: fn(EngineBuilder, &GitHubDriver, &WebhookReceiver) -> EngineBuilder,
    sources: &[&str],
) -> (Left, Vec<String>) {
    let github = &outside.github;
    github.repo.set_role("alice", Some(Role::Write));
    github.repo.push("main", &[(".tekton/ci.yaml", CI)]);
    github.hub.settle().await;
    github.clock.advance(MINUTE);
    let process = outside.start_with(kind);
    let looked = async |times: u64| {
        for source in sources {
            process.until_looked(source, times).await;
        }
    };
    looked(1).await;
    github.clock.advance(MINUTE * 2);
    looked(2).await;
    let commit = github.repo.push("before", &[("z", "1")]);
    github.hub.settle().await;
    github.clock.advance(MINUTE * 2);
    looked(3).await;
    until("a run begins", async || {
        let runs = outside.runs().await;
        runs.len() == 1 && runs[0].state == RunState::Running
    })
    .await;
    process.stop().await;

    let left = an_hour_passes(github);
    let begun = outside.runs().await.remove(0).key;
    outside.sink.set_phase(&begun, RunPhase::Succeeded);
    github.hub.settle().await;

    let process = outside.start_with(kind);
    for source in sources {
        process.until_looked(source, 1).await;
    }
    // One interval, and the tenth that a repository's own may be longer.
    github.clock.advance(SignedDuration::from_secs(66));
    until("everything runs", async || {
        let runs: BTreeSet<String> = written(outside, &begun).await.into_iter().collect();
        left.relevant.is_subset(&runs)
    })
    .await;
    until("what went on has ended", async || {
        let checks = github.repo.checks(&commit);
        let ended = |conclusion: &Option<String>| conclusion.as_deref() == Some("success");
        let states = github.repo.statuses(&commit);
        checks.iter().any(|check| ended(&check.conclusion))
            || states.iter().any(|status| status.state == "success")
    })
    .await;
    until("who waits is shown", async || {
        let checks = github.repo.checks(&left.waiting);
        let waits = |check: &Option<String>| check.as_deref() == Some("action_required");
        let states = github.repo.statuses(&left.waiting);
        checks.iter().any(|check| check.name == CONTEXT && waits(&check.conclusion))
            || states.iter().any(|one| one.context == CONTEXT && one.description.contains("waits"))
    })
    .await;
    process.stop().await;
    let runs = written(outside, &begun).await;
    (left, runs)
}

async fn written(outside: &Outside, but: &workflows_core::RunKey) -> Vec<String> {
    let runs = outside.runs().await.into_iter().filter(|run| run.key != *but);
    runs.map(|run| {
        let commit = run.commit.as_ref().map_or("", |commit| commit.as_str());
        format!("{} {commit}", run.trigger)
    })
    .collect()
}

#[tokio::test]
async fn after_an_hour_without_the_program_whoever_looks_sees_what_is_left_and_runs_it_once() {
    let outside = Outside::of(GitHub::with_token());
    let (left, mut runs) = come_back(&outside, looking, &["poll", "poll-pull-requests"]).await;
    runs.sort();
    // What was overtaken meanwhile is not seen.
    let expected: Vec<String> = left.relevant.into_iter().collect();
    assert_eq!(runs, expected);
}

#[tokio::test]
async fn after_an_hour_without_the_program_the_log_brings_everything_and_it_runs_once() {
    let github = GitHub::with_app();
    let As::App(app) = &github.known_as else { unreachable!("it is an App") };
    // Where nobody listens: the log alone tells.
    app.hook("http://127.0.0.1:9/", SECRET);
    let outside = Outside::of(github);
    let (left, mut runs) = come_back(&outside, reading_the_log, &["webhook-log"]).await;
    runs.sort();
    let short =
        runs.iter().filter(|run| !left.relevant.contains(*run) && !left.overtaken.contains(*run));
    // The branch that was there for five minutes, and the pull request that was closed.
    assert_eq!(short.count(), 2, "{runs:#?}");
    let all: BTreeSet<String> = left.relevant.union(&left.overtaken).cloned().collect();
    assert!(all.is_subset(&runs.iter().cloned().collect()), "{runs:#?}");
    let mut once = runs.clone();
    once.dedup();
    assert_eq!(once, runs, "each of them runs once");
}
