//! A program that is away for an hour while things happen at a host.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{RunKey, RunPhase, RunState, engine::EngineBuilder};
use workflows_scm::{
    poll::{PullRequestPoller, RefPoller},
    webhook::WebhookReceiver,
};

use crate::process::{Outside, Site, until};

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

pub(crate) const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// What people do at a host: `alice`, who may write, and `mallory`, who may not.
#[async_trait]
pub(crate) trait People: Site {
    async fn settle(&self);
    /// Returns the commit.
    fn push(&self, branch: &str, path: &str, text: &str) -> String;
    /// Onto `main`; returns the number.
    fn open(&self, branch: &str) -> u64;
    fn label(&self, number: u64, label: &str);
    fn tag(&self, name: &str, at: &str);
    /// A stranger's, from a fork, onto `main`; returns the head.
    fn open_from_fork(&self) -> String;
    fn delete_branch(&self, branch: &str);
    fn close(&self, number: u64);
    fn comment(&self, number: u64, text: &str);
    /// Whether the workflow is shown to have ended well.
    fn has_succeeded(&self, commit: &str) -> bool;
    /// Whether it is shown to wait for somebody.
    fn waits(&self, commit: &str) -> bool;
}

/// How a program hears of things.
pub(crate) type Hearing<S> =
    fn(EngineBuilder, &<S as Site>::Driver, &WebhookReceiver) -> EngineBuilder;

/// With looking alone.
pub(crate) fn looking<S: Site>(
    builder: EngineBuilder,
    _: &S::Driver,
    _: &WebhookReceiver,
) -> EngineBuilder {
    builder
        .repository(S::CONNECTION, S::REPOSITORY)
        .source(Arc::new(RefPoller::every(MINUTE).unwrap()))
        .source(Arc::new(PullRequestPoller::every(MINUTE).unwrap()))
}

/// What an hour without the program left behind.
pub(crate) struct Left {
    /// `trigger commit` of what is relevant still.
    pub(crate) relevant: BTreeSet<String>,
    /// The same of what others have overtaken since.
    pub(crate) overtaken: BTreeSet<String>,
    /// The head of a stranger's pull request.
    waiting: String,
}

/// An hour of the host's time.
fn an_hour_passes(site: &impl People) -> Left {
    let five = || site.clock().advance(MINUTE * 5);
    let first = site.push("main", "a", "1");
    five();
    let main = site.push("main", "a", "2");
    five();
    let older = site.push("topic", "b", "1");
    five();
    let number = site.open("topic");
    five();
    let head = site.push("topic", "b", "2");
    five();
    site.label(number, "bug");
    site.tag("v1", &main);
    five();
    let waiting = site.open_from_fork();
    five();
    site.push("short", "d", "1");
    five();
    site.delete_branch("short");
    five();
    let closed = site.push("closed", "e", "1");
    let away = site.open("closed");
    five();
    site.close(away);
    five();
    site.comment(number, "/bench");
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
pub(crate) async fn come_back<S: People>(
    outside: &Outside<S>,
    hearing: Hearing<S>,
    sources: &[&str],
) -> (Left, Vec<String>) {
    let site = &outside.site;
    site.push("main", ".tekton/ci.yaml", CI);
    site.settle().await;
    site.clock().advance(MINUTE);
    let process = outside.start_with(hearing);
    let looked = async |times: u64| {
        for source in sources {
            process.until_looked(source, times).await;
        }
    };
    looked(1).await;
    site.clock().advance(MINUTE * 2);
    looked(2).await;
    let commit = site.push("before", "z", "1");
    site.settle().await;
    site.clock().advance(MINUTE * 2);
    looked(3).await;
    until("a run begins", async || {
        let runs = outside.runs().await;
        runs.len() == 1 && runs[0].state == RunState::Running
    })
    .await;
    process.stop().await;

    let left = an_hour_passes(site);
    let begun = outside.runs().await.remove(0).key;
    outside.sink.set_phase(&begun, RunPhase::Succeeded);
    site.settle().await;

    let process = outside.start_with(hearing);
    for source in sources {
        process.until_looked(source, 1).await;
    }
    // One interval, and the tenth that a repository's own may be longer.
    site.clock().advance(SignedDuration::from_secs(66));
    until("everything runs", async || {
        let runs: BTreeSet<String> = written(outside, &begun).await.into_iter().collect();
        left.relevant.is_subset(&runs)
    })
    .await;
    until("what went on has ended", async || site.has_succeeded(&commit)).await;
    until("who waits is shown", async || site.waits(&left.waiting)).await;
    process.stop().await;
    let runs = written(outside, &begun).await;
    (left, runs)
}

async fn written(outside: &Outside<impl Site>, but: &RunKey) -> Vec<String> {
    let runs = outside.runs().await.into_iter().filter(|run| run.key != *but);
    runs.map(|run| {
        let commit = run.commit.as_ref().map_or("", |commit| commit.as_str());
        format!("{} {commit}", run.trigger)
    })
    .collect()
}
