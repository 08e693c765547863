//! Commands in comments and of programs.

use workflows_core::{
    CancelMode, RunPhase, RunState, Tenant, WorkflowId,
    engine::{Command, RerunOf},
    repo::StatusState,
    store::{CommandOutcome, Outcome},
};

use super::world::{CI, World, is_denied, is_done, param, workflow};

async fn opened(world: &World) -> u64 {
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    number
}

#[tokio::test]
async fn test_runs_the_same_event_again_as_another_attempt() {
    let world = World::with(CI);
    let number = opened(&world).await;
    let comment = world.hears(world.repo.comment("alice", number, "Again:\n/test")).await.unwrap();
    let runs = world.runs().await;
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].event, runs[1].event);
    assert_ne!(runs[0].key, runs[1].key);
    let id = comment.comment.unwrap().id;
    assert_eq!(runs[1].attempt.as_str(), format!("{id}/0"));
    assert_eq!(runs[1].order, comment.sequence);
    assert_eq!(world.repo.acknowledged(&id), Some(true));
}

#[tokio::test]
async fn test_with_a_name_runs_that_workflow_alone() {
    let other = workflow("other", "\n  triggers: [{ name: pr, on: pull_request }]");
    let world = World::with(&format!("{CI}\n---\n{other}"));
    let number = opened(&world).await;
    assert_eq!(world.runs().await.len(), 2);
    world.hears(world.repo.comment("alice", number, "/test other")).await;
    let names = world.run_names().await;
    assert_eq!(names.len(), 3);
    assert!(names[2].starts_with("other/pr@"), "{names:?}");
}

#[tokio::test]
async fn retest_runs_again_what_did_not_succeed_and_nothing_else() {
    let other = workflow("other", "\n  triggers: [{ name: pr, on: pull_request }]");
    let world = World::with(&format!("{CI}\n---\n{other}"));
    let number = opened(&world).await;
    for run in world.runs().await {
        let good = &*run.workflow.name == "other";
        let phase = if good { RunPhase::Succeeded } else { RunPhase::Failed };
        world.sink.set_phase(&run.key, phase);
    }
    world.passes(jiff::SignedDuration::from_secs(60));
    world.settles().await;
    world.hears(world.repo.comment("alice", number, "/retest")).await;
    let names = world.run_names().await;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[2].starts_with("ci/pull-request@"), "{names:?}");

    let under_way = world.hears(world.repo.comment("alice", number, "/retest")).await.unwrap();
    let commands = world.commands(&under_way).await;
    assert!(matches!(commands[0].outcome, CommandOutcome::Failed { .. }), "{commands:?}");
    assert_eq!(world.runs().await.len(), 3);
}

#[tokio::test]
async fn retest_of_a_workflow_leaves_another_one_that_failed_alone() {
    let other = workflow("other", "\n  triggers: [{ name: pr, on: pull_request }]");
    let world = World::with(&format!("{CI}\n---\n{other}"));
    let number = opened(&world).await;
    for run in world.runs().await {
        world.sink.set_phase(&run.key, RunPhase::Failed);
    }
    world.passes(jiff::SignedDuration::from_secs(60));
    world.settles().await;
    world.hears(world.repo.comment("alice", number, "/retest other")).await;
    let names = world.run_names().await;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[2].starts_with("other/pr@"), "{names:?}");
}

#[tokio::test]
async fn cancel_ends_what_is_under_way() {
    let world = World::with(CI);
    let number = opened(&world).await;
    world.hears(world.repo.comment("alice", number, "/cancel")).await;
    world.passes(jiff::SignedDuration::from_secs(60));
    world.settles().await;
    let runs = world.runs().await;
    assert_eq!(runs[0].state, RunState::Cancelled);
    assert_eq!(world.sink.cancels(), [(runs[0].key.clone(), CancelMode::RunFinally)]);
}

#[tokio::test]
async fn a_workflows_own_command_runs_for_the_head_of_the_pull_request() {
    let bench = workflow(
        "bench",
        "\n  triggers: [{ name: bench, on: comment, command: /bench }]\n  params:\n  - { name: \
         revision, value: $(event.head.sha) }\n  - { name: base, value: \
         $(event.pull_request.base.branch) }\n  - { name: size, value: \
         '$(event.comment.arguments[0])', default: small }",
    );
    let world = World::with(&bench);
    let number = opened(&world).await;
    world.hears(world.repo.comment("alice", number, "/bench large")).await;
    let runs = world.runs().await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].commit.as_ref(), Some(&world.repo.head("feature")));
    assert_eq!(param(&runs[0], "base"), "main");
    assert_eq!(param(&runs[0], "size"), "large");
    assert_eq!(runs[0].facts.len(), 2, "the change's and the commenter's");

    let text = world.hears(world.repo.comment("alice", number, "try `/bench` some day")).await;
    assert!(matches!(
        world.outcome(&text.unwrap(), "bench").await,
        Outcome::Rejected(rejected) if &*rejected.filter == "command"
    ));
    let stranger = world.hears(world.repo.comment("mallory", number, "/bench")).await.unwrap();
    assert!(matches!(world.outcome(&stranger, "bench").await, Outcome::Denied { .. }));
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn a_command_of_a_workflow_on_a_strangers_pull_request_waits_for_the_head() {
    let bench = workflow("bench", "\n  triggers: [{ name: b, on: comment, command: /bench }]");
    let world = World::with(&bench);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    let asked = world.hears(world.repo.comment("alice", number, "/bench")).await.unwrap();
    assert!(matches!(world.outcome(&asked, "b").await, Outcome::Waiting { .. }));
    world.passes(jiff::SignedDuration::from_secs(1));
    world.hears(world.repo.comment("alice", number, "/ok-to-test")).await;
    let runs = world.runs().await;
    assert_eq!(runs.len(), 1, "the comment that waited is decided again");
    assert_eq!(runs[0].event, asked.key);
}

#[tokio::test]
async fn commands_in_a_comment_that_waited_are_carried_out_once() {
    let bench = workflow("bench", "\n  triggers: [{ name: b, on: comment, command: /bench }]");
    let world = World::with(&format!("{CI}\n---\n{bench}"));
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    world.passes(jiff::SignedDuration::from_secs(1));
    let asked = world.hears(world.repo.comment("alice", number, "/bench\n/ok-to-test")).await;
    let asked = asked.unwrap();
    let mut names = world.run_names().await;
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("bench/b@") && names[1].starts_with("ci/pull-request@"));
    let batches = world.batches(&asked.key).await;
    assert_eq!(batches.iter().filter(|batch| !batch.commands.is_empty()).count(), 1);
}

#[tokio::test]
async fn a_programs_commands_are_deduplicated_and_recorded() {
    let world = World::with(CI);
    opened(&world).await;
    let run = world.runs().await.remove(0);
    let again = || {
        let command = Command::Rerun { of: RerunOf::Run { run: run.key.clone() } };
        command.observed(Tenant::default(), run.repo.clone(), "request-1", "dashboard")
    };
    let event = world.hears(again()).await.unwrap();
    assert!(world.hears(again()).await.is_none());
    let runs = world.runs().await;
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].attempt.as_str(), "request-1");
    let commands = world.commands(&event).await;
    assert!(is_done(&commands[0]), "{commands:?}");
    assert_eq!(commands[0].by.as_deref(), Some("dashboard"));

    let end = Command::Cancel { run: runs[1].key.clone(), mode: CancelMode::AtOnce };
    world.hears(end.observed(Tenant::default(), run.repo.clone(), "request-2", "dash")).await;
    assert_eq!(world.sink.cancels(), [(runs[1].key.clone(), CancelMode::AtOnce)]);
}

#[tokio::test]
async fn a_command_that_a_host_sends_needs_the_permission_of_its_sender() {
    let world = World::with(CI);
    opened(&world).await;
    let run = world.runs().await.remove(0);
    let press = |who: &str, id: &str| {
        let command = Command::Rerun { of: RerunOf::Run { run: run.key.clone() } };
        let mut observation = command.observed(Tenant::default(), run.repo.clone(), id, who);
        observation.source = "webhook".into();
        observation
    };
    let refused = world.hears(press("mallory", "delivery-1")).await.unwrap();
    assert!(is_denied(&world.commands(&refused).await[0]));
    assert_eq!(world.runs().await.len(), 1);
    world.hears(press("alice", "delivery-2")).await;
    assert_eq!(world.runs().await.len(), 2);

    let hold = Command::Hold { workflow: WorkflowId::registered("ci"), reason: "x".to_owned() };
    let mut hold = hold.observed(Tenant::default(), run.repo.clone(), "delivery-3", "alice");
    hold.source = "webhook".into();
    let held = world.hears(hold).await.unwrap();
    assert!(is_denied(&world.commands(&held).await[0]));
}

#[tokio::test]
async fn a_held_workflow_waits_until_it_is_released() {
    let world = World::with(CI);
    let id = WorkflowId::in_repository(world.repo.reference().id, "ci");
    let repo = world.repo.reference();
    let hold = Command::Hold { workflow: id.clone(), reason: "incident".to_owned() };
    world.hears(hold.observed(Tenant::default(), repo.clone(), "h", "ops")).await;
    opened(&world).await;
    assert!(world.sink.created().is_empty());
    let unhold = Command::Unhold { workflow: id };
    world.hears(unhold.observed(Tenant::default(), repo, "u", "ops")).await;
    assert_eq!(world.sink.created().len(), 1);
}

#[tokio::test]
async fn a_cleared_queue_ends_what_waits_in_it() {
    let queued = workflow(
        "deploy",
        "\n  triggers: [{ name: push, on: push }]\n  concurrency: [{ group: prod, strategy: queue \
         }]",
    );
    let world = World::with(&queued);
    world.hears(world.repo.push("alice", "a", &[("a", "1")])).await;
    world.hears(world.repo.push("alice", "b", &[("b", "1")])).await;
    let runs = world.runs().await;
    assert_eq!(runs[1].state, RunState::Queued);
    let clear = Command::ClearQueue { group: runs[1].groups[0].group.clone() };
    let event = world
        .hears(clear.observed(Tenant::default(), Command::engine_repo(), "c", "ops"))
        .await
        .unwrap();
    assert!(is_done(&world.commands(&event).await[0]));
    let runs = world.runs().await;
    assert_eq!(runs[1].state, RunState::Expired);
    assert_eq!(runs[1].message, "ops cleared its queue");
    assert_eq!(
        world.shows(&world.repo.head("b"), "workflows/deploy"),
        Some(StatusState::Cancelled)
    );
}
