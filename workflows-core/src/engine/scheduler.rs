//! Which runs may be under way together: the stage that decides the concurrency groups of a run.
//!
//! All groups of a run are decided in one transaction, against the groups as they were read; when
//! one of them changed meanwhile, nothing is written and the run is decided again. See
//! [`decide()`](decide::decide) for the rules, and [`newest`] for what counts as newest.

mod decide;
mod hold;
mod newest;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod wake;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use self::hold::Hold;
use self::{
    decide::{GroupVerdict, Situation, decide},
    hold::HoldRecord,
    newest::OrderOfFacts,
    wake::{Groups, place},
};
pub(crate) use self::{
    hold::{hold, is_held, unhold},
    wake::leaving,
};
use super::{backoff, core::Core, transition::follow};
use crate::{
    CancelMode, Error, ErrorKind, Result, Run, RunKey, RunState, Store, Tenant, WorkflowId,
    run::{CancelReason, Cancellation},
    source::Connections,
    store::{
        Claim, Committed, Effects, GroupMember, NewWork, RunChange, Stage, SubjectCorrection,
        WorkKey,
    },
    workflow::Strategy,
};

/// Decides the groups of a run ([`Stage::Schedule`]).
pub(crate) async fn run(core: &Core, claim: &Claim) -> Result<Committed> {
    let WorkKey::Run { run: key } = &claim.work.key else {
        return core.store.commit(&claim.lease, Effects::default()).await;
    };
    let now = core.clock.now();
    let tried = backoff::tried_for(claim, ErrorKind::Transient, now);
    let scheduler = Scheduler {
        store: core.store.as_ref(),
        connections: core.connections.as_ref(),
        call_timeout: core.options.call_timeout.unsigned_abs(),
        patient: tried < core.options.give_up_matching_after,
        now,
    };
    let mut scheduled = scheduler.decide(&claim.work.tenant, key).await?;
    scheduled.effects.claim_next = Some(core.options.lease);
    for (before, after) in &scheduled.changes {
        follow(core, Some(before), after, &mut scheduled.effects).await?;
    }
    core.commit(claim, scheduled.into_effects()).await
}

/// What the scheduler works with.
#[derive(Debug)]
pub(crate) struct Scheduler<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) connections: &'a dyn Connections,
    /// How long one call to a repository may take.
    pub(crate) call_timeout: std::time::Duration,
    /// Whether to wait for a repository that does not answer.
    pub(crate) patient: bool,
    pub(crate) now: Timestamp,
}

/// What came of deciding: what is to be committed, and the runs that change, before and after.
#[derive(Debug, Default)]
pub(crate) struct Scheduled {
    pub(crate) effects: Effects,
    pub(crate) changes: Vec<(Run, Run)>,
}

impl Scheduled {
    /// All of it as effects.
    pub(crate) fn into_effects(self) -> Effects {
        let mut effects = self.effects;
        effects.changes.extend(self.changes.into_iter().map(|(_, run)| RunChange { run }));
        effects
    }

    fn change(&mut self, run: &Run, change: impl FnOnce(&mut Run)) {
        let mut after = run.clone();
        change(&mut after);
        if after != *run {
            self.changes.push((run.clone(), after));
        }
    }
}

impl Scheduler<'_> {
    /// Decides a run that is planned or waits; nothing becomes of another one.
    pub(crate) async fn decide(&self, tenant: &Tenant, key: &RunKey) -> Result<Scheduled> {
        let mut scheduled = Scheduled::default();
        let Some(run) = self.store.run(tenant, key).await? else { return Ok(scheduled) };
        let waits = matches!(run.state, RunState::Planned | RunState::Queued);
        if !waits || run.cancel.is_some() {
            return Ok(scheduled);
        }
        let hold = HoldRecord::read(self.store, tenant, &run.workflow).await?;
        let mut groups = Groups::default();
        groups.read(self.store, tenant, &[&run]).await?;
        let snapshots = groups.snapshots();
        let order = OrderOfFacts {
            store: self.store,
            connections: self.connections,
            call_timeout: self.call_timeout,
            patient: self.patient,
        };
        let newest = order.newest(&run, &snapshots).await?;
        let held = match hold.hold() {
            Some(_) => BTreeSet::new(),
            None => self.held_members(&run, &snapshots).await?,
        };
        let situation = Situation {
            run: &run,
            groups: &snapshots,
            newest: &newest,
            hold: hold.hold(),
            held: &held,
            now: self.now,
        };
        match decide(&situation) {
            GroupVerdict::Admitted { replaces, supersedes } => {
                groups.set_state(&run.key, RunState::Admitted);
                scheduled.change(&run, |run| {
                    run.state = RunState::Admitted;
                    run.message.clear();
                    run.replaces = replaces.keys().cloned().collect();
                });
                self.replace(&run, &replaces, &mut scheduled).await?;
                self.supersede(&run, &supersedes, &mut groups, &mut scheduled).await?;
                scheduled.effects.work.push(dispatch(&run));
                scheduled.effects.work.extend(groups.wake(tenant, None));
            }
            GroupVerdict::Queued { message, deadline, supersedes } => {
                groups.set_state(&run.key, RunState::Queued);
                scheduled.change(&run, |run| {
                    run.state = RunState::Queued;
                    run.message = message;
                });
                self.supersede(&run, &supersedes, &mut groups, &mut scheduled).await?;
                scheduled.effects.again = deadline;
                if hold.hold().is_some() {
                    if run.state == RunState::Planned {
                        scheduled.effects.cursors.extend(hold.one_more_waits());
                    }
                    // Who is held is passed over: those behind it may go on.
                    let behind = Some((run.order, &run.key));
                    scheduled.effects.work.extend(groups.wake(tenant, behind));
                } else if !supersedes.is_empty() {
                    let others = groups.wake(tenant, None);
                    let own = WorkKey::run(run.key.clone());
                    scheduled.effects.work.extend(others.into_iter().filter(|w| w.work.key != own));
                }
            }
            GroupVerdict::Superseded { by } => {
                let by = self.store.run(tenant, &by).await?.ok_or_else(|| gone(&by))?;
                scheduled.effects.corrections.extend(correction(&run, &by));
                scheduled.change(&run, |run| supersede(run, &by, self.now));
                groups.remove(&run.key);
                scheduled.effects.work.extend(groups.wake(tenant, None));
            }
            GroupVerdict::Expired { message } => {
                scheduled.change(&run, |run| end(run, RunState::Expired, message, self.now));
                groups.remove(&run.key);
                scheduled.effects.work.extend(groups.wake(tenant, None));
            }
            GroupVerdict::Refused { message } => {
                scheduled.change(&run, |run| end(run, RunState::Refused, message, self.now));
                groups.remove(&run.key);
                scheduled.effects.work.extend(groups.wake(tenant, None));
            }
        }
        scheduled.effects.groups = groups.expectations(tenant);
        Ok(scheduled)
    }

    /// The members that wait because their workflow is held, as far as this run hangs on them.
    async fn held_members(
        &self,
        run: &Run,
        groups: &[crate::store::GroupSnapshot],
    ) -> Result<BTreeSet<RunKey>> {
        let mut held = BTreeSet::new();
        let mut workflows: BTreeMap<WorkflowId, bool> = BTreeMap::new();
        workflows.insert(run.workflow.clone(), false);
        for group in groups {
            let mut waiting: Vec<&GroupMember> = group
                .members
                .iter()
                .filter(|member| member.run != run.key && member.state == RunState::Queued)
                .collect();
            waiting.sort_by_key(|member| place(member));
            let mut behind_somebody = false;
            for member in waiting {
                let relevant = match member.membership.strategy {
                    Strategy::Queue(_) => !behind_somebody,
                    Strategy::Replace { .. } => true,
                    Strategy::Allow => false,
                };
                if !relevant {
                    continue;
                }
                let Some(found) = self.store.run(&run.tenant, &member.run).await? else { continue };
                let is_held = match workflows.get(&found.workflow) {
                    Some(known) => *known,
                    None => {
                        let workflow = found.workflow;
                        let hold = HoldRecord::read(self.store, &run.tenant, &workflow).await?;
                        let is_held = hold.hold().is_some();
                        workflows.insert(workflow, is_held);
                        is_held
                    }
                };
                if is_held {
                    held.insert(member.run.clone());
                } else if matches!(member.membership.strategy, Strategy::Queue(_)) {
                    behind_somebody = true;
                }
            }
        }
        Ok(held)
    }

    /// Tells runs that are under way to end. One that ends more gently so far is told again; a
    /// stronger way is not taken back.
    async fn replace(
        &self,
        by: &Run,
        replaced: &BTreeMap<RunKey, CancelMode>,
        scheduled: &mut Scheduled,
    ) -> Result<()> {
        for (key, mode) in replaced {
            let run = self.store.run(&by.tenant, key).await?.ok_or_else(|| gone(key))?;
            let reason = match &run.cancel {
                Some(cancel) if cancel.mode >= *mode => continue,
                Some(cancel) => cancel.reason.clone(),
                None => CancelReason::SupersededBy(by.key.clone()),
            };
            let cancel = Cancellation { mode: *mode, reason, at: self.now, delivered: false };
            scheduled.effects.corrections.extend(correction(&run, by));
            scheduled.change(&run, |run| run.cancel = Some(cancel));
            scheduled.effects.work.push(dispatch(&run));
        }
        Ok(())
    }

    /// Ends runs that wait, because a newer one has taken their place.
    async fn supersede(
        &self,
        by: &Run,
        superseded: &BTreeSet<RunKey>,
        groups: &mut Groups,
        scheduled: &mut Scheduled,
    ) -> Result<()> {
        for key in superseded {
            let run = self.store.run(&by.tenant, key).await?.ok_or_else(|| gone(key))?;
            // Somebody may wait behind it in a group that the newer run is not in.
            groups.read(self.store, &by.tenant, &[&run]).await?;
            scheduled.effects.corrections.extend(correction(&run, by));
            scheduled.change(&run, |run| supersede(run, by, self.now));
        }
        for key in superseded {
            groups.remove(key);
        }
        Ok(())
    }
}

fn dispatch(run: &Run) -> NewWork {
    NewWork::now(run.tenant.clone(), Stage::Dispatch, WorkKey::run(run.key.clone()))
}

fn end(run: &mut Run, state: RunState, message: String, now: Timestamp) {
    run.state = state;
    run.message = message;
    run.finished_at = Some(now);
}

fn supersede(run: &mut Run, by: &Run, now: Timestamp) {
    end(run, RunState::Superseded, format!("superseded by {}", by.name), now);
    run.cancel = Some(Cancellation {
        mode: CancelMode::AtOnce,
        reason: CancelReason::SupersededBy(by.key.clone()),
        at: now,
        // It was never created: there is nobody to tell.
        delivered: true,
    });
}

/// What the ledger should record of a branch or tag whose late event was taken for its newest
/// state.
fn correction(run: &Run, newer: &Run) -> Option<SubjectCorrection> {
    let reference = run.reference.as_ref()?;
    let told_by_intake = newer.order > run.order;
    if told_by_intake || run.subject.as_str() != &**reference || newer.subject != run.subject {
        return None;
    }
    Some(SubjectCorrection {
        tenant: run.tenant.clone(),
        repo: run.repo.id.clone(),
        subject: run.subject.clone(),
        from: run.commit.as_ref()?.to_string(),
        to: newer.commit.as_ref()?.to_string(),
    })
}

/// A member of a group that was read a moment ago has gone: decide again.
fn gone(run: &RunKey) -> Error {
    Error::conflict("decide a run's groups", "a member of a group has gone").with("run", run)
}
