//! Committing what came of a claim.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::{Group, Ledger, status_identity};
use crate::{
    Error, GroupKey, Result, Run, RunKey, Tenant,
    store::{
        Arrival, Committed, Effects, GroupExpectation, Lease, RunChange, Stage, StatusDesire,
        StatusRecord, SubjectCorrection, group_standing,
    },
};

impl Ledger {
    /// Commits, and returns the stages that got work which the committer did not take.
    pub(super) fn commit(
        &mut self,
        lease: &Lease,
        effects: Effects,
        now: Timestamp,
    ) -> Result<(Committed, BTreeSet<Stage>)> {
        self.queue.observe(now);
        let own = self.queue.check("commit", lease)?;
        let (tenant, own_stage) = (own.tenant.clone(), own.stage);
        self.check_groups(&effects.groups)?;
        self.check_changes(&effects.runs, &effects.changes)?;
        self.check_cursors(&effects.cursors)?;

        let mut committed = Committed::default();
        let mut touched = BTreeSet::new();
        if let Some(event) = effects.completed
            && let Some(stored) = self.events.get_mut(&event.sequence)
            && stored.key == event.key
        {
            *stored = *event;
        }
        if let Some(mut batch) = effects.decisions {
            batch.id = self.next_serial();
            self.decisions.insert(batch.id, batch);
        }
        for (digest, set) in effects.trigger_sets {
            self.trigger_sets.entry((tenant.clone(), digest)).or_insert(set);
        }
        for run in effects.runs {
            let key = (run.tenant.clone(), run.key.clone());
            if self.run_ids.contains_key(&key) {
                continue;
            }
            let id = self.next_serial();
            self.run_ids.insert(key, id);
            committed.created.push(run.key.clone());
            self.set_run(id, run, &mut touched);
        }
        for RunChange { mut run } in effects.changes {
            run.version += 1;
            if let Some((id, _)) = self.run_by_key(&run.tenant, &run.key) {
                self.set_run(id, run, &mut touched);
            }
        }
        for key in touched {
            self.count_group(key);
        }
        for desire in effects.statuses {
            self.desire(desire, now);
        }
        for record in effects.reported {
            self.show(record, now);
        }
        for mut notification in effects.notifications {
            let key = (notification.tenant.clone(), notification.key.clone());
            if !self.notification_ids.contains_key(&key) {
                notification.id = self.next_serial();
                self.notification_ids.insert(key, notification.id);
                self.notifications.insert(notification.id, notification);
            }
        }
        for mut notification in effects.delivered {
            let key = (notification.tenant.clone(), notification.key.clone());
            if let Some(id) = self.notification_ids.get(&key)
                && let Some(stored) = self.notifications.get_mut(id)
            {
                notification.id = *id;
                *stored = notification;
            }
        }
        for approval in effects.approvals {
            self.approve(approval);
        }
        for correction in effects.corrections {
            self.correct(correction, now);
        }
        for cursor in effects.cursors {
            self.move_cursor(cursor);
        }
        let mut put = Vec::new();
        for new in effects.work {
            let id = self.queue.put(new, now);
            if id != lease.id && !put.contains(&id) {
                put.push(id);
            }
        }
        self.queue.finish(lease.id, effects.again, now);

        let mut stages = BTreeSet::from([own_stage]);
        for id in put {
            if let Some(by) = effects.claim_next
                && self.queue.is_ready(id)
            {
                committed.claims.extend(self.queue.claim_one(id, by, now));
            } else {
                stages.extend(self.queue.stage(id));
            }
        }
        Ok((committed, stages))
    }

    fn check_groups(&self, expected: &[GroupExpectation]) -> Result<()> {
        for one in expected {
            let group = self.groups.get(&(one.tenant.clone(), one.group.clone()));
            if group.map_or(0, |group| group.version) != one.version {
                return Err(Error::conflict("commit", "a group has changed; read it again")
                    .with("group", &one.group));
            }
        }
        Ok(())
    }

    fn check_changes(&self, created: &[Run], changes: &[RunChange]) -> Result<()> {
        let mut versions: HashMap<(&Tenant, &RunKey), i64> = HashMap::new();
        for run in created {
            if !self.run_ids.contains_key(&(run.tenant.clone(), run.key.clone())) {
                versions.entry((&run.tenant, &run.key)).or_insert(run.version);
            }
        }
        for RunChange { run } in changes {
            let stored = || self.run_by_key(&run.tenant, &run.key).map(|(_, run)| run.version);
            let present = versions.get(&(&run.tenant, &run.key)).copied().or_else(stored);
            if present != Some(run.version) {
                return Err(Error::conflict("commit", "a run has changed; read it again")
                    .with("run", &run.key)
                    .with("expected version", run.version));
            }
            versions.insert((&run.tenant, &run.key), run.version + 1);
        }
        Ok(())
    }

    fn set_run(&mut self, id: i64, run: Run, touched: &mut BTreeSet<(Tenant, GroupKey)>) {
        let before = self.runs.get(&id).map(group_standing).unwrap_or_default();
        let after = group_standing(&run);
        let tenant = run.tenant.clone();
        self.runs.insert(id, run);
        let keys: BTreeSet<&GroupKey> = before.keys().chain(after.keys()).collect();
        for key in keys {
            if before.get(key) == after.get(key) {
                continue;
            }
            let key = (tenant.clone(), key.clone());
            let group = self.groups.entry(key.clone()).or_default();
            if after.contains_key(&key.1) {
                group.members.insert(id);
            } else {
                group.members.remove(&id);
            }
            touched.insert(key);
        }
    }

    /// A group without members goes; one that comes again has a version that no reader has seen.
    fn count_group(&mut self, key: (Tenant, GroupKey)) {
        let version = self.next_serial();
        let group: &mut Group = self.groups.entry(key.clone()).or_default();
        group.version = version;
        if group.members.is_empty() {
            self.groups.remove(&key);
        }
    }

    fn desire(&mut self, desire: StatusDesire, now: Timestamp) {
        let identity = status_identity(&desire.key);
        let Some(id) = self.status_ids.get(&identity) else {
            let id = self.next_serial();
            self.status_ids.insert(identity, id);
            let record = StatusRecord { desire, shown: None, error: None, updated_at: now };
            self.statuses.insert(id, record);
            return;
        };
        if let Some(record) = self.statuses.get_mut(id)
            && desire.order >= record.desire.order
            && desire != record.desire
        {
            record.desire = desire;
            record.updated_at = now;
        }
    }

    fn show(&mut self, reported: StatusRecord, now: Timestamp) {
        let identity = status_identity(&reported.desire.key);
        let Some(id) = self.status_ids.get(&identity) else {
            let id = self.next_serial();
            self.status_ids.insert(identity, id);
            self.statuses.insert(id, StatusRecord { updated_at: now, ..reported });
            return;
        };
        if let Some(record) = self.statuses.get_mut(id) {
            record.shown = reported.shown;
            record.error = reported.error;
            record.updated_at = now;
        }
    }

    fn correct(&mut self, correction: SubjectCorrection, now: Timestamp) {
        let key = (correction.tenant, correction.repo, correction.subject);
        let Some(subject) = self.subjects.get_mut(&key) else { return };
        if subject.state.state != correction.from || correction.from == correction.to {
            return;
        }
        self.sequence += 1;
        subject.state.state.clone_from(&correction.to);
        subject.state.changed = self.sequence;
        let times = subject.states.entry(correction.to.clone()).or_insert(0);
        *times = (*times).max(1);
        subject.arrivals.push(Arrival { state: correction.to, at: now, baseline: true });
    }
}
