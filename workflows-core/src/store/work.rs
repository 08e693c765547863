//! Work of the stages: claiming it, and committing what came of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CursorMove, DecisionBatch};
use crate::{
    Approval, CommitId, DeliveryKey, Event, EventKey, GroupKey, NotifierName, RepoRef, Run, RunKey,
    RunState, Tenant, Transition,
    event::SubjectKey,
    repo::{StatusAction, StatusState},
    run::GroupMembership,
    workflow::Strategy,
};

/// A stage that takes work out of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// An event, or another attempt at one: gate, definitions, matcher and planner.
    Match,
    /// A run whose groups are to be decided: scheduler.
    Schedule,
    /// A run that is to be created or cancelled: dispatcher.
    Dispatch,
    /// A run whose state is to be looked at: observer.
    Observe,
    /// What a host should show: a status, the answer to a command. Reporter and answers.
    Report,
    /// Notifications about a run for one notifier: reporter.
    Notify,
}

impl Stage {
    /// Every stage, in the order of the flow.
    pub const ALL: [Self; 6] =
        [Self::Match, Self::Schedule, Self::Dispatch, Self::Observe, Self::Report, Self::Notify];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Schedule => "schedule",
            Self::Dispatch => "dispatch",
            Self::Observe => "observe",
            Self::Report => "report",
            Self::Notify => "notify",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a piece of work is about; unique with its tenant and stage.
///
/// New work with the key of work that is there already joins it: it is due at the earlier of both
/// times, with the detail of the newer. Work that joins while somebody holds the lease is not lost:
/// the work is due again when the holder commits or releases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "about")]
#[non_exhaustive]
pub enum WorkKey {
    /// An event, for one attempt. [`Stage::Match`].
    Event {
        /// The event.
        event: EventKey,
        /// The attempt.
        attempt: crate::AttemptId,
    },
    /// A run. [`Stage::Schedule`], [`Stage::Dispatch`], [`Stage::Observe`].
    Run {
        /// The run.
        run: RunKey,
    },
    /// A status. [`Stage::Report`].
    Status {
        /// The status.
        status: StatusKey,
    },
    /// That the author of a comment is told whether its commands were carried out.
    /// [`Stage::Report`].
    Acknowledgement {
        /// The comment's event.
        event: EventKey,
    },
    /// A comment that is kept up to date. [`Stage::Report`].
    Comment {
        /// The comment.
        comment: CommentKey,
    },
    /// The notifications about a run for a notifier. [`Stage::Notify`].
    Outbox {
        /// The run.
        run: RunKey,
        /// The notifier.
        notifier: NotifierName,
    },
}

impl WorkKey {
    /// Work about the first attempt at an event.
    pub fn event(event: EventKey) -> Self {
        Self::Event { event, attempt: crate::AttemptId::first() }
    }

    /// Work about a run.
    pub fn run(run: RunKey) -> Self {
        Self::Run { run }
    }
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// The tenant.
    pub tenant: Tenant,
    /// The stage.
    pub stage: Stage,
    /// What it is about.
    pub key: WorkKey,
    /// What the stage needs to know besides.
    #[serde(default)]
    pub detail: Value,
}

/// Work to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct NewWork {
    /// What.
    pub work: Work,
    /// Not before this; at once when `None`. Work that joins earlier work keeps the earlier of both.
    pub not_before: Option<Timestamp>,
}

impl NewWork {
    /// Work that is due at once.
    pub fn now(tenant: Tenant, stage: Stage, key: WorkKey) -> Self {
        Self { work: Work { tenant, stage, key, detail: Value::Null }, not_before: None }
    }

    /// Work that is due at an instant.
    pub fn at(tenant: Tenant, stage: Stage, key: WorkKey, instant: Timestamp) -> Self {
        Self { not_before: Some(instant), ..Self::now(tenant, stage, key) }
    }

    /// Adds what the stage needs to know besides.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.work.detail = detail;
        self
    }
}

/// Which work a worker asks for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// The stage.
    pub stage: Stage,
    /// At most so many.
    pub limit: u32,
    /// For so long, in the store's time.
    pub lease: SignedDuration,
    /// Only this piece of work, due or not.
    pub only: Option<(Tenant, WorkKey)>,
}

impl ClaimRequest {
    /// Work of a stage, at most `limit`, leased for 30 seconds.
    pub fn of(stage: Stage, limit: u32) -> Self {
        Self { stage, limit, lease: SignedDuration::from_secs(30), only: None }
    }

    /// Leases for another time.
    #[must_use]
    pub fn leased_for(mut self, lease: SignedDuration) -> Self {
        self.lease = lease;
        self
    }

    /// Asks for one piece of work, due or not.
    #[must_use]
    pub fn only(mut self, tenant: Tenant, key: WorkKey) -> Self {
        self.only = Some((tenant, key));
        self
    }
}

/// What a worker got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claimed {
    /// The work.
    pub claims: Vec<Claim>,
    /// When the next work of the stage that is not due yet, or is leased, will be due.
    pub next_due: Option<Timestamp>,
}

/// Work with its lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The work.
    pub work: Work,
    /// The lease.
    pub lease: Lease,
    /// How often it has been claimed since it last came to something, this time included, and
    /// without those claims that were given back untouched.
    pub attempts: u32,
    /// When it first became due since it last came to something.
    pub since: Timestamp,
    /// Why it was given back last ([`Release::error`]), if it was since it last came to something.
    pub last_error: Option<String>,
}

/// A worker's right to commit what comes of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The work's place in the ledger.
    pub id: i64,
    /// The fencing token: grows with each claim of the work; an older one is refused.
    pub token: i64,
    /// When it ends, in the store's time. Until then nobody else gets the work.
    pub until: Timestamp,
}

/// How a claim is given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// When the work is due again; at once when `None`.
    pub not_before: Option<Timestamp>,
    /// Why, for people. `None` when nobody worked on it: then it is no attempt, and what was wrong
    /// with an earlier one stays known.
    pub error: Option<String>,
}

/// What comes of a claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effects {
    /// The event of this work with what its transport did not tell
    /// ([`Event::lacks`](crate::Event::lacks)). It replaces the one of that key; an event that
    /// retention removed stays removed.
    pub completed: Option<Box<Event>>,
    /// Decisions about an event.
    pub decisions: Option<DecisionBatch>,
    /// Sets of triggers that guards of the decisions name, by digest; one that is there stays.
    pub trigger_sets: Vec<(Arc<str>, Value)>,
    /// Runs that should exist: create-or-get by key. Of one that is there, or was until retention
    /// removed it, nothing changes. A run is kept with the version that it comes with.
    pub runs: Vec<Run>,
    /// Changes of runs.
    pub changes: Vec<RunChange>,
    /// Groups that must not have changed since they were read.
    pub groups: Vec<GroupExpectation>,
    /// What statuses should show.
    pub statuses: Vec<StatusDesire>,
    /// What statuses were made to show: `shown` and `error` are kept; what should show stays as it
    /// is by now.
    pub reported: Vec<StatusRecord>,
    /// Notifications to be delivered. One whose key is, or ever was, there stays as it is.
    pub notifications: Vec<OutboxNotification>,
    /// Notifications whose delivery came to something; they replace what is there by key. One that
    /// retention removed stays removed.
    pub delivered: Vec<OutboxNotification>,
    /// Approvals that were given.
    pub approvals: Vec<Approval>,
    /// Subjects that the repository contradicted.
    pub corrections: Vec<SubjectCorrection>,
    /// Cursors to move.
    pub cursors: Vec<CursorMove>,
    /// Work for the next stages, or for this one.
    pub work: Vec<NewWork>,
    /// When the claim's own work is due again; it ends when `None`. Work that joined it meanwhile
    /// makes it due at once all the same.
    pub again: Option<Timestamp>,
    /// Whether, and for how long, the committer claims what of `work` is due now and held by nobody,
    /// for [`Committed::claims`]. It saves a round trip through the queue.
    pub claim_next: Option<SignedDuration>,
}

/// What a commit made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// Keys of runs that were created rather than found.
    pub created: Vec<RunKey>,
    /// Claims on the work that became due, when they were asked for.
    pub claims: Vec<Claim>,
}

/// A change of a run, from a version to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct RunChange {
    /// The run as it shall be; its `version` is the one that was read, and the store counts it up.
    pub run: Run,
}

/// A group that must not have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupExpectation {
    /// The tenant.
    pub tenant: Tenant,
    /// The group.
    pub group: GroupKey,
    /// Its version when it was read; 0 when it was not there.
    pub version: i64,
}

/// A group as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSnapshot {
    /// Its key.
    pub group: GroupKey,
    /// Grows with each change: a member came, changed its state, was told to end, or ended. 0 when
    /// the group has no members.
    pub version: i64,
    /// Its members that have not ended.
    pub members: Vec<GroupMember>,
}

/// A member of a group: what the scheduler needs to know of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupMember {
    /// The run.
    pub run: RunKey,
    /// Its place in the order of intake.
    pub order: i64,
    /// The repository.
    pub repo: crate::RepoId,
    /// Its subject.
    pub subject: SubjectKey,
    /// Its state.
    pub state: crate::RunState,
    /// Whether it was told to end.
    pub cancelling: bool,
    /// What it asks for in the group.
    pub membership: GroupMembership,
    /// When it was planned.
    pub created_at: Timestamp,
}

impl GroupMember {
    /// What the scheduler needs to know of a run in one of its groups.
    pub fn of(run: &Run, membership: GroupMembership) -> Self {
        Self {
            run: run.key.clone(),
            order: run.order,
            repo: run.repo.id.clone(),
            subject: run.subject.clone(),
            state: run.state,
            cancelling: run.cancel.is_some(),
            membership,
            created_at: run.created_at,
        }
    }
}

/// How a run stands in its groups: when this changes for a group, the group's version does. A run
/// that has ended is in none.
pub(crate) fn group_standing(run: &Run) -> BTreeMap<GroupKey, (Strategy, RunState, bool)> {
    if run.state.is_terminal() {
        return BTreeMap::new();
    }
    let standing = |strategy| (strategy, run.state, run.cancel.is_some());
    run.groups.iter().map(|one| (one.group.clone(), standing(one.strategy.clone()))).collect()
}

/// The identity of a status: one context on one commit.
///
/// The store compares the repository by its id, so that a rename does not make it another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusKey {
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// The commit.
    pub commit: CommitId,
    /// The context.
    pub context: Arc<str>,
}

/// The identity of a comment that is kept up to date: one for a purpose on a pull request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommentKey {
    /// The repository.
    pub repo: RepoRef,
    /// The pull request.
    pub pull_request: u64,
    /// What it is for.
    pub purpose: CommentPurpose,
}

/// What a comment that is kept up to date is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CommentPurpose {
    /// It tells what came of commands, once one of them could not be carried out.
    Commands,
}

impl CommentPurpose {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
        }
    }
}

/// What a status should show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDesire {
    /// Which status.
    pub key: StatusKey,
    /// Whose it is. The highest owns the status; a lower one changes nothing, and the same one may
    /// say something else. Runs, and notes about what somebody with rights did, have their place in
    /// the order of intake; notes about what an outsider did have one that is not above 0, so that
    /// they never take a status away.
    pub order: i64,
    /// What it shows.
    pub subject: StatusSubject,
}

/// What a status shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatusSubject {
    /// How a run stands.
    Run {
        /// The run.
        run: RunKey,
    },
    /// A fixed text: a file that does not load, an approval that is missing, a skipped trigger.
    Note {
        /// The state.
        state: StatusState,
        /// One line.
        title: String,
        /// Markdown.
        summary: String,
        /// What people are offered to do.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        actions: Vec<StatusAction>,
    },
}

/// A status as the ledger keeps it: what it should show, and what it was made to show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusRecord {
    /// What it should show.
    #[serde(flatten)]
    pub desire: StatusDesire,
    /// The state that the host was made to show last, with the order of its owner then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<ShownStatus>,
    /// Why it cannot be shown, when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it changed last.
    pub updated_at: Timestamp,
}

/// What the host was made to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStatus {
    /// A digest of the whole status.
    pub digest: Arc<str>,
    /// Its state.
    pub state: StatusState,
    /// The owner's order.
    pub order: i64,
    /// The host's id of it.
    pub id: String,
    /// When it was made to show it.
    pub at: Timestamp,
}

/// A notification of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxNotification {
    /// Its place in the ledger; set by the store.
    #[serde(default)]
    pub id: i64,
    /// Its key.
    pub key: DeliveryKey,
    /// The tenant.
    pub tenant: Tenant,
    /// The run.
    pub run: RunKey,
    /// The notifier.
    pub notifier: NotifierName,
    /// What happened.
    pub transition: Transition,
    /// The run as it was then.
    pub view: crate::RunView,
    /// How its delivery stands.
    pub state: NotificationState,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether a try that was not answered may have reached the receiver.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_reached: bool,
    /// The last failure, or the receiver's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<Timestamp>,
}

/// How the delivery of a notification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NotificationState {
    /// It is to be delivered.
    Pending,
    /// It was.
    Delivered,
    /// It was given up: a dead letter, which can be listed and sent again.
    Dead,
}

/// That a repository contradicted what was recorded of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectCorrection {
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: crate::RepoId,
    /// The subject.
    pub subject: SubjectKey,
    /// The state that was recorded; when it is another one by now, nothing changes.
    pub from: String,
    /// The state that is true.
    pub to: String,
}
