//! Who may start what, and what a workflow may ask for: [`Policy`].

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    CommitId, EventKind, Permission, RepoRef, Result, Tenant, WorkflowId, event::SubjectKey,
};

/// Who may start what, and what a run may ask for. Owned by the platform team.
///
/// `decide` is asked twice for a run: by the gate, about the event's origin, and again right before
/// the run is created, so that what was revoked meanwhile does not run. `judge` is asked about what
/// the planned run asks for.
///
/// # Implementing
///
/// A fact that could not be had is `None` in [`Facts`]; treat it as not trusted. A decision should
/// be quick and need no network: the facts are there for that.
#[async_trait]
pub trait Policy: Debug + Send + Sync + 'static {
    /// Whose event may start a run, and who may give a command.
    async fn decide(&self, facts: &Facts) -> Result<Verdict>;

    /// Whether a planned run may have what it asks for: service account, secrets, workspaces,
    /// resolvers, sink, notifiers.
    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict>;

    /// What the policy of a tenant is called and at which generation it stands; recorded with each
    /// decision.
    fn version(&self, tenant: &Tenant) -> String;

    /// Which facts about the actor the policy looks at for an origin. The gate fetches no others.
    fn wants_permission(&self, origin: &FactsOrigin) -> bool {
        matches!(origin, FactsOrigin::Fork { .. } | FactsOrigin::Comment { .. })
    }

    /// Whether a pull request's definitions are read at its base rather than at its head.
    fn pins_definitions_to_base(&self, _tenant: &Tenant, _repo: &RepoRef) -> bool {
        false
    }
}

/// What is known about who asks for what. It is stored with the run, so that the policy can be asked
/// again before the run is created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Facts {
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// What kind of event.
    pub kind: EventKind,
    /// What is asked for.
    pub request: Request,
    /// Where the event comes from.
    pub origin: FactsOrigin,
    /// Who did it, by the host's name.
    pub actor: Option<Arc<str>>,
    /// What the actor may do in the repository; `None` when that is not known.
    pub permission: Option<Permission>,
    /// The approval of this very head, when there is one.
    pub approval: Option<Approval>,
}

impl Facts {
    /// Facts of which only these are known.
    pub fn new(
        tenant: Tenant,
        repo: RepoRef,
        kind: EventKind,
        request: Request,
        origin: FactsOrigin,
    ) -> Self {
        Self { tenant, repo, kind, request, origin, actor: None, permission: None, approval: None }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Request {
    /// Start what matches the event.
    Run,
    /// `/test`, `/retest`, or a caller's re-run.
    Rerun,
    /// `/ok-to-test`, or a caller's approval.
    Approve,
    /// `/cancel`, or a caller's cancel.
    Cancel,
}

/// Where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FactsOrigin {
    /// A ref of the connected repository itself: whoever pushed could write to it.
    OwnRef,
    /// A pull request whose head is in another repository.
    Fork {
        /// Who opened it.
        author: Arc<str>,
    },
    /// A comment.
    Comment {
        /// Who wrote it.
        author: Arc<str>,
    },
    /// A schedule of a workflow that the tenant or the default branch defines.
    Schedule,
    /// A program or a person that the embedding program let in.
    Caller {
        /// Who, as the embedding program says.
        name: Arc<str>,
    },
    /// A source of the platform's own, for custom kinds.
    Source {
        /// The source's name.
        name: Arc<str>,
    },
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may when somebody has approved.
    Wait {
        /// Who may, in words for people.
        approvers: String,
    },
    /// It may not.
    Deny {
        /// By which rule, in words for people.
        rule: String,
    },
}

/// What a planned run asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedRun<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// The repository of the event.
    pub repo: &'a RepoRef,
    /// The workflow.
    pub workflow: &'a WorkflowId,
    /// Whether the document stood in the repository rather than with the platform.
    pub in_repository: bool,
    /// The whole PipelineRun.
    pub pipeline_run: &'a Value,
    /// The sink that it asks for.
    pub sink: &'a str,
    /// The notifiers that it asks for.
    pub notifiers: Vec<&'a str>,
    /// Labels and annotations of the workflow.
    pub metadata: &'a BTreeMap<String, String>,
}

impl<'a> PlannedRun<'a> {
    /// A planned run as the policy sees it.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a fact of its own, and none has a default"
    )]
    pub fn new(
        tenant: &'a Tenant,
        repo: &'a RepoRef,
        workflow: &'a WorkflowId,
        in_repository: bool,
        pipeline_run: &'a Value,
        sink: &'a str,
        notifiers: Vec<&'a str>,
        metadata: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { tenant, repo, workflow, in_repository, pipeline_run, sink, notifiers, metadata }
    }

    /// The service accounts that it asks for, of the run and of its tasks.
    pub fn service_accounts(&self) -> Vec<&'a str> {
        let spec = &self.pipeline_run["spec"];
        let of_run = spec["taskRunTemplate"]["serviceAccountName"].as_str();
        let of_tasks = spec["taskRunSpecs"].as_array().into_iter().flatten();
        of_run
            .into_iter()
            .chain(of_tasks.filter_map(|task| task["serviceAccountName"].as_str()))
            .collect()
    }
}

/// That somebody approved a head. It ends with the head: another commit needs another approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// The pull request.
    pub subject: SubjectKey,
    /// The very commit that was approved.
    pub head: CommitId,
    /// Who approved.
    pub by: Arc<str>,
    /// When.
    pub at: Timestamp,
}

/// The policy of an embedded engine, and the starting point for others: refs of the repository
/// itself, schedules and callers are trusted; a fork's pull request waits for the approval of
/// somebody who may write, unless its author may; commands are for those who may write.
///
/// Nothing that a run asks for is restricted: who embeds the engine without a policy of their own
/// owns the machine that it runs on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use workflows_core::{
///     EventKind, RepoRef, Tenant,
///     policy::{DefaultPolicy, Facts, FactsOrigin, Policy, Request, Verdict},
/// };
///
/// let repo = RepoRef { connection: "c".into(), id: "1".into(), name: "acme/api".into() };
/// let facts = Facts::new(
///     Tenant::default(),
///     repo,
///     EventKind::PULL_REQUEST,
///     Request::Run,
///     FactsOrigin::Fork { author: "stranger".into() },
/// );
/// assert!(matches!(DefaultPolicy.decide(&facts).await.unwrap(), Verdict::Wait { .. }));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultPolicy;

#[async_trait]
impl Policy for DefaultPolicy {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        let may_write = facts.permission.is_some_and(|permission| permission >= Permission::Write);
        let verdict = match (&facts.origin, facts.request) {
            (FactsOrigin::OwnRef | FactsOrigin::Schedule | FactsOrigin::Caller { .. }, _) => {
                Verdict::Allow
            }
            (FactsOrigin::Source { .. }, Request::Run) => Verdict::Allow,
            (FactsOrigin::Fork { .. } | FactsOrigin::Comment { .. }, _) if may_write => {
                Verdict::Allow
            }
            (FactsOrigin::Fork { .. }, Request::Run) if facts.approval.is_some() => Verdict::Allow,
            (FactsOrigin::Fork { .. }, Request::Run) => Verdict::Wait {
                approvers: format!("somebody with write access to {}", facts.repo.name),
            },
            (_, _) => Verdict::Deny {
                rule: format!("only those with write access to {} may", facts.repo.name),
            },
        };
        Ok(verdict)
    }

    async fn judge(&self, _request: &PlannedRun<'_>) -> Result<Verdict> {
        Ok(Verdict::Allow)
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "default".to_owned()
    }
}
