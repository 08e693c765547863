//! Which workflows there are: the registered ones, and those that repositories define.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use moka::future::Cache;
use tokio::sync::watch;

use super::{
    core::Core,
    directory::{self, LoadedDirectory, Place},
    schedule::{ScheduleBook, Scheduled},
};
use crate::{
    CommitId, ConnectionName, Error, EventKind, RepoConnection, RepoId, RepoRef, Result, Tenant,
    WorkflowId,
    matching::{Definition, Index, Pattern, TriggerSet, narrowest, note_interests},
    source::{Connections, Interests, RepoInterest},
    workflow::{LoadContext, LoadedWorkflow, PackedWorkflow},
};

/// Which directory at which commit, loaded when which names were known.
type AtCommit = (u64, Tenant, ConnectionName, RepoId, CommitId, Arc<str>);
/// Which content of which repository, loaded when which names were known.
type Content = (u64, Tenant, ConnectionName, RepoId, Arc<str>, Arc<str>);

/// The workflows of all tenants.
#[derive(Debug)]
pub(crate) struct Definitions {
    index: Index,
    registered: Mutex<HashMap<Named, Registered>>,
    /// What the default branches of repositories define, as far as they were read.
    defaults: Mutex<BTreeMap<Repository, DefaultBranch>>,
    interests: watch::Sender<Arc<Interests>>,
    at_commit: Cache<AtCommit, Arc<LoadedDirectory>>,
    by_content: Cache<Content, Arc<LoadedDirectory>>,
    context: Mutex<BTreeMap<Tenant, Arc<LoadContext>>>,
    /// How often the names that documents may use have changed.
    names: AtomicU64,
}

/// A registered workflow: what events are matched with, and what its runs are made of.
#[derive(Debug)]
struct Registered {
    definition: Arc<Definition>,
    packed: Arc<PackedWorkflow>,
}

/// A registered workflow by its name.
type Named = (Tenant, Arc<str>);
/// A repository by its full name.
type Repository = (Tenant, ConnectionName, Arc<str>);

/// What the default branch of a repository defines.
#[derive(Debug, Clone)]
struct DefaultBranch {
    repo: RepoRef,
    reference: Arc<str>,
    directory: Arc<LoadedDirectory>,
}

impl Definitions {
    /// How many directories are kept by commit, and how many by content.
    const KEPT: u64 = 10_000;

    pub(crate) fn new() -> Self {
        Self {
            index: Index::new(),
            registered: Mutex::default(),
            defaults: Mutex::default(),
            interests: watch::Sender::new(Arc::default()),
            at_commit: Cache::new(Self::KEPT),
            by_content: Cache::new(Self::KEPT),
            context: Mutex::default(),
            names: AtomicU64::default(),
        }
    }

    // --- registered workflows ------------------------------------------------------------------

    /// Registers a workflow, in place of the tenant's one of that name if there is one.
    ///
    /// # Errors
    ///
    /// `Invalid` when it names no repository, or one that is no pattern; nothing changed then.
    pub(crate) fn register(&self, tenant: &Tenant, workflow: Arc<PackedWorkflow>) -> Result<()> {
        self.put(tenant, workflow)?;
        self.tell_interests();
        Ok(())
    }

    /// Registers many workflows, and returns for each whether it was.
    pub(crate) fn register_all(
        &self,
        workflows: &[(Tenant, Arc<PackedWorkflow>)],
    ) -> Vec<Result<()>> {
        let put = workflows.iter().map(|(tenant, workflow)| self.put(tenant, Arc::clone(workflow)));
        let results = put.collect();
        self.tell_interests();
        results
    }

    fn put(&self, tenant: &Tenant, packed: Arc<PackedWorkflow>) -> Result<()> {
        let refuse = |message: String| {
            Error::invalid("register a workflow", message).with("workflow", packed.name())
        };
        let workflow = packed.unpack();
        let Some(first) = workflow.workflow().spec.repos.first() else {
            return Err(refuse("it does not name the repository whose events start it".to_owned()));
        };
        let id = WorkflowId::registered(Arc::clone(workflow.name()));
        let (connection, repo) = (first.connection.clone(), Arc::clone(&first.repo));
        let definition = Definition::of(tenant.clone(), id, connection, repo, &workflow);
        let definition = Arc::new(definition);
        self.index.upsert(Arc::clone(&definition)).map_err(refuse)?;
        let key = (tenant.clone(), Arc::clone(packed.name()));
        lock(&self.registered).insert(key, Registered { definition, packed });
        Ok(())
    }

    /// Takes a registered workflow out. Returns whether it was there.
    pub(crate) fn unregister(&self, tenant: &Tenant, name: &str) -> bool {
        let removed = self.index.remove(tenant, &WorkflowId::registered(name)).is_some();
        lock(&self.registered).remove(&(tenant.clone(), name.into()));
        self.tell_interests();
        removed
    }

    /// The registered workflow of that name.
    pub(crate) fn registered(&self, tenant: &Tenant, name: &str) -> Option<Arc<LoadedWorkflow>> {
        let packed = {
            let registered = lock(&self.registered);
            Arc::clone(&registered.get(&(tenant.clone(), name.into()))?.packed)
        };
        Some(Arc::new(packed.unpack()))
    }

    /// The triggers of registered workflows that an event may be for.
    pub(crate) fn registered_triggers(
        &self,
        tenant: &Tenant,
        repo: &RepoRef,
        kind: &EventKind,
    ) -> Option<Arc<TriggerSet>> {
        self.index.triggers(tenant, repo, kind)
    }

    /// Names of workflows of a directory that a registered workflow for the same repository has.
    pub(crate) fn overruled(
        &self,
        tenant: &Tenant,
        repo: &RepoRef,
        directory: &LoadedDirectory,
    ) -> BTreeSet<Arc<str>> {
        let is_for_it = |name: &Arc<str>| {
            let id = WorkflowId::registered(Arc::clone(name));
            let Some(definition) = self.index.get(tenant, &id) else { return false };
            *definition.connection() == repo.connection
                && Pattern::of_repository(definition.repo())
                    .is_ok_and(|pattern| pattern.matches(&repo.name))
        };
        directory.workflows.keys().filter(|name| is_for_it(name)).cloned().collect()
    }

    // --- workflows of repositories -------------------------------------------------------------

    /// What documents of repositories of a tenant may name.
    fn context(&self, core: &Core, tenant: &Tenant) -> Arc<LoadContext> {
        let mut contexts = lock(&self.context);
        let context = contexts.entry(tenant.clone()).or_insert_with(|| {
            let mut context = LoadContext::in_repository();
            let connections =
                core.connections.all().into_iter().filter(|((of, _), _)| of == tenant);
            context.connections =
                Some(connections.map(|((_, name), _)| name.to_string()).collect());
            let notifiers = core.notifiers.names().into_iter().filter(|(of, _)| of == tenant);
            context.notifiers = Some(notifiers.map(|(_, name)| name.to_string()).collect());
            context.sinks = Some(core.sinks.keys().map(ToString::to_string).collect());
            context.custom_filters = Some(core.filters.names().map(ToString::to_string).collect());
            Arc::new(context)
        });
        Arc::clone(context)
    }

    /// Forgets which names documents of repositories may use, for they have changed: what was loaded
    /// is loaded anew.
    pub(crate) fn names_changed(&self) {
        // In this order: whoever reads the new number does not find the old names.
        lock(&self.context).clear();
        self.names.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what the repositories of a connection define.
    pub(crate) fn forget_connection(&self, tenant: &Tenant, connection: &ConnectionName) {
        lock(&self.defaults).retain(|(of, name, _), _| (of, name) != (tenant, connection));
        self.tell_interests();
    }

    /// The directory at a commit. It is listed once for a commit, and read and compiled once for a
    /// content; when several ask together, one does it.
    ///
    /// # Errors
    ///
    /// What the repository fails with. What is wrong with a file is no error but a problem of the
    /// directory.
    pub(crate) async fn directory(
        &self,
        core: &Core,
        repository: &Arc<dyn RepoConnection>,
        commit: &CommitId,
        place: &Place,
    ) -> Result<Arc<LoadedDirectory>> {
        let Place { tenant, repo, path, .. } = place;
        let names = self.names.load(Ordering::Acquire);
        let key = (
            names,
            tenant.clone(),
            repo.connection.clone(),
            repo.id.clone(),
            commit.clone(),
            Arc::clone(path),
        );
        let read = self.at_commit.try_get_with(key, async {
            let listing =
                core.call("list directory", directory::list(&**repository, commit, place)).await?;
            let digest = listing.digest.clone();
            let context = self.context(core, tenant);
            let read = async {
                let read = directory::read(&**repository, commit, place, listing, &context);
                core.call("read directory", read).await.map(Arc::new)
            };
            let Some(digest) = digest else { return read.await };
            let content = (
                names,
                tenant.clone(),
                repo.connection.clone(),
                repo.id.clone(),
                Arc::clone(path),
                digest,
            );
            self.by_content.try_get_with(content, read).await.map_err(shared)
        });
        read.await.map_err(shared)
    }

    /// Reads what the default branch of a repository defines: its schedules, and what is to be
    /// polled for it. Returns whether that is other than before.
    ///
    /// # Errors
    ///
    /// What the repository fails with.
    pub(crate) async fn read_default_branch(
        &self,
        core: &Core,
        tenant: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<bool> {
        let Some(path) = core.connections.get(tenant, connection)?.options.definitions.clone()
        else {
            return Ok(false);
        };
        let connecting = core.connections.repository(tenant, connection, repo);
        let repository = core.call("connect", connecting).await?;
        let reference = core.call("find default branch", repository.default_branch()).await?;
        let commit = core.call("resolve", repository.resolve(&reference)).await?;
        let repo = repository.repo().clone();
        let place = Place { tenant: tenant.clone(), repo: repo.clone(), path, recursive: true };
        let directory = self.directory(core, &repository, &commit, &place).await?;
        let key = (tenant.clone(), connection.clone(), Arc::clone(&repo.name));
        let digest = Arc::clone(&directory.digest);
        let before = lock(&self.defaults).insert(key, DefaultBranch { repo, reference, directory });
        let changed = before.is_none_or(|before| before.directory.digest != digest);
        if changed {
            self.tell_interests();
        }
        Ok(changed)
    }

    /// The default branch of a repository, when it was read.
    pub(crate) fn default_branch(&self, tenant: &Tenant, repo: &RepoRef) -> Option<Arc<str>> {
        let key = (tenant.clone(), repo.connection.clone(), Arc::clone(&repo.name));
        lock(&self.defaults).get(&key).map(|known| Arc::clone(&known.reference))
    }

    // --- what sources look at ------------------------------------------------------------------

    /// What sources have to look at; it changes when workflows do.
    pub(crate) fn interests(&self) -> watch::Receiver<Arc<Interests>> {
        let interests = self.interests.subscribe();
        self.tell_interests();
        interests
    }

    /// Finding them costs time that grows with the workflows, so nothing is done when nobody listens.
    fn tell_interests(&self) {
        if self.interests.receiver_count() == 0 {
            return;
        }
        let defaults = lock(&self.defaults).clone();
        let Interests { mut repos } = self.index.interests();
        for ((tenant, connection, name), default) in &defaults {
            let mut interest = everything_of(tenant, connection, name);
            let overruled = self.overruled(tenant, &default.repo, &default.directory);
            for (name, defined) in &default.directory.workflows {
                if !overruled.contains(name) {
                    note_interests(&defined.definition, &mut interest);
                }
            }
            join(&mut repos, interest);
        }
        let interests = Arc::new(Interests { repos });
        self.interests.send_if_modified(|told| {
            let changed = *told != interests;
            *told = Arc::clone(&interests);
            changed
        });
    }
}

impl ScheduleBook for Definitions {
    /// Those of registered workflows that name their repository, and those of the default branches
    /// that were read, without the overruled ones.
    fn schedules(&self) -> Vec<Scheduled> {
        let mut schedules = Vec::new();
        for Registered { definition, .. } in lock(&self.registered).values() {
            if definition.schedules().is_empty() {
                continue;
            }
            let pattern = Pattern::of_repository(definition.repo());
            if pattern.is_ok_and(|one| one.as_literal().is_some()) {
                let (tenant, connection, repo) =
                    (definition.tenant(), definition.connection(), definition.repo());
                let repository = (tenant.clone(), connection.clone(), Arc::clone(repo));
                schedules.extend(schedules_of(definition, &repository));
            }
        }
        let defaults = lock(&self.defaults).clone();
        for (repository, DefaultBranch { repo, directory, .. }) in &defaults {
            let overruled = self.overruled(&repository.0, repo, directory);
            for (name, defined) in &directory.workflows {
                if !overruled.contains(name) {
                    schedules.extend(schedules_of(&defined.definition, repository));
                }
            }
        }
        schedules
    }
}

fn schedules_of(
    definition: &Definition,
    (tenant, connection, repo): &Repository,
) -> impl Iterator<Item = Scheduled> {
    definition.schedules().iter().map(|(trigger, schedule)| Scheduled {
        tenant: tenant.clone(),
        workflow: definition.id().clone(),
        trigger: Arc::clone(trigger),
        schedule: schedule.clone(),
        connection: connection.clone(),
        repo: Arc::clone(repo),
    })
}

/// What is looked at of a repository that defines its own workflows: each branch, each tag and each
/// pull request says itself what runs for it, and none can be ruled out before it is looked at.
fn everything_of(tenant: &Tenant, connection: &ConnectionName, repo: &Arc<str>) -> RepoInterest {
    RepoInterest {
        tenant: tenant.clone(),
        connection: connection.clone(),
        repo: Arc::clone(repo),
        kinds: BTreeSet::from([EventKind::PUSH, EventKind::TAG, EventKind::PULL_REQUEST]),
        ref_prefixes: ["refs/heads/", "refs/tags/"].into_iter().map(Arc::from).collect(),
    }
}

/// Adds an interest to the one in the same repository.
fn join(repos: &mut BTreeSet<RepoInterest>, mut interest: RepoInterest) {
    let place =
        |one: &RepoInterest| (one.tenant.clone(), one.connection.clone(), Arc::clone(&one.repo));
    // They are in the order of their places, and at each the one that asks for nothing comes first.
    let mut nothing = interest.clone();
    nothing.kinds.clear();
    nothing.ref_prefixes.clear();
    let next = repos.range(&nothing..).next();
    let known = next.filter(|next| place(next) == place(&nothing)).cloned();
    if let Some(known) = known {
        repos.remove(&known);
        interest.kinds.extend(known.kinds);
        interest.ref_prefixes.extend(known.ref_prefixes);
    }
    interest.ref_prefixes = narrowest(std::mem::take(&mut interest.ref_prefixes));
    repos.insert(interest);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error that several wait for, for one of them.
fn shared(error: Arc<Error>) -> Error {
    let copy = Error::new(error.kind(), error.operation().to_owned(), error.message());
    error.context().fold(copy, |copy, (name, value)| copy.with(name.to_owned(), value))
}
