//! What people do at GitHub, through a whole engine: approvals, commands, buttons, and the events that
//! GitHub alone has.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use workflows_core::{Run, RunPhase, RunState};
use workflows_github_standin::{Role, ShownCheck};

use crate::{
    github_world::{As, GitHub},
    process::{Outside, Process, SECRET, until},
};

fn workflow(name: &str, triggers: &str) -> String {
    format!(
        "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: {{ name: {name} }}
spec:
  triggers: {triggers}
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: {{ steps: [{{ name: run, image: none, script: 'true' }}] }}
"
    )
}

const PULL_REQUESTS: &str = "[{ name: pr, on: pull_request }]";

/// GitHub with an App, and a program that hears everything that the App is told.
struct World {
    outside: Outside<GitHub>,
    process: Process,
    heard: AtomicUsize,
}

impl World {
    fn with(workflows: &[(&str, &str)]) -> Self {
        let github = GitHub::with_app();
        let files: Vec<(String, String)> = workflows
            .iter()
            .map(|(name, triggers)| (format!(".tekton/{name}.yaml"), workflow(name, triggers)))
            .collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        github.repo.push("main", &files);
        github.repo.set_role("alice", Some(Role::Write));
        let As::App(app) = &github.known_as else { unreachable!("it is an App") };
        // What is sent is handed over by `hears`.
        app.hook("http://127.0.0.1:9/", SECRET);
        let outside = Outside::of(github);
        let process = outside.start();
        Self { outside, process, heard: AtomicUsize::new(0) }
    }

    /// The program hears everything that GitHub has sent since the last time.
    async fn hears(&self) {
        self.outside.site.hub.settle().await;
        let sent = self.outside.site.hub.deliveries();
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

    /// The newest check of a name at a commit, once it shows this.
    async fn until_shown(&self, commit: &str, name: &str, conclusion: &str) -> ShownCheck {
        let newest = || {
            let checks = self.outside.site.repo.checks(commit);
            checks.into_iter().rfind(|check| check.name == name)
        };
        until(&format!("{name} shows {conclusion}"), async || {
            newest().is_some_and(|check| check.conclusion.as_deref() == Some(conclusion))
        })
        .await;
        newest().unwrap()
    }

    /// Waits for the reaction to a comment.
    async fn until_answered(&self, number: u64, comment: u64, reaction: &str) {
        until(&format!("comment {comment} is answered by {reaction}"), async || {
            let comments = self.outside.site.repo.comments(number);
            let of_it = comments.iter().filter(|one| one.id == comment);
            of_it.flat_map(|one| &one.reactions).any(|one| one.ends_with(reaction))
        })
        .await;
    }
}

fn names(runs: &[Run]) -> Vec<String> {
    runs.iter().map(|run| format!("{}/{}", run.workflow.name, run.trigger)).collect()
}

#[tokio::test]
async fn a_strangers_pull_request_waits_for_somebody_allowed_who_approves_exactly_its_head() {
    let world = World::with(&[("ci", PULL_REQUESTS)]);
    let repo = &world.outside.site.repo;
    let fork = repo.as_user("mallory").fork();
    let first = fork.push("patch", &[("a", "1")]);
    let number = repo.as_user("mallory").open_pull_request("Trust me", "mallory:patch", "main");
    world.hears().await;
    let check = world.until_shown(&first, "workflows/ci", "action_required").await;
    assert_eq!(check.title, "waits for the approval of somebody with write access to acme/api");
    assert!(check.summary.contains(&format!("/ok-to-test {first}")), "{}", check.summary);

    // Who made it cannot approve it.
    let comment = repo.as_user("mallory").comment(number, &format!("/ok-to-test {first}"));
    world.hears().await;
    world.until_answered(number, comment, "confused").await;
    until("it is told why", async || {
        repo.comments(number).iter().any(|one| one.body.contains("**denied**"))
    })
    .await;
    assert_eq!(world.outside.runs().await.len(), 0);

    // Another head came while Alice looked at the first one.
    let second = fork.push("patch", &[("a", "2")]);
    let comment = repo.as_user("alice").comment(number, &format!("/ok-to-test {first}"));
    world.hears().await;
    world.until_answered(number, comment, "confused").await;
    assert_eq!(world.outside.runs().await.len(), 0);

    let comment = repo.as_user("alice").comment(number, &format!("/ok-to-test {second}"));
    world.hears().await;
    world.until_answered(number, comment, "rocket").await;
    let runs = world.until_runs(1).await;
    assert_eq!(runs[0].commit.as_ref().unwrap().as_str(), second);
    let bots = repo.comments(number).into_iter().filter(|one| one.author == "ci[bot]");
    assert_eq!(bots.count(), 1, "one comment tells what came of all of them");

    // The next one waits again, and a button approves it.
    let third = fork.push("patch", &[("a", "3")]);
    world.hears().await;
    let check = world.until_shown(&third, "workflows/ci", "action_required").await;
    assert_eq!(check.actions, [format!("approve:{number}")]);
    repo.as_user("mallory").press(check.id, &check.actions[0]);
    world.hears().await;
    repo.as_user("alice").press(check.id, &check.actions[0]);
    world.hears().await;
    let runs = world.until_runs(2).await;
    assert_eq!(runs[1].commit.as_ref().unwrap().as_str(), third);
    world.process.stop().await;
}

#[tokio::test]
async fn a_check_is_there_as_queued_before_its_run_is() {
    let world = World::with(&[("ci", PULL_REQUESTS)]);
    let held = world.outside.sink.hold_ensures();
    let repo = world.outside.site.repo.as_user("alice");
    let head = repo.push("topic", &[("a", "1")]);
    repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    let shown = || {
        let checks = repo.checks(&head).into_iter();
        checks.map(|one| (one.external_id, one.status)).collect::<Vec<_>>()
    };
    until("the check is there", async || !shown().is_empty()).await;
    let runs = world.outside.runs().await;
    assert_eq!(shown(), [(runs[0].key.to_string(), "queued".to_owned())]);
    assert_eq!(world.outside.sink.created().len(), 0);

    drop(held);
    until("the run goes on", async || shown()[0].1 == "in_progress").await;
    assert_eq!(world.outside.sink.created().len(), 1);
    assert_eq!(shown().len(), 1);
    world.process.stop().await;
}

#[tokio::test]
async fn a_button_runs_again_exactly_what_was_clicked() {
    let world = World::with(&[("ci", PULL_REQUESTS), ("lint", PULL_REQUESTS)]);
    let repo = world.outside.site.repo.as_user("alice");
    let head = repo.push("topic", &[("a", "1")]);
    repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    let all_end = async |phase: RunPhase| {
        for run in world.outside.runs().await {
            if !run.state.is_terminal() {
                until("it is created", async || world.outside.sink.phase(&run.key).is_some()).await;
                world.outside.sink.set_phase(&run.key, phase);
            }
        }
    };
    world.until_runs(2).await;
    all_end(RunPhase::Failed).await;
    world.until_shown(&head, "workflows/ci", "failure").await;
    let lint = world.until_shown(&head, "workflows/lint", "failure").await;

    repo.rerun_check(lint.id);
    world.hears().await;
    let runs = world.until_runs(3).await;
    assert_eq!(names(&runs)[2], "lint/pr");
    all_end(RunPhase::Succeeded).await;
    let again = world.until_shown(&head, "workflows/lint", "success").await;
    assert_ne!(again.id, lint.id, "what was completed stays as it was");
    // The same delivery once more is the same request.
    let pressed = world.outside.site.hub.deliveries();
    let pressed = pressed.iter().rev().find(|one| one.action.as_deref() == Some("rerequested"));
    let pressed = pressed.unwrap();
    world.process.receives(&pressed.headers, &pressed.body).await;

    repo.rerun_all_checks(&head);
    world.hears().await;
    let runs = world.until_runs(5).await;
    let mut last = names(&runs[3..]);
    last.sort();
    assert_eq!(last, ["ci/pr", "lint/pr"]);

    // A run that goes on has a button that ends it.
    let going_on = |check: &ShownCheck| check.actions.contains(&"cancel".to_owned());
    until("it can be ended", async || repo.checks(&head).iter().any(going_on)).await;
    let check = repo.checks(&head).into_iter().find(going_on).unwrap();
    repo.press(check.id, "cancel");
    world.hears().await;
    until("it is ended", async || world.outside.sink.cancels().len() == 1).await;
    assert_eq!(world.outside.sink.cancels()[0].0.as_str(), check.external_id);
    world.process.stop().await;
}

#[tokio::test]
async fn commands_of_those_allowed_are_carried_out_and_answered() {
    let world = World::with(&[("ci", PULL_REQUESTS), ("lint", PULL_REQUESTS)]);
    let repo = world.outside.site.repo.as_user("alice");
    let head = repo.push("topic", &[("a", "1")]);
    let number = repo.open_pull_request("Do it", "topic", "main");
    world.hears().await;
    let runs = world.until_runs(2).await;
    until("they are created", async || world.outside.sink.created().len() == 2).await;
    let of = |runs: &[Run], name: &str| {
        runs.iter().rfind(|run| &*run.workflow.name == name).unwrap().key.clone()
    };
    world.outside.sink.set_phase(&of(&runs, "ci"), RunPhase::Succeeded);
    world.outside.sink.set_phase(&of(&runs, "lint"), RunPhase::Failed);
    world.until_shown(&head, "workflows/ci", "success").await;
    world.until_shown(&head, "workflows/lint", "failure").await;

    let comment = repo.comment(number, "/retest");
    world.hears().await;
    world.until_answered(number, comment, "rocket").await;
    let runs = world.until_runs(3).await;
    assert_eq!(names(&runs)[2], "lint/pr", "only what did not succeed");
    let comment = repo.comment(number, "Again, please:\n/test ci");
    world.hears().await;
    world.until_answered(number, comment, "rocket").await;
    let runs = world.until_runs(4).await;
    assert_eq!(names(&runs)[3], "ci/pr");
    let comment = repo.comment(number, "/cancel lint");
    world.hears().await;
    world.until_answered(number, comment, "rocket").await;
    until("it is ended", async || world.outside.sink.cancels().len() == 1).await;
    assert_eq!(world.outside.sink.cancels()[0].0, runs[2].key);

    let comment = repo.as_user("mallory").comment(number, "/test\n/cancel");
    world.hears().await;
    world.until_answered(number, comment, "confused").await;
    assert_eq!(world.outside.runs().await.len(), 4);
    assert_eq!(world.outside.sink.cancels().len(), 1);
    world.process.stop().await;
}

#[tokio::test]
async fn what_github_alone_has_starts_what_waits_for_it() {
    let world = World::with(&[
        ("queue", "[{ name: group, on: merge_group }]"),
        ("release", "[{ name: published, on: release, actions: [published] }]"),
        ("deploy", "[{ name: asked, on: repository_dispatch, actions: [deploy] }]"),
    ]);
    let repo = world.outside.site.repo.as_user("alice");
    let main = repo.branch("main").unwrap();
    repo.push("topic", &[("a", "1")]);
    let number = repo.open_pull_request("Do it", "topic", "main");
    let group = repo.queue(number);
    world.hears().await;
    let runs = world.until_runs(1).await;
    assert_eq!(names(&runs), ["queue/group"]);
    assert_eq!(runs[0].commit.as_ref().unwrap().as_str(), group);
    repo.tag("v1", &main);
    repo.release("v1");
    world.hears().await;
    let runs = world.until_runs(2).await;
    assert_eq!(names(&runs)[1], "release/published");
    assert_eq!(runs[1].commit.as_ref().unwrap().as_str(), main);
    repo.dispatch("deploy", json!({ "to": "production" }));
    repo.dispatch("something-else", json!({}));
    world.hears().await;
    let runs = world.until_runs(3).await;
    assert_eq!(names(&runs)[2], "deploy/asked");
    world.process.stop().await;
}
