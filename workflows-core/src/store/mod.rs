//! The ledger: [`Store`], and what goes into and comes out of it.

mod decision;
mod limits;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod wake;
mod work;

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresOptions, PostgresStore, PostgresTls, StoreTime};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteOptions, SqliteStore};
pub(crate) use self::work::group_standing;
pub use self::{
    decision::{
        CommandDecision, CommandOutcome, Decision, DecisionBatch, Guard, Outcome, Rejected,
    },
    limits::StoreLimits,
    memory::MemoryStore,
    query::{
        DecisionQuery, DeliveryQuery, EventQuery, ObservationQuery, Page, PageRequest, RunQuery,
        StatusQuery,
    },
    work::{
        Claim, ClaimRequest, Claimed, CommentKey, CommentPurpose, Committed, Effects,
        GroupExpectation, GroupMember, GroupSnapshot, Lease, NewWork, NotificationState,
        OutboxNotification, Release, RunChange, ShownStatus, Stage, StatusDesire, StatusKey,
        StatusRecord, StatusSubject, SubjectCorrection, Work, WorkKey,
    },
};
use crate::{
    Approval, DeliveryId, Event, EventKey, GroupKey, RepoId, RepoRef, Result, Run, RunKey,
    SourceName, Tenant,
    event::{Observation, SubjectKey, SubjectState},
};

/// How long at least a delivery's id is remembered: hosts offer redelivery for days, not for weeks.
pub(crate) const DELIVERY_MEMORY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why a delivery that was taken in before is no news.
pub(crate) const REPEATED_DELIVERY: &str = "this delivery was taken in before";

/// The ledger: observations, events, decisions, runs, cursors, work and outbox.
///
/// Each operation is one atomic intention; there is no transaction handle, closure or SQL type.
/// Uniqueness of event keys, run keys and delivery keys is the store's duty and outlives retention.
///
/// # Time
///
/// Leases and due times are decided by the store's own clock. Two orders are the ledger's own and
/// owe nothing to a clock: [`Event::sequence`], and the ids that pages follow. When the clock goes
/// back, work that was due at once stays due, and a lease that was given in what is now the future
/// ends, so that none outlives its length by the jump.
///
/// # Implementing
///
/// [`conformance::store`](crate::conformance) is the suite that every store passes. What is decided
/// inside `admit` is decided by [`fold`](crate::event::fold()), so that every store decides alike.
/// A call that returned `Ok` has been made durable; only `claim` and `extend` need not be, for a
/// lease that is lost is harmless.
///
/// # Example
///
/// ```
/// use workflows_core::{Result, RunState, Store, Tenant, store::RunQuery};
///
/// /// The newest runs of a repository that failed.
/// async fn failures(ledger: &dyn Store, repo: &str) -> Result<Vec<String>> {
///     let query = RunQuery::of(Tenant::default())
///         .repo_name(Some(repo.into()))
///         .states(vec![RunState::Failed, RunState::TimedOut]);
///     let page = ledger.runs(query).await?;
///     Ok(page.items.into_iter().map(|run| format!("{}: {}", run.workflow.name, run.message)).collect())
/// }
/// ```
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Takes in observations, in order: each becomes an event or is recorded as a duplicate, and a
    /// new event becomes work of [`Stage::Match`]. With a cursor, it is moved in the same
    /// transaction.
    ///
    /// - A delivery that was seen before is a duplicate, whatever it claims. It is the same one
    ///   when tenant, source, repository, delivery id and subject are the same: one delivery may
    ///   carry observations of several subjects. It is remembered for at least 30 days, or until
    ///   `events_before` of a [`Prune`] where that is longer ago.
    /// - `k` of the event's key counts the subject's arrivals at the state. A baseline counts as
    ///   one, for the subject stands there; so an event that leads back to it has `k` = 2.
    /// - A state that the subject is said to have passed
    ///   ([`News::passed`](crate::event::News::passed)) has been seen, and has not been arrived at.
    /// - The payload is kept with the event; that of a duplicate is not.
    ///
    /// # Errors
    ///
    /// `Conflict` when the cursor is not where the move says, `Invalid` when an observation is over
    /// a limit of its tenant, `Transient`. Nothing is taken in then.
    async fn admit(
        &self,
        observations: Vec<Observation>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Admitted>>;

    /// Claims work of a stage that is due, round-robin over tenants, oldest first within one, and
    /// leases it to the caller. A caller that got as much as it asked for asks again: more may be
    /// due.
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed>;

    /// Commits what came of a claim, all or nothing, and ends or renews its work.
    ///
    /// A lease whose time is over still commits as long as nobody claimed the work again. Versions
    /// of runs and groups are compared with what they were before this commit, and the store counts
    /// a group up when one of its members came, changed its state, was told to end, or ended.
    ///
    /// # Errors
    ///
    /// `Conflict` when the lease was lost, a run has another version, a group changed or a cursor
    /// is elsewhere: read again and decide again. Nothing was written.
    async fn commit(&self, lease: &Lease, effects: Effects) -> Result<Committed>;

    /// Extends a lease from now on. Returns it with its new end.
    ///
    /// # Errors
    ///
    /// `Conflict` when it was lost.
    async fn extend(&self, lease: &Lease, by: SignedDuration) -> Result<Lease>;

    /// Gives a claim back; it is due again at an instant, or at once when work joined it meanwhile.
    ///
    /// # Errors
    ///
    /// `Conflict` when the lease was lost, which a caller may ignore.
    async fn release(&self, lease: &Lease, release: Release) -> Result<()>;

    /// Returns when work of a stage may have come since this was last called for it; at once when
    /// some came in between. It is a hint: it may return for nothing, it wakes one of several
    /// callers, and another process may be quicker.
    async fn woken(&self, stage: Stage);

    /// The position: the highest [`Event::sequence`] or subject change so far.
    async fn position(&self) -> Result<i64>;

    /// A cursor's value.
    async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>>;

    /// What is recorded of subjects of a repository whose names begin with a prefix, by name.
    async fn subjects(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        prefix: &str,
    ) -> Result<Vec<(SubjectKey, SubjectState)>>;

    /// When a subject came to each of its states, newest first, at or before an instant; at most
    /// `limit`.
    async fn arrivals(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arrival>>;

    /// One event; `None` too when retention removed it.
    async fn event(&self, tenant: &Tenant, key: &EventKey) -> Result<Option<Event>>;

    /// A stored payload by [`Event::payload`], when it is still kept.
    async fn payload(&self, tenant: &Tenant, id: i64) -> Result<Option<crate::event::Payload>>;

    /// One run.
    async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>>;

    /// The present members of groups that have not ended, by their place in the order of intake,
    /// with the version that a commit must expect; a snapshot for each group asked for, in that
    /// order.
    async fn groups(&self, tenant: &Tenant, groups: &[GroupKey]) -> Result<Vec<GroupSnapshot>>;

    /// One status.
    async fn status(&self, key: &StatusKey) -> Result<Option<StatusRecord>>;

    /// The approval of a head, when there is one.
    async fn approval(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        subject: &SubjectKey,
        head: &crate::CommitId,
    ) -> Result<Option<Approval>>;

    /// Notifications about a run for a notifier that are to be delivered
    /// ([`NotificationState::Pending`]), in order.
    async fn outbox(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        notifier: &crate::NotifierName,
    ) -> Result<Vec<OutboxNotification>>;

    /// Observations, newest first.
    async fn observations(&self, query: ObservationQuery) -> Result<Page<RecordedObservation>>;

    /// Events, newest first.
    async fn events(&self, query: EventQuery) -> Result<Page<Event>>;

    /// Decisions, newest first.
    async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>>;

    /// A set of triggers that guards of decisions name.
    async fn trigger_set(&self, tenant: &Tenant, digest: &str)
    -> Result<Option<serde_json::Value>>;

    /// Runs, newest first.
    async fn runs(&self, query: RunQuery) -> Result<Page<Run>>;

    /// How many runs a query finds, whatever page it asks for. Counting stops at `most`, so that it
    /// costs no more however many there are.
    async fn count_runs(&self, query: RunQuery, most: u32) -> Result<u32>;

    /// Statuses, newest first.
    async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>>;

    /// Notifications of the outbox, newest first.
    async fn notifications(&self, query: DeliveryQuery) -> Result<Page<OutboxNotification>>;

    /// How much work each stage has, in the order of [`Stage::ALL`].
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// Removes what retention does not keep, in small batches; keys stay as tombstones.
    ///
    /// What is under way stays whatever its age: runs that have not ended, that wait to be looked
    /// at or have notifications to be delivered; events of runs that are kept, and events that wait
    /// to be matched.
    async fn prune(&self, prune: Prune) -> Result<Pruned>;
}

/// What came of an observation.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// It was news, and made this event.
    Event(Box<Event>),
    /// It was not; why, for people.
    Duplicate {
        /// Why it is no news.
        reason: String,
    },
    /// It was recorded as a repository's first state, and made no event.
    Baseline,
}

impl Admitted {
    /// The event, when it made one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

/// A cursor's move, from where it was read to where it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorMove {
    /// The tenant.
    pub tenant: Tenant,
    /// Its name.
    pub name: String,
    /// Where it was read; `None` when it was not there.
    pub from: Option<String>,
    /// Where it shall be.
    pub to: String,
}

/// That a subject came to a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// The state, as it stands in event keys.
    pub state: String,
    /// When the ledger took it in.
    pub at: Timestamp,
    /// Whether it was recorded as a first state, or corrected to it, rather than as a change.
    pub baseline: bool,
}

/// An observation as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedObservation {
    /// Its place in the ledger.
    pub id: i64,
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// Which source brought it.
    pub source: SourceName,
    /// The transport's id of it.
    pub delivery: DeliveryId,
    /// The subject.
    pub subject: SubjectKey,
    /// The state that it claimed.
    pub state: String,
    /// The event that it made, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventKey>,
    /// Why it made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<String>,
    /// When it was taken in.
    pub received_at: Timestamp,
}

/// What retention does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prune {
    /// Raw payloads received before this go; events stay.
    pub payloads_before: Timestamp,
    /// Events, observations and decisions received before this go when no kept run was caused by
    /// them; so do statuses that did not change since, whose run is gone.
    pub events_before: Timestamp,
    /// Runs that ended before this go.
    pub runs_before: Timestamp,
    /// Runs of workflows that keep less than `runs_before` says; those under way stay.
    pub runs_per_workflow: Vec<RunsToKeep>,
    /// At most so many rows of each kind are removed in one call.
    pub batch: u32,
}

impl Prune {
    /// Removes everything older than an instant, 1,000 rows of each kind at a time.
    pub fn before(instant: Timestamp) -> Self {
        Self {
            payloads_before: instant,
            events_before: instant,
            runs_before: instant,
            runs_per_workflow: Vec::new(),
            batch: 1_000,
        }
    }
}

/// Which ended runs of a workflow are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsToKeep {
    /// The tenant.
    pub tenant: Tenant,
    /// The workflow.
    pub workflow: crate::WorkflowId,
    /// So many, the newest of them; all when `None`.
    pub runs: Option<u32>,
    /// Those that ended at or after this; all when `None`.
    pub ended_since: Option<Timestamp>,
}

/// How much work a stage has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// The stage.
    pub stage: Stage,
    /// Pieces of work, due or not, leased or not.
    pub waiting: u64,
    /// Those of them that are due and not leased.
    pub due: u64,
    /// Since when the oldest of those is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_due: Option<Timestamp>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Raw payloads.
    pub payloads: u64,
    /// Events.
    pub events: u64,
    /// Runs.
    pub runs: u64,
    /// Whether a further call would remove more.
    pub more: bool,
}
