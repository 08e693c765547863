//! Looking at runs until they have ended.

use jiff::Timestamp;

use super::{
    announce::announce,
    backoff,
    core::Core,
    dispatcher::{called_off, sink_run},
    failing_step,
    masking::Masker,
    renewal,
    transition::{follow, status_key},
    usual,
};
use crate::{
    Error, ErrorKind, NotifierName, Result, Run, RunPhase, RunSink, RunState, RunStatus,
    TaskStatus, Transition,
    sink::TaskPhase,
    store::{
        Claim, Committed, DeliveryQuery, Effects, NewWork, PageRequest, RunChange, Stage, WorkKey,
    },
};

/// Looks at the run of a claim once.
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Run { run: key } = &claim.work.key else {
        return core.commit(claim, Effects::default()).await;
    };
    let Some(run) = core.store.run(&claim.work.tenant, key).await? else {
        return core.commit(claim, Effects::default()).await;
    };
    if !matches!(run.state, RunState::Created | RunState::Running) {
        return core.commit(claim, Effects::default()).await;
    }
    let sink = core.sinks.get(&run.sink).ok_or_else(|| {
        Error::transient("look at a run", "the engine has no sink of that name (any more)")
            .with("sink", &run.sink)
    })?;
    let after = match core.call("read a run's state", sink.state(&sink_run(&run))).await {
        Ok(status) => {
            let mut after = seen(core, &**sink, &run, status).await;
            renewal::renew(core, &**sink, &mut after).await;
            after
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let waited = core.clock.now().duration_since(claim.since);
            if waited < core.options.forgotten_after {
                return Err(Error::transient(
                    "look at a run",
                    format!("its sink does not know it yet, or any more: {error}"),
                ));
            }
            forgotten(core, &run)
        }
        Err(error) if error.kind().is_retryable() => return Err(error),
        Err(error) => {
            return Err(Error::transient("look at a run", error.to_string()).caused_by(error));
        }
    };
    commit(core, claim, &run, after).await
}

async fn commit(core: &Core, claim: &Claim, before: &Run, mut after: Run) -> Result<Committed> {
    let now = core.clock.now();
    let mut effects = Effects { claim_next: Some(core.options.lease), ..Effects::default() };
    follow(core, Some(before), &after, &mut effects).await?;
    if !after.state.is_terminal() {
        effects.again = Some(backoff::after(now, core.options.observe_interval));
        if after.state == before.state && after.tasks != before.tasks {
            // The reporter sees to it that this is not shown too often.
            effects.work.extend(status_key(&after).map(|status| {
                NewWork::now(after.tenant.clone(), Stage::Report, WorkKey::Status { status })
            }));
        }
        tell_progress(core, &after, &mut effects).await?;
        tell_that_it_runs_long(core, &mut after, &mut effects).await?;
    }
    if after != *before {
        effects.changes.push(RunChange { run: after });
    }
    core.commit(claim, effects).await
}

/// The run as its sink's status makes it.
async fn seen(core: &Core, sink: &dyn RunSink, run: &Run, status: RunStatus) -> Run {
    let now = core.clock.now();
    let mut after = run.clone();
    let status = masked(run, status);
    after.tasks = status.tasks;
    after.results = status.results;
    after.started_at = after.started_at.or(status.started_at);
    if status.phase == RunPhase::Running {
        after.state = RunState::Running;
        after.started_at = after.started_at.or(Some(now));
    }
    if status.phase.is_terminal() {
        after.finished_at = Some(status.finished_at.unwrap_or(now));
        (after.state, after.message) = end(run, status.phase, status.message, after.finished_at);
        if matches!(after.state, RunState::Failed | RunState::TimedOut) {
            after.failure = failing_step::of(core, sink, &after).await;
        }
    } else if run.cancel.is_none() || !status.message.is_empty() {
        after.message = status.message;
    }
    after
}

/// What a sink tells may quote what a step wrote.
fn masked(run: &Run, mut status: RunStatus) -> RunStatus {
    let tasks = status.tasks.iter_mut().map(|task| &mut task.message);
    for message in tasks.chain([&mut status.message]).filter(|message| !message.is_empty()) {
        *message = Masker::new(&run.secrets).line(message);
    }
    status
}

/// How a run ended. The engine remembers that it told the run to end, for its executor may call the
/// outcome something else. A success, or an end clearly before the order was given, is what it is.
fn end(
    run: &Run,
    phase: RunPhase,
    message: String,
    finished_at: Option<Timestamp>,
) -> (RunState, String) {
    let ordered_first = run
        .cancel
        .as_ref()
        .is_some_and(|cancel| finished_at.is_none_or(|finished| may_follow(finished, cancel.at)));
    match phase {
        RunPhase::Succeeded => (RunState::Succeeded, message),
        _ if ordered_first => called_off(run),
        RunPhase::TimedOut => (RunState::TimedOut, message),
        RunPhase::Cancelled if message.is_empty() => called_off(run),
        RunPhase::Cancelled => (RunState::Cancelled, message),
        RunPhase::Interrupted if message.is_empty() => {
            (RunState::Failed, "it was broken off".to_owned())
        }
        RunPhase::Interrupted => (RunState::Failed, format!("it was broken off: {message}")),
        _ => (RunState::Failed, message),
    }
}

/// Whether what ended then may have ended because of an order that was given then. Sinks tell whole
/// seconds, by a clock that may be a little behind the engine's.
fn may_follow(finished: Timestamp, ordered: Timestamp) -> bool {
    const SKEW_SECONDS: i64 = 2;
    finished.as_second() + SKEW_SECONDS >= ordered.as_second()
}

/// A run that its sink does not know any more.
fn forgotten(core: &Core, run: &Run) -> Run {
    let mut after = run.clone();
    (after.state, after.message) = if run.cancel.is_some() {
        called_off(run)
    } else {
        let message = format!("it was taken away from {} before its end was seen", run.sink);
        (RunState::Failed, message)
    };
    after.finished_at = Some(core.clock.now());
    after
}

/// Tells those who want to hear of progress: when more tasks have ended than they were told of, at
/// most once in [`progress_interval`](super::EngineOptions::progress_interval), and not while an
/// earlier word of progress is still to be delivered.
async fn tell_progress(core: &Core, run: &Run, effects: &mut Effects) -> Result<()> {
    let ended = ended_tasks(&run.tasks);
    if !wants(run, Transition::Progress) || ended == 0 || run.state != RunState::Running {
        return Ok(());
    }
    let query = DeliveryQuery::of(run.tenant.clone())
        .run(Some(run.key.clone()))
        .page(PageRequest { limit: 1_000, after: None });
    let told = core.store.notifications(query).await?.items;
    let now = core.clock.now();
    let told_enough = |notifier: &NotifierName| {
        let last = told
            .iter()
            .find(|one| one.transition == Transition::Progress && one.notifier == *notifier);
        last.is_some_and(|last| {
            let told_all = ended_tasks(&last.view.tasks) >= ended;
            let pending = last.state == crate::store::NotificationState::Pending;
            let due = backoff::after(last.created_at, core.options.progress_interval);
            told_all || pending || due > now
        })
    };
    let mut to_tell = run.clone();
    to_tell.notify.retain(|one| !told_enough(&one.notifier));
    announce(core, &to_tell, Transition::Progress, &ended.to_string(), effects).await
}

/// What a run is remarked to do that runs for longer than usual.
const RUNS_LONG: &str = "longerThanUsual";

/// Tells, once, those who want to hear that a run takes longer than usual.
async fn tell_that_it_runs_long(core: &Core, run: &mut Run, effects: &mut Effects) -> Result<()> {
    let is_told = run.remarks.contains_key(RUNS_LONG);
    if is_told || !wants(run, Transition::RunningLong) || run.state != RunState::Running {
        return Ok(());
    }
    if let Some(usual) = usual::exceeded(core, run).await? {
        let usual = jiff::SignedDuration::from_secs(usual.as_secs().max(1));
        run.remarks.insert(RUNS_LONG.to_owned(), format!("it usually takes {usual:#}"));
        announce(core, run, Transition::RunningLong, "", effects).await?;
    }
    Ok(())
}

fn wants(run: &Run, transition: Transition) -> bool {
    run.notify.iter().any(|one| one.on.contains(&transition))
}

fn ended_tasks(tasks: &[TaskStatus]) -> usize {
    tasks
        .iter()
        .filter(|task| !matches!(task.phase, TaskPhase::Pending | TaskPhase::Running))
        .count()
}
