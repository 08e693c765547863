//! Who goes on when a place in a group becomes free.

use std::collections::BTreeMap;

use crate::{
    GroupKey, Result, Run, RunKey, RunState, Store, Tenant,
    store::{GroupExpectation, GroupMember, GroupSnapshot, NewWork, Stage, WorkKey},
    workflow::Strategy,
};

/// A run's place in its queue: first come by the order of intake, first served.
pub(super) fn place(member: &GroupMember) -> (i64, &RunKey) {
    (member.order, &member.run)
}

/// Work for the run that may go on in a group as it stands: the first that waits in its queue, when
/// the queue lets a further one run. Of those behind a certain place only, when one is given.
///
/// Waking the first is enough: when it goes on, or leaves, or may not go on, deciding it wakes the
/// next.
pub(super) fn wake_waiting(
    tenant: &Tenant,
    snapshot: &GroupSnapshot,
    behind: Option<(i64, &RunKey)>,
) -> Option<NewWork> {
    let under_way = snapshot.members.iter().filter(|member| member.state.holds_a_place()).count();
    let (first, limits) = snapshot
        .members
        .iter()
        .filter(|member| member.state == RunState::Queued)
        .filter(|member| behind.is_none_or(|behind| place(member) > behind))
        .filter_map(|member| match &member.membership.strategy {
            Strategy::Queue(limits) => Some((member, limits)),
            Strategy::Replace { .. } | Strategy::Allow => None,
        })
        .min_by_key(|(member, _)| place(member))?;
    (under_way < limits.max_running as usize)
        .then(|| NewWork::now(tenant.clone(), Stage::Schedule, WorkKey::run(first.run.clone())))
}

/// What a commit needs besides when runs of a tenant stop waiting or running: their groups as they
/// were read, and work for those who may go on in their stead.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// The groups, which must not have changed: else somebody who began to wait meanwhile would
    /// wait for ever.
    pub(crate) groups: Vec<GroupExpectation>,
    /// The work.
    pub(crate) work: Vec<NewWork>,
}

/// Reads the groups that runs are about to leave.
pub(crate) async fn leaving(store: &dyn Store, tenant: &Tenant, runs: &[&Run]) -> Result<Leaving> {
    let mut groups = Groups::default();
    groups.read(store, tenant, runs).await?;
    for run in runs {
        groups.remove(&run.key);
    }
    Ok(Leaving { work: groups.wake(tenant, None), groups: groups.expectations(tenant) })
}

/// Groups as they were read, changed to what they will be.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<GroupKey, GroupSnapshot>);

impl Groups {
    /// Reads the groups of some runs that have not been read yet.
    pub(super) async fn read(
        &mut self,
        store: &dyn Store,
        tenant: &Tenant,
        runs: &[&Run],
    ) -> Result<()> {
        let mut missing: Vec<GroupKey> = runs
            .iter()
            .flat_map(|run| &run.groups)
            .map(|membership| membership.group.clone())
            .filter(|group| !self.0.contains_key(group))
            .collect();
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let read = store.groups(tenant, &missing).await?;
        self.0.extend(read.into_iter().map(|group| (group.group.clone(), group)));
        Ok(())
    }

    pub(super) fn snapshots(&self) -> Vec<GroupSnapshot> {
        self.0.values().cloned().collect()
    }

    /// A run leaves all of its groups.
    pub(super) fn remove(&mut self, run: &RunKey) {
        for group in self.0.values_mut() {
            group.members.retain(|member| member.run != *run);
        }
    }

    /// A run has another state.
    pub(super) fn set_state(&mut self, run: &RunKey, state: RunState) {
        let members = self.0.values_mut().flat_map(|group| &mut group.members);
        for member in members.filter(|member| member.run == *run) {
            member.state = state;
        }
    }

    /// Work for those who may go on in the groups as they will be.
    pub(super) fn wake(&self, tenant: &Tenant, behind: Option<(i64, &RunKey)>) -> Vec<NewWork> {
        let mut work: Vec<NewWork> = Vec::new();
        for group in self.0.values() {
            if let Some(woken) = wake_waiting(tenant, group, behind)
                && !work.contains(&woken)
            {
                work.push(woken);
            }
        }
        work
    }

    /// That the groups are as they were read.
    pub(super) fn expectations(&self, tenant: &Tenant) -> Vec<GroupExpectation> {
        let expectation = |group: &GroupSnapshot| GroupExpectation {
            tenant: tenant.clone(),
            group: group.group.clone(),
            version: group.version,
        };
        self.0.values().map(expectation).collect()
    }
}
