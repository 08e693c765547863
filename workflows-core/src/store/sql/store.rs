//! The trait [`Store`](crate::store::Store) over a ledger in SQL.

use jiff::Timestamp;

use super::{Answer, Ask, Failure, Sql, unexpected};
use crate::{
    Error, Result,
    store::{Prune, Pruned, StoreLimits, wake::Wakers},
};

/// What a store has besides its statements.
pub(crate) trait SqlStore: Sync {
    /// Rows of a kind that one transaction prunes, so that intake does not wait long behind it.
    const PRUNED_AT_ONCE: u32;

    /// Its way of reading.
    type Reader<'s>: Sql
    where
        Self: 's;

    fn reader(&self) -> Self::Reader<'_>;

    fn limits(&self) -> &StoreLimits;

    fn wakers(&self) -> &Wakers;

    /// Writes, and answers when that is durable.
    fn ask(&self, ask: Ask) -> impl Future<Output = Result<Answer>> + Send;

    fn last_sequence(&self) -> impl Future<Output = Result<i64>> + Send;

    /// The store's time.
    fn time(&self) -> impl Future<Output = Result<Timestamp>> + Send;

    /// Why something could not be read.
    fn unread(&self, failure: Failure) -> Error;

    fn prune_in_parts(&self, prune: Prune) -> impl Future<Output = Result<Pruned>> + Send {
        async move {
            let mut pruned = Pruned::default();
            let mut left = prune.batch.max(1);
            while left > 0 {
                let batch = left.min(Self::PRUNED_AT_ONCE);
                left -= batch;
                let part = Prune { batch, ..prune.clone() };
                let Answer::Pruned(part) = self.ask(Ask::Prune(Box::new(part))).await? else {
                    return unexpected();
                };
                pruned.payloads += part.payloads;
                pruned.events += part.events;
                pruned.runs += part.runs;
                pruned.more = part.more;
                if !part.more {
                    break;
                }
            }
            Ok(pruned)
        }
    }
}

/// Implements [`Store`](crate::store::Store) for a [`SqlStore`].
macro_rules! sql_store {
    ($store:ty) => {
        const _: () = {
            use jiff::{SignedDuration, Timestamp};
            use serde_json::Value;
            use $crate::{
                Approval, CommitId, Event, EventKey, GroupKey, NotifierName, RepoId, Result, Run,
                RunKey, Tenant,
                event::{Observation, Payload, SubjectKey, SubjectState},
                store::{
                    Admitted, Arrival, Backlog, ClaimRequest, Claimed, Committed, CursorMove,
                    DecisionBatch, DecisionQuery, DeliveryQuery, Effects, EventQuery,
                    GroupSnapshot, Lease, ObservationQuery, OutboxNotification, Page, Prune,
                    Pruned, RecordedObservation, Release, RunQuery, Stage, StatusKey, StatusQuery,
                    StatusRecord, Store,
                    sql::{Answer, Ask, SqlStore, pages, read, unexpected},
                },
            };

            #[async_trait::async_trait]
            impl Store for $store {
                async fn admit(
                    &self,
                    observations: Vec<Observation>,
                    cursor: Option<CursorMove>,
                ) -> Result<Vec<Admitted>> {
                    for observation in &observations {
                        self.limits().check(observation)?;
                    }
                    match self.ask(Ask::Admit { observations, cursor }).await? {
                        Answer::Admitted(admitted) => Ok(admitted),
                        _ => unexpected(),
                    }
                }

                async fn claim(&self, request: ClaimRequest) -> Result<Claimed> {
                    match self.ask(Ask::Claim(request)).await? {
                        Answer::Claimed(claimed) => Ok(claimed),
                        _ => unexpected(),
                    }
                }

                async fn commit(&self, lease: &Lease, effects: Effects) -> Result<Committed> {
                    let effects = Box::new(effects);
                    match self.ask(Ask::Commit { lease: lease.clone(), effects }).await? {
                        Answer::Committed(committed) => Ok(committed),
                        _ => unexpected(),
                    }
                }

                async fn extend(&self, lease: &Lease, by: SignedDuration) -> Result<Lease> {
                    match self.ask(Ask::Extend { lease: lease.clone(), by }).await? {
                        Answer::Extended(lease) => Ok(lease),
                        _ => unexpected(),
                    }
                }

                async fn release(&self, lease: &Lease, release: Release) -> Result<()> {
                    self.ask(Ask::Release { lease: lease.clone(), release }).await.map(|_| ())
                }

                async fn woken(&self, stage: Stage) {
                    self.wakers().woken(stage).await;
                }

                async fn position(&self) -> Result<i64> {
                    self.last_sequence().await
                }

                async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>> {
                    let found = read::cursor(&mut self.reader(), tenant, name).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn subjects(
                    &self,
                    tenant: &Tenant,
                    repo: &RepoId,
                    prefix: &str,
                ) -> Result<Vec<(SubjectKey, SubjectState)>> {
                    let found = read::subjects(&mut self.reader(), tenant, repo, prefix).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn arrivals(
                    &self,
                    tenant: &Tenant,
                    repo: &RepoId,
                    subject: &SubjectKey,
                    until: Timestamp,
                    limit: usize,
                ) -> Result<Vec<Arrival>> {
                    let mut db = self.reader();
                    let found = read::arrivals(&mut db, tenant, repo, subject, until, limit).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn event(&self, tenant: &Tenant, key: &EventKey) -> Result<Option<Event>> {
                    let found = read::event(&mut self.reader(), tenant, key).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn payload(&self, tenant: &Tenant, id: i64) -> Result<Option<Payload>> {
                    let found = read::payload(&mut self.reader(), tenant, id).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>> {
                    let found = read::run(&mut self.reader(), tenant, key).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn groups(
                    &self,
                    tenant: &Tenant,
                    groups: &[GroupKey],
                ) -> Result<Vec<GroupSnapshot>> {
                    let mut snapshots = Vec::with_capacity(groups.len());
                    for group in groups {
                        let found = read::group(&mut self.reader(), tenant, group).await;
                        snapshots.push(found.map_err(|failure| self.unread(failure))?);
                    }
                    Ok(snapshots)
                }

                async fn status(&self, key: &StatusKey) -> Result<Option<StatusRecord>> {
                    let found = read::status(&mut self.reader(), key).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn approval(
                    &self,
                    tenant: &Tenant,
                    repo: &RepoId,
                    subject: &SubjectKey,
                    head: &CommitId,
                ) -> Result<Option<Approval>> {
                    let mut db = self.reader();
                    let found = read::approval(&mut db, tenant, repo, subject, head).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn outbox(
                    &self,
                    tenant: &Tenant,
                    run: &RunKey,
                    notifier: &NotifierName,
                ) -> Result<Vec<OutboxNotification>> {
                    let found = read::outbox(&mut self.reader(), tenant, run, notifier).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn observations(
                    &self,
                    query: ObservationQuery,
                ) -> Result<Page<RecordedObservation>> {
                    let found = pages::observations(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn events(&self, query: EventQuery) -> Result<Page<Event>> {
                    let found = pages::events(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>> {
                    let found = pages::decisions(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn trigger_set(
                    &self,
                    tenant: &Tenant,
                    digest: &str,
                ) -> Result<Option<Value>> {
                    let found = read::trigger_set(&mut self.reader(), tenant, digest).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn runs(&self, query: RunQuery) -> Result<Page<Run>> {
                    let found = pages::runs(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn count_runs(&self, query: RunQuery, most: u32) -> Result<u32> {
                    let found = pages::count_runs(&mut self.reader(), &query, most).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>> {
                    let found = pages::statuses(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn notifications(
                    &self,
                    query: DeliveryQuery,
                ) -> Result<Page<OutboxNotification>> {
                    let found = pages::notifications(&mut self.reader(), &query).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn backlog(&self) -> Result<Vec<Backlog>> {
                    let now = self.time().await?;
                    let found = read::backlog(&mut self.reader(), now).await;
                    found.map_err(|failure| self.unread(failure))
                }

                async fn prune(&self, prune: Prune) -> Result<Pruned> {
                    self.prune_in_parts(prune).await
                }
            }
        };
    };
}
pub(crate) use sql_store;
