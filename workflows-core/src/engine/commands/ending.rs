//! Ending what runs or waits.

use super::{Given, done};
use crate::{
    CancelMode, GroupKey, Result, Run, RunState,
    engine::{scheduler, transition},
    run::{CancelReason, Cancellation},
    store::{
        CommandOutcome, Effects, GroupExpectation, NewWork, RunChange, RunQuery, Stage, WorkKey,
    },
};

impl Given<'_> {
    pub(super) async fn cancel_all(
        &self,
        number: u64,
        workflow: Option<&str>,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        let under_way: Vec<RunState> =
            RunState::ALL.into_iter().filter(|state| !state.is_terminal()).collect();
        let query = RunQuery::of(self.event.tenant.clone())
            .repo(Some(self.event.repo.id.clone()))
            .pull_request(Some(number))
            .workflow_name(workflow.map(str::to_owned))
            .states(under_way);
        let runs = self.runs(query).await?;
        if runs.is_empty() {
            return Ok(CommandOutcome::Failed { error: "nothing is under way".to_owned() });
        }
        let names: Vec<String> = runs.iter().map(|run| run.name.to_string()).collect();
        for run in &runs {
            self.cancel(run, CancelMode::RunFinally, effects).await?;
        }
        Ok(done(format!("told to end: {}", names.join(", "))))
    }

    /// Tells a run to end, unless it was told so as strongly. The dispatcher tells its sink, or ends
    /// it when it was never created.
    pub(super) async fn cancel(
        &self,
        run: &Run,
        mode: CancelMode,
        effects: &mut Effects,
    ) -> Result<()> {
        if run.cancel.as_ref().is_some_and(|cancel| cancel.mode >= mode) {
            return Ok(());
        }
        let mut after = run.clone();
        // A newer run that takes its place stays the reason.
        let reason = match &run.cancel {
            Some(Cancellation { reason: reason @ CancelReason::SupersededBy(_), .. }) => {
                reason.clone()
            }
            _ => CancelReason::Requested { by: self.by.to_string() },
        };
        let at = self.core.clock.now();
        after.cancel = Some(Cancellation { mode, reason, at, delivered: false });
        transition::follow(self.core, Some(run), &after, effects).await?;
        effects.changes.push(RunChange { run: after });
        effects.work.push(NewWork::now(
            run.tenant.clone(),
            Stage::Dispatch,
            WorkKey::run(run.key.clone()),
        ));
        Ok(())
    }

    pub(super) async fn clear_queue(
        &self,
        group: &GroupKey,
        effects: &mut Effects,
    ) -> Result<CommandOutcome> {
        let tenant = &self.event.tenant;
        let snapshots = self.core.store.groups(tenant, std::slice::from_ref(group)).await?;
        let Some(snapshot) = snapshots.into_iter().find(|one| one.group == *group) else {
            return Ok(done(format!("nothing waits in {group}")));
        };
        let mut cleared = Vec::new();
        for member in snapshot.members.iter().filter(|one| one.state == RunState::Queued) {
            let run = self.core.store.run(tenant, &member.run).await?;
            cleared.extend(run.filter(|run| run.state == RunState::Queued));
        }
        // They go together: none of them is woken in another group for the end of the others.
        let runs: Vec<&Run> = cleared.iter().collect();
        let leaving = scheduler::leaving(&*self.core.store, tenant, &runs).await?;
        effects.groups.extend(leaving.groups);
        effects.work.extend(leaving.work);
        if cleared.is_empty() {
            effects.groups.push(GroupExpectation {
                tenant: tenant.clone(),
                group: group.clone(),
                version: snapshot.version,
            });
        }
        for run in &cleared {
            let mut after = run.clone();
            after.state = RunState::Expired;
            after.message = format!("{} cleared its queue", self.by);
            after.finished_at = Some(self.core.clock.now());
            transition::follow(self.core, Some(run), &after, effects).await?;
            effects.changes.push(RunChange { run: after });
        }
        let cleared = cleared.len();
        Ok(done(format!("{cleared} runs that waited in {group} were ended")))
    }
}
