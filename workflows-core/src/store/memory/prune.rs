//! Removing what retention does not keep.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Ledger, status_identity};
use crate::{
    Event, Run, RunKey,
    store::{
        DELIVERY_MEMORY, DecisionBatch, NotificationState, OutboxNotification, Prune, Pruned,
        StatusSubject, WorkKey, limits::payload_bytes,
    },
};

impl Ledger {
    pub(super) fn prune(&mut self, prune: &Prune, now: Timestamp) -> Pruned {
        let batch = prune.batch.max(1) as usize;
        let mut pruned = Pruned::default();
        let mut full = false;
        let mut remove = |ids: Vec<i64>| {
            full |= ids.len() == batch;
            ids
        };

        let runs = remove(self.runs_to_remove(prune, batch));
        pruned.runs = runs.len() as u64;
        for id in runs {
            if let Some(run) = self.runs.remove(&id) {
                self.notifications.retain(|_, one| one.tenant != run.tenant || one.run != run.key);
            }
        }

        let kept: BTreeSet<_> =
            self.runs.values().map(|run| (run.tenant.clone(), run.event.clone())).collect();
        let events = remove(
            self.events
                .iter()
                .filter(|(_, event)| {
                    let key = &event.key;
                    let waits = |work: &WorkKey| matches!(work, WorkKey::Event { event, .. } if event == key);
                    event.received_at < prune.events_before
                        && !kept.contains(&(event.tenant.clone(), event.key.clone()))
                        && !self.queue.has(&event.tenant, waits)
                        && !self.told_of_no_run(event).any(|one| {
                            one.state == NotificationState::Pending
                        })
                })
                .map(|(id, _)| *id)
                .take(batch)
                .collect(),
        );
        pruned.events = events.len() as u64;
        for id in events {
            if let Some(event) = self.events.remove(&id) {
                let told: BTreeSet<i64> = self.told_of_no_run(&event).map(|one| one.id).collect();
                self.notifications.retain(|id, _| !told.contains(id));
                self.event_ids.remove(&(event.tenant.clone(), event.key.clone()));
                self.decisions
                    .retain(|_, one| one.tenant != event.tenant || one.event != event.key);
                self.remove_payload(id);
            }
        }
        let named: BTreeSet<_> = self
            .decisions
            .values()
            .flat_map(|one| one.guards.iter().map(|guard| (one.tenant.clone(), guard.set.clone())))
            .collect();
        self.trigger_sets.retain(|key, _| named.contains(key));

        let observations = remove(
            self.observations
                .iter()
                .filter(|(_, one)| {
                    let event = |key: &crate::EventKey| (one.tenant.clone(), key.clone());
                    one.received_at < prune.events_before
                        && !one
                            .event
                            .as_ref()
                            .is_some_and(|key| self.event_ids.contains_key(&event(key)))
                })
                .map(|(id, _)| *id)
                .take(batch)
                .collect(),
        );
        for id in observations {
            self.observations.remove(&id);
        }

        let payloads = remove(
            self.payloads
                .iter()
                .filter(|(_, stored)| stored.received_at < prune.payloads_before)
                .map(|(id, _)| *id)
                .take(batch)
                .collect(),
        );
        pruned.payloads = payloads.len() as u64;
        for id in payloads {
            self.remove_payload(id);
        }

        let statuses = remove(
            self.statuses
                .iter()
                .filter(|(_, record)| {
                    let key = &record.desire.key;
                    let waits = |work: &WorkKey| {
                        matches!(work, WorkKey::Status { status }
                            if status_identity(status) == status_identity(key))
                    };
                    let ended = match &record.desire.subject {
                        StatusSubject::Run { run } => self.run_by_key(&key.tenant, run).is_none(),
                        StatusSubject::Note { .. } => true,
                    };
                    record.updated_at < prune.events_before
                        && ended
                        && !self.queue.has(&key.tenant, waits)
                })
                .map(|(id, _)| *id)
                .take(batch)
                .collect(),
        );
        for id in statuses {
            if let Some(record) = self.statuses.remove(&id) {
                self.status_ids.remove(&status_identity(&record.desire.key));
            }
        }

        let horizon = now.checked_sub(DELIVERY_MEMORY).unwrap_or(Timestamp::MIN);
        let horizon = horizon.min(prune.events_before);
        self.deliveries.retain(|_, at| *at >= horizon);
        pruned.more = full;
        pruned
    }

    /// What people were told about runs that an event did not come to.
    fn told_of_no_run(&self, event: &Event) -> impl Iterator<Item = &OutboxNotification> {
        let of_event = |one: &&DecisionBatch| one.tenant == event.tenant && one.event == event.key;
        let batches = self.decisions.values().filter(of_event);
        let runs: BTreeSet<RunKey> =
            batches.flat_map(|one| one.runs_that_were_not_made()).collect();
        let tenant = event.tenant.clone();
        let notifications = if runs.is_empty() { None } else { Some(self.notifications.values()) };
        let about_one =
            move |one: &&OutboxNotification| one.tenant == tenant && runs.contains(&one.run);
        notifications.into_iter().flatten().filter(about_one)
    }

    fn runs_to_remove(&self, prune: &Prune, batch: usize) -> Vec<i64> {
        let mut over = BTreeSet::new();
        for keep in &prune.runs_per_workflow {
            let ended = self.runs.iter().rev().filter(|(_, run)| {
                run.tenant == keep.tenant
                    && run.workflow == keep.workflow
                    && run.state.is_terminal()
            });
            let newest = keep.runs.map_or(usize::MAX, |runs| runs as usize);
            let too_old = |run: &Run| {
                let ended = run.finished_at.unwrap_or(run.created_at);
                keep.ended_since.is_some_and(|since| ended < since)
            };
            over.extend(
                ended
                    .enumerate()
                    .filter(|(place, (_, run))| *place >= newest || too_old(run))
                    .map(|(_, (id, _))| *id),
            );
        }
        self.runs
            .iter()
            .filter(|(id, run)| {
                run.state.is_terminal()
                    && (over.contains(id)
                        || run.finished_at.unwrap_or(run.created_at) < prune.runs_before)
                    && !self.has_pending(run)
            })
            .map(|(id, _)| *id)
            .take(batch)
            .collect()
    }

    /// Whether a notification about the run is still to be delivered, or work about it to be done.
    fn has_pending(&self, run: &Run) -> bool {
        self.notifications.values().any(|one| {
            one.tenant == run.tenant
                && one.run == run.key
                && one.state == NotificationState::Pending
        }) || self
            .queue
            .has(&run.tenant, |work| matches!(work, WorkKey::Run { run: key } if *key == run.key))
    }

    fn remove_payload(&mut self, id: i64) {
        if let Some(stored) = self.payloads.remove(&id)
            && let Some(bytes) = self.payload_bytes.get_mut(&stored.tenant)
        {
            *bytes = bytes.saturating_sub(payload_bytes(&stored.payload) as u64);
        }
    }
}
