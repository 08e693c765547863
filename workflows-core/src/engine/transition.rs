//! What follows for others when a run changes: its status on the commit, notifications, and work
//! for the runs that waited for its end.

use crate::{
    GroupKey, Result, Run, RunState, Transition,
    store::{Effects, NewWork, Stage, StatusDesire, StatusKey, StatusSubject, WorkKey},
};

use super::{announce::announce, core::Core, scheduler::leaving};

/// Adds to `effects` what follows for others from a run's change. `before` is `None` for a run that
/// is being planned. Whoever changes a run's state calls this with the same effects that carry the
/// change:
///
/// - the wish for its status (when it is planned) and work for the reporter,
/// - the notifications that its workflow asks for, and work for the outbox,
/// - when it ends, work for the scheduler about the queued members of its groups, and the
///   expectation that nobody joined them meanwhile.
pub(crate) async fn follow(
    core: &Core,
    before: Option<&Run>,
    after: &Run,
    effects: &mut Effects,
) -> Result<()> {
    if let Some(status) = status_key(after) {
        if before.is_none() {
            let subject = StatusSubject::Run { run: after.key.clone() };
            effects.statuses.push(StatusDesire {
                key: status.clone(),
                order: after.order,
                subject,
            });
        }
        if before.is_none_or(|before| shows_otherwise(before, after)) {
            let key = WorkKey::Status { status };
            effects.work.push(NewWork::now(after.tenant.clone(), Stage::Report, key));
        }
    }
    for transition in transitions(before, after) {
        announce(core, after, transition, "", effects).await?;
    }
    let ends = after.state.is_terminal() && before.is_some_and(|run| !run.state.is_terminal());
    if ends {
        wake_waiting(core, after, effects).await?;
    }
    Ok(())
}

/// The status that shows a run; `None` when it shows none.
pub(crate) fn status_key(run: &Run) -> Option<StatusKey> {
    Some(StatusKey {
        tenant: run.tenant.clone(),
        repo: run.repo.clone(),
        commit: run.commit.clone()?,
        context: run.status_context.clone()?,
    })
}

/// A run that was created and has not started looks like one that waits: that alone is worth no
/// call to the host, unless it was said for what it waits.
fn shows_otherwise(before: &Run, after: &Run) -> bool {
    let waits = |state| {
        matches!(
            state,
            RunState::Planned | RunState::Queued | RunState::Admitted | RunState::Created
        )
    };
    let moved = before.state != after.state && !(waits(before.state) && waits(after.state));
    let waits_otherwise = (before.state == RunState::Queued) != (after.state == RunState::Queued)
        && after.state == RunState::Queued;
    let delay_is_over = before.state != after.state
        && !matches!(before.state, RunState::Queued | RunState::Created)
        && !before.message.is_empty();
    moved || waits_otherwise || delay_is_over
}

/// What happened to a run, in the order in which people are told.
fn transitions(before: Option<&Run>, after: &Run) -> Vec<Transition> {
    let state_before = before.map(|run| run.state);
    let mut happened = Vec::new();
    if after.state == RunState::Queued && state_before != Some(RunState::Queued) {
        happened.push(Transition::Queued);
    }
    let had_started = before.is_some_and(|run| run.started_at.is_some());
    if after.started_at.is_some() && !had_started {
        happened.push(Transition::Started);
    }
    if state_before != Some(after.state) {
        happened.extend(end(after.state));
    }
    happened
}

fn end(state: RunState) -> Option<Transition> {
    match state {
        RunState::Succeeded => Some(Transition::Succeeded),
        RunState::Failed => Some(Transition::Failed),
        RunState::Cancelled => Some(Transition::Cancelled),
        RunState::TimedOut => Some(Transition::TimedOut),
        RunState::Superseded => Some(Transition::Superseded),
        RunState::Expired => Some(Transition::Expired),
        RunState::Refused => Some(Transition::Refused),
        RunState::Planned
        | RunState::Queued
        | RunState::Admitted
        | RunState::Created
        | RunState::Running => None,
    }
}

/// Makes the scheduler look at those who waited for the end of a run. Groups that the effects
/// already expect have been seen to by whoever put them there.
async fn wake_waiting(core: &Core, run: &Run, effects: &mut Effects) -> Result<()> {
    let expected =
        |effects: &Effects, group: &GroupKey| effects.groups.iter().any(|one| one.group == *group);
    if run.groups.iter().all(|one| expected(effects, &one.group)) {
        return Ok(());
    }
    let leaving = leaving(&*core.store, &run.tenant, &[run]).await?;
    effects.work.extend(leaving.work);
    for group in leaving.groups {
        if !expected(effects, &group.group) {
            effects.groups.push(group);
        }
    }
    Ok(())
}
