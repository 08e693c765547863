//! Putting an engine together: [`EngineBuilder`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use tokio::sync::{Notify, watch};

use super::{
    Command, Engine,
    connections::{Connection, ConnectionOptions, ConnectionTable},
    core::Core,
    definitions::Definitions,
    gate::PermissionCache,
    health::HealthBoard,
    metrics::Metrics,
    mutator::RunMutator,
    notifiers::{Notifiers, NotifyPolicies, NotifyPolicy},
    options::EngineOptions,
    schedule::ScheduleSource,
    watched::Watched,
};
use crate::{
    ConnectionName, DefaultPolicy, EventSource, Notifier, NotifierName, Policy, RunSink, ScmDriver,
    SecretStore, SharedClock, SinkName, StaticSecrets, Store, SystemClock, Tenant,
    matching::{Filter, Filters},
    workflow::{LoadedWorkflow, Notification, PackedWorkflow},
};

/// Puts an engine together. Everything but the store and a sink has a default: the machine's clock,
/// [`DefaultPolicy`], no secrets.
///
/// ```
/// use std::sync::Arc;
/// use workflows_core::{SystemClock, engine::Engine, store::MemoryStore};
///
/// let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
/// let error = Engine::builder().store(store).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the engine cannot be built: no sink executes runs; add one with `sink`"
/// );
/// ```
#[derive(Debug)]
#[must_use = "nothing is built before `build`"]
pub struct EngineBuilder {
    store: Option<Arc<dyn Store>>,
    clock: SharedClock,
    policy: Arc<dyn Policy>,
    secrets: Arc<dyn SecretStore>,
    connections: Vec<((Tenant, ConnectionName), Connection)>,
    sources: Vec<Arc<dyn EventSource>>,
    sinks: Vec<(SinkName, Arc<dyn RunSink>)>,
    default_sink: Option<SinkName>,
    notifiers: Vec<((Tenant, NotifierName), Arc<dyn Notifier>)>,
    notify: NotifyPolicies,
    mutators: Vec<Arc<dyn RunMutator>>,
    filters: Vec<Arc<dyn Filter>>,
    workflows: Vec<(Tenant, Arc<PackedWorkflow>)>,
    options: EngineOptions,
    repositories: BTreeSet<Watched>,
    leads: watch::Receiver<bool>,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            store: None,
            clock: Arc::new(SystemClock),
            policy: Arc::new(DefaultPolicy),
            secrets: Arc::new(StaticSecrets::new()),
            connections: Vec::new(),
            sources: Vec::new(),
            sinks: Vec::new(),
            default_sink: None,
            notifiers: Vec::new(),
            notify: NotifyPolicies::default(),
            mutators: Vec::new(),
            filters: Vec::new(),
            workflows: Vec::new(),
            options: EngineOptions::default(),
            repositories: BTreeSet::new(),
            leads: watch::channel(true).1,
        }
    }
}

impl EngineBuilder {
    /// The ledger.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Where the engine gets the time from. Give the store the same clock.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Who may start what, and what a run may ask for.
    pub fn policy(mut self, policy: Arc<dyn Policy>) -> Self {
        self.policy = policy;
        self
    }

    /// Where event sources get their secrets from.
    pub fn secrets(mut self, secrets: Arc<dyn SecretStore>) -> Self {
        self.secrets = secrets;
        self
    }

    /// A connection of the default tenant, whose repositories define workflows in `.tekton`.
    pub fn connection(self, name: impl Into<ConnectionName>, driver: Arc<dyn ScmDriver>) -> Self {
        self.connection_of(Tenant::default(), name, driver, ConnectionOptions::default())
    }

    /// A connection of a tenant. More can be registered while the engine runs.
    pub fn connection_of(
        mut self,
        tenant: Tenant,
        name: impl Into<ConnectionName>,
        driver: Arc<dyn ScmDriver>,
        options: ConnectionOptions,
    ) -> Self {
        self.connections.push(((tenant, name.into()), Connection { driver, options }));
        self
    }

    /// A repository of the default tenant that defines its own workflows: what its default branch
    /// defines is read when the engine starts, so that it is polled, all branches and tags of it,
    /// and its schedules fire.
    ///
    /// A repository that registered workflows alone are for needs no mention, and neither does one
    /// whose host tells of events by itself.
    pub fn repository(
        self,
        connection: impl Into<ConnectionName>,
        repo: impl Into<Arc<str>>,
    ) -> Self {
        self.repository_of(Tenant::default(), connection, repo)
    }

    /// A repository of a tenant that defines its own workflows.
    pub fn repository_of(
        mut self,
        tenant: Tenant,
        connection: impl Into<ConnectionName>,
        repo: impl Into<Arc<str>>,
    ) -> Self {
        let (connection, repo) = (connection.into(), repo.into());
        self.repositories.insert(Watched { tenant, connection, repo });
        self
    }

    /// A source of observations.
    pub fn source(mut self, source: Arc<dyn EventSource>) -> Self {
        self.sources.push(source);
        self
    }

    /// A sink that executes runs. The first is the default for workflows that name none, unless
    /// [`default_sink`](Self::default_sink) says another.
    pub fn sink(mut self, name: impl Into<SinkName>, sink: Arc<dyn RunSink>) -> Self {
        self.sinks.push((name.into(), sink));
        self
    }

    /// Which sink executes the runs of workflows that name none.
    pub fn default_sink(mut self, name: impl Into<SinkName>) -> Self {
        self.default_sink = Some(name.into());
        self
    }

    /// A notifier of the default tenant.
    pub fn notifier(self, name: impl Into<NotifierName>, notifier: Arc<dyn Notifier>) -> Self {
        self.notifier_of(Tenant::default(), name, notifier)
    }

    /// A notifier of a tenant. More can be registered while the engine runs.
    pub fn notifier_of(
        mut self,
        tenant: Tenant,
        name: impl Into<NotifierName>,
        notifier: Arc<dyn Notifier>,
    ) -> Self {
        self.notifiers.push(((tenant, name.into()), notifier));
        self
    }

    /// Who is told about runs of every tenant that [`notify_of`](Self::notify_of) says nothing for.
    pub fn notify(mut self, policy: NotifyPolicy) -> Self {
        self.notify.others = policy;
        self
    }

    /// Who is told about the runs of a tenant.
    pub fn notify_of(mut self, tenant: Tenant, policy: NotifyPolicy) -> Self {
        self.notify.of.insert(tenant, policy);
        self
    }

    /// The platform's own hand on a run before it is created. Several are asked in the order in
    /// which they were added.
    pub fn mutator(mut self, mutator: Arc<dyn RunMutator>) -> Self {
        self.mutators.push(mutator);
        self
    }

    /// A filter in plain Rust, which triggers name in `customFilter`.
    pub fn filter(mut self, filter: Arc<dyn Filter>) -> Self {
        self.filters.push(filter);
        self
    }

    /// A workflow of the default tenant. More can be registered while the engine runs.
    pub fn workflow(self, workflow: LoadedWorkflow) -> Self {
        self.workflow_of(Tenant::default(), workflow)
    }

    /// A workflow of a tenant.
    pub fn workflow_of(mut self, tenant: Tenant, workflow: LoadedWorkflow) -> Self {
        self.workflows.push((tenant, Arc::new(workflow.into())));
        self
    }

    /// Whether this engine is the one that fires schedules, of several at one ledger. No slot fires
    /// twice in any case, and one that nobody fires for half a minute is fired by any; but each that
    /// fires asks the host for the slot's commit. Always, when it is never called.
    pub fn leader(mut self, leads: watch::Receiver<bool>) -> Self {
        self.leads = leads;
        self
    }

    /// The engine's ways.
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = options;
        self
    }

    /// The engine.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with how it was put together, at once.
    pub fn build(self) -> Result<Engine, BuildError> {
        let mut problems = Problems::default();
        if self.store.is_none() {
            problems.add("there is no ledger; add one with `store`");
        }
        if self.sinks.is_empty() {
            problems.add("no sink executes runs; add one with `sink`");
        }
        self.check_names(&mut problems);
        self.check_options(&mut problems);
        self.check_workflows(&mut problems);
        self.check_repositories(&mut problems);
        self.check_notify(&mut problems);
        let definitions = Definitions::new();
        for problem in definitions.register_all(&self.workflows).into_iter().filter_map(Result::err)
        {
            problems.add(problem.to_string());
        }
        let named = self.default_sink.clone();
        let default_sink = named.or_else(|| self.sinks.first().map(|(name, _)| name.clone()));
        let filters = match Filters::new(self.filters.clone()) {
            Ok(filters) => filters,
            Err(twice) => {
                problems.add(format!(
                    "filter {twice:?} was added more than once; give each its own name"
                ));
                Filters::default()
            }
        };
        let (Some(store), Some(default_sink), true) =
            (self.store, default_sink, problems.0.is_empty())
        else {
            return Err(BuildError { problems: problems.0 });
        };
        let health = Arc::new(HealthBoard::new(Arc::clone(&self.clock)));
        let core = Core {
            store,
            clock: self.clock,
            policy: self.policy,
            secrets: self.secrets,
            connections: Arc::new(ConnectionTable::new(self.connections)),
            sinks: self.sinks.into_iter().collect(),
            default_sink,
            notifiers: Arc::new(Notifiers::new(self.notifiers.into_iter().collect(), self.notify)),
            mutators: self.mutators,
            filters,
            definitions: Arc::new(definitions),
            permissions: PermissionCache::new(),
            health,
            metrics: Metrics::default(),
            committed: Notify::new(),
            options: self.options,
        };
        let interests = core.definitions.interests();
        let repositories = self.repositories.into_iter().collect();
        Ok(Engine::new(Arc::new(core), self.sources, interests, repositories, self.leads))
    }

    /// Checks that named repositories are behind connections that were added.
    fn check_repositories(&self, problems: &mut Problems) {
        for Watched { tenant, connection, repo } in &self.repositories {
            let key = (tenant.clone(), connection.clone());
            if !self.connections.iter().any(|(one, _)| *one == key) {
                problems.add(format!(
                    "repository {repo} names the connection {:?}, which was not added",
                    connection.as_str()
                ));
            }
        }
    }

    /// Checks that registered workflows name what was added.
    fn check_workflows(&self, problems: &mut Problems) {
        let known = |names: Vec<String>| match names.is_empty() {
            true => "none was added".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        let mut names = BTreeSet::new();
        for (tenant, workflow) in &self.workflows {
            let name = workflow.name();
            let document = workflow.document();
            let spec = &document.spec;
            if !names.insert((tenant, name)) {
                problems.add(format!("workflow {name} of {tenant} was added more than once"));
            }
            for repo in &spec.repos {
                let key = (tenant.clone(), repo.connection.clone());
                if !self.connections.iter().any(|(one, _)| *one == key) {
                    let of_tenant = self.connections.iter().filter(|((of, _), _)| of == tenant);
                    let names = of_tenant.map(|((_, name), _)| name.to_string()).collect();
                    problems.add(format!(
                        "workflow {name} names the connection {:?}, which was not added; {}",
                        repo.connection.as_str(),
                        known(names)
                    ));
                }
            }
            for one in spec.notify.iter().flatten() {
                self.check_notification(&format!("workflow {name}"), tenant, one, problems);
            }
            if let Some(sink) = &spec.sink
                && !self.sinks.iter().any(|(one, _)| one == sink)
            {
                let names = self.sinks.iter().map(|(name, _)| name.to_string()).collect();
                problems.add(format!(
                    "workflow {name} names the sink {:?}, which was not added; {}",
                    sink.as_str(),
                    known(names)
                ));
            }
            for filter in spec.triggers.iter().filter_map(|one| one.custom_filter.as_ref()) {
                if !self.filters.iter().any(|one| one.name() == &**filter) {
                    let names = self.filters.iter().map(|one| one.name().to_owned()).collect();
                    problems.add(format!(
                        "workflow {name} names the filter {filter:?}, which was not added; {}",
                        known(names)
                    ));
                }
            }
        }
    }

    /// Checks that what the platform says about notifications names what was added.
    fn check_notify(&self, problems: &mut Problems) {
        let mut tenants: BTreeSet<&Tenant> = self.notify.of.keys().collect();
        for ((tenant, name), connection) in &self.connections {
            tenants.insert(tenant);
            for one in connection.options.notify.iter().flatten() {
                let who = format!("connection {name} of {tenant}");
                self.check_notification(&who, tenant, one, problems);
            }
        }
        for tenant in tenants {
            for one in self.notify.entries(tenant) {
                let who = format!("the notification policy of {tenant}");
                self.check_notification(&who, tenant, one, problems);
            }
        }
    }

    fn check_notification(
        &self,
        who: &str,
        tenant: &Tenant,
        one: &Notification,
        problems: &mut Problems,
    ) {
        let key = (tenant.clone(), one.notifier.clone());
        if !self.notifiers.iter().any(|(one, _)| *one == key) {
            let of_tenant = self.notifiers.iter().filter(|((of, _), _)| of == tenant);
            let names: Vec<&str> = of_tenant.map(|((_, name), _)| name.as_str()).collect();
            let known = match names.is_empty() {
                true => "none was added".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            };
            problems.add(format!(
                "{who} names the notifier {:?}, which was not added; {known}",
                one.notifier.as_str(),
            ));
        }
        if let Err(error) = one.check() {
            problems.add(format!("{who} has an entry that cannot be used: {error}"));
        }
    }

    fn check_names(&self, problems: &mut Problems) {
        let connections = self.connections.iter().map(|((tenant, name), _)| (tenant, name));
        problems.twice("connection", connections.map(|(tenant, name)| format!("{tenant}/{name}")));
        problems.twice("sink", self.sinks.iter().map(|(name, _)| name.to_string()));
        let notifiers = self.notifiers.iter().map(|((tenant, name), _)| (tenant, name));
        problems.twice("notifier", notifiers.map(|(tenant, name)| format!("{tenant}/{name}")));
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        problems.twice("event source", sources.iter().map(ToString::to_string));
        if sources.iter().any(|name| name.as_str() == ScheduleSource::NAME) {
            let own = ScheduleSource::NAME;
            problems.add(format!("{own:?} is the name of the engine's own source; rename yours"));
        }
        if sources.iter().any(|name| name.as_str() == Command::SOURCE) {
            problems.add(format!(
                "an event source is named {:?}, which is the engine's own; give it another name",
                Command::SOURCE
            ));
        }
        if let Some(default) = &self.default_sink
            && !self.sinks.iter().any(|(name, _)| name == default)
        {
            let known: Vec<_> = self.sinks.iter().map(|(name, _)| name.as_str()).collect();
            problems.add(format!(
                "the default sink {default:?} was not added; the sinks are: {}",
                known.join(", "),
                default = default.as_str(),
            ));
        }
    }

    fn check_options(&self, problems: &mut Problems) {
        let options = &self.options;
        if options.concurrency == 0 {
            problems.add("`concurrency` is 0, so that no stage would work; set 1 or more");
        }
        let lengths = [
            ("call_timeout", options.call_timeout),
            ("lease", options.lease),
            ("observe_interval", options.observe_interval),
            ("prune_interval", options.prune_interval),
        ];
        for (name, length) in lengths {
            if !length.is_positive() {
                problems.add(format!("`{name}` is {length:#}; set a length of time above zero"));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    fn twice(&mut self, what: &str, names: impl Iterator<Item = String>) {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            *count.entry(name).or_default() += 1;
        }
        let twice: BTreeSet<_> = count.into_iter().filter(|(_, count)| *count > 1).collect();
        for (name, _) in twice {
            self.add(format!("{what} {name:?} was added more than once; give each its own name"));
        }
    }
}

/// What is wrong with how an engine was put together: all of it, each with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    problems: Vec<String>,
}

impl BuildError {
    /// What is wrong, one after the other.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the engine cannot be built: {only}"),
            several => {
                f.write_str("the engine cannot be built:")?;
                several.iter().try_for_each(|problem| write!(f, "\n- {problem}"))
            }
        }
    }
}

impl std::error::Error for BuildError {}
