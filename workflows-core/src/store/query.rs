//! Pages of what the ledger keeps.

use jiff::Timestamp;

use super::NotificationState;
use crate::{
    AttemptId, CommitId, EventKey, EventKind, RepoId, RunKey, RunState, Tenant, WorkflowId,
};

/// Which page: how many, and after which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many; stores give at least 1 and at most 1,000.
    pub limit: u32,
    /// What [`Page::next`] said.
    pub after: Option<i64>,
}

impl Default for PageRequest {
    /// The first hundred.
    fn default() -> Self {
        Self { limit: 100, after: None }
    }
}

impl PageRequest {
    /// How many rows a store gives: at least one, at most 1,000.
    pub(crate) fn rows(self) -> usize {
        self.limit.clamp(1, 1_000) as usize
    }
}

/// A page, newest first. It is stable: what comes in while one reads on does not shift it.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; `None` when this is the last.
    pub next: Option<i64>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

macro_rules! query {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            /// The tenant.
            pub tenant: Tenant,
            $($(#[$field_doc])* pub $field: $type,)*
            /// Which page.
            pub page: PageRequest,
        }

        impl $name {
            /// Everything of a tenant; the first page.
            pub fn of(tenant: Tenant) -> Self {
                Self { tenant, $($field: Default::default(),)* page: PageRequest::default() }
            }

            $(
                #[doc = concat!("Narrows by `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )*

            /// Asks for a certain page.
            #[must_use]
            pub fn page(mut self, page: PageRequest) -> Self {
                self.page = page;
                self
            }
        }
    };
}

query! {
    /// Which observations.
    ObservationQuery {
        /// Of this repository.
        repo: Option<RepoId>,
        /// Received at or after this.
        since: Option<Timestamp>,
    }
}
query! {
    /// Which events.
    EventQuery {
        /// Of this repository.
        repo: Option<RepoId>,
        /// Of this kind.
        kind: Option<EventKind>,
        /// About this commit (as head).
        commit: Option<CommitId>,
        /// About this pull request.
        pull_request: Option<u64>,
        /// About this subject.
        subject: Option<crate::event::SubjectKey>,
        /// Received at or after this.
        since: Option<Timestamp>,
        /// Received before this.
        until: Option<Timestamp>,
    }
}
query! {
    /// Which decisions.
    DecisionQuery {
        /// About this event.
        event: Option<EventKey>,
        /// About this attempt.
        attempt: Option<AttemptId>,
    }
}
query! {
    /// Which runs, in the order in which they were planned by their engine's clock.
    RunQuery {
        /// Of this repository.
        repo: Option<RepoId>,
        /// Of the repository with this full name, whatever its connection.
        repo_name: Option<String>,
        /// Of this workflow.
        workflow: Option<WorkflowId>,
        /// Of the workflow with this name, wherever it is defined.
        workflow_name: Option<String>,
        /// Of this trigger.
        trigger: Option<String>,
        /// For this pull request.
        pull_request: Option<u64>,
        /// For this commit.
        commit: Option<CommitId>,
        /// For this subject.
        subject: Option<crate::event::SubjectKey>,
        /// Caused by this event.
        event: Option<EventKey>,
        /// In one of these states; in any when empty.
        states: Vec<RunState>,
        /// Planned at or after this.
        since: Option<Timestamp>,
        /// Planned before this.
        until: Option<Timestamp>,
    }
}
query! {
    /// Which statuses.
    StatusQuery {
        /// Of this repository.
        repo: Option<RepoId>,
        /// On this commit.
        commit: Option<CommitId>,
    }
}
query! {
    /// Which notifications of the outbox.
    DeliveryQuery {
        /// About this run.
        run: Option<RunKey>,
        /// In this state.
        state: Option<NotificationState>,
    }
}
