//! [`TappedStore`]: a ledger whose every call a test can hold back, refuse, or lose the answer of.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    Approval, CommitId, Event, EventKey, GroupKey, NotifierName, Observation, RepoId, Result, Run,
    RunKey, Store, Tenant,
    event::{Payload, SubjectKey, SubjectState},
    store::{
        Admitted, Arrival, Backlog, ClaimRequest, Claimed, Committed, CursorMove, DecisionBatch,
        DecisionQuery, DeliveryQuery, Effects, EventQuery, GroupSnapshot, Lease, ObservationQuery,
        OutboxNotification, Page, Prune, Pruned, RecordedObservation, Release, RunQuery, Stage,
        StatusKey, StatusQuery, StatusRecord,
    },
};

/// A call of a [`Store`], as far as a tap tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreCall {
    /// [`Store::admit`].
    Admit,
    /// [`Store::claim`].
    Claim,
    /// [`Store::commit`].
    Commit,
    /// [`Store::extend`].
    Extend,
    /// [`Store::release`].
    Release,
    /// [`Store::prune`].
    Prune,
    /// Any call that only reads.
    Read,
}

impl StoreCall {
    /// Whether the ledger may be another one after it.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// What happens to the calls of a [`TappedStore`].
#[async_trait]
pub trait StoreTap: Debug + Send + Sync + 'static {
    /// Before a call reaches the ledger; it may wait.
    ///
    /// # Errors
    ///
    /// What the caller gets. The ledger does not hear of the call then.
    async fn before(&self, call: StoreCall) -> Result<()>;

    /// After a call that came to something.
    ///
    /// # Errors
    ///
    /// What the caller gets in place of the answer, which is lost.
    async fn after(&self, _call: StoreCall) -> Result<()> {
        Ok(())
    }
}

/// A [`Store`] behind a [`StoreTap`]. [`Store::woken`] is not tapped, for it is a hint.
#[derive(Debug)]
pub struct TappedStore {
    ledger: Arc<dyn Store>,
    tap: Arc<dyn StoreTap>,
}

impl TappedStore {
    /// Puts a tap before a ledger.
    pub fn new(ledger: Arc<dyn Store>, tap: Arc<dyn StoreTap>) -> Self {
        Self { ledger, tap }
    }

    async fn pass<T>(&self, call: StoreCall, passed: impl Future<Output = Result<T>>) -> Result<T> {
        self.tap.before(call).await?;
        let answer = passed.await?;
        self.tap.after(call).await?;
        Ok(answer)
    }

    async fn read<T>(&self, passed: impl Future<Output = Result<T>>) -> Result<T> {
        self.pass(StoreCall::Read, passed).await
    }
}

#[async_trait]
impl Store for TappedStore {
    async fn admit(
        &self,
        observations: Vec<Observation>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Admitted>> {
        self.pass(StoreCall::Admit, self.ledger.admit(observations, cursor)).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed> {
        self.pass(StoreCall::Claim, self.ledger.claim(request)).await
    }

    async fn commit(&self, lease: &Lease, effects: Effects) -> Result<Committed> {
        self.pass(StoreCall::Commit, self.ledger.commit(lease, effects)).await
    }

    async fn extend(&self, lease: &Lease, by: SignedDuration) -> Result<Lease> {
        self.pass(StoreCall::Extend, self.ledger.extend(lease, by)).await
    }

    async fn release(&self, lease: &Lease, release: Release) -> Result<()> {
        self.pass(StoreCall::Release, self.ledger.release(lease, release)).await
    }

    async fn woken(&self, stage: Stage) {
        self.ledger.woken(stage).await;
    }

    async fn position(&self) -> Result<i64> {
        self.read(self.ledger.position()).await
    }

    async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>> {
        self.read(self.ledger.cursor(tenant, name)).await
    }

    async fn subjects(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        prefix: &str,
    ) -> Result<Vec<(SubjectKey, SubjectState)>> {
        self.read(self.ledger.subjects(tenant, repo, prefix)).await
    }

    async fn arrivals(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arrival>> {
        self.read(self.ledger.arrivals(tenant, repo, subject, until, limit)).await
    }

    async fn event(&self, tenant: &Tenant, key: &EventKey) -> Result<Option<Event>> {
        self.read(self.ledger.event(tenant, key)).await
    }

    async fn payload(&self, tenant: &Tenant, id: i64) -> Result<Option<Payload>> {
        self.read(self.ledger.payload(tenant, id)).await
    }

    async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>> {
        self.read(self.ledger.run(tenant, key)).await
    }

    async fn groups(&self, tenant: &Tenant, groups: &[GroupKey]) -> Result<Vec<GroupSnapshot>> {
        self.read(self.ledger.groups(tenant, groups)).await
    }

    async fn status(&self, key: &StatusKey) -> Result<Option<StatusRecord>> {
        self.read(self.ledger.status(key)).await
    }

    async fn approval(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        head: &CommitId,
    ) -> Result<Option<Approval>> {
        self.read(self.ledger.approval(tenant, repo, subject, head)).await
    }

    async fn outbox(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        notifier: &NotifierName,
    ) -> Result<Vec<OutboxNotification>> {
        self.read(self.ledger.outbox(tenant, run, notifier)).await
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Page<RecordedObservation>> {
        self.read(self.ledger.observations(query)).await
    }

    async fn events(&self, query: EventQuery) -> Result<Page<Event>> {
        self.read(self.ledger.events(query)).await
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>> {
        self.read(self.ledger.decisions(query)).await
    }

    async fn trigger_set(&self, tenant: &Tenant, digest: &str) -> Result<Option<Value>> {
        self.read(self.ledger.trigger_set(tenant, digest)).await
    }

    async fn runs(&self, query: RunQuery) -> Result<Page<Run>> {
        self.read(self.ledger.runs(query)).await
    }

    async fn count_runs(&self, query: RunQuery, most: u32) -> Result<u32> {
        self.read(self.ledger.count_runs(query, most)).await
    }

    async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>> {
        self.read(self.ledger.statuses(query)).await
    }

    async fn notifications(&self, query: DeliveryQuery) -> Result<Page<OutboxNotification>> {
        self.read(self.ledger.notifications(query)).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        self.read(self.ledger.backlog()).await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        self.pass(StoreCall::Prune, self.ledger.prune(prune)).await
    }
}
