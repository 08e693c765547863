//! The decision case by case, and the order of the fact where that of intake is in doubt.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{decide::*, newest::Newest, *};
use crate::{
    CommitId, ConnectionName, ErrorKind, EventKind, GroupKey, ManualClock, Observation,
    RepoConnection, ScmDriver, SubjectClaim,
    conformance::{ScmCall, ScriptedRepo, ScriptedScm},
    event::{Occurrence, Seen, SubjectKey},
    run::GroupMembership,
    store::{ClaimRequest, GroupSnapshot, MemoryStore},
    workflow::QueueLimits,
};

fn now() -> Timestamp {
    "2026-05-01T00:00:00Z".parse().unwrap()
}

fn replace(cancel: CancelMode) -> Strategy {
    Strategy::Replace { cancel }
}

fn queue(max_running: u32) -> Strategy {
    Strategy::Queue(QueueLimits { max_running, max_queued: None, max_wait: None })
}

fn run(order: i64, groups: &[(&str, Strategy)]) -> Run {
    let groups: Vec<GroupMembership> = groups
        .iter()
        .map(|(group, strategy)| GroupMembership {
            group: GroupKey::new(*group),
            strategy: strategy.clone(),
        })
        .collect();
    serde_json::from_value(json!({
        "key": format!("run-{order}"),
        "version": 1,
        "tenant": "default",
        "repo": { "connection": "scm", "id": "1", "name": "acme/api" },
        "workflow": WorkflowId::registered("ci"),
        "trigger": "push",
        "event": format!("event-{order}"),
        "order": order,
        "subject": "refs/heads/main",
        "attempt": "",
        "commit": null,
        "reference": "refs/heads/main",
        "origin": { "digest": "d" },
        "name": format!("ci-{order}"),
        "sink": "sink",
        "pipelineRun": {},
        "groups": groups,
        "state": RunState::Planned,
        "createdAt": now(),
    }))
    .unwrap()
}

fn in_state(mut run: Run, state: RunState) -> Run {
    run.state = state;
    run
}

/// The groups of some runs as a ledger shows them.
fn snapshots(runs: &[&Run]) -> Vec<GroupSnapshot> {
    let mut groups: BTreeMap<GroupKey, GroupSnapshot> = BTreeMap::new();
    for run in runs {
        for membership in &run.groups {
            let group = membership.group.clone();
            groups
                .entry(group.clone())
                .or_insert(GroupSnapshot { group, version: 1, members: Vec::new() })
                .members
                .push(GroupMember::of(run, membership.clone()));
        }
    }
    groups.into_values().collect()
}

/// What else a decision may hang on.
#[derive(Default)]
struct Besides {
    hold: Option<Hold>,
    held: BTreeSet<RunKey>,
}

impl Besides {
    fn held_by(who: &str) -> Self {
        let hold = Hold { by: who.to_owned(), reason: String::new(), since: now(), waiting: 0 };
        Self { hold: Some(hold), ..Self::default() }
    }

    fn passed_over(members: &[&Run]) -> Self {
        Self { held: members.iter().map(|run| run.key.clone()).collect(), ..Self::default() }
    }
}

fn decided_at(run: &Run, others: &[&Run], instant: Timestamp) -> GroupVerdict {
    decided_besides(run, others, instant, &Besides::default())
}

fn decided_besides(
    run: &Run,
    others: &[&Run],
    now: Timestamp,
    Besides { hold, held }: &Besides,
) -> GroupVerdict {
    let mut groups = snapshots(&[others, &[run]].concat());
    let newest = Newest::default();
    let hold = hold.as_ref();
    let decide_with = |groups: &[GroupSnapshot]| {
        decide(&Situation { run, groups, newest: &newest, hold, held, now })
    };
    let verdict = decide_with(&groups);
    groups.reverse();
    for group in &mut groups {
        group.members.reverse();
    }
    assert_eq!(verdict, decide_with(&groups), "the order of groups and members matters");
    verdict
}

fn decided(run: &Run, others: &[&Run]) -> GroupVerdict {
    decided_at(run, others, now())
}

#[test]
fn a_newer_run_replaces_those_under_way_and_supersedes_those_that_wait() {
    let groups = [("g", replace(CancelMode::RunFinally))];
    let running = in_state(run(1, &groups), RunState::Running);
    let planned = run(2, &groups);
    let verdict = decided(&run(3, &groups), &[&running, &planned]);
    let GroupVerdict::Admitted { replaces, supersedes } = verdict else { panic!("{verdict:?}") };
    assert_eq!(replaces.into_iter().collect::<Vec<_>>(), [(running.key, CancelMode::RunFinally)]);
    assert_eq!(supersedes.into_iter().collect::<Vec<_>>(), [planned.key]);
}

#[test]
fn an_older_run_is_superseded_by_the_newest_and_cancels_nothing() {
    let groups = [("g", replace(CancelMode::AtOnce))];
    let newer = in_state(run(5, &groups), RunState::Running);
    let newest = run(7, &groups);
    let verdict = decided(&run(3, &groups), &[&newer, &newest]);
    assert_eq!(verdict, GroupVerdict::Superseded { by: newest.key });
}

#[test]
fn a_run_that_replaces_in_two_groups_ends_another_in_the_stronger_way() {
    let groups =
        [("a", replace(CancelMode::AfterRunningTasks)), ("b", replace(CancelMode::AtOnce))];
    let running = in_state(run(1, &groups), RunState::Running);
    let verdict = decided(&run(2, &groups), &[&running]);
    let GroupVerdict::Admitted { replaces, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(replaces[&running.key], CancelMode::AtOnce);
}

#[test]
fn with_replace_and_queue_together_the_newest_waits_and_leaves_alone_what_runs() {
    let groups = [("newest", replace(CancelMode::AtOnce)), ("lock", queue(1))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waiting = in_state(run(2, &groups), RunState::Queued);
    let verdict = decided(&run(3, &groups), &[&running, &waiting]);
    let GroupVerdict::Queued { supersedes, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(supersedes.into_iter().collect::<Vec<_>>(), [waiting.key]);
}

#[test]
fn a_queue_lets_so_many_run_and_the_first_that_came_goes_first() {
    let groups = [("g", queue(2))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waiting = in_state(run(2, &groups), RunState::Queued);
    assert!(matches!(decided(&waiting, &[&running]), GroupVerdict::Admitted { .. }));
    let later = decided(&run(3, &groups), &[&running, &waiting]);
    let GroupVerdict::Queued { message, .. } = later else { panic!("{later:?}") };
    assert_eq!(message, "waits in g behind 1 others, with 1 under way");
}

#[test]
fn a_run_that_was_told_to_end_keeps_its_place_until_it_has() {
    let groups = [("g", queue(1))];
    let mut running = in_state(run(1, &groups), RunState::Running);
    running.cancel = Some(Cancellation {
        mode: CancelMode::AtOnce,
        reason: CancelReason::Requested { by: "ada".to_owned() },
        at: now(),
        delivered: true,
    });
    assert!(matches!(decided(&run(2, &groups), &[&running]), GroupVerdict::Queued { .. }));
}

#[test]
fn a_full_queue_and_a_wait_that_was_too_long_end_a_run_with_the_reason() {
    let limits =
        QueueLimits { max_running: 1, max_queued: Some(1), max_wait: Some("30m".to_owned()) };
    let groups = [("g", Strategy::Queue(limits))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waiting = in_state(run(2, &groups), RunState::Queued);
    assert_eq!(
        decided(&run(3, &groups), &[&running, &waiting]),
        GroupVerdict::Expired {
            message: "the queue of g is full: 1 wait in it already".to_owned()
        }
    );
    let none_waits = QueueLimits { max_running: 1, max_queued: Some(0), max_wait: None };
    let alone = [("g", Strategy::Queue(none_waits))];
    assert_eq!(
        decided(&run(3, &alone), &[&running]),
        GroupVerdict::Expired { message: "g is taken, and none may wait for it".to_owned() }
    );
    assert!(matches!(decided(&run(3, &alone), &[]), GroupVerdict::Admitted { .. }));
    let deadline = now() + SignedDuration::from_mins(30);
    let waits = decided(&waiting, &[&running]);
    assert!(
        matches!(waits, GroupVerdict::Queued { deadline: Some(until), .. } if until == deadline)
    );
    assert_eq!(
        decided_at(&waiting, &[&running], deadline),
        GroupVerdict::Expired {
            message: "expired in its queue after 30m: waits in g for 1 under way".to_owned()
        }
    );
    // A place that became free in that very moment is taken.
    assert!(matches!(decided_at(&waiting, &[], deadline), GroupVerdict::Admitted { .. }));
}

#[test]
fn allow_waits_for_nobody_and_is_replaced_like_any_other() {
    let allow = [("g", Strategy::Allow)];
    let running = in_state(run(1, &allow), RunState::Running);
    assert!(matches!(decided(&run(2, &allow), &[&running]), GroupVerdict::Admitted { .. }));
    let newer = run(3, &[("g", replace(CancelMode::AtOnce))]);
    let verdict = decided(&newer, &[&running]);
    assert!(matches!(verdict, GroupVerdict::Admitted { replaces, .. } if replaces.len() == 1));
}

fn queue_with(max_queued: Option<u32>, max_wait: Option<&str>) -> Strategy {
    let max_wait = max_wait.map(str::to_owned);
    Strategy::Queue(QueueLimits { max_running: 1, max_queued, max_wait })
}

#[test]
fn of_two_queues_the_shorter_wait_counts_and_the_first_by_name_is_told() {
    let groups = [("a", queue_with(None, Some("30m"))), ("b", queue_with(None, Some("10m")))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waits = decided(&run(2, &groups), &[&running]);
    let GroupVerdict::Queued { message, deadline, .. } = waits else { panic!("{waits:?}") };
    assert_eq!(deadline, Some(now() + SignedDuration::from_mins(10)));
    assert_eq!(message, "waits in a for 1 under way");
}

#[test]
fn a_held_run_waits_as_long_as_its_queue_allows_and_in_a_queue_that_has_room() {
    let held = Besides::held_by("ada");
    let groups = [("g", queue_with(Some(1), Some("30m")))];
    let deadline = now() + SignedDuration::from_mins(30);
    let planned = run(2, &groups);
    assert_eq!(
        decided_besides(&planned, &[], now(), &held),
        GroupVerdict::Queued {
            message: "held by ada".to_owned(),
            deadline: Some(deadline),
            supersedes: BTreeSet::new(),
        }
    );
    assert_eq!(
        decided_besides(&planned, &[], deadline, &held),
        GroupVerdict::Expired {
            message: "expired in its queue: its workflow is held by ada".to_owned()
        }
    );
    let waiting = in_state(run(1, &groups), RunState::Queued);
    assert_eq!(
        decided_besides(&planned, &[&waiting], now(), &held),
        GroupVerdict::Expired {
            message: "the queue of g is full: 1 wait in it already".to_owned()
        }
    );
}

#[test]
fn a_run_that_replaces_leaves_alone_what_is_newer_and_does_not_replace() {
    let replacing = run(3, &[("g", replace(CancelMode::AtOnce))]);
    for (strategy, state) in [
        (queue(1), RunState::Running),
        (queue(1), RunState::Queued),
        (Strategy::Allow, RunState::Running),
    ] {
        let newer = in_state(run(5, &[("g", strategy)]), state);
        let verdict = decided(&replacing, &[&newer]);
        let GroupVerdict::Admitted { replaces, supersedes } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(replaces.is_empty() && supersedes.is_empty(), "{replaces:?} {supersedes:?}");
    }
}

#[test]
fn a_newer_run_whose_workflow_is_held_takes_nobodys_place() {
    let groups = [("g", replace(CancelMode::AtOnce))];
    let newer = in_state(run(5, &groups), RunState::Queued);
    let older = run(3, &groups);
    let passed = Besides::passed_over(&[&newer]);
    let verdict = decided_besides(&older, &[&newer], now(), &passed);
    assert!(matches!(verdict, GroupVerdict::Admitted { .. }), "{verdict:?}");
    assert_eq!(decided(&older, &[&newer]), GroupVerdict::Superseded { by: newer.key });
}

#[test]
fn in_a_queue_only_those_who_queue_there_and_are_not_held_stand_before_a_run() {
    let this = run(3, &[("g", queue(2))]);
    for strategy in [Strategy::Allow, replace(CancelMode::AtOnce)] {
        let before = run(1, &[("g", strategy.clone())]);
        let verdict = decided(&this, &[&before]);
        assert!(matches!(verdict, GroupVerdict::Admitted { .. }), "{strategy:?}: {verdict:?}");
    }
    let before = in_state(run(1, &[("g", queue(2))]), RunState::Queued);
    let passed = Besides::passed_over(&[&before]);
    let verdict = decided_besides(&this, &[&before], now(), &passed);
    assert!(matches!(verdict, GroupVerdict::Admitted { .. }), "{verdict:?}");
    assert!(matches!(decided(&this, &[&before]), GroupVerdict::Queued { .. }));
}

#[test]
fn a_full_queue_turns_away_who_comes_and_not_who_waits_or_whose_place_becomes_free() {
    let groups = [("g", queue_with(Some(1), None))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waiting = in_state(run(2, &groups), RunState::Queued);
    let also = in_state(run(3, &groups), RunState::Queued);
    let verdict = decided(&also, &[&running, &waiting]);
    assert!(matches!(verdict, GroupVerdict::Queued { .. }), "{verdict:?}");

    let both = [("g", queue_with(Some(1), None)), ("newest", replace(CancelMode::AtOnce))];
    let running = in_state(run(1, &groups), RunState::Running);
    let waiting = in_state(run(2, &both), RunState::Queued);
    let verdict = decided(&run(3, &both), &[&running, &waiting]);
    let GroupVerdict::Queued { supersedes, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(supersedes.into_iter().collect::<Vec<_>>(), [waiting.key]);
}

#[test]
fn of_two_runs_of_one_event_one_counts_as_the_newer() {
    let groups = [("g", replace(CancelMode::AtOnce))];
    let (mut one, mut other) = (run(1, &groups), run(1, &groups));
    one.key = RunKey::from("a".to_owned());
    other.key = RunKey::from("b".to_owned());
    let superseded = decided(&one, &[&other]);
    assert_eq!(superseded, GroupVerdict::Superseded { by: other.key.clone() });
    let verdict = decided(&other, &[&one]);
    let GroupVerdict::Admitted { supersedes, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(supersedes.into_iter().collect::<Vec<_>>(), [one.key]);
}

// --- the order of the fact ------------------------------------------------------------------------

/// Connections to the one repository of a scripted host.
#[derive(Debug)]
struct OneHost(ScriptedScm);

#[async_trait]
impl Connections for OneHost {
    async fn repository(
        &self,
        _tenant: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        self.0.connect(connection, repo).await
    }
}

struct World {
    store: MemoryStore,
    scm: ScriptedScm,
    repo: ScriptedRepo,
    patient: bool,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new(Arc::new(ManualClock::at(now())));
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        Self { store, scm, repo, patient: true }
    }

    fn push(&self, content: &str) -> CommitId {
        self.repo.push("ada", "main", &[("a", content)]);
        self.repo.head("main")
    }

    /// A run of a group that replaces, as the planner leaves it.
    async fn plan(&self, order: i64, commit: &CommitId, unchained: bool) -> Run {
        let mut run = run(order, &[("g", replace(CancelMode::RunFinally))]);
        run.repo = self.repo.reference();
        run.commit = Some(commit.clone());
        run.unchained = unchained;
        self.commit(Effects { runs: vec![run.clone()], ..Effects::default() }).await;
        run
    }

    async fn commit(&self, effects: Effects) {
        self.try_commit(effects).await.unwrap();
    }

    async fn try_commit(&self, effects: Effects) -> Result<()> {
        let id = self.store.position().await.unwrap().to_string();
        let observation = Observation::new(
            Tenant::default(),
            self.repo.reference(),
            "test".into(),
            id.as_str().into(),
            Seen::Told,
            SubjectClaim::Occurrence(Box::new(Occurrence::new(EventKind::COMMAND, id))),
        );
        self.store.admit(vec![observation], None).await.unwrap();
        let claimed = self.store.claim(ClaimRequest::of(Stage::Match, 1)).await.unwrap();
        self.store.commit(&claimed.claims[0].lease, effects).await.map(|_| ())
    }

    async fn decide(&self, run: &Run) -> Result<Scheduled> {
        let connections = OneHost(self.scm.clone());
        let scheduler = Scheduler {
            store: &self.store,
            connections: &connections,
            call_timeout: Duration::from_secs(5),
            patient: self.patient,
            now: now(),
        };
        scheduler.decide(&run.tenant, &run.key).await
    }

    async fn schedule(&self, run: &Run) -> Run {
        let scheduled = self.decide(run).await.unwrap();
        self.commit(scheduled.into_effects()).await;
        self.store.run(&run.tenant, &run.key).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_late_event_of_an_ancestor_is_superseded_and_corrects_the_ledger() {
    let world = World::new();
    let old = world.push("1");
    let new = world.push("2");
    let newer = world.plan(1, &new, false).await;
    assert_eq!(world.schedule(&newer).await.state, RunState::Admitted);
    let late = world.plan(2, &old, true).await;
    let scheduled = world.decide(&late).await.unwrap();
    let correction = &scheduled.effects.corrections[0];
    assert_eq!((correction.from.as_str(), correction.to.as_str()), (old.as_str(), new.as_str()));
    assert_eq!(correction.subject, SubjectKey::reference("refs/heads/main"));
    let late = world.schedule(&late).await;
    assert_eq!((late.state, late.message.as_str()), (RunState::Superseded, "superseded by ci-1"));
    let newer = world.store.run(&newer.tenant, &newer.key).await.unwrap().unwrap();
    assert_eq!((newer.state, newer.cancel), (RunState::Admitted, None));
}

#[tokio::test]
async fn an_event_with_a_gap_before_it_is_the_newest_when_it_descends_from_the_other() {
    let world = World::new();
    let old = world.push("1");
    let new = world.push("2");
    let older = world.plan(1, &old, false).await;
    world.schedule(&older).await;
    let newer = world.plan(2, &new, true).await;
    let newer = world.schedule(&newer).await;
    assert_eq!((newer.state, newer.replaces), (RunState::Admitted, vec![older.key.clone()]));
    let older = world.store.run(&older.tenant, &older.key).await.unwrap().unwrap();
    assert_eq!(older.cancel.unwrap().reason, CancelReason::SupersededBy(newer.key));
}

#[tokio::test]
async fn after_a_force_push_the_run_at_the_present_head_is_the_newest() {
    let world = World::new();
    let old = world.push("1");
    world.repo.force_push("ada", "main", &[("b", "2")]);
    let present = world.repo.head("main");
    let newest = world.plan(1, &present, false).await;
    world.schedule(&newest).await;
    let late = world.plan(2, &old, true).await;
    assert_eq!(world.schedule(&late).await.state, RunState::Superseded);
    assert!(world.scm.calls(ScmCall::Resolve) >= 1);
}

#[tokio::test]
async fn what_is_not_in_doubt_asks_the_repository_nothing() {
    let world = World::new();
    let first = world.plan(1, &world.push("1"), false).await;
    world.schedule(&first).await;
    let second = world.plan(2, &world.push("2"), false).await;
    assert_eq!(world.schedule(&second).await.state, RunState::Admitted);
    assert_eq!(world.scm.all_calls(), []);
}

#[tokio::test]
async fn a_repository_that_does_not_answer_is_waited_for_and_then_the_order_of_intake_decides() {
    let mut world = World::new();
    let old = world.push("1");
    let new = world.push("2");
    let newer = world.plan(1, &new, false).await;
    world.schedule(&newer).await;
    let late = world.plan(2, &old, true).await;
    world.scm.go_down();
    assert_eq!(world.decide(&late).await.unwrap_err().kind(), ErrorKind::Transient);
    world.patient = false;
    assert_eq!(world.schedule(&late).await.state, RunState::Admitted);
}

#[tokio::test]
async fn a_run_planned_late_is_superseded_by_a_newer_one_that_has_ended_already() {
    let world = World::new();
    let (old, new) = (world.push("1"), world.push("2"));
    let newer = world.plan(2, &new, false).await;
    let newer = world.schedule(&newer).await;
    let ended = Run { state: RunState::Succeeded, finished_at: Some(now()), ..newer };
    world.commit(Effects { changes: vec![RunChange { run: ended }], ..Effects::default() }).await;
    let late = world.plan(1, &old, false).await;
    assert_eq!(world.schedule(&late).await.state, RunState::Superseded);
}

#[tokio::test]
async fn a_run_that_waits_is_the_newest_when_what_came_later_turns_out_to_be_older() {
    let world = World::new();
    let (old, new) = (world.push("1"), world.push("2"));
    let run = world.plan(1, &new, false).await;
    // It came later, behind a gap, and is an ancestor.
    world.plan(2, &old, true).await;
    assert_eq!(world.schedule(&run).await.state, RunState::Admitted);
}

#[tokio::test]
async fn of_unrelated_commits_the_one_at_the_present_head_is_newest_though_the_other_came_later() {
    let world = World::new();
    let old = world.push("1");
    world.repo.force_push("ada", "main", &[("b", "2")]);
    let present = world.repo.head("main");
    let run = world.plan(1, &present, false).await;
    world.plan(2, &old, true).await;
    assert_eq!(world.schedule(&run).await.state, RunState::Admitted);
}

#[tokio::test]
async fn nothing_is_asked_about_what_cannot_be_in_doubt() {
    type Change = fn(&mut Run);
    // What is changed of a run that came later, behind a gap.
    let cases: [(&str, Change); 5] = [
        ("another repository", |run| run.repo.id = "other".into()),
        ("another subject", |run| run.subject = SubjectKey::reference("refs/heads/dev")),
        ("no gap", |run| run.unchained = false),
        ("a run that was asked for again", |run| run.attempt = "again".into()),
        ("the same commit", |run| run.commit = None),
    ];
    for (case, change) in cases {
        let world = World::new();
        let (old, new) = (world.push("1"), world.push("2"));
        let same = case == "the same commit";
        let first = world.plan(1, &new, false).await;
        let mut later = world.plan(2, if same { &new } else { &old }, true).await;
        if !same {
            change(&mut later);
        }
        let effects = Effects { changes: vec![RunChange { run: later }], ..Effects::default() };
        world.commit(effects).await;
        world.scm.forget_calls();
        world.decide(&first).await.unwrap();
        assert_eq!(world.scm.all_calls(), [], "{case}");
    }
}

#[tokio::test]
async fn a_run_that_was_asked_for_again_is_as_new_as_the_request() {
    let world = World::new();
    let (old, new) = (world.push("1"), world.push("2"));
    world.plan(1, &new, false).await;
    let mut again = world.plan(2, &old, true).await;
    again.attempt = "again".into();
    let effects = Effects { changes: vec![RunChange { run: again.clone() }], ..Effects::default() };
    world.commit(effects).await;
    world.scm.forget_calls();
    let again = world.store.run(&again.tenant, &again.key).await.unwrap().unwrap();
    assert_eq!(world.schedule(&again).await.state, RunState::Admitted);
    assert_eq!(world.scm.all_calls(), []);
}

#[tokio::test]
async fn the_present_head_of_a_pull_request_is_the_hosts_word_and_not_that_of_a_branch() {
    let world = World::new();
    world.push("1");
    let (number, _) = world.repo.open_fork_pull_request("eve", "main", &[("b", "1")]);
    let old = world.repo.pull_request(number).head.sha;
    // The fork's branch is forced: neither commit descends from the other.
    let present = world.repo.commit("eve", Some(&world.repo.head("main")), &[("b", "2")]);
    world.repo.edit_pull_request("eve", number, |one| one.head.sha = present.clone());
    let of_it = async |order, commit: &CommitId, unchained| {
        let mut run = world.plan(order, commit, unchained).await;
        run.pull_request = Some(number);
        run.reference = Some("refs/heads/patch".into());
        run.subject = SubjectKey::pull_request(number);
        let effects =
            Effects { changes: vec![RunChange { run: run.clone() }], ..Effects::default() };
        world.commit(effects).await;
        world.store.run(&run.tenant, &run.key).await.unwrap().unwrap()
    };
    of_it(1, &present, false).await;
    let late = of_it(2, &old, true).await;
    assert_eq!(world.schedule(&late).await.state, RunState::Superseded);
}

#[tokio::test]
async fn a_newer_run_that_never_had_its_turn_takes_nobodys_place() {
    for state in [RunState::Expired, RunState::Refused] {
        let world = World::new();
        let (old, new) = (world.push("1"), world.push("2"));
        let newer = world.plan(2, &new, false).await;
        let ended = Run { state, finished_at: Some(now()), ..newer };
        let effects = Effects { changes: vec![RunChange { run: ended }], ..Effects::default() };
        world.commit(effects).await;
        let late = world.plan(1, &old, false).await;
        assert_eq!(world.schedule(&late).await.state, RunState::Admitted, "{state}");
    }
}

#[tokio::test]
async fn a_newer_run_that_ended_in_a_queue_took_nobodys_place() {
    let world = World::new();
    let (old, new) = (world.push("1"), world.push("2"));
    let mut newer = world.plan(2, &new, false).await;
    newer.groups[0].strategy = queue(1);
    newer.state = RunState::Succeeded;
    newer.finished_at = Some(now());
    let effects = Effects { changes: vec![RunChange { run: newer }], ..Effects::default() };
    world.commit(effects).await;
    let late = world.plan(1, &old, false).await;
    assert_eq!(world.schedule(&late).await.state, RunState::Admitted);
}

// --- holding --------------------------------------------------------------------------------------

fn ci() -> WorkflowId {
    WorkflowId::registered("ci")
}

async fn unhold(world: &World) -> Effects {
    super::unhold(&world.store, &Tenant::default(), &ci()).await.unwrap()
}

async fn hold(world: &World, reason: &str) {
    let tenant = Tenant::default();
    let effects = super::hold(&world.store, &tenant, &ci(), "ada", reason, now()).await.unwrap();
    world.commit(effects).await;
}

#[tokio::test]
async fn a_release_that_was_decided_before_a_further_run_began_to_wait_is_refused() {
    let world = World::new();
    hold(&world, "").await;
    let decided = unhold(&world).await;
    let commit = world.push("1");
    let late = world.plan(1, &commit, false).await;
    assert_eq!(world.schedule(&late).await.state, RunState::Queued);
    assert_eq!(world.try_commit(decided).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Another reason does not make it forget who waits.
    let before = unhold(&world).await;
    hold(&world, "a freeze").await;
    let record = HoldRecord::read(&world.store, &Tenant::default(), &ci()).await.unwrap();
    let held = record.hold().unwrap();
    assert_eq!((held.waiting, held.reason.as_str()), (1, "a freeze"));
    assert_eq!(world.try_commit(before).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_release_decides_all_that_wait_of_that_workflow_and_nothing_else() {
    let world = World::new();
    assert_eq!(unhold(&world).await, Effects::default());
    hold(&world, "").await;
    let mut runs: Vec<Run> =
        (1..=1_100).map(|order| in_state(run(order, &[]), RunState::Queued)).collect();
    let mut other = in_state(run(2_000, &[]), RunState::Queued);
    other.workflow = WorkflowId::registered("other");
    runs.extend([other, in_state(run(2_001, &[]), RunState::Running)]);
    world.commit(Effects { runs, ..Effects::default() }).await;
    let released = unhold(&world).await;
    assert_eq!(released.work.len(), 1_100);
    let names: BTreeSet<&WorkKey> = released.work.iter().map(|new| &new.work.key).collect();
    assert_eq!(names.len(), 1_100);
    assert!(!names.contains(&WorkKey::run(RunKey::from("run-2000".to_owned()))));
    world.commit(released).await;
    assert_eq!(unhold(&world).await, Effects::default());
}
