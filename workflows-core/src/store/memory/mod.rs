//! A ledger in memory, for tests and simulations.

mod commit;
mod intake;
mod pages;
mod prune;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use self::queue::Queue;
use super::{
    Admitted, Arrival, Backlog, ClaimRequest, Claimed, Committed, CursorMove, DecisionBatch,
    DecisionQuery, DeliveryQuery, Effects, EventQuery, GroupMember, GroupSnapshot, Lease,
    NotificationState, ObservationQuery, OutboxNotification, Page, Prune, Pruned,
    RecordedObservation, Release, RunQuery, Stage, StatusKey, StatusQuery, StatusRecord, Store,
    StoreLimits, wake::Wakers,
};
use crate::{
    Approval, CommitId, DeliveryId, DeliveryKey, Event, EventKey, GroupKey, NotifierName, RepoId,
    Result, Run, RunKey, SharedClock, SourceName, Tenant,
    event::{Observation, Payload, SubjectKey, SubjectState},
};

/// A ledger in memory, for tests and simulations. It keeps every promise of [`Store`] but one: it
/// is gone with the process.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::Arc;
/// use workflows_core::{Store, SystemClock, store::MemoryStore};
///
/// let store = MemoryStore::new(Arc::new(SystemClock));
/// assert_eq!(store.position().await.unwrap(), 0);
/// # });
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    ledger: Mutex<Ledger>,
    wakers: Wakers,
    clock: SharedClock,
    limits: StoreLimits,
}

impl MemoryStore {
    /// An empty ledger that decides about leases by this clock.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_limits(clock, StoreLimits::default())
    }

    /// An empty ledger with limits.
    pub fn with_limits(clock: SharedClock, limits: StoreLimits) -> Self {
        Self { ledger: Mutex::new(Ledger::new()), wakers: Wakers::default(), clock, limits }
    }

    /// Records an approval.
    pub(crate) fn approve(&self, approval: Approval) {
        self.ledger().approve(approval);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that is kept. Ids grow; the event's is its sequence.
#[derive(Debug)]
struct Ledger {
    sequence: i64,
    serial: i64,
    deliveries: HashMap<Delivery, Timestamp>,
    subjects: BTreeMap<(Tenant, RepoId, SubjectKey), Subject>,
    observations: BTreeMap<i64, RecordedObservation>,
    events: BTreeMap<i64, Event>,
    event_ids: HashMap<(Tenant, EventKey), i64>,
    payloads: BTreeMap<i64, StoredPayload>,
    payload_bytes: HashMap<Tenant, u64>,
    decisions: BTreeMap<i64, DecisionBatch>,
    trigger_sets: HashMap<(Tenant, Arc<str>), Value>,
    runs: BTreeMap<i64, Run>,
    /// Of removed runs too.
    run_ids: HashMap<(Tenant, RunKey), i64>,
    groups: BTreeMap<(Tenant, GroupKey), Group>,
    statuses: BTreeMap<i64, StatusRecord>,
    status_ids: HashMap<StatusIdentity, i64>,
    notifications: BTreeMap<i64, OutboxNotification>,
    /// Of removed notifications too.
    notification_ids: HashMap<(Tenant, DeliveryKey), i64>,
    approvals: HashMap<(Tenant, RepoId, SubjectKey, CommitId), Approval>,
    cursors: HashMap<(Tenant, String), String>,
    queue: Queue,
}

/// What makes a delivery the same one.
type Delivery = (Tenant, SourceName, RepoId, DeliveryId, SubjectKey);

/// A status without what a rename of its repository changes.
type StatusIdentity = (Tenant, RepoId, CommitId, Arc<str>);

fn status_identity(key: &StatusKey) -> StatusIdentity {
    (key.tenant.clone(), key.repo.id.clone(), key.commit.clone(), Arc::clone(&key.context))
}

#[derive(Debug)]
struct Subject {
    state: SubjectState,
    /// How often it came to each state; 0 for one that it only passed.
    states: HashMap<String, u32>,
    arrivals: Vec<Arrival>,
}

#[derive(Debug)]
struct StoredPayload {
    tenant: Tenant,
    payload: Payload,
    received_at: Timestamp,
}

#[derive(Debug, Default)]
struct Group {
    version: i64,
    /// Ids of runs that have not ended.
    members: BTreeSet<i64>,
}

impl Ledger {
    fn approve(&mut self, approval: Approval) {
        let key = (
            approval.tenant.clone(),
            approval.repo.id.clone(),
            approval.subject.clone(),
            approval.head.clone(),
        );
        self.approvals.insert(key, approval);
    }

    fn new() -> Self {
        Self {
            sequence: 0,
            serial: 0,
            deliveries: HashMap::new(),
            subjects: BTreeMap::new(),
            observations: BTreeMap::new(),
            events: BTreeMap::new(),
            event_ids: HashMap::new(),
            payloads: BTreeMap::new(),
            payload_bytes: HashMap::new(),
            decisions: BTreeMap::new(),
            trigger_sets: HashMap::new(),
            runs: BTreeMap::new(),
            run_ids: HashMap::new(),
            groups: BTreeMap::new(),
            statuses: BTreeMap::new(),
            status_ids: HashMap::new(),
            notifications: BTreeMap::new(),
            notification_ids: HashMap::new(),
            approvals: HashMap::new(),
            cursors: HashMap::new(),
            queue: Queue::new(),
        }
    }

    fn next_serial(&mut self) -> i64 {
        self.serial += 1;
        self.serial
    }

    fn run_by_key(&self, tenant: &Tenant, key: &RunKey) -> Option<(i64, &Run)> {
        let id = *self.run_ids.get(&(tenant.clone(), key.clone()))?;
        self.runs.get(&id).map(|run| (id, run))
    }

    fn group(&self, tenant: &Tenant, key: &GroupKey) -> GroupSnapshot {
        let Some(group) = self.groups.get(&(tenant.clone(), key.clone())) else {
            return GroupSnapshot { group: key.clone(), version: 0, members: Vec::new() };
        };
        let mut members: Vec<(i64, GroupMember)> = group
            .members
            .iter()
            .filter_map(|id| {
                let run = self.runs.get(id)?;
                let membership = run.groups.iter().find(|one| one.group == *key)?.clone();
                Some((*id, GroupMember::of(run, membership)))
            })
            .collect();
        members.sort_by_key(|(id, member)| (member.order, *id));
        let members = members.into_iter().map(|(_, member)| member).collect();
        GroupSnapshot { group: key.clone(), version: group.version, members }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn admit(
        &self,
        observations: Vec<Observation>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Admitted>> {
        let now = self.clock.now();
        let admitted = {
            let mut ledger = self.ledger();
            ledger.queue.observe(now);
            ledger.admit(observations, cursor, &self.limits, now)?
        };
        if admitted.iter().any(|one| one.event().is_some()) {
            self.wakers.wake(Stage::Match);
        }
        Ok(admitted)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed> {
        let now = self.clock.now();
        let queue = &mut self.ledger().queue;
        queue.observe(now);
        Ok(queue.claim(&request, now))
    }

    async fn commit(&self, lease: &Lease, effects: Effects) -> Result<Committed> {
        let now = self.clock.now();
        let (committed, stages) = self.ledger().commit(lease, effects, now)?;
        for stage in stages {
            self.wakers.wake(stage);
        }
        Ok(committed)
    }

    async fn extend(&self, lease: &Lease, by: SignedDuration) -> Result<Lease> {
        let now = self.clock.now();
        let queue = &mut self.ledger().queue;
        queue.observe(now);
        queue.check("extend a lease", lease)?;
        Ok(queue.extend(lease, by, now))
    }

    async fn release(&self, lease: &Lease, release: Release) -> Result<()> {
        let now = self.clock.now();
        let stage = {
            let queue = &mut self.ledger().queue;
            queue.observe(now);
            let stage = queue.check("release a claim", lease)?.stage;
            queue.release(lease.id, release, now);
            stage
        };
        self.wakers.wake(stage);
        Ok(())
    }

    async fn woken(&self, stage: Stage) {
        self.wakers.woken(stage).await;
    }

    async fn position(&self) -> Result<i64> {
        Ok(self.ledger().sequence)
    }

    async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>> {
        Ok(self.ledger().cursors.get(&(tenant.clone(), name.to_owned())).cloned())
    }

    async fn subjects(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        prefix: &str,
    ) -> Result<Vec<(SubjectKey, SubjectState)>> {
        Ok(self.ledger().subjects_by_prefix(tenant, repo, prefix))
    }

    async fn arrivals(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arrival>> {
        let key = (tenant.clone(), repo.clone(), subject.clone());
        let ledger = self.ledger();
        let Some(subject) = ledger.subjects.get(&key) else { return Ok(Vec::new()) };
        let arrivals = subject.arrivals.iter().rev().filter(|arrival| arrival.at <= until);
        Ok(arrivals.take(limit).cloned().collect())
    }

    async fn event(&self, tenant: &Tenant, key: &EventKey) -> Result<Option<Event>> {
        let ledger = self.ledger();
        let id = ledger.event_ids.get(&(tenant.clone(), key.clone()));
        Ok(id.and_then(|id| ledger.events.get(id)).cloned())
    }

    async fn payload(&self, tenant: &Tenant, id: i64) -> Result<Option<Payload>> {
        let ledger = self.ledger();
        let stored = ledger.payloads.get(&id).filter(|stored| stored.tenant == *tenant);
        Ok(stored.map(|stored| stored.payload.clone()))
    }

    async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>> {
        Ok(self.ledger().run_by_key(tenant, key).map(|(_, run)| run.clone()))
    }

    async fn groups(&self, tenant: &Tenant, groups: &[GroupKey]) -> Result<Vec<GroupSnapshot>> {
        let ledger = self.ledger();
        Ok(groups.iter().map(|key| ledger.group(tenant, key)).collect())
    }

    async fn status(&self, key: &StatusKey) -> Result<Option<StatusRecord>> {
        let ledger = self.ledger();
        let id = ledger.status_ids.get(&status_identity(key));
        Ok(id.and_then(|id| ledger.statuses.get(id)).cloned())
    }

    async fn approval(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        head: &CommitId,
    ) -> Result<Option<Approval>> {
        let key = (tenant.clone(), repo.clone(), subject.clone(), head.clone());
        Ok(self.ledger().approvals.get(&key).cloned())
    }

    async fn outbox(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        notifier: &NotifierName,
    ) -> Result<Vec<OutboxNotification>> {
        let pending = |one: &&OutboxNotification| {
            one.state == NotificationState::Pending
                && one.tenant == *tenant
                && one.run == *run
                && one.notifier == *notifier
        };
        Ok(self.ledger().notifications.values().filter(pending).cloned().collect())
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Page<RecordedObservation>> {
        Ok(pages::page(&self.ledger().observations, query.page, |one| {
            pages::observation(&query, one)
        }))
    }

    async fn events(&self, query: EventQuery) -> Result<Page<Event>> {
        Ok(pages::page(&self.ledger().events, query.page, |one| pages::event(&query, one)))
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>> {
        Ok(pages::page(&self.ledger().decisions, query.page, |one| pages::decision(&query, one)))
    }

    async fn trigger_set(&self, tenant: &Tenant, digest: &str) -> Result<Option<Value>> {
        Ok(self.ledger().trigger_sets.get(&(tenant.clone(), digest.into())).cloned())
    }

    async fn runs(&self, query: RunQuery) -> Result<Page<Run>> {
        Ok(pages::page_of_runs(&self.ledger().runs, &query))
    }

    async fn count_runs(&self, query: RunQuery, most: u32) -> Result<u32> {
        let ledger = self.ledger();
        let found = ledger.runs.values().filter(|one| pages::run(&query, one));
        // At most `most`, which is a `u32`.
        Ok(found.take(most as usize).count() as u32)
    }

    async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>> {
        Ok(pages::page(&self.ledger().statuses, query.page, |one| pages::status(&query, one)))
    }

    async fn notifications(&self, query: DeliveryQuery) -> Result<Page<OutboxNotification>> {
        Ok(pages::page(&self.ledger().notifications, query.page, |one| {
            pages::notification(&query, one)
        }))
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        let now = self.clock.now();
        let queue = &mut self.ledger().queue;
        queue.observe(now);
        Ok(Stage::ALL.into_iter().map(|stage| queue.backlog(stage, now)).collect())
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        Ok(self.ledger().prune(&prune, self.clock.now()))
    }
}
