//! What a program does with an engine while it runs: [`EngineHandle`].

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::SignedDuration;
use serde_json::Value;

use super::{
    backoff,
    command::{Command, RerunOf},
    core::Core,
    dispatcher::sink_run,
    health::{ConnectionHealth, Health, NotifierHealth, SinkHealth},
};
use crate::{
    CancelMode, CommitId, ConnectionName, DeliveryKey, Error, Event, EventKey, EventKind, GroupKey,
    LogRef, Observation, RepoRef, Result, Run, RunKey, Store, SubjectClaim, Tenant, WorkflowId,
    event::{Occurrence, Revision, Seen, SubjectKey},
    source::Connections,
    store::{
        Admitted, DecisionBatch, DecisionQuery, DeliveryQuery, EventQuery, ObservationQuery,
        OutboxNotification, Page, PageRequest, RecordedObservation, RunQuery, StatusQuery,
        StatusRecord,
    },
};

/// How often the ledger is asked about a run that another process may have ended.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// What a program does with an engine while it runs. Clones are cheap and share the engine.
///
/// Commands ([`cancel`](Self::cancel), [`rerun`](Self::rerun) and so on) return when they are stored;
/// they are carried out by the engine, once, also when the process dies in between. Their `key` is
/// the caller's idempotency key: the same command with the same key is the same command. `by` says
/// who, as the embedding program knows them; the [`Policy`](crate::Policy) sees it as
/// [`FactsOrigin::Caller`](crate::policy::FactsOrigin::Caller).
///
/// # Example
///
/// ```
/// use workflows_core::{Result, engine::{EngineHandle, Submission}};
///
/// /// Runs what `acme/api` has for `on: manual`, and tells what was decided.
/// async fn deploy(engine: &EngineHandle, ticket: &str, by: &str) -> Result<String> {
///     let asked = Submission::new("github", "acme/api", ticket, by)
///         .at_ref("refs/heads/main")
///         .with_param("environment", "staging");
///     let event = engine.submit(asked).await?;
///     Ok(engine.explain_event(&event.tenant, &event.key).await?.to_string())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct EngineHandle {
    pub(super) core: Arc<Core>,
}

/// What to run, for a caller who asks for it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Submission {
    /// The tenant.
    pub tenant: Tenant,
    /// The connection through which the repository is reached.
    pub connection: ConnectionName,
    /// The repository's full name.
    pub repo: Arc<str>,
    /// The full name of the ref, such as `refs/heads/main`; the default branch when `None`.
    pub reference: Option<Arc<str>>,
    /// The commit; the one at which the ref stands when `None`.
    pub commit: Option<CommitId>,
    /// Parameters: `event.data.params` of the event.
    pub params: BTreeMap<String, Value>,
    /// Only this workflow: `event.data.workflow` of the event. All that have a trigger `on: manual`
    /// for the repository when `None`.
    pub workflow: Option<Arc<str>>,
    /// The caller's idempotency key.
    pub key: Arc<str>,
    /// Who asks, as the embedding program knows them.
    pub by: Arc<str>,
}

impl Submission {
    /// Asks for runs at the default branch of a repository of the default tenant.
    pub fn new(
        connection: impl Into<ConnectionName>,
        repo: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        by: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            tenant: Tenant::default(),
            connection: connection.into(),
            repo: repo.into(),
            reference: None,
            commit: None,
            params: BTreeMap::new(),
            workflow: None,
            key: key.into(),
            by: by.into(),
        }
    }

    /// Asks in another tenant.
    #[must_use]
    pub fn in_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = tenant;
        self
    }

    /// Asks for another ref, by its full name.
    #[must_use]
    pub fn at_ref(mut self, reference: impl Into<Arc<str>>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Asks for a certain commit.
    #[must_use]
    pub fn at_commit(mut self, commit: CommitId) -> Self {
        self.commit = Some(commit);
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with_param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Asks for one workflow only.
    #[must_use]
    pub fn for_workflow(mut self, name: impl Into<Arc<str>>) -> Self {
        self.workflow = Some(name.into());
        self
    }
}

impl EngineHandle {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The ledger, for whatever the other methods do not offer.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// Hands in observations, as an event source would. Returns when they are stored.
    ///
    /// # Errors
    ///
    /// As [`Publisher::publish`](crate::Publisher::publish).
    pub async fn publish(&self, observations: Vec<Observation>) -> Result<Vec<Admitted>> {
        self.core.store.admit(observations, None).await
    }

    /// Asks for runs: an event of kind `manual`. The same key for the same repository is the same
    /// event, which is returned again.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such connection, repository, ref or commit, and what else the
    /// connection and the ledger return.
    pub async fn submit(&self, submission: Submission) -> Result<Event> {
        let core = &self.core;
        let connection = core.connections.repository(
            &submission.tenant,
            &submission.connection,
            &submission.repo,
        );
        let connection = core.call("connect to the repository", connection).await?;
        let reference = match submission.reference {
            Some(reference) => reference,
            None => core.call("read the default branch", connection.default_branch()).await?,
        };
        let wanted = submission.commit.as_ref().map_or(&*reference, CommitId::as_str);
        let commit = core.call("resolve the commit", connection.resolve(wanted)).await?;
        let mut occurrence = Occurrence::new(EventKind::MANUAL, Arc::clone(&submission.key));
        occurrence.head = Some(Revision::new(commit, reference));
        if !submission.params.is_empty() {
            let params = submission.params.into_iter().collect();
            occurrence.data.insert("params".to_owned(), Value::Object(params));
        }
        if let Some(workflow) = submission.workflow {
            occurrence.data.insert("workflow".to_owned(), Value::String(workflow.to_string()));
        }
        let repo = connection.repo().clone();
        let delivery = format!("manual/{}/{}", repo.id, submission.key);
        let observation = Observation::new(
            submission.tenant,
            repo,
            Command::SOURCE.into(),
            delivery.into(),
            Seen::Told,
            SubjectClaim::Occurrence(Box::new(occurrence)),
        )
        .by(submission.by);
        self.admit(observation).await
    }

    /// Stores an observation of something that happens once, and returns its event, also when it
    /// was stored before.
    pub(super) async fn admit(&self, observation: Observation) -> Result<Event> {
        let tenant = observation.tenant.clone();
        let repo = observation.repo.id.clone();
        let subject = observation.claim.subject();
        let admitted = self.core.store.admit(vec![observation], None).await?;
        match admitted.into_iter().next() {
            Some(Admitted::Event(event)) => Ok(*event),
            _ => self.admitted_before(tenant, repo, subject).await,
        }
    }

    async fn admitted_before(
        &self,
        tenant: Tenant,
        repo: crate::RepoId,
        subject: SubjectKey,
    ) -> Result<Event> {
        let query = EventQuery::of(tenant)
            .repo(Some(repo))
            .subject(Some(subject))
            .page(PageRequest { limit: 1, after: None });
        let known = self.core.store.events(query).await?;
        known.items.into_iter().next().ok_or_else(|| {
            Error::not_found(
                "store a request",
                "a request with this key was carried out, and is not kept any longer; use another \
                 key",
            )
        })
    }

    async fn command(
        &self,
        tenant: &Tenant,
        repo: RepoRef,
        command: Command,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        self.admit(command.observed(tenant.clone(), repo, key, by)).await
    }

    /// Ends a run.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no such run, and what the ledger returns.
    pub async fn cancel(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        mode: CancelMode,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let known = self.known_run(tenant, run).await?;
        let command = Command::Cancel { run: run.clone(), mode };
        self.command(tenant, known.repo, command, key, by).await
    }

    /// Runs a workflow's trigger again for the event of one of its runs: another attempt, whose id
    /// is the command's.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    pub async fn rerun(&self, tenant: &Tenant, run: &RunKey, key: &str, by: &str) -> Result<Event> {
        let known = self.known_run(tenant, run).await?;
        let command = Command::Rerun { of: RerunOf::Run { run: run.clone() } };
        self.command(tenant, known.repo, command, key, by).await
    }

    /// Runs whatever matches an event again, as another attempt.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no such event, and what the ledger returns.
    pub async fn rerun_event(
        &self,
        tenant: &Tenant,
        event: &EventKey,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let known = self.core.store.event(tenant, event).await?.ok_or_else(|| {
            Error::not_found("find an event", "the tenant has no such event").with("event", event)
        })?;
        let command = Command::Rerun { of: RerunOf::Event { event: event.clone() } };
        self.command(tenant, known.repo, command, key, by).await
    }

    /// Approves the head of a pull request: what waits for it is decided again.
    ///
    /// # Errors
    ///
    /// What the ledger returns. Whether the pull request is there, and stands at that head, is found
    /// out when the command is carried out.
    pub async fn approve(
        &self,
        tenant: &Tenant,
        repo: RepoRef,
        pull_request: u64,
        head: CommitId,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        self.command(tenant, repo, Command::Approve { pull_request, head }, key, by).await
    }

    /// Keeps the runs of a workflow waiting until it is released.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn hold(
        &self,
        tenant: &Tenant,
        workflow: WorkflowId,
        reason: &str,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let command = Command::Hold { workflow, reason: reason.to_owned() };
        self.command(tenant, Command::engine_repo(), command, key, by).await
    }

    /// Releases the runs of a held workflow.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn unhold(
        &self,
        tenant: &Tenant,
        workflow: WorkflowId,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let command = Command::Unhold { workflow };
        self.command(tenant, Command::engine_repo(), command, key, by).await
    }

    /// Ends every run that waits in a concurrency group.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn clear_queue(
        &self,
        tenant: &Tenant,
        group: GroupKey,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let command = Command::ClearQueue { group };
        self.command(tenant, Command::engine_repo(), command, key, by).await
    }

    /// Delivers a notification again that was given up.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn resend(
        &self,
        tenant: &Tenant,
        delivery: DeliveryKey,
        key: &str,
        by: &str,
    ) -> Result<Event> {
        let command = Command::Resend { delivery };
        self.command(tenant, Command::engine_repo(), command, key, by).await
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn run(&self, tenant: &Tenant, key: &RunKey) -> Result<Option<Run>> {
        self.core.store.run(tenant, key).await
    }

    async fn known_run(&self, tenant: &Tenant, key: &RunKey) -> Result<Run> {
        self.core.store.run(tenant, key).await?.ok_or_else(|| {
            Error::not_found("find a run", "the tenant has no such run").with("run", key)
        })
    }

    /// Runs, newest first.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn runs(&self, query: RunQuery) -> Result<Page<Run>> {
        self.core.store.runs(query).await
    }

    /// Observations, newest first: also those that were duplicates, and why.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn observations(&self, query: ObservationQuery) -> Result<Page<RecordedObservation>> {
        self.core.store.observations(query).await
    }

    /// Events, newest first.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn events(&self, query: EventQuery) -> Result<Page<Event>> {
        self.core.store.events(query).await
    }

    /// Decisions, newest first.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn decisions(&self, query: DecisionQuery) -> Result<Page<DecisionBatch>> {
        self.core.store.decisions(query).await
    }

    /// Statuses, newest first: what they should show, what they were made to show, and why they
    /// cannot be shown.
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn statuses(&self, query: StatusQuery) -> Result<Page<StatusRecord>> {
        self.core.store.statuses(query).await
    }

    /// Notifications of the outbox, newest first; the dead letters among them are those in state
    /// [`Dead`](crate::store::NotificationState::Dead).
    ///
    /// # Errors
    ///
    /// What the ledger returns.
    pub async fn notifications(&self, query: DeliveryQuery) -> Result<Page<OutboxNotification>> {
        self.core.store.notifications(query).await
    }

    /// Waits until a run has ended, for as long as it takes.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no such run (any more), and what the ledger returns.
    pub async fn wait_for(&self, tenant: &Tenant, key: &RunKey) -> Result<Run> {
        loop {
            let committed = self.core.committed.notified();
            tokio::pin!(committed);
            committed.as_mut().enable();
            let run = self.known_run(tenant, key).await?;
            if run.state.is_terminal() {
                return Ok(run);
            }
            // Another process may end it, which nobody here hears of.
            let next = backoff::after(self.core.clock.now(), ASK_AGAIN);
            tokio::select! {
                () = committed => (),
                () = self.core.clock.sleep_until(next) => (),
            }
        }
    }

    /// The log of a step, oldest bytes first; with `follow`, also what is to come, until the step
    /// ends.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no such run or the engine no sink of its name, `Unsupported`
    /// when its sink keeps no logs; the stream, what [`LogSource`](crate::sink::LogSource) returns.
    pub async fn logs(
        &self,
        tenant: &Tenant,
        run: &RunKey,
        step: LogRef,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        const OPERATION: &str = "read a log";
        let run = self.known_run(tenant, run).await?;
        let sink = self.core.sinks.get(&run.sink).ok_or_else(|| {
            Error::not_found(OPERATION, "the engine has no sink of that name")
                .with("sink", &run.sink)
        })?;
        let logs = sink.logs().ok_or_else(|| {
            Error::unsupported(OPERATION, "the sink keeps no logs").with("sink", &run.sink)
        })?;
        Ok(logs.stream(&sink_run(&run), &step, follow))
    }

    /// How the engine gets on: sources, stages and their backlog, what each connection offers.
    ///
    /// # Errors
    ///
    /// What the ledger returns: a ledger that does not answer is the worst of health.
    pub async fn health(&self) -> Result<Health> {
        let core = &self.core;
        let backlogs = core.store.backlog().await?;
        let connections = core.connections.all().into_iter().map(|((tenant, name), connection)| {
            ConnectionHealth {
                tenant,
                connection: name,
                host: connection.driver.host().to_owned(),
                capabilities: connection.driver.capabilities(),
                definitions: connection.options.definitions.as_deref().map(str::to_owned),
            }
        });
        let sinks = core.sinks.iter().map(|(name, sink)| SinkHealth {
            sink: name.clone(),
            default: *name == core.default_sink,
            tells_changes: sink.changes().is_some(),
            logs: sink.logs().is_some(),
        });
        let now = core.clock.now();
        let notifiers = core.notifiers.names().into_iter().map(|(tenant, notifier)| {
            let closed = core.notifiers.destinations.closed(&tenant, &notifier, now).unzip();
            NotifierHealth { tenant, notifier, closed_until: closed.0, last_error: closed.1 }
        });
        Ok(Health {
            at: now,
            sources: core.health.sources(),
            stages: backlogs.into_iter().map(|backlog| core.health.stage(backlog)).collect(),
            connections: connections.collect(),
            sinks: sinks.collect(),
            notifiers: notifiers.collect(),
        })
    }
}
