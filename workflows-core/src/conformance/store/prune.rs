//! What goes when it is old, and what never does.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::ledger::{Fixture, Ledger, Outcome, notification, planned, push, runs, sha, tenant};
use crate::{
    AttemptId, Event, Run, RunKey, RunState, WorkflowId,
    conformance::case::{Failure, expect, expect_eq},
    event::Payload,
    store::{
        Decision, DecisionBatch, DeliveryQuery, Effects, NotificationState, OutboxNotification,
        Outcome as Outcomes, Prune, RunQuery, RunsToKeep, Stage,
    },
};

async fn prune_all(ledger: &Ledger, prune: &Prune) -> Result<(), Failure> {
    while ledger.store.prune(prune.clone()).await?.more {}
    Ok(())
}

pub(super) async fn pruning_keeps_what_is_under_way_and_every_key(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let payload = || Payload::new([("", ""); 0], Bytes::from_static(b"{}"));
    let ended_for = ledger.event(push("1", None, sha('a')).with_payload(payload())).await?;
    let running_for = ledger.event(push("2", sha('a'), sha('b')).with_payload(payload())).await?;
    let ignored = ledger.event(push("3", sha('b'), sha('c'))).await?;
    ledger.duplicate(push("3", sha('b'), sha('c'))).await?;
    let now = ledger.now();
    let ended = Run {
        state: RunState::Succeeded,
        finished_at: Some(now),
        ..planned("ended", ended_for.key.as_str(), 1, now)
    };
    let untold = Run { key: RunKey::from("untold".to_owned()), ..ended.clone() };
    let running =
        Run { state: RunState::Running, ..planned("running", running_for.key.as_str(), 2, now) };
    let mut told = notification(&ended, "told");
    told.state = NotificationState::Delivered;
    let effects = Effects {
        notifications: vec![told.clone(), notification(&untold, "untold")],
        trigger_sets: vec![("digest".into(), json!([]))],
        ..runs(vec![ended.clone(), untold.clone(), running.clone()])
    };
    ledger.commit(effects).await?;
    for claim in ledger.claim(Stage::Match, 10).await? {
        ledger.store.commit(&claim.lease, Effects::default()).await?;
    }
    ledger.advance(1);
    let waiting = ledger.event(push("4", sha('c'), sha('d'))).await?;
    ledger.advance(86_400);
    prune_all(&ledger, &Prune::before(ledger.now())).await?;

    let store = &ledger.store;
    let run = async |run: &Run| store.run(&tenant(), &run.key).await.map(|run| run.is_some());
    expect(!run(&ended).await?, || "the run that ended is still there".into())?;
    expect(run(&untold).await?, || "a run went whose end is still to be told".into())?;
    expect(run(&running).await?, || "a run under way went".into())?;
    let event =
        async |event: &Event| store.event(&tenant(), &event.key).await.map(|event| event.is_some());
    expect(event(&ended_for).await?, || "the event of a run that is kept went".into())?;
    expect(event(&running_for).await?, || "the event of a run under way went".into())?;
    expect(event(&waiting).await?, || "an event that waits to be matched went".into())?;
    expect(!event(&ignored).await?, || "an event without runs is still there".into())?;
    let id = running_for.payload.unwrap_or_default();
    expect_eq("an old payload", &store.payload(&tenant(), id).await?, &None)?;

    // What is gone is not new.
    ledger.duplicate(push("3", sha('b'), sha('c'))).await?;
    ledger.duplicate(push("5", sha('a'), sha('b'))).await?;
    let effects = Effects { notifications: vec![told], ..runs(vec![ended.clone()]) };
    expect_eq("runs created again", &ledger.commit(effects).await?.created, &vec![])?;
    expect(!run(&ended).await?, || "a run that was removed came again".into())?;
    let told = store.outbox(&tenant(), &ended.key, &"chat".into()).await?;
    expect_eq("what is told again", &told, &vec![])?;
    ledger.event(push("6", sha('d'), sha('e'))).await?;
    let back = ledger.event(push("7", sha('e'), sha('c'))).await?;
    expect(back.key.as_str().ends_with("/2"), || format!("k should be 2 in {}", back.key))
}

pub(super) async fn a_workflow_keeps_so_many_runs(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let now = ledger.now();
    let mut all: Vec<Run> = (0..6)
        .map(|number| Run {
            state: RunState::Failed,
            finished_at: Some(now + SignedDuration::from_secs(number)),
            ..planned(&number.to_string(), "e", 1, now)
        })
        .collect();
    all.push(planned("under way", "e", 1, now));
    ledger.commit(runs(all)).await?;
    let left = async || -> Result<String, Failure> {
        let runs = ledger.store.runs(RunQuery::of(tenant())).await?.items;
        Ok(runs.iter().map(|run| run.name.to_string()).collect::<Vec<_>>().join(" "))
    };
    let keep = |workflow: &str, runs, ended_since| {
        let mut prune = Prune::before(Timestamp::UNIX_EPOCH);
        let workflow = WorkflowId::registered(workflow);
        prune.runs_per_workflow =
            vec![RunsToKeep { tenant: tenant(), workflow, runs, ended_since }];
        prune
    };
    prune_all(&ledger, &keep("deploy", Some(0), None)).await?;
    expect_eq("after another workflow's", &left().await?.as_str(), &"under way 5 4 3 2 1 0")?;
    prune_all(&ledger, &keep("ci", Some(4), None)).await?;
    expect_eq("when four are kept", &left().await?.as_str(), &"under way 5 4 3 2")?;
    let since = now + SignedDuration::from_secs(4);
    prune_all(&ledger, &keep("ci", None, Some(since))).await?;
    expect_eq("when the last two are young enough", &left().await?.as_str(), &"under way 5 4")
}

pub(super) async fn what_was_told_of_no_run_goes_with_its_event(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let event = ledger.event(push("1", None, sha('a'))).await?;
    let now = ledger.now();
    let decision = |name: &str, outcome| Decision {
        workflow: WorkflowId::registered(name),
        trigger: "push".into(),
        outcome,
    };
    let key = |name: &str| {
        let first = AttemptId::first();
        RunKey::of(&tenant(), &WorkflowId::registered(name), "push", &event.key, &first)
    };
    let told = |name: &str, state| {
        let run = Run { key: key(name), ..planned(name, event.key.as_str(), 1, now) };
        OutboxNotification { state, ..notification(&run, name) }
    };
    let batch = DecisionBatch {
        id: 0,
        tenant: tenant(),
        event: event.key.clone(),
        attempt: AttemptId::first(),
        decisions: vec![
            decision("waits", Outcomes::Waiting { approvers: "alice".into() }),
            decision("denied", Outcomes::Denied { rule: "never".into() }),
        ],
        commands: Vec::new(),
        guards: Vec::new(),
        judged_by: Default::default(),
        at: now,
    };
    let pending = told("denied", NotificationState::Pending);
    let effects = Effects {
        decisions: Some(batch),
        notifications: vec![told("waits", NotificationState::Delivered), pending.clone()],
        ..Effects::default()
    };
    ledger.commit(effects).await?;
    for claim in ledger.claim(Stage::Match, 10).await? {
        ledger.store.commit(&claim.lease, Effects::default()).await?;
    }
    ledger.advance(86_400);
    let kept = async || {
        let query = DeliveryQuery::of(tenant());
        ledger.store.notifications(query).await.map(|found| found.items.len())
    };
    prune_all(&ledger, &Prune::before(ledger.now())).await?;
    expect_eq("what is to be delivered, and what goes with it", &kept().await?, &2)?;
    let dead = OutboxNotification { state: NotificationState::Dead, ..pending };
    ledger.commit(Effects { delivered: vec![dead], ..Effects::default() }).await?;
    prune_all(&ledger, &Prune::before(ledger.now())).await?;
    expect_eq("what is kept", &kept().await?, &0)?;
    let event = ledger.store.event(&tenant(), &event.key).await?;
    expect(event.is_none(), || "the event is still there".into())
}
