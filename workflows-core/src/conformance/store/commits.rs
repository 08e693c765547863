//! What a commit writes, all of it or nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ledger::{
    Fixture, Ledger, Outcome, changes, notification, occurrence, other_tenant, planned,
    pull_request, repo, run_work, runs, sha, tenant, zero,
};
use crate::{
    Approval, CommitId, ErrorKind, Run, RunState, SubjectClaim, Tenant, WorkflowId,
    conformance::case::{expect, expect_eq, expect_kind},
    event::{Lacks, PullRequestState, SubjectKey},
    store::{
        CursorMove, Decision, DecisionBatch, DecisionQuery, DeliveryQuery, Effects, EventQuery,
        GroupExpectation, Guard, Outcome as Said, Rejected, RunChange, Stage,
    },
};

pub(super) async fn a_commit_writes_all_or_nothing(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let now = ledger.now();
    let run = planned("1", "e", 1, now);
    ledger.commit(runs(vec![run.clone()])).await?;
    let stale = Run { version: 7, ..run.clone() };
    let other = planned("2", "e", 1, now);
    let effects = || Effects {
        runs: vec![other.clone()],
        notifications: vec![notification(&other, "n")],
        work: vec![run_work(Stage::Dispatch, "r")],
        ..Effects::default()
    };
    let moved = CursorMove {
        tenant: tenant(),
        name: "c".into(),
        from: Some("elsewhere".into()),
        to: "x".into(),
    };
    let expected = GroupExpectation { tenant: tenant(), group: "g".into(), version: 3 };
    let refused = [
        Effects { changes: vec![RunChange { run: stale }], ..effects() },
        Effects { cursors: vec![moved], ..effects() },
        Effects { groups: vec![expected], ..effects() },
    ];
    for effects in refused {
        let what =
            format!("{:?} {:?} {:?}", effects.changes.len(), effects.cursors, effects.groups);
        expect_kind(&what, ledger.try_commit(effects).await?, ErrorKind::Conflict)?;
        expect_eq("the run", &ledger.store.run(&tenant(), &other.key).await?, &None)?;
        let told = ledger.store.notifications(DeliveryQuery::of(tenant())).await?.items;
        expect_eq("notifications", &told, &vec![])?;
        ledger.no_claim(Stage::Dispatch).await?;
    }
    ledger.commit(effects()).await?;
    ledger.claim_one(Stage::Dispatch).await.map(|_| ())
}

pub(super) async fn a_run_is_created_once_and_changed_from_the_version_that_was_read(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let run = planned("1", "e", 1, ledger.now());
    let created = ledger.commit(runs(vec![run.clone()])).await?.created;
    expect_eq("created", &created, &vec![run.key.clone()])?;
    let other = Run { message: "another".into(), ..run.clone() };
    expect_eq("created again", &ledger.commit(runs(vec![other])).await?.created, &vec![])?;
    let kept = ledger.store.run(&tenant(), &run.key).await?;
    expect_eq("the run", &kept, &Some(run.clone()))?;

    let mut changed = run.clone();
    changed.state = RunState::Running;
    changed.tasks = vec![];
    ledger.commit(changes(vec![changed.clone()])).await?;
    let stale = ledger.try_commit(changes(vec![changed.clone()])).await?;
    expect_kind("a change of an older version", stale, ErrorKind::Conflict)?;
    changed.version += 1;
    let kept = ledger.store.run(&tenant(), &run.key).await?;
    expect_eq("the changed run", &kept, &Some(changed.clone()))?;
    let missing = ledger.try_commit(changes(vec![planned("2", "e", 1, ledger.now())])).await?;
    expect_kind("a change of a run that is not there", missing, ErrorKind::Conflict)?;

    // Created and changed in one commit; and changed twice.
    let first = planned("3", "e", 1, ledger.now());
    let second = Run { version: first.version + 1, state: RunState::Queued, ..first.clone() };
    let both = Effects {
        runs: vec![first.clone()],
        ..changes(vec![Run { state: RunState::Admitted, ..first.clone() }, second])
    };
    ledger.commit(both).await?;
    let kept = ledger.store.run(&tenant(), &first.key).await?;
    let kept = kept.map(|run| (run.version, run.state));
    expect_eq("version and state", &kept, &Some((first.version + 2, RunState::Queued)))
}

pub(super) async fn approvals_hold_for_the_very_head(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let subject = SubjectKey::pull_request(7);
    let approval = Approval {
        tenant: tenant(),
        repo: repo("api"),
        subject: subject.clone(),
        head: zero(),
        by: "ada".into(),
        at: ledger.now(),
    };
    ledger.commit(Effects { approvals: vec![approval.clone()], ..Effects::default() }).await?;
    let of = async |tenant: Tenant, repo: &str, number, head: CommitId| {
        let subject = SubjectKey::pull_request(number);
        ledger.store.approval(&tenant, &repo.into(), &subject, &head).await
    };
    expect_eq("the approval", &of(tenant(), "api", 7, zero()).await?, &Some(approval))?;
    let another = sha('a').unwrap_or_else(zero);
    expect_eq("of another head", &of(tenant(), "api", 7, another).await?, &None)?;
    expect_eq("of another pull request", &of(tenant(), "api", 8, zero()).await?, &None)?;
    expect_eq("of another repository", &of(tenant(), "web", 7, zero()).await?, &None)?;
    expect_eq("of another tenant", &of(other_tenant(), "api", 7, zero()).await?, &None)
}

pub(super) async fn an_event_is_completed_with_what_its_transport_did_not_tell(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let mut observation = occurrence("comment-1");
    if let SubjectClaim::Occurrence(claim) = &mut observation.claim {
        claim.lacks = Some(Lacks::PullRequest { number: 7 });
    }
    let event = ledger.event(observation).await?;
    expect_eq("what it lacks", &event.lacks, &Some(Lacks::PullRequest { number: 7 }))?;
    let of_it = EventQuery::of(tenant()).pull_request(Some(7));
    expect_eq("found by number", &ledger.store.events(of_it.clone()).await?.items.len(), &0)?;

    let told = pull_request(7, PullRequestState::Open, ledger.now());
    let mut complete = event.clone();
    complete.set_pull_request(&told);
    complete.lacks = None;
    let effects = || Effects { completed: Some(Box::new(complete.clone())), ..Effects::default() };
    ledger.commit(effects()).await?;
    let kept = ledger.store.event(&tenant(), &event.key).await?;
    expect_eq("the event", &kept.as_ref(), &Some(&complete))?;
    let found = ledger.store.events(of_it).await?.items;
    expect_eq("found by number", &found, &vec![complete.clone()])?;
    let of_commit = EventQuery::of(tenant()).commit(Some(told.head.sha.clone()));
    let found = ledger.store.events(of_commit).await?.items;
    expect_eq("found by commit", &found, &vec![complete.clone()])?;

    // One that was never there is not made.
    let mut other = complete;
    other.key = "default/r/comment/2/once/1".into();
    other.sequence += 1_000;
    ledger
        .commit(Effects { completed: Some(Box::new(other.clone())), ..Effects::default() })
        .await?;
    expect_eq("another one", &ledger.store.event(&tenant(), &other.key).await?, &None)
}

pub(super) async fn decisions_and_their_trigger_sets_are_kept(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let batch = |event: &str, attempt: &str| DecisionBatch {
        id: 0,
        tenant: tenant(),
        event: event.into(),
        attempt: attempt.into(),
        decisions: vec![Decision {
            workflow: WorkflowId::registered("ci"),
            trigger: "push".into(),
            outcome: Said::Rejected(Rejected {
                filter: "branches".into(),
                wanted: "main".into(),
                saw: json!("dev"),
            }),
        }],
        commands: Vec::new(),
        guards: vec![Guard {
            set: "digest".into(),
            path: "event.base.branch".into(),
            saw: json!("dev"),
            rejected: 3,
        }],
        judged_by: BTreeMap::new(),
        at: ledger.now(),
    };
    let effects = |event: &str, attempt: &str, set: Value| Effects {
        decisions: Some(batch(event, attempt)),
        trigger_sets: vec![("digest".into(), set)],
        ..Effects::default()
    };
    ledger.commit(effects("e", "", json!(["first"]))).await?;
    ledger.commit(effects("e", "again", json!(["second"]))).await?;
    ledger.commit(effects("f", "", json!(["third"]))).await?;
    let found = async |query| ledger.store.decisions(query).await;
    let all = found(DecisionQuery::of(tenant())).await?.items;
    expect_eq("decisions", &all.len(), &3)?;
    let one = found(DecisionQuery::of(tenant()).event(Some("e".into()))).await?.items;
    let attempts: Vec<&str> = one.iter().map(|batch| batch.attempt.as_str()).collect();
    expect_eq("attempts, newest first", &attempts, &vec!["again", ""])?;
    let query = DecisionQuery::of(tenant()).event(Some("e".into())).attempt(Some("".into()));
    let one = found(query).await?.items;
    let id = one.first().map_or(0, |batch| batch.id);
    expect(id > 0, || "the batch has no place in the ledger".into())?;
    expect_eq("the batch", &one, &vec![DecisionBatch { id, ..batch("e", "") }])?;
    let set = ledger.store.trigger_set(&tenant(), "digest").await?;
    expect_eq("the set that came first", &set, &Some(json!(["first"])))?;
    expect_eq(
        "of another tenant",
        &ledger.store.trigger_set(&other_tenant(), "digest").await?,
        &None,
    )
}
