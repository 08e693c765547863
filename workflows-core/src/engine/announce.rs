//! Putting into the outbox what people are told about a run.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{core::Core, run_identity::ADOPTED};
use crate::{
    AttemptId, DeliveryKey, Event, EventKey, NotifierName, Result, Run, RunKey, RunState, RunView,
    Tenant, Transition, WorkflowId, hash_of,
    matching::Variables,
    store::{
        Effects, NewWork, NotificationState, OutboxNotification, PageRequest, RunQuery, Stage,
        WorkKey,
    },
    workflow::Notification,
};

/// What is told about: a run, or what would have been one.
struct Subject<'a> {
    tenant: &'a Tenant,
    run: &'a RunKey,
    event: &'a EventKey,
    notify: &'a [Notification],
    view: RunView,
    /// The run before it whose failure this one's end is compared with.
    failed_before: Option<RunKey>,
    /// Whether somebody may have been told before of whom the ledger does not know.
    may_have_reached: bool,
}

/// Tells those who asked about a transition of a run. `which` tells apart those of one transition
/// that can come more than once.
pub(crate) async fn announce(
    core: &Core,
    run: &Run,
    transition: Transition,
    which: &str,
    effects: &mut Effects,
) -> Result<()> {
    if run.notify.is_empty() {
        return Ok(());
    }
    let mut view = RunView::from(run);
    let mut failed_before = None;
    if derived(transition).is_some()
        && asks_for_the_one_before(&run.notify)
        && let Some(Before { run, state, is_compared_with }) = before(core, run).await?
    {
        view.previous = Some(state);
        let failed = matches!(state, RunState::Failed | RunState::TimedOut);
        failed_before = Some(run).filter(|_| failed && is_compared_with);
    }
    let subject = Subject {
        tenant: &run.tenant,
        run: &run.key,
        event: &run.event,
        notify: &run.notify,
        view,
        failed_before,
        may_have_reached: run.remarks.contains_key(ADOPTED),
    };
    tell(core, &subject, transition, which, effects).await
}

/// What an event asks for and there is no run of: it waits for somebody's approval, or was refused.
/// A run that comes of it later has the same key.
pub(crate) struct NoRun<'a> {
    pub(crate) event: &'a Event,
    pub(crate) attempt: &'a AttemptId,
    pub(crate) workflow: &'a WorkflowId,
    pub(crate) trigger: &'a Arc<str>,
    pub(crate) notify: Vec<Notification>,
    pub(crate) transition: Transition,
    pub(crate) why: String,
}

impl NoRun<'_> {
    /// Tells those who asked.
    pub(crate) async fn announce(self, core: &Core, effects: &mut Effects) -> Result<()> {
        let Self { event, attempt, workflow, trigger, notify, transition, why } = self;
        let key = RunKey::of(&event.tenant, workflow, trigger, &event.key, attempt);
        let state = match transition {
            Transition::WaitingForApproval => RunState::Planned,
            _ => RunState::Refused,
        };
        let name = Arc::clone(&workflow.name);
        let now = core.clock.now();
        let mut view = RunView::new(key.as_str(), Arc::clone(&event.repo.name), name, state, now);
        view.tenant = event.tenant.clone();
        view.trigger = Arc::clone(trigger);
        view.event = Some(event.key.clone());
        view.attempt = attempt.clone();
        view.commit = event.head.as_ref().map(|head| head.sha.clone());
        view.reference = event.head.as_ref().map(|head| Arc::clone(&head.reference));
        view.pull_request = event.pull_request.as_ref().map(|one| one.number);
        view.message = why;
        let subject = Subject {
            tenant: &event.tenant,
            run: &key,
            event: &event.key,
            notify: &notify,
            view,
            failed_before: None,
            may_have_reached: false,
        };
        tell(core, &subject, transition, "", effects).await
    }
}

/// The transition that some hear of in place of this one, and how the run before it must have ended.
fn derived(transition: Transition) -> Option<Transition> {
    match transition {
        Transition::Succeeded => Some(Transition::Recovered),
        Transition::Failed | Transition::TimedOut => Some(Transition::StillFailing),
        _ => None,
    }
}

fn asks_for_the_one_before(notify: &[Notification]) -> bool {
    notify.iter().any(|one| {
        let derived = [Transition::Recovered, Transition::StillFailing];
        one.on.iter().any(|transition| derived.contains(transition))
            || one.filter.as_ref().is_some_and(|filter| filter.contains("previous"))
    })
}

async fn tell(
    core: &Core,
    subject: &Subject<'_>,
    transition: Transition,
    which: &str,
    effects: &mut Effects,
) -> Result<()> {
    let derived = derived(transition).filter(|_| subject.failed_before.is_some());
    let mut told: BTreeMap<&NotifierName, OutboxNotification> = BTreeMap::new();
    let mut event = None;
    for wanted in subject.notify {
        let told_of = match derived.filter(|derived| wanted.on.contains(derived)) {
            Some(derived) => derived,
            None if wanted.on.contains(&transition) => transition,
            None => continue,
        };
        if told.get(&wanted.notifier).is_some_and(|one| one.state == NotificationState::Pending) {
            continue;
        }
        let mut notification = notification(core, subject, &wanted.notifier, told_of, which);
        if let Some(filter) = &wanted.filter {
            if event.is_none() {
                let known = core.store.event(subject.tenant, subject.event).await?;
                event = Some(known.map_or(Value::Null, |event| event.view()));
            }
            let view = subject.view.view(told_of, core.clock.now());
            let variables = Variables::of_run(event.as_ref().unwrap_or(&Value::Null), &view);
            let answer = match core.notifiers.filter(filter).await {
                Ok(filter) => filter.evaluate(&variables),
                Err(error) => Err(error),
            };
            match answer {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(error, filter = &**filter, "whom to tell cannot be said");
                    notification.state = NotificationState::Dead;
                    notification.result = Some(format!("the filter `{filter}` failed: {error}"));
                }
            }
        }
        told.insert(&wanted.notifier, notification);
    }
    for (notifier, notification) in told {
        if notification.state == NotificationState::Pending {
            let key = WorkKey::Outbox { run: subject.run.clone(), notifier: notifier.clone() };
            effects.work.push(NewWork::now(subject.tenant.clone(), Stage::Notify, key));
        }
        effects.notifications.push(notification);
    }
    Ok(())
}

fn notification(
    core: &Core,
    subject: &Subject<'_>,
    notifier: &NotifierName,
    transition: Transition,
    which: &str,
) -> OutboxNotification {
    let (tenant, run) = (subject.tenant, subject.run);
    // Of two runs that end well at once after one that failed, one has recovered: the ledger takes
    // the key once.
    let of = match (transition, &subject.failed_before) {
        (Transition::Recovered, Some(failed)) => failed,
        _ => run,
    };
    let parts = [tenant.as_str(), of.as_str(), notifier.as_str(), transition.as_str(), which];
    OutboxNotification {
        id: 0,
        key: DeliveryKey::new(hash_of(&parts)),
        tenant: tenant.clone(),
        run: run.clone(),
        notifier: notifier.clone(),
        transition,
        view: subject.view.clone(),
        state: NotificationState::Pending,
        attempts: 0,
        may_have_reached: subject.may_have_reached,
        result: None,
        created_at: core.clock.now(),
        tried_at: None,
    }
}

/// A run before another one.
struct Before {
    run: RunKey,
    state: RunState,
    /// Whether the other one's end is news after this: no run that is newer than both has ended.
    is_compared_with: bool,
}

/// The run before this one, of the same trigger and for the same pull request or ref, that ended.
/// Runs that were stopped or replaced say nothing and are passed over.
async fn before(core: &Core, run: &Run) -> Result<Option<Before>> {
    let mut query = RunQuery::of(run.tenant.clone())
        .repo(Some(run.repo.id.clone()))
        .workflow(Some(run.workflow.clone()))
        .trigger(Some(run.trigger.to_string()))
        .states(vec![RunState::Succeeded, RunState::Failed, RunState::TimedOut])
        .page(PageRequest { limit: 100, after: None });
    if run.pull_request.is_some() {
        query = query.pull_request(run.pull_request);
    } else if run.subject.as_str().starts_with("refs/") {
        query = query.subject(Some(run.subject.clone()));
    }
    let mut ended = core.store.runs(query).await?.items;
    ended.retain(|one| {
        one.key != run.key && one.pull_request == run.pull_request && one.reference == run.reference
    });
    let is_compared_with = ended.iter().all(|one| one.order <= run.order);
    let earlier = ended.into_iter().filter(|one| one.order < run.order);
    Ok(earlier.max_by_key(|one| one.order).map(|one| Before {
        run: one.key,
        state: one.state,
        is_compared_with,
    }))
}
