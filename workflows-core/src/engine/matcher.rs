//! Which triggers an event is for: the stage from an event to planned runs, with a record of every
//! decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    announce::NoRun,
    backoff,
    candidates::{in_repository, sources},
    commands,
    commit_notes::{behind_everything, note_order, quoted, skipped_because},
    completion,
    core::Core,
    event_details::LedgerDetails,
    gate::{self, Gate},
    planner::{self, Candidate, Plan, PlannedRun, Planner},
    schedule::Slot,
    transition,
};
use crate::{
    AttemptId, Error, ErrorKind, Event, EventKind, Result, RunState, Transition, Workflow,
    WorkflowId,
    matching::{EventDetails, MatchInput, MatchedCommand, TriggerSet, Verdict as Says},
    policy::{Facts, FactsOrigin, Verdict},
    repo::StatusState,
    store::{
        Claim, Committed, Decision, DecisionBatch, Effects, Guard, NewWork, Outcome, Rejected,
        Stage, StatusDesire, SubjectCorrection, WorkKey,
    },
    workflow::{Notification, WhenSkipped},
};

/// What is asked for in an attempt at an event: the `detail` of [`Stage::Match`] work. The first
/// attempt's is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptRequest {
    /// The place of the request in the order of intake.
    pub(crate) order: i64,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Arc<str>>,
    /// The workflows and triggers that are asked for; all when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Vec<Selected>>,
}

/// Triggers that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Selected {
    /// The workflow's name.
    pub(crate) workflow: Arc<str>,
    /// Its trigger; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trigger: Option<Arc<str>>,
}

impl AttemptRequest {
    /// The first attempt at an event.
    pub(crate) fn first(event: &Event) -> Self {
        Self { order: event.sequence, by: None, only: None }
    }

    fn of_claim(claim: &Claim, event: &Event) -> Result<Self> {
        match &claim.work.detail {
            Value::Null => Ok(Self::first(event)),
            detail => serde_json::from_value(detail.clone())
                .map_err(|error| Error::invalid("read an attempt", error.to_string())),
        }
    }

    /// As the detail of work.
    pub(crate) fn detail(&self) -> Value {
        json!(self)
    }

    fn asks_for(&self, workflow: &WorkflowId, trigger: &str) -> bool {
        self.only.as_ref().is_none_or(|only| {
            only.iter().any(|one| {
                one.workflow == workflow.name
                    && one.trigger.as_deref().is_none_or(|name| name == trigger)
            })
        })
    }
}

/// What was decided about an event, before it is committed.
#[derive(Debug)]
pub(crate) struct Evaluation {
    pub(crate) batch: DecisionBatch,
    pub(crate) sets: Vec<Arc<TriggerSet>>,
    pub(crate) runs: Vec<PlannedRun>,
    pub(crate) notes: Vec<StatusDesire>,
    pub(crate) corrections: Vec<SubjectCorrection>,
    pub(crate) told: Vec<Told>,
}

/// What people are told of a trigger that made no run.
#[derive(Debug)]
pub(crate) struct Told {
    workflow: WorkflowId,
    trigger: Arc<str>,
    notify: Vec<Notification>,
    transition: Transition,
    why: String,
}

/// Decides an event, or an attempt at one, and commits what comes of it ([`Stage::Match`]).
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Event { event: key, attempt } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let Some(event) = core.store.event(&claim.work.tenant, key).await? else {
        // Retention has removed it, so nobody waits for it any more.
        return core.commit(claim, Effects::default()).await;
    };
    let mut event = Arc::new(event);
    let decided = async {
        if let Some(complete) = completion::complete(core, &event).await? {
            event = complete;
            let mut effects = decide(core, claim, &event, attempt).await?;
            effects.completed = Some(Box::new(Event::clone(&event)));
            return Ok(effects);
        }
        decide(core, claim, &event, attempt).await
    };
    let effects = match decided.await {
        Ok(effects) => effects,
        Err(error) if is_final(core, claim, &error) => given_up(core, &event, attempt, &error),
        Err(error) => return Err(error),
    };
    let committed = core.commit(claim, effects).await?;
    if event.kind == EventKind::PUSH && attempt.is_first() {
        notice_default_branch(core, &event).await;
    }
    Ok(committed)
}

/// Whether an error is an answer. What may pass is tried again for as long as the engine is told.
fn is_final(core: &Core, claim: &Claim, error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Conflict => false,
        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported => true,
        // Credentials are mended by people, which takes time.
        ErrorKind::Denied | ErrorKind::RateLimited { .. } | ErrorKind::Transient => {
            let tried = backoff::tried_for(claim, error.kind(), core.clock.now());
            tried >= core.options.give_up_matching_after
        }
    }
}

async fn decide(
    core: &Core,
    claim: &Claim,
    event: &Arc<Event>,
    attempt: &AttemptId,
) -> Result<Effects> {
    let request = AttemptRequest::of_claim(claim, event)?;
    let mut effects = Effects::default();
    let mut evaluation = if event.kind == EventKind::COMMAND {
        Evaluation::of_nothing(core, event, attempt)
    } else {
        let details = Arc::new(LedgerDetails::new(core, event));
        let mut evaluation =
            evaluate(core, event, attempt, &request, Arc::clone(&details) as _).await?;
        if let Some(remark) = details.remark() {
            evaluation.batch.judged_by.insert("changedFiles".to_owned(), remark);
        }
        evaluation
    };
    // Work with a detail is a later attempt, or decides anew what waited for an approval; the
    // commands that came with the event are carried out once.
    if claim.work.detail.is_null() {
        evaluation.batch.commands = commands::execute(core, event, &mut effects).await?;
        // A comment that approves the head may itself have waited for that.
        let waits = |one: &Decision| matches!(one.outcome, Outcome::Waiting { .. });
        if let Some(approval) = effects.approvals.first()
            && evaluation.batch.decisions.iter().any(waits)
        {
            effects.work.push(commands::decide_again(event, &approval.by));
        }
    }
    for planned in &evaluation.runs {
        transition::follow(core, None, &planned.run, &mut effects).await?;
    }
    for Told { workflow, trigger, notify, transition, why } in std::mem::take(&mut evaluation.told)
    {
        let (workflow, trigger) = (&workflow, &trigger);
        let no_run = NoRun { event, attempt, workflow, trigger, notify, transition, why };
        no_run.announce(core, &mut effects).await?;
    }
    evaluation.into_effects(core, &mut effects);
    Ok(effects)
}

impl Evaluation {
    fn of_nothing(core: &Core, event: &Event, attempt: &AttemptId) -> Self {
        Self {
            batch: DecisionBatch {
                id: 0,
                tenant: event.tenant.clone(),
                event: event.key.clone(),
                attempt: attempt.clone(),
                decisions: Vec::new(),
                commands: Vec::new(),
                guards: Vec::new(),
                judged_by: gate::judged_by(core, &event.tenant),
                at: core.clock.now(),
            },
            sets: Vec::new(),
            runs: Vec::new(),
            notes: Vec::new(),
            corrections: Vec::new(),
            told: Vec::new(),
        }
    }

    fn into_effects(self, core: &Core, effects: &mut Effects) {
        for planned in self.runs {
            let stage = match planned.run.state {
                RunState::Planned => Stage::Schedule,
                _ => Stage::Dispatch,
            };
            let mut work = NewWork::now(
                planned.run.tenant.clone(),
                stage,
                WorkKey::run(planned.run.key.clone()),
            );
            work.not_before = planned.not_before;
            effects.work.push(work);
            effects.runs.push(planned.run);
        }
        for note in self.notes {
            let key = WorkKey::Status { status: note.key.clone() };
            effects.work.push(NewWork::now(note.key.tenant.clone(), Stage::Report, key));
            effects.statuses.push(note);
        }
        for set in self.sets {
            effects.trigger_sets.push((Arc::clone(set.digest()), set.describe().clone()));
        }
        effects.corrections.extend(self.corrections);
        effects.decisions = Some(self.batch);
        effects.claim_next = Some(core.options.lease);
    }
}

/// A trigger that said yes.
struct Matched<'a> {
    candidate: Candidate<'a>,
    command: Option<MatchedCommand>,
}

/// Decides what runs for an event, without writing anything.
pub(crate) async fn evaluate(
    core: &Core,
    event: &Arc<Event>,
    attempt: &AttemptId,
    request: &AttemptRequest,
    details: Arc<dyn EventDetails>,
) -> Result<Evaluation> {
    let mut evaluation = Evaluation::of_nothing(core, event, attempt);
    let scheduled = event.kind == EventKind::SCHEDULE;
    let slot = if scheduled { Some(Slot::of_event(event)?) } else { None };
    let gate = Gate::new(core, event);
    let input = MatchInput::new(Arc::clone(event), details);
    let named = event.data.get("workflow").and_then(Value::as_str);
    let submitted_for = named.filter(|_| event.kind == EventKind::MANUAL);
    let wanted = |workflow: &WorkflowId, trigger: &str| {
        request.asks_for(workflow, trigger)
            && submitted_for.is_none_or(|name| name == &*workflow.name)
            && slot
                .as_ref()
                .is_none_or(|slot| slot.workflow == *workflow && &*slot.trigger == trigger)
    };

    let registered = core.definitions.registered_triggers(&event.tenant, &event.repo, &event.kind);
    let found = in_repository(core, &gate, event).await?;
    let sources = sources(event, registered, found.as_ref());
    let mut matched = Vec::new();
    let mut skipped = BTreeMap::new();
    for source in &sources {
        let said = source.set.decide(&input, &core.filters).await?;
        let narrowed = request.only.is_some() || slot.is_some() || submitted_for.is_some();
        if !said.guards.is_empty() && !narrowed {
            evaluation.sets.push(Arc::clone(&source.set));
            evaluation.batch.guards.extend(said.guards);
        } else {
            for guard in &said.guards {
                evaluation.ruled_out(&source.set, guard, wanted);
            }
        }
        for (place, says) in said.verdicts {
            let Some(one) = source.set.candidates().get(place) else { continue };
            let (definition, trigger) = (one.definition(), one.trigger());
            if !wanted(definition.id(), trigger.name()) {
                continue;
            }
            let outcome = match says {
                Says::Matched { command } => {
                    let Some(loaded) = source.loaded(core, event, definition.id()) else {
                        continue;
                    };
                    let candidate = Candidate {
                        id: definition.id(),
                        loaded,
                        trigger: trigger.name(),
                        defined_at: source.commit,
                    };
                    matched.push(Matched { candidate, command });
                    continue;
                }
                Says::Rejected(rejected) => {
                    if trigger.when_skipped() == WhenSkipped::Neutral
                        && matches!(&*rejected.filter, "paths" | "filter" | "customFilter")
                        && let Some(loaded) = source.loaded(core, event, definition.id())
                    {
                        let context = planner::context(core, loaded.workflow(), trigger.name());
                        skipped.insert(context, skipped_because(&rejected));
                    }
                    Outcome::Rejected(rejected)
                }
                Says::Failed { filter, error } => {
                    let context = source
                        .loaded(core, event, definition.id())
                        .map(|loaded| planner::context(core, loaded.workflow(), trigger.name()));
                    let order = note_order(&gate, event, request).await?;
                    evaluation.note_failure(event, order, context, &filter, &error);
                    Outcome::Failed { filter: filter.to_string(), error }
                }
            };
            evaluation.say(definition.id(), trigger.name(), outcome);
        }
    }
    if let Some(found) = &found {
        let order = note_order(&gate, event, request).await?;
        evaluation.tell_of_directory(core, event, order, found).await?;
    }
    let moved_on = if matched.is_empty() { None } else { gate.moved_on().await? };
    if let Some(present) = &moved_on {
        evaluation.corrections.push(SubjectCorrection {
            tenant: event.tenant.clone(),
            repo: event.repo.id.clone(),
            subject: event.subject.clone(),
            from: event.head.as_ref().map_or_else(String::new, |head| head.sha.to_string()),
            to: present.clone(),
        });
    }
    let mut planner = Planner::new(core, &gate, event, attempt, request, &input);
    for Matched { candidate, command } in matched {
        let (id, trigger) = (candidate.id, candidate.trigger);
        let context = planner::context(core, candidate.loaded.workflow(), trigger);
        let document = Arc::clone(candidate.loaded.workflow());
        if let Some(outcome) = impossible(event, slot.as_ref(), moved_on.as_deref()) {
            evaluation.say(id, trigger, outcome);
            continue;
        }
        let (facts, verdict) = gate.all().await?;
        let outcome = match verdict {
            Verdict::Allow => match planner.plan(&candidate, command, facts).await? {
                Plan::Run(mut planned) => {
                    if let Some(slot) = &slot {
                        planned.run.remarks.extend(slot.remarks());
                    }
                    let run = planned.run.key.clone();
                    skipped.remove(&context);
                    evaluation.runs.push(*planned);
                    Outcome::Matched { run }
                }
                Plan::There(run) => {
                    skipped.remove(&context);
                    Outcome::Matched { run }
                }
                Plan::No(outcome) => {
                    skipped.remove(&context);
                    evaluation.tell(core, event, &document, id, trigger, &outcome);
                    match &outcome {
                        Outcome::Failed { filter, error } => evaluation.note_failure(
                            event,
                            request.order,
                            Some(context),
                            filter,
                            error,
                        ),
                        Outcome::Denied { rule } => {
                            evaluation.note_denied(event, request.order, &context, rule);
                        }
                        _ => {}
                    }
                    outcome
                }
            },
            Verdict::Wait { approvers } => {
                skipped.remove(&context);
                let order = note_order(&gate, event, request).await?;
                evaluation.note_waiting(event, order, &context, &approvers);
                let outcome = Outcome::Waiting { approvers };
                evaluation.tell(core, event, &document, id, trigger, &outcome);
                outcome
            }
            Verdict::Deny { rule } => {
                // Whoever may comment must not be able to turn a commit's status red.
                let by_comment =
                    |facts: &Facts| matches!(facts.origin, FactsOrigin::Comment { .. });
                if !facts.last().is_some_and(by_comment) {
                    skipped.remove(&context);
                    let order = note_order(&gate, event, request).await?;
                    evaluation.note_denied(event, order, &context, &rule);
                    let outcome = Outcome::Denied { rule: rule.clone() };
                    evaluation.tell(core, event, &document, id, trigger, &outcome);
                }
                Outcome::Denied { rule }
            }
        };
        evaluation.say(id, trigger, outcome);
    }
    let running: BTreeSet<Arc<str>> =
        evaluation.runs.iter().filter_map(|one| one.run.status_context.clone()).collect();
    for (context, reason) in skipped {
        if !running.contains(&context) {
            let order = note_order(&gate, event, request).await?;
            let title = "it did not have to run";
            let reason = quoted(&reason);
            evaluation.note(event, order, &context, StatusState::Neutral, title, &reason);
        }
    }
    Ok(evaluation)
}

/// Why nothing can run for an event, whoever asks.
fn impossible(event: &Event, slot: Option<&Slot>, moved_on: Option<&str>) -> Option<Outcome> {
    if let Some(rejected) = slot.and_then(|slot| slot.rejected.clone()) {
        return Some(Outcome::Rejected(rejected));
    }
    if event.is_deletion() {
        return Some(Outcome::Rejected(Rejected {
            filter: "actions".into(),
            wanted: "a ref that is there".to_owned(),
            saw: json!(event.actions),
        }));
    }
    moved_on.map(|present| Outcome::Superseded {
        by: None,
        reason: format!("the ref has moved on to {present}, which has its own event"),
    })
}

impl Evaluation {
    fn say(&mut self, workflow: &WorkflowId, trigger: &Arc<str>, outcome: Outcome) {
        let (workflow, trigger) = (workflow.clone(), Arc::clone(trigger));
        self.batch.decisions.push(Decision { workflow, trigger, outcome });
    }

    /// Has people told that a trigger made no run, where that is theirs to know.
    fn tell(
        &mut self,
        core: &Core,
        event: &Event,
        document: &Workflow,
        workflow: &WorkflowId,
        trigger: &Arc<str>,
        outcome: &Outcome,
    ) {
        let (transition, why) = match outcome {
            Outcome::Waiting { approvers } => (
                Transition::WaitingForApproval,
                format!("nothing runs before it is approved by {approvers}"),
            ),
            Outcome::Denied { rule } => {
                (Transition::Refused, format!("denied by the rule: {rule}"))
            }
            Outcome::Failed { filter, error } => {
                (Transition::Refused, format!("no run can be made of it: {filter}: {error}"))
            }
            _ => return,
        };
        let mut notify = planner::told(core, event, document);
        notify.retain(|one| one.on.contains(&transition));
        if !notify.is_empty() {
            let (workflow, trigger) = (workflow.clone(), Arc::clone(trigger));
            self.told.push(Told { workflow, trigger, notify, transition, why });
        }
    }

    /// Records what an index ruled out one by one, of those that are asked for.
    fn ruled_out(
        &mut self,
        set: &TriggerSet,
        guard: &Guard,
        wanted: impl Fn(&WorkflowId, &str) -> bool,
    ) {
        for (workflow, trigger, rejected) in set.expand(guard) {
            if wanted(&workflow, &trigger) {
                self.say(&workflow, &trigger, Outcome::Rejected(rejected));
            }
        }
    }
}

/// What is recorded when an event cannot be decided: a failure of each candidate that is known.
fn given_up(core: &Core, event: &Event, attempt: &AttemptId, error: &Error) -> Effects {
    let mut evaluation = Evaluation::of_nothing(core, event, attempt);
    let (filter, error) = ("definitions".to_owned(), error.to_string());
    let registered = core.definitions.registered_triggers(&event.tenant, &event.repo, &event.kind);
    for candidate in registered.iter().flat_map(|set| set.candidates()) {
        let outcome = Outcome::Failed { filter: filter.clone(), error: error.clone() };
        evaluation.say(candidate.definition().id(), candidate.trigger().name(), outcome);
    }
    evaluation.batch.judged_by.insert("failure".to_owned(), error.clone());
    let context: Arc<str> = format!("{}/definitions", core.options.status_prefix).into();
    let order = match gate::comes_from_outside(event) {
        true => behind_everything(event.sequence),
        false => event.sequence,
    };
    let title = "it could not be decided what to run";
    evaluation.note(event, order, &context, StatusState::Failure, title, &quoted(&error));
    let mut effects = Effects::default();
    evaluation.into_effects(core, &mut effects);
    effects
}

/// Reads the schedules of a default branch again when it moves. A failure is no failure of the
/// event: who reads the schedules reads them again.
async fn notice_default_branch(core: &Core, event: &Event) {
    let known = core.definitions.default_branch(&event.tenant, &event.repo);
    let reference = event.head.as_ref().map(|head| &head.reference);
    if known.is_none() || reference != known.as_ref() {
        return;
    }
    let Event { tenant, repo, .. } = event;
    let read =
        core.definitions.read_default_branch(core, tenant, &repo.connection, &repo.name).await;
    if let Err(error) = read {
        tracing::warn!(%error, repository = %repo, "the default branch was not read");
    }
}
