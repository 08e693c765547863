//! Whose change runs, and when.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    Clock, CommitId, DefaultPolicy, ErrorKind, Event, Permission, Policy, RepoRef, Result,
    RunPhase, Store, Tenant,
    conformance::ScmCall,
    policy::{Facts, FactsOrigin, PlannedRun, Verdict},
    repo::StatusState,
    store::{CommandOutcome, Outcome},
};

use super::world::{CI, World, is_denied, is_done, workflow};

const CONTEXT: &str = "workflows/ci";

#[tokio::test]
async fn a_pull_request_from_the_repository_itself_runs_at_its_head_and_costs_no_permission() {
    let world = World::with(CI);
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (_, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    let head = world.repo.head("feature");
    assert_eq!(world.run_names().await, [format!("ci/pull-request@{}", head.short())]);
    assert_eq!(world.scm.calls(ScmCall::Permission), 0);
    assert_eq!(world.scm.calls(ScmCall::ChangedFiles), 0);
    assert_eq!(world.sink.created().len(), 1);
}

#[tokio::test]
async fn a_strangers_pull_request_waits_and_says_so() {
    let world = World::with(CI);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "evil")]);
    let event = world.hears(opened).await.unwrap();
    assert!(matches!(world.outcome(&event, "pull-request").await, Outcome::Waiting { .. }));
    assert!(world.runs().await.is_empty());
    let head = world.repo.pull_request(number).head.sha;
    let status = world.status(&head, CONTEXT);
    assert_eq!(status.state, StatusState::ActionRequired);
    assert!(status.summary.contains(&format!("/ok-to-test {head}")), "{}", status.summary);
}

#[tokio::test]
async fn what_a_stranger_writes_into_the_definitions_is_not_even_read() {
    let world = World::with(CI);
    let evil = workflow("evil", "\n  triggers: [{ name: pr, on: pull_request }]");
    let (number, opened) =
        world.repo.open_fork_pull_request("mallory", "main", &[(".tekton/evil.yaml", &evil)]);
    let event = world.hears(opened).await.unwrap();
    let names: Vec<_> =
        world.decisions(&event).await.iter().map(|one| one.workflow.name.to_string()).collect();
    assert_eq!(names, ["ci"], "only the base's workflows are told of");
    let head = world.repo.pull_request(number).head.sha;
    let read = world.scm.all_calls();
    assert!(
        !read
            .iter()
            .any(|(call, about)| matches!(call, ScmCall::ReadFile | ScmCall::ListDirectory)
                && about.contains(head.as_str())),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_writer_approves_exactly_the_head_and_the_next_one_waits_again() {
    let world = World::with(CI);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    let first = world.repo.pull_request(number).head.sha;

    let comment =
        world.hears(world.repo.comment("alice", number, &format!("/ok-to-test {first}"))).await;
    assert!(is_done(&world.commands(&comment.unwrap()).await[0]));
    assert_eq!(world.run_names().await, [format!("ci/pull-request@{}", first.short())]);
    assert_eq!(world.sink.created().len(), 1);
    assert_eq!(world.shows(&first, CONTEXT), Some(StatusState::InProgress));

    let pushed = world.hears(world.repo.push_to_pull_request(number, &[("a", "2")])).await;
    assert!(matches!(
        world.outcome(&pushed.unwrap(), "pull-request").await,
        Outcome::Waiting { .. }
    ));
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn an_approval_that_names_another_head_approves_nothing() {
    let world = World::with(CI);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    let seen = world.repo.pull_request(number).head.sha;
    // Mallory pushes while Alice writes her comment.
    world.hears(world.repo.push_to_pull_request(number, &[("a", "evil")])).await;
    let comment = world.repo.comment("alice", number, &format!("/ok-to-test {}", seen.short()));
    let comment = world.hears(comment).await.unwrap();
    let commands = world.commands(&comment).await;
    assert!(
        matches!(&commands[0].outcome, CommandOutcome::Failed { error }
        if error.contains("not")),
        "{commands:?}"
    );
    assert!(world.runs().await.is_empty());
}

#[tokio::test]
async fn an_approval_without_a_commit_is_of_the_head_that_was_known_when_it_was_written() {
    for text in ["/ok-to-test", "/ok-to-test {short}"] {
        let world = World::with(CI);
        let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
        world.hears(opened).await;
        let head = world.repo.pull_request(number).head.sha;
        world.passes(SignedDuration::from_secs(1));
        let text = text.replace("{short}", head.short());
        world.hears(world.repo.comment("alice", number, &text)).await;
        assert_eq!(world.run_names().await, [format!("ci/pull-request@{}", head.short())]);
    }
}

#[tokio::test]
async fn what_was_pushed_while_an_approval_was_written_is_not_approved_by_it() {
    // Whether the ledger hears of the push before it hears of the comment, together, or not at all.
    for heard in ["before", "together", "never"] {
        let world = World::with(CI);
        let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
        world.hears(opened).await;
        world.passes(SignedDuration::from_secs(10));
        let written_at = world.clock.now();
        let pushed = world.repo.push_to_pull_request(number, &[("a", "evil")]);
        let evil = world.repo.pull_request(number).head.sha;
        let mut comment = world.repo.comment_without_pull_request("alice", number, "/ok-to-test");
        comment.occurred_at = Some(written_at);
        world.passes(SignedDuration::from_secs(5));
        match heard {
            "before" => {
                world.hears(pushed).await;
                world.passes(SignedDuration::from_secs(5));
            }
            "together" => {
                comment.occurred_at = None;
                world.store.admit(vec![pushed], None).await.unwrap();
            }
            _ => {}
        }
        let comment = world.hears(comment).await.unwrap();
        let commands = world.commands(&comment).await;
        assert!(
            matches!(&commands[0].outcome, CommandOutcome::Failed { error }
            if error.contains(&format!("/ok-to-test {evil}"))),
            "{heard}: {commands:?}"
        );
        assert!(world.runs().await.is_empty(), "{heard}");
        assert_eq!(world.repo.acknowledged(&comment.comment.unwrap().id), Some(false));
        let answer = world.repo.sticky_comments(number).into_values().next().unwrap();
        assert!(answer.contains("**failed**") && answer.contains(evil.as_str()), "{answer}");

        let whole = format!("/ok-to-test {evil}");
        world.hears(world.repo.comment("alice", number, &whole)).await;
        let runs = world.run_names().await;
        assert_eq!(runs.len(), usize::from(heard != "never"), "{heard}: the event is there");
    }
}

#[tokio::test]
async fn an_outsiders_commands_do_nothing_but_leave_a_record() {
    let world = World::with(CI);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    let comment = world.repo.comment("mallory", number, "/ok-to-test\n/test\n/retest\n/cancel\n");
    let comment = world.hears(comment).await.unwrap();
    let commands = world.commands(&comment).await;
    assert_eq!(commands.len(), 4);
    assert!(commands.iter().all(is_denied), "{commands:?}");
    assert!(world.runs().await.is_empty());
    let id = comment.comment.unwrap().id;
    assert_eq!(world.repo.acknowledged(&id), Some(false));
}

#[tokio::test]
async fn a_trusted_author_of_a_fork_needs_no_approval_and_is_asked_about_once() {
    let world = World::with(CI);
    world.repo.permit("bob", Permission::Maintain);
    let (number, opened) = world.repo.open_fork_pull_request("bob", "main", &[("a", "1")]);
    world.hears(opened).await;
    world.hears(world.repo.push_to_pull_request(number, &[("a", "2")])).await;
    assert_eq!(world.runs().await.len(), 2);
    assert_eq!(world.scm.calls(ScmCall::Permission), 1);
}

#[tokio::test]
async fn a_permission_that_cannot_be_had_counts_as_unknown_and_waits() {
    let world = World::with(CI);
    world.scm.fail_next(ScmCall::Permission, ErrorKind::Denied, "403");
    let (_, opened) = world.repo.open_fork_pull_request("alice", "main", &[("a", "1")]);
    let event = world.hears(opened).await.unwrap();
    assert!(matches!(world.outcome(&event, "pull-request").await, Outcome::Waiting { .. }));
}

#[tokio::test]
async fn a_host_that_does_not_answer_delays_the_event_and_loses_nothing() {
    let world = World::with(CI);
    world.scm.fail_next(ScmCall::ListDirectory, ErrorKind::Transient, "502");
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (_, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    assert!(world.runs().await.is_empty());
    world.passes(jiff::SignedDuration::from_secs(60));
    world.settles().await;
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn an_event_that_can_never_be_decided_is_recorded_as_failed_after_a_while() {
    let world = World::with(CI);
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (_, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.scm.go_down();
    let event = world.hears(opened).await.unwrap();
    world.tries_for(SignedDuration::from_hours(5)).await;
    assert!(world.batches(&event.key).await.is_empty(), "it is tried for six hours");
    world.tries_for(SignedDuration::from_hours(2)).await;
    let batch = world.batches(&event.key).await.pop().unwrap();
    assert!(batch.judged_by["failure"].contains("the host is down"), "{batch:?}");
}

#[tokio::test]
async fn an_event_that_nobody_was_there_to_decide_is_not_given_up_at_its_first_failures() {
    let world = World::with(CI);
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (_, opened) = world.repo.open_pull_request("alice", "feature", "main");
    let event = world.store.admit(vec![opened], None).await.unwrap()[0].event().cloned().unwrap();
    for _ in 0..2 {
        world.passes(SignedDuration::from_hours(24 * 3));
        world.scm.fail_next(ScmCall::ListDirectory, ErrorKind::Transient, "502");
        world.settles().await;
        assert!(world.batches(&event.key).await.is_empty(), "it is tried again");
    }
    world.passes(SignedDuration::from_hours(24 * 3));
    world.settles().await;
    assert_eq!(world.runs().await.len(), 1);
}

/// Opens a pull request from a fork, and moves its head to a commit that the repository has.
async fn forks_head_moves_to(world: &World, head: &CommitId) -> Event {
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "evil")]);
    world.hears(opened).await;
    let moved = world.repo.edit_pull_request("mallory", number, |one| one.head.sha = head.clone());
    world.hears(moved).await.expect("a pull request that moved is news")
}

/// A workflow for pushes and pull requests with these further fields of the pull request's trigger.
fn ci_with(of_pull_request: &str) -> String {
    let triggers = format!(
        "\n  triggers:\n  - {{ name: pull-request, on: pull_request{of_pull_request} }}\n  - {{ name: \
         push, on: push }}"
    );
    workflow("ci", &triggers)
}

/// The head of `main` with a run that failed there.
async fn failed_on_main(world: &World) -> CommitId {
    world.hears(world.repo.push("alice", "main", &[("docs/a", "1")])).await;
    let run = world.runs().await.remove(0);
    world.sink.set_phase(&run.key, RunPhase::Failed);
    world.passes(SignedDuration::from_secs(60));
    world.settles().await;
    let head = world.repo.head("main");
    assert_eq!(world.shows(&head, CONTEXT), Some(StatusState::Failure));
    head
}

#[tokio::test]
async fn a_strangers_pull_request_at_the_head_of_main_leaves_the_status_of_its_run_alone() {
    let cases = [
        ("it waits", "", "Waiting"),
        ("it is skipped", ", paths: { exclude: ['**'] }, whenSkipped: neutral", "Rejected"),
        ("its filter fails", ", filter: 'event.data.size > 3'", "Failed"),
    ];
    for (case, trigger, outcome) in cases {
        let world = World::with(&ci_with(trigger));
        let head = failed_on_main(&world).await;
        let before = world.repo.status_history(&head, CONTEXT);
        let event = forks_head_moves_to(&world, &head).await;
        let said = format!("{:?}", world.outcome(&event, "pull-request").await);
        assert!(said.starts_with(outcome), "{case}: {said}");
        assert_eq!(world.repo.status_history(&head, CONTEXT), before, "{case}");
    }
    let world = World::with_policy(&ci_with(""), Arc::new(NoForks));
    let head = failed_on_main(&world).await;
    let event = forks_head_moves_to(&world, &head).await;
    assert!(matches!(world.outcome(&event, "pull-request").await, Outcome::Denied { .. }));
    assert!(!world.status(&head, CONTEXT).summary.contains("no forks"));
}

#[tokio::test]
async fn a_run_of_the_repository_takes_over_what_a_stranger_had_claimed_before_it() {
    let world = World::with(&ci_with(""));
    world.hears(world.repo.push("alice", "feature", &[("a", "1")])).await;
    let first = world.repo.head("feature");
    let main = world.repo.head("main");
    // Alice's commit is known to the host before the engine hears of it.
    let pushed = world.repo.push("alice", "feature", &[("a", "2")]);
    let head = world.repo.head("feature");
    let store = &world.store;
    let admitted = store.admit(vec![pushed], None).await.unwrap();
    let push = admitted[0].event().cloned().unwrap();
    assert_ne!(first, main);
    forks_head_moves_to(&world, &head).await;
    assert!(matches!(world.outcome(&push, "push").await, Outcome::Matched { .. }));
    assert_eq!(world.shows(&head, CONTEXT), Some(StatusState::InProgress));
}

#[tokio::test]
async fn a_strangers_event_that_cannot_be_decided_leaves_the_status_of_definitions_alone() {
    let definitions = "workflows/definitions";
    let world = World::with(CI);
    world.hears(world.repo.push("alice", "main", &[(".tekton/broken.yaml", "kind: [")])).await;
    let head = world.repo.head("main");
    let before = world.repo.status_history(&head, definitions);
    assert_eq!(before.len(), 1, "{before:?}");
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "evil")]);
    let moved = world.repo.edit_pull_request("mallory", number, |one| one.head.sha = head.clone());
    world.scm.go_down();
    world.hears(opened).await;
    let event = world.hears(moved).await.unwrap();
    world.tries_for(SignedDuration::from_hours(7)).await;
    world.scm.come_back();
    world.tries_for(SignedDuration::from_hours(1)).await;
    let batch = world.batches(&event.key).await.pop().unwrap();
    assert!(batch.judged_by.contains_key("failure"), "{batch:?}");
    assert_eq!(world.repo.status_history(&head, definitions), before);
}

#[tokio::test]
async fn a_strangers_comment_whose_trigger_fails_or_is_skipped_changes_no_status() {
    for trigger in [
        "command: /bench, filter: 'event.data.size > 3'",
        "command: /bench, filter: 'event.comment.author == \"alice\"', whenSkipped: neutral",
    ] {
        let spec = format!(
            "\n  triggers:\n  - {{ name: pr, on: pull_request }}\n  - {{ name: bench, on: comment, \
             {trigger} }}"
        );
        let world = World::with(&workflow("ci", &spec));
        world.repo.push("alice", "feature", &[("a", "1")]);
        let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
        world.hears(opened).await;
        let head = world.repo.head("feature");
        let before = world.repo.status_history(&head, CONTEXT);
        let comment = world.hears(world.repo.comment("mallory", number, "/bench")).await.unwrap();
        let said = world.outcome(&comment, "bench").await;
        assert!(matches!(said, Outcome::Failed { .. } | Outcome::Rejected(_)), "{said:?}");
        assert_eq!(world.repo.status_history(&head, CONTEXT), before, "{trigger}");
    }
}

#[tokio::test]
async fn what_a_writer_does_still_takes_the_status_over() {
    let world = World::with(&ci_with(", paths: { exclude: ['**'] }, whenSkipped: neutral"));
    let head = failed_on_main(&world).await;
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    world
        .hears(world.repo.edit_pull_request("alice", number, |one| one.head.sha = head.clone()))
        .await;
    assert_eq!(world.shows(&head, CONTEXT), Some(StatusState::Neutral));
}

/// Pins definitions to the base, and trusts everybody.
#[derive(Debug)]
struct Pinned;

#[async_trait]
impl Policy for Pinned {
    async fn decide(&self, _: &Facts) -> Result<Verdict> {
        Ok(Verdict::Allow)
    }

    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict> {
        DefaultPolicy.judge(request).await
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "pinned".to_owned()
    }

    fn wants_permission(&self, _: &FactsOrigin) -> bool {
        false
    }

    fn pins_definitions_to_base(&self, _: &Tenant, _: &RepoRef) -> bool {
        true
    }
}

#[tokio::test]
async fn definitions_that_are_pinned_to_the_base_come_from_there_for_a_change_that_is_allowed() {
    let world = World::with_policy(CI, Arc::new(Pinned));
    let changed = workflow("other", "\n  triggers: [{ name: pr, on: pull_request }]");
    let (number, opened) =
        world.repo.open_fork_pull_request("mallory", "main", &[(".tekton/ci.yaml", &changed)]);
    world.hears(opened).await;
    let head = world.repo.pull_request(number).head.sha;
    assert_eq!(world.run_names().await, [format!("ci/pull-request@{}", head.short())]);
    assert_eq!(world.runs().await[0].judged_by["policy"], "pinned");
}

/// Refuses every service account but one.
#[derive(Debug)]
struct Accounts;

#[async_trait]
impl Policy for Accounts {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        DefaultPolicy.decide(facts).await
    }

    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict> {
        let wrong = request.service_accounts().into_iter().find(|account| *account != "ci");
        Ok(match wrong {
            Some(account) => Verdict::Deny { rule: format!("no service account {account}") },
            None => Verdict::Allow,
        })
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "accounts/2".to_owned()
    }
}

#[tokio::test]
async fn a_file_in_the_repository_cannot_take_a_service_account_that_the_platform_refuses() {
    let text = workflow(
        "ci",
        "\n  triggers: [{ name: push, on: push }]\n  serviceAccountName: cluster-admin",
    );
    let world = World::with_policy(&text, Arc::new(Accounts));
    let event = world.hears(world.repo.push("alice", "feature", &[("a", "1")])).await.unwrap();
    assert_eq!(
        world.outcome(&event, "push").await,
        Outcome::Denied { rule: "no service account cluster-admin".to_owned() }
    );
    assert!(world.runs().await.is_empty());
    let status = world.status(&world.repo.head("feature"), CONTEXT);
    assert_eq!(status.state, StatusState::Failure);
    assert!(status.summary.contains("cluster-admin"));
}

/// Lets nothing run that is not in the repository itself.
#[derive(Debug)]
struct NoForks;

#[async_trait]
impl Policy for NoForks {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        match &facts.origin {
            FactsOrigin::Fork { .. } => Ok(Verdict::Deny { rule: "no forks".to_owned() }),
            _ => DefaultPolicy.decide(facts).await,
        }
    }

    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict> {
        DefaultPolicy.judge(request).await
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "no-forks".to_owned()
    }
}

#[tokio::test]
async fn a_change_that_the_platform_refuses_says_by_which_rule_on_its_commit() {
    let world = World::with_policy(CI, Arc::new(NoForks));
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    let event = world.hears(opened).await.unwrap();
    assert_eq!(
        world.outcome(&event, "pull-request").await,
        Outcome::Denied { rule: "no forks".to_owned() }
    );
    assert!(world.runs().await.is_empty());
    let status = world.status(&world.repo.pull_request(number).head.sha, CONTEXT);
    assert_eq!(status.state, StatusState::Failure);
    assert!(status.summary.contains("no forks"), "{}", status.summary);
}

#[tokio::test]
async fn a_strangers_comment_that_is_denied_changes_no_status() {
    let bench = "\n  triggers:\n  - { name: pr, on: pull_request }\n  - { name: bench, on: comment, \
                 command: /bench }";
    let world = World::with(&workflow("ci", bench));
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    let head = world.repo.head("feature");
    let before = world.shows(&head, CONTEXT);
    assert!(before.is_some_and(|state| state != StatusState::Failure));
    let comment = world.hears(world.repo.comment("mallory", number, "/bench")).await.unwrap();
    assert!(matches!(world.outcome(&comment, "bench").await, Outcome::Denied { .. }));
    assert_eq!(world.shows(&head, CONTEXT), before);
}
