//! The suite finds out each promise that a store does not keep.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use workflows_core::{
    Approval, CommitId, Event, EventKey, GroupKey, NotifierName, Observation, RepoId, Result, Run,
    RunKey, Tenant,
    conformance::store::cases,
    event::{Payload, SubjectKey, SubjectState},
    store::{
        Admitted, Arrival, Backlog, ClaimRequest, Claimed, Committed, CursorMove, DecisionBatch,
        DecisionQuery, DeliveryQuery, Effects, EventQuery, GroupSnapshot, Lease, ObservationQuery,
        OutboxNotification, Page, Prune, Pruned, RecordedObservation, Release, RunQuery, Stage,
        StatusKey, StatusQuery, StatusRecord, WorkKey,
    },
};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ForgetsDeliveries,
    ForgetsTokens,
    ServesTheOldestOfAnyTenant,
    LosesWorkThatJoinsALease,
    IgnoresVersionsOfRuns,
    IgnoresVersionsOfGroups,
    LetsAnybodyOwnAStatus,
    IgnoresCursors,
    WakesForNothing,
    PrunesKeysOfRuns,
    GivesTheFirstPageOnly,
    CountsOnAndOn,
    ExtendsNothing,
}

#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    number: AtomicU64,
    leases: Mutex<HashMap<i64, (Lease, WorkKey)>>,
}

impl Faulty {
    fn remember(&self, claims: &[workflows_core::store::Claim]) {
        let mut leases = self.leases.lock().expect("a lock");
        for claim in claims {
            leases.insert(claim.lease.id, (claim.lease.clone(), claim.work.key.clone()));
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn admit(
        &self,
        mut observations: Vec<Observation>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Admitted>> {
        if self.fault == Fault::ForgetsDeliveries {
            for one in &mut observations {
                let number = self.number.fetch_add(1, Ordering::Relaxed);
                one.delivery = format!("{} {number}", one.delivery).into();
            }
        }
        let cursor = cursor.filter(|_| self.fault != Fault::IgnoresCursors);
        self.inner.admit(observations, cursor).await
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<Claimed> {
        let limit = request.limit as usize;
        if self.fault == Fault::ServesTheOldestOfAnyTenant {
            request.limit = u32::MAX;
        }
        let mut claimed = self.inner.claim(request).await?;
        if self.fault == Fault::ServesTheOldestOfAnyTenant {
            claimed.claims.sort_by_key(|claim| (claim.since, claim.lease.id));
            for extra in claimed.claims.split_off(limit.min(claimed.claims.len())) {
                self.inner.release(&extra.lease, Release::default()).await?;
            }
        }
        self.remember(&claimed.claims);
        Ok(claimed)
    }

    async fn commit(&self, lease: &Lease, mut effects: Effects) -> Result<Committed> {
        let mut lease = lease.clone();
        match self.fault {
            Fault::ForgetsTokens => {
                if let Some((newer, _)) = self.leases.lock().expect("a lock").get(&lease.id) {
                    lease = newer.clone();
                }
            }
            Fault::LosesWorkThatJoinsALease => {
                let leases = self.leases.lock().expect("a lock");
                effects.work.retain(|new| leases.values().all(|(_, key)| *key != new.work.key));
            }
            Fault::IgnoresVersionsOfRuns => {
                for change in &mut effects.changes {
                    let run = &mut change.run;
                    if let Some(kept) = self.inner.run(&run.tenant, &run.key).await? {
                        run.version = kept.version;
                    }
                }
            }
            Fault::IgnoresVersionsOfGroups => effects.groups.clear(),
            Fault::LetsAnybodyOwnAStatus => {
                for desire in &mut effects.statuses {
                    desire.order = 100;
                }
            }
            Fault::IgnoresCursors => effects.cursors.clear(),
            Fault::PrunesKeysOfRuns => {
                for run in &mut effects.runs {
                    if self.number.load(Ordering::Relaxed) > 0 {
                        run.key = RunKey::from(format!("{} again", run.key));
                    }
                }
            }
            _ => {}
        }
        let committed = self.inner.commit(&lease, effects).await?;
        self.remember(&committed.claims);
        Ok(committed)
    }

    async fn extend(&self, lease: &Lease, by: SignedDuration) -> Result<Lease> {
        if self.fault == Fault::ExtendsNothing {
            return Ok(Lease { until: lease.until + by, ..lease.clone() });
        }
        self.inner.extend(lease, by).await
    }

    async fn release(&self, lease: &Lease, release: Release) -> Result<()> {
        self.inner.release(lease, release).await
    }

    async fn woken(&self, stage: Stage) {
        if self.fault != Fault::WakesForNothing {
            self.inner.woken(stage).await;
        }
    }

    async fn position(&self) -> Result<i64> {
        self.inner.position().await
    }

    async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>> {
        self.inner.cursor(tenant, name).await
    }

    async fn subjects(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        prefix: &str,
    ) -> Result<Vec<(SubjectKey, SubjectState)>> {
        self.inner.subjects(tenant, repo, prefix).await
    }

    async fn arrivals(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arrival>> {
        self.inner.arrivals(tenant, repo, subject, until, limit).await
    }

    async fn event(&self, tenant: &Tenant, key: &EventKey) -> Result<Option<Event>> {
        self.inner.event(tenant, key).await
    }

    async fn payload(&self, tenant: &Tenant, id: i64) -> Result<Option<Payload>> {
        self.inner.payload(tenant, id).await
    }

    async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>> {
        self.inner.run(tenant, key).await
    }

    async fn groups(&self, tenant: &Tenant, groups: &[GroupKey]) -> Result<Vec<GroupSnapshot>> {
        self.inner.groups(tenant, groups).await
    }

    async fn status(&self, key: &StatusKey) -> Result<Option<StatusRecord>> {
        self.inner.status(key).await
    }

    async fn approval(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        head: &CommitId,
    ) -> Result<Option<Approval>> {
        self.inner.approval(tenant, repo, subject, head).await
    }

    async fn outbox(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        notifier: &NotifierName,
    ) -> Result<Vec<OutboxNotification>> {
        self.inner.outbox(tenant, run, notifier).await
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Page<RecordedObservation>> {
        self.inner.observations(query).await
    }

    async fn events(&self, mut query: EventQuery) -> Result<Page<Event>> {
        if self.fault == Fault::GivesTheFirstPageOnly {
            query.page.after = None;
            let mut page = self.inner.events(query).await?;
            page.next = None;
            return Ok(page);
        }
        self.inner.events(query).await
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>> {
        self.inner.decisions(query).await
    }

    async fn trigger_set(&self, tenant: &Tenant, digest: &str) -> Result<Option<Value>> {
        self.inner.trigger_set(tenant, digest).await
    }

    async fn runs(&self, query: RunQuery) -> Result<Page<Run>> {
        self.inner.runs(query).await
    }

    async fn count_runs(&self, query: RunQuery, most: u32) -> Result<u32> {
        let most = if self.fault == Fault::CountsOnAndOn { u32::MAX } else { most };
        self.inner.count_runs(query, most).await
    }

    async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>> {
        self.inner.statuses(query).await
    }

    async fn notifications(&self, query: DeliveryQuery) -> Result<Page<OutboxNotification>> {
        self.inner.notifications(query).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        self.inner.backlog().await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        self.number.fetch_add(1, Ordering::Relaxed);
        self.inner.prune(prune).await
    }
}

#[derive(Debug)]
struct WithFault(Fault);

#[async_trait]
impl StoreFixture for WithFault {
    async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store> {
        Arc::new(Faulty {
            inner: MemoryStore::with_limits(Arc::new(clock), limits),
            fault: self.0,
            number: AtomicU64::new(0),
            leases: Mutex::default(),
        })
    }

    async fn reopen(&self, _died: Arc<dyn Store>, _clock: ManualClock) -> Option<Arc<dyn Store>> {
        None
    }
}

#[tokio::test]
async fn the_suite_finds_out_each_promise_that_is_not_kept() {
    let faults = [
        (Fault::ForgetsDeliveries, "a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims"),
        (Fault::ForgetsTokens, "a_lease_that_was_lost_commits_nothing"),
        (
            Fault::ServesTheOldestOfAnyTenant,
            "a_single_event_does_not_wait_behind_the_backlog_of_another_tenant",
        ),
        (Fault::LosesWorkThatJoinsALease, "work_that_joins_a_lease_is_due_after_it"),
        (
            Fault::IgnoresVersionsOfRuns,
            "a_run_is_created_once_and_changed_from_the_version_that_was_read",
        ),
        (Fault::IgnoresVersionsOfGroups, "a_group_changes_its_version_with_its_members"),
        (Fault::LetsAnybodyOwnAStatus, "the_highest_order_owns_a_status"),
        (Fault::IgnoresCursors, "admission_moves_the_cursor_or_takes_nothing_in"),
        (Fault::IgnoresCursors, "a_commit_writes_all_or_nothing"),
        (Fault::WakesForNothing, "workers_are_woken_when_work_comes"),
        (Fault::PrunesKeysOfRuns, "pruning_keeps_what_is_under_way_and_every_key"),
        (Fault::GivesTheFirstPageOnly, "pages_are_stable_while_more_comes_in"),
        (Fault::CountsOnAndOn, "counting_runs_stops_where_it_is_told"),
        (Fault::ExtendsNothing, "an_extended_lease_lasts_from_now_on"),
    ];
    let cases = cases();
    for (fault, name) in faults {
        let case = cases.iter().find(|case| case.name == name).expect("the suite has the case");
        let found = (case.run)(Arc::new(WithFault(fault))).await;
        assert!(found.is_err(), "{name} holds for a store that {fault:?}");
    }
}
