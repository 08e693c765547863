//! Whose event it is, and which commit of the repository may say what runs.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use tokio::sync::OnceCell;

use super::{command::Command, core::Core};
use crate::{
    ConnectionName, Error, ErrorKind, Event, EventKind, Permission, RepoConnection, RepoId, Result,
    Tenant,
    event::SubjectKey,
    policy::{Facts, FactsOrigin, Request, Verdict},
    source::Connections,
};

/// What the policy said about one of those whom an event hangs on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    pub(crate) facts: Facts,
    pub(crate) verdict: Verdict,
}

/// The gate of one event. It is lazy: facts that cost a call are fetched when a candidate hangs on
/// them, and once.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    core: &'a Core,
    event: &'a Event,
    repository: OnceCell<Arc<dyn RepoConnection>>,
    change: OnceCell<Option<Judged>>,
    asker: OnceCell<Option<Judged>>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(core: &'a Core, event: &'a Event) -> Self {
        Self {
            core,
            event,
            repository: OnceCell::new(),
            change: OnceCell::new(),
            asker: OnceCell::new(),
        }
    }

    /// The event's repository.
    pub(crate) async fn repository(&self) -> Result<&Arc<dyn RepoConnection>> {
        let Event { tenant, repo, .. } = self.event;
        self.repository
            .get_or_try_init(|| {
                self.core.call("connect", async {
                    self.core.connections.repository(tenant, &repo.connection, &repo.name).await
                })
            })
            .await
    }

    /// What the policy says about those whose change the event is about; `None` when it is about no
    /// change.
    pub(crate) async fn change(&self) -> Result<Option<&Judged>> {
        let judged = self.change.get_or_try_init(|| async {
            match change_origin(self.event) {
                Some(origin) => self.judge(Request::Run, origin).await.map(Some),
                None => Ok(None),
            }
        });
        judged.await.map(Option::as_ref)
    }

    /// What the policy says about the one who asks for a run of it; `None` when nobody does.
    async fn asker(&self) -> Result<Option<&Judged>> {
        let judged = self.asker.get_or_try_init(|| async {
            match asker_origin(self.event) {
                Some(origin) => self.judge(Request::Run, origin).await.map(Some),
                None => Ok(None),
            }
        });
        judged.await.map(Option::as_ref)
    }

    /// What the policy says about all of them: their facts, and the first verdict that is no
    /// `Allow`.
    pub(crate) async fn all(&self) -> Result<(Vec<Facts>, Verdict)> {
        let mut facts = Vec::new();
        for judged in [self.change().await?, self.asker().await?].into_iter().flatten() {
            facts.push(judged.facts.clone());
            if judged.verdict != Verdict::Allow {
                return Ok((facts, judged.verdict.clone()));
            }
        }
        if facts.is_empty() {
            let rule = "nobody is known who caused the event".to_owned();
            return Ok((facts, Verdict::Deny { rule }));
        }
        Ok((facts, Verdict::Allow))
    }

    /// Asks the policy, first with what is known at no cost, and with the actor's permission when
    /// that may make a difference.
    pub(crate) async fn judge(&self, request: Request, origin: FactsOrigin) -> Result<Judged> {
        let Event { tenant, repo, kind, .. } = self.event;
        let mut facts =
            Facts::new(tenant.clone(), repo.clone(), kind.clone(), request, origin.clone());
        facts.actor = match &origin {
            FactsOrigin::Fork { author } | FactsOrigin::Comment { author } => {
                Some(Arc::clone(author))
            }
            FactsOrigin::Caller { name } => Some(Arc::clone(name)),
            _ => self.event.sender.clone(),
        };
        if let (FactsOrigin::Fork { .. }, Some(pull_request)) = (&origin, &self.event.pull_request)
        {
            let subject = SubjectKey::pull_request(pull_request.number);
            let head = &pull_request.head.sha;
            facts.approval = self.core.store.approval(tenant, &repo.id, &subject, head).await?;
        }
        let verdict = self.ask(&facts).await?;
        if verdict == Verdict::Allow || !self.core.policy.wants_permission(&origin) {
            return Ok(Judged { facts, verdict });
        }
        let Some(actor) = facts.actor.clone() else { return Ok(Judged { facts, verdict }) };
        facts.permission = self.permission(&actor).await?;
        let verdict = match facts.permission {
            Some(_) => self.ask(&facts).await?,
            None => verdict,
        };
        Ok(Judged { facts, verdict })
    }

    async fn ask(&self, facts: &Facts) -> Result<Verdict> {
        match self.core.call("ask the policy", self.core.policy.decide(facts)).await {
            Err(error) if !error.kind().is_retryable() => {
                Ok(Verdict::Deny { rule: format!("the policy gave no answer: {error}") })
            }
            answer => answer,
        }
    }

    /// What a person may do in the repository; `None` when that cannot be known. What may be known
    /// later is an error, for an event that waits for a host is not denied.
    async fn permission(&self, actor: &Arc<str>) -> Result<Option<Permission>> {
        let Event { tenant, repo, .. } = self.event;
        let known = &self.core.permissions;
        let now = self.core.clock.now();
        let key = (tenant.clone(), repo.connection.clone(), repo.id.clone(), Arc::clone(actor));
        if let Some(permission) = known.get(&key, now).await {
            return Ok(Some(permission));
        }
        let asked = async {
            let repository = self.repository().await?;
            match repository.permissions() {
                Some(power) => self.core.call("ask for a permission", power.of(actor)).await,
                None => {
                    Err(Error::unsupported("ask for a permission", "the host does not tell them"))
                }
            }
        };
        match asked.await {
            Ok(permission) => {
                known.insert(key, permission, now).await;
                Ok(Some(permission))
            }
            Err(error) if error.kind().is_retryable() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a permission is unknown");
                Ok(None)
            }
        }
    }

    /// Which commit's directory says what runs for the event.
    pub(crate) async fn definitions(&self) -> Result<DefinitionsAt> {
        let event = self.event;
        if let Some(pull_request) = &event.pull_request {
            let head = pull_request.head.sha.clone();
            let base = pull_request.base.sha.clone();
            if self.core.policy.pins_definitions_to_base(&event.tenant, &event.repo) {
                return Ok(DefinitionsAt::Commit(base));
            }
            let trusted =
                self.change().await?.is_some_and(|judged| judged.verdict == Verdict::Allow);
            return Ok(DefinitionsAt::Commit(if trusted { head } else { base }));
        }
        if event.is_deletion() {
            return Ok(DefinitionsAt::Nowhere);
        }
        let says_itself = event.kind != EventKind::SCHEDULE && event.kind != EventKind::COMMENT;
        match &event.head {
            Some(head) if says_itself => Ok(DefinitionsAt::Commit(head.sha.clone())),
            _ => Ok(DefinitionsAt::DefaultBranch),
        }
    }

    /// Whether the repository says that a ref or pull request has moved on from an event whose
    /// place in the chain could not be told, to a commit whose own event is in the ledger. Then
    /// the present state is returned.
    pub(crate) async fn moved_on(&self) -> Result<Option<String>> {
        let event = self.event;
        if !event.unchained || ![EventKind::PUSH, EventKind::TAG].contains(&event.kind) {
            return Ok(None);
        }
        let Some(head) = &event.head else { return Ok(None) };
        let repository = self.repository().await?;
        let present = match self.core.call("resolve", repository.resolve(&head.reference)).await {
            Ok(commit) => commit,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if present == head.sha {
            return Ok(None);
        }
        let present = present.to_string();
        let until = self.core.clock.now();
        let arrivals = self
            .core
            .store
            .arrivals(&event.tenant, &event.repo.id, &event.subject, until, Self::ARRIVALS)
            .await?;
        Ok(arrivals.iter().any(|arrival| arrival.state == present).then_some(present))
    }

    /// How far back the arrivals of a ref are looked through for its present commit.
    const ARRIVALS: usize = 100;
}

/// Where definitions are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DefinitionsAt {
    /// At this commit.
    Commit(crate::CommitId),
    /// Where the default branch stands now.
    DefaultBranch,
    /// There is no commit.
    Nowhere,
}

/// Whose change an event is about.
fn change_origin(event: &Event) -> Option<FactsOrigin> {
    match &event.pull_request {
        Some(pull_request) if pull_request.fork => {
            Some(FactsOrigin::Fork { author: Arc::clone(&pull_request.author) })
        }
        Some(_) => Some(FactsOrigin::OwnRef),
        None if [EventKind::PUSH, EventKind::TAG].contains(&event.kind) => {
            Some(FactsOrigin::OwnRef)
        }
        None if event.kind == EventKind::SCHEDULE => Some(FactsOrigin::Schedule),
        None => None,
    }
}

/// Who asks for a run, when that is somebody else than who made the change.
///
/// Nobody does for a label: hosts let only those set one who may sort issues and pull requests,
/// which is less than writing, so a label never makes the change of a stranger a trusted one. The
/// one who made the change is judged as for the pull request itself.
fn asker_origin(event: &Event) -> Option<FactsOrigin> {
    const CHANGES: [EventKind; 5] = [
        EventKind::PUSH,
        EventKind::TAG,
        EventKind::PULL_REQUEST,
        EventKind::LABEL,
        EventKind::SCHEDULE,
    ];
    if event.kind == EventKind::COMMENT {
        let author = match &event.comment {
            Some(comment) => Arc::clone(&comment.author),
            None => event.sender.clone().unwrap_or_else(|| "unknown".into()),
        };
        return Some(FactsOrigin::Comment { author });
    }
    (!CHANGES.contains(&event.kind)).then(|| sender_origin(event))
}

/// Whether an event hangs on somebody who needs no right to the repository to cause it.
pub(crate) fn comes_from_outside(event: &Event) -> bool {
    [change_origin(event), asker_origin(event)]
        .iter()
        .flatten()
        .any(|origin| matches!(origin, FactsOrigin::Fork { .. } | FactsOrigin::Comment { .. }))
}

/// The origin of what somebody told the engine: the embedding program's own requests are trusted,
/// those that another source brought are that source's.
pub(crate) fn sender_origin(event: &Event) -> FactsOrigin {
    if event.source.as_str() == Command::SOURCE {
        let name = event.sender.clone().unwrap_or_else(|| Command::SOURCE.into());
        return FactsOrigin::Caller { name };
    }
    if event.kind == EventKind::COMMAND {
        let author = event.sender.clone().unwrap_or_else(|| "unknown".into());
        return FactsOrigin::Comment { author };
    }
    FactsOrigin::Source { name: event.source.as_str().into() }
}

type Who = (Tenant, ConnectionName, RepoId, Arc<str>);

/// What people may do, as it was asked a short while ago.
#[derive(Debug)]
pub(crate) struct PermissionCache(Cache<Who, (Permission, Timestamp)>);

impl PermissionCache {
    const KEPT: u64 = 10_000;
    /// What was revoked counts for so long.
    const FRESH: SignedDuration = SignedDuration::from_secs(60);

    pub(crate) fn new() -> Self {
        Self(Cache::new(Self::KEPT))
    }

    async fn get(&self, who: &Who, now: Timestamp) -> Option<Permission> {
        let (permission, at) = self.0.get(who).await?;
        let age = now.duration_since(at);
        (!age.is_negative() && age < Self::FRESH).then_some(permission)
    }

    async fn insert(&self, who: Who, permission: Permission, now: Timestamp) {
        self.0.insert(who, (permission, now)).await;
    }
}

/// Names the policy that judged, for records.
pub(crate) fn judged_by(core: &Core, tenant: &Tenant) -> BTreeMap<String, String> {
    BTreeMap::from([("policy".to_owned(), core.policy.version(tenant))])
}
