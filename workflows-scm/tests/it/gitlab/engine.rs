//! What people do at GitLab, through a whole engine, and a GitLab that is away.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    ManualClock, Run, RunPhase, RunState, Tenant,
    repo::{StatusState, Webhook},
    store::StatusQuery,
};
use workflows_gitlab_standin::{Fault, ShownStatus};
use workflows_scm::{gitlab::GitLabDriver, webhook::WebhookReceiver};

use super::world::{PROJECT, World};
use crate::{
    absence::{MINUTE, People, come_back, looking},
    process::{Outside, Process, SECRET, Site, until},
};

const CONTEXT: &str = "workflows/ci";

impl Site for World {
    type Driver = GitLabDriver;
    const CONNECTION: &'static str = "gitlab";
    const REPOSITORY: &'static str = PROJECT;

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn driver(&self) -> GitLabDriver {
        Self::driver(self)
    }

    fn receiver(driver: &GitLabDriver) -> WebhookReceiver {
        WebhookReceiver::new("webhook", Self::CONNECTION, driver.deliveries())
    }

    fn take_calls(&self) -> Vec<String> {
        self.calls()
    }
}

#[async_trait]
impl People for World {
    async fn settle(&self) {
        self.gitlab.settle().await;
    }

    fn push(&self, branch: &str, path: &str, text: &str) -> String {
        self.project.as_user("alice").push(branch, &[(path, text)])
    }

    fn open(&self, branch: &str) -> u64 {
        self.project.as_user("alice").open("Do it", branch, "main")
    }

    fn label(&self, number: u64, label: &str) {
        self.project.as_user("alice").label(number, label);
    }

    fn tag(&self, name: &str, at: &str) {
        self.project.as_user("alice").tag(name, at);
    }

    fn open_from_fork(&self) -> String {
        let project = self.project.as_user("mallory");
        let fork = project.fork();
        let head = fork.push("patch", &[("c", "1")]);
        project.open_from(&fork, "Trust me", "patch", "main");
        head
    }

    fn delete_branch(&self, branch: &str) {
        self.project.as_user("alice").delete_branch(branch);
    }

    fn close(&self, number: u64) {
        self.project.as_user("alice").close(number);
    }

    fn comment(&self, number: u64, text: &str) {
        self.project.as_user("alice").note(number, text);
    }

    fn has_succeeded(&self, commit: &str) -> bool {
        self.project.statuses(commit).iter().any(|one| one.state == "success")
    }

    fn waits(&self, commit: &str) -> bool {
        let statuses = self.project.statuses(commit);
        statuses.iter().any(|one| one.state == "pending" && one.description.contains("waits"))
    }
}

fn workflow(name: &str) -> String {
    format!(
        "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: {{ name: {name} }}
spec:
  triggers: [{{ name: mr, on: pull_request }}]
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: {{ steps: [{{ name: run, image: none, script: 'true' }}] }}
"
    )
}

/// A project with a webhook, and a program that hears what it tells.
struct Told {
    outside: Outside<World>,
    process: Process,
    heard: AtomicUsize,
}

impl Told {
    async fn with(workflows: &[&str]) -> Self {
        let world = World::new();
        let files: Vec<(String, String)> =
            workflows.iter().map(|name| (format!(".tekton/{name}.yaml"), workflow(name))).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world.project.push("main", &files);
        let hook = Webhook {
            // What is sent is handed over by `hears`.
            url: "http://127.0.0.1:9/".to_owned(),
            secret: SECRET.to_owned().into(),
            events: GitLabDriver::useful_events().map(ToOwned::to_owned).collect(),
        };
        world.gitlab.hooks_lost(true);
        let connection = world.connect().await;
        connection.webhook_admin().unwrap().ensure(&hook).await.unwrap();
        world.gitlab.forget_calls();
        let outside = Outside::of(world);
        let process = outside.start();
        Self { outside, process, heard: AtomicUsize::new(0) }
    }

    fn world(&self) -> &World {
        &self.outside.site
    }

    /// The program hears everything that GitLab has sent since the last time.
    async fn hears(&self) {
        self.world().gitlab.settle().await;
        let sent = self.world().gitlab.deliveries();
        let heard = self.heard.swap(sent.len(), Ordering::SeqCst);
        for one in &sent[heard..] {
            self.process.receives(&one.headers, &one.body).await;
        }
    }

    async fn until_runs(&self, count: usize) -> Vec<Run> {
        until(&format!("{count} runs"), async || {
            let runs = self.outside.runs().await;
            runs.len() >= count && runs.iter().all(|run| run.state != RunState::Planned)
        })
        .await;
        let runs = self.outside.runs().await;
        assert_eq!(runs.len(), count, "{:?}", names(&runs));
        runs
    }

    async fn until_shown(&self, commit: &str, name: &str, state: &str) -> ShownStatus {
        let shown = || {
            let statuses = self.world().project.statuses(commit);
            statuses.into_iter().rfind(|one| one.name == name && one.state == state)
        };
        until(&format!("{name} shows {state}"), async || shown().is_some()).await;
        shown().unwrap()
    }

    /// Waits for the reaction to a note.
    async fn until_answered(&self, number: u64, note: u64, reaction: &str) {
        until(&format!("note {note} is answered by {reaction}"), async || {
            let notes = self.world().project.notes(number);
            let of_it = notes.iter().filter(|one| one.id == note);
            of_it.flat_map(|one| &one.emoji).any(|one| one.ends_with(reaction))
        })
        .await;
    }
}

fn names(runs: &[Run]) -> Vec<String> {
    runs.iter().map(|run| format!("{}/{}", run.workflow.name, run.trigger)).collect()
}

#[tokio::test]
async fn a_strangers_merge_request_waits_for_somebody_allowed_who_approves_exactly_its_head() {
    let told = Told::with(&["ci"]).await;
    let stranger = told.world().project.as_user("mallory");
    let alice = told.world().project.as_user("alice");
    let fork = stranger.fork();
    let first = fork.push("patch", &[("a", "1")]);
    let number = stranger.open_from(&fork, "Trust me", "patch", "main");
    told.hears().await;
    let shown = told.until_shown(&first, CONTEXT, "pending").await;
    let expected = format!("waits for the approval of somebody with write access to {PROJECT}");
    assert_eq!(shown.description, expected);

    // Who made it cannot approve it.
    let note = stranger.note(number, &format!("/ok-to-test {first}"));
    told.hears().await;
    told.until_answered(number, note, "confused").await;

    // Another head came while Alice looked at the first one.
    let second = fork.push("patch", &[("a", "2")]);
    let note = alice.note(number, &format!("/ok-to-test {first}"));
    told.hears().await;
    told.until_answered(number, note, "confused").await;
    assert_eq!(told.outside.runs().await.len(), 0);

    let note = alice.note(number, &format!("/ok-to-test {second}"));
    told.hears().await;
    told.until_answered(number, note, "rocket").await;
    let runs = told.until_runs(1).await;
    assert_eq!(runs[0].commit.as_ref().unwrap().as_str(), second);
    let of_bot = told.world().project.notes(number).into_iter().filter(|one| one.author == "bot");
    assert_eq!(of_bot.count(), 1, "one note tells what came of all of them");
    told.process.stop().await;
}

#[tokio::test]
async fn commands_of_those_allowed_are_carried_out_and_answered() {
    let told = Told::with(&["ci", "lint"]).await;
    let alice = told.world().project.as_user("alice");
    let head = alice.push("topic", &[("a", "1")]);
    let number = alice.open("Do it", "topic", "main");
    told.hears().await;
    let runs = told.until_runs(2).await;
    until("they are created", async || told.outside.sink.created().len() == 2).await;
    for run in &runs {
        let ended =
            if &*run.workflow.name == "ci" { RunPhase::Succeeded } else { RunPhase::Failed };
        told.outside.sink.set_phase(&run.key, ended);
    }
    told.until_shown(&head, CONTEXT, "success").await;
    told.until_shown(&head, "workflows/lint", "failed").await;

    let note = alice.note(number, "/retest");
    told.hears().await;
    told.until_answered(number, note, "rocket").await;
    let runs = told.until_runs(3).await;
    assert_eq!(names(&runs)[2], "lint/mr", "only what did not succeed");
    let note = alice.note(number, "/cancel lint");
    told.hears().await;
    told.until_answered(number, note, "rocket").await;
    until("it is ended", async || told.outside.sink.cancels().len() == 1).await;
    assert_eq!(told.outside.sink.cancels()[0].0, runs[2].key);

    let note = told.world().project.as_user("mallory").note(number, "/test\n/cancel");
    told.hears().await;
    told.until_answered(number, note, "confused").await;
    assert_eq!(told.outside.runs().await.len(), 3);
    told.process.stop().await;
}

#[tokio::test]
async fn a_merge_request_takes_few_calls_from_its_event_to_its_end() {
    let told = Told::with(&["ci"]).await;
    let alice = told.world().project.as_user("alice");
    for (branch, most) in [("first", 9), ("second", 8)] {
        let head = alice.push(branch, &[(branch, "1")]);
        alice.open("Do it", branch, "main");
        told.hears().await;
        until("it runs and is shown", async || {
            let runs = told.outside.runs().await;
            let of_head = |run: &&Run| run.commit.as_ref().is_some_and(|at| at.as_str() == head);
            let run = runs.iter().find(of_head);
            run.is_some_and(|run| told.outside.sink.phase(&run.key).is_some())
                && !told.world().project.statuses(&head).is_empty()
        })
        .await;
        told.outside.passes(SignedDuration::from_mins(1));
        for run in told.outside.runs().await {
            if !run.state.is_terminal() {
                told.outside.sink.set_phase(&run.key, RunPhase::Succeeded);
            }
        }
        // Until the ledger knows, so that no call is under way any more.
        until("the end is shown", async || {
            let query = StatusQuery::of(Tenant::default());
            let statuses = told.outside.store.statuses(query).await.unwrap().items;
            statuses.iter().all(|one| {
                one.shown.as_ref().is_some_and(|shown| shown.state == StatusState::Success)
            })
        })
        .await;
        told.until_shown(&head, CONTEXT, "success").await;
        let calls = told.outside.calls();
        println!("{branch}: {calls:#?}");
        assert!(calls.len() <= most, "{calls:#?}");
    }
    told.process.stop().await;
}

#[tokio::test]
async fn after_an_hour_without_the_program_whoever_looks_sees_what_is_left_and_runs_it_once() {
    let outside = Outside::of(World::new());
    let sources = ["poll", "poll-pull-requests"];
    let (left, mut runs) = come_back(&outside, looking::<World>, &sources).await;
    runs.sort();
    // What was overtaken meanwhile is not seen.
    let expected: Vec<String> = left.relevant.into_iter().collect();
    assert_eq!(runs, expected);
}

#[tokio::test]
async fn what_a_token_that_expired_held_up_goes_on_with_the_next() {
    let world = World::new();
    world.project.push("main", &[(".tekton/ci.yaml", &workflow("ci"))]);
    world.token.replace(world.gitlab.token("bot", &["api"], Some("2026-03-02")));
    let outside = Outside::of(world);
    let process = outside.start_with(looking::<World>);
    process.until_looked("poll-pull-requests", 1).await;
    let world = &outside.site;
    let first = world.push("first", "a", "1");
    world.open("first");
    until("it runs", async || {
        world.clock.advance(MINUTE / 2);
        let shown = world.project.statuses(&first);
        !outside.runs().await.is_empty() && shown.iter().any(|one| one.state == "running")
    })
    .await;

    world.clock.set("2026-03-02T00:00:01Z".parse().unwrap());
    let run = outside.runs().await.remove(0);
    outside.sink.set_phase(&run.key, RunPhase::Succeeded);
    let second = world.push("second", "b", "1");
    world.open("second");
    let is_told = async || {
        let query = StatusQuery::of(Tenant::default());
        let statuses = outside.store.statuses(query).await.unwrap().items;
        let health = process.handle.health().await.unwrap();
        let problems = health.problems().join(" ");
        problems.contains("the token has expired; make another one")
            && statuses.iter().all(|one| {
                one.shown.as_ref().is_none_or(|shown| shown.state != StatusState::Success)
            })
    };
    until("everybody is told", async || {
        world.clock.advance(MINUTE / 2);
        is_told().await
    })
    .await;
    for _ in 0..60 {
        world.clock.advance(MINUTE);
        tokio::task::yield_now().await;
    }
    assert!(!outside.site.has_succeeded(&first));
    assert_eq!(outside.runs().await.len(), 1);

    world.token.replace(world.gitlab.token("bot", &["api"], Some("2026-04-02")));
    until("all goes on", async || {
        world.clock.advance(MINUTE / 2);
        outside.runs().await.len() == 2 && outside.site.has_succeeded(&first)
    })
    .await;
    assert_eq!(outside.runs().await[1].commit.as_ref().unwrap().as_str(), second);
    process.stop().await;
}

#[tokio::test]
async fn what_happens_while_gitlab_is_away_is_seen_when_it_is_back() {
    let world = World::new();
    world.project.push("main", &[(".tekton/ci.yaml", &workflow("ci"))]);
    let outside = Outside::of(world);
    let process = outside.start_with(looking::<World>);
    process.until_looked("poll-pull-requests", 1).await;
    let world = &outside.site;
    let back = workflows_core::Clock::now(&world.clock) + SignedDuration::from_mins(30);
    world.gitlab.fail_until("* *", back, Fault::Status(502));
    let head = world.push("topic", "a", "1");
    world.open("topic");
    until("looks fail", async || {
        world.clock.advance(SignedDuration::from_secs(10));
        let health = process.handle.health().await.unwrap();
        health.sources.iter().any(|one| one.progress.failures > 0)
    })
    .await;
    assert_eq!(outside.runs().await.len(), 0);
    until("it runs", async || {
        world.clock.advance(MINUTE / 2);
        !outside.runs().await.is_empty()
    })
    .await;
    let runs = outside.runs().await;
    assert_eq!(runs[0].commit.as_ref().unwrap().as_str(), head);
    assert_eq!(names(&runs), ["ci/mr"]);
    process.stop().await;
}
