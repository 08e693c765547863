//! Bringing the engine in step with the objects: [`Reconciler`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, EngineHandle, ErrorKind, NotifierName, SecretRef, Tenant,
    engine::ConnectionOptions,
    workflow::{LoadContext, LoadedWorkflow, load_object},
};

use super::{
    builder::Parts,
    hooks,
    kinds::{DescribedConnection, DescribedNotifier},
    limited::{self, Limited},
    objects::{Key, Kind, Object, Objects},
    policy::{NamedPolicy, Rules},
    served::{Served, ServedMap, Usable, serve},
    sources::check_polling,
    statuses::Verdict,
};
use crate::resources::{Credentials, NotifierSpec, PolicySpec, READY, ScmConnectionSpec};

/// What is in use of a Notifier: for which tenants, as of which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InUse {
    uid: String,
    generation: i64,
    tenants: BTreeSet<Tenant>,
}

/// Brings the engine in step with the objects.
#[derive(Debug)]
pub(super) struct Reconciler {
    parts: Arc<Parts>,
    engine: EngineHandle,
    sinks: Option<BTreeSet<String>>,
    usable: BTreeMap<Key, Arc<Usable>>,
    served: ServedMap,
    notifiers: BTreeMap<Key, InUse>,
    registered: BTreeSet<Key>,
    /// Connections and notifiers of which a secret cannot be had.
    unready: BTreeSet<(Kind, Key)>,
    /// The look at the default branches of a connection's repositories.
    looking: BTreeMap<(Tenant, ConnectionName), CancellationToken>,
    /// ScmConnections whose hooks are being removed.
    going: BTreeSet<String>,
    tasks: JoinSet<Done>,
    stopping: CancellationToken,
}

/// What a task came to.
#[derive(Debug)]
enum Done {
    /// Whether the secrets of an object can be had.
    Checked(Kind, Key, bool),
    /// An ScmConnection may go.
    MayGo(String),
    /// Nothing to follow.
    Looked,
}

impl Reconciler {
    pub(super) fn new(parts: Arc<Parts>, engine: EngineHandle) -> Self {
        Self {
            parts,
            engine,
            sinks: None,
            usable: BTreeMap::new(),
            served: ServedMap::new(),
            notifiers: BTreeMap::new(),
            registered: BTreeSet::new(),
            unready: BTreeSet::new(),
            looking: BTreeMap::new(),
            going: BTreeSet::new(),
            tasks: JoinSet::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Follows changes of these objects; of all of them the first time.
    pub(super) async fn follow(
        &mut self,
        objects: &Objects,
        touched: Vec<(Kind, Key)>,
        everything: bool,
    ) {
        self.collect();
        if touched.is_empty() && !everything {
            return;
        }
        if self.sinks.is_none()
            && let Ok(health) = self.engine.health().await
        {
            self.sinks = Some(health.sinks.into_iter().map(|one| one.sink.to_string()).collect());
        }
        let mut by_kind: BTreeMap<Kind, BTreeSet<Key>> = BTreeMap::new();
        for (kind, key) in touched {
            by_kind.entry(kind).or_default().insert(key);
        }
        if everything {
            for kind in Kind::ALL {
                by_kind.entry(kind).or_default().extend(objects.of(kind).map(Object::key));
            }
        }
        for (kind, keys) in &by_kind {
            for key in keys.iter().filter(|key| objects.get(*kind, key).is_none()) {
                self.parts.statuses.forget(*kind, key);
                self.unready.remove(&(*kind, key.clone()));
            }
        }
        if everything || by_kind.contains_key(&Kind::Policy) {
            self.follow_policies(objects);
        }
        let mut renamed = BTreeSet::new();
        if let Some(keys) = by_kind.get(&Kind::ScmConnection) {
            renamed.extend(self.follow_connections(objects, keys));
        }
        if let Some(keys) = by_kind.get(&Kind::Notifier) {
            renamed.extend(self.follow_notifiers(objects, keys));
        }
        let mut workflows = by_kind.remove(&Kind::Workflow).unwrap_or_default();
        let of_renamed = objects.of(Kind::Workflow).map(Object::key);
        workflows.extend(of_renamed.filter(|(namespace, _)| renamed.contains(namespace)));
        self.follow_workflows(objects, &workflows);
    }

    /// Looks again for secrets that could not be had.
    pub(super) fn recheck(&mut self, objects: &Objects) {
        self.collect();
        for (kind, key) in self.unready.clone() {
            if let Some(object) = objects.get(kind, &key) {
                self.check_secrets(object);
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        self.stopping.cancel();
        self.looking.values().for_each(CancellationToken::cancel);
        self.tasks.shutdown().await;
    }

    /// Takes up what tasks came to.
    fn collect(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            match done {
                Ok(Done::Checked(kind, key, true)) => {
                    self.unready.remove(&(kind, key));
                }
                Ok(Done::Checked(kind, key, false)) => {
                    self.unready.insert((kind, key));
                }
                Ok(Done::MayGo(uid)) => {
                    self.going.remove(&uid);
                }
                Ok(Done::Looked) => {}
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a task of the controller has ended"),
            }
        }
    }

    // --- policies ------------------------------------------------------------------------------

    fn follow_policies(&self, objects: &Objects) {
        let mut by_tenant: BTreeMap<Tenant, Vec<NamedPolicy>> = BTreeMap::new();
        for object in objects.of(Kind::Policy) {
            let Ok(tenant) = Tenant::new(object.namespace.as_str()) else { continue };
            let rules = object.spec::<PolicySpec>().and_then(Rules::compile);
            let verdict = match &rules {
                Ok(_) => Verdict::yes("InForce", "it is asked about every run"),
                Err(problem) => Verdict::no(
                    "Invalid",
                    format!("{problem}; until it is mended it forbids everything"),
                ),
            };
            self.parts.statuses.tell(object, READY, verdict);
            by_tenant.entry(tenant).or_default().push(NamedPolicy {
                name: object.name.clone(),
                uid: object.uid.clone(),
                generation: object.generation,
                rules,
            });
        }
        let policies = by_tenant.into_iter().map(|(tenant, all)| (tenant, all.into()));
        self.parts.policy.set(policies.collect());
    }

    // --- connections ---------------------------------------------------------------------------

    /// Returns the namespaces whose connections have other names now.
    fn follow_connections(&mut self, objects: &Objects, keys: &BTreeSet<Key>) -> BTreeSet<String> {
        for key in keys {
            let Some(object) = objects.get(Kind::ScmConnection, key) else {
                self.usable.remove(key);
                continue;
            };
            if let Some(deleted_at) = object.deleted_at {
                self.let_go(object, deleted_at);
                continue;
            }
            let known = self.usable.get(key);
            if known
                .is_some_and(|one| (&one.uid, one.generation) == (&object.uid, object.generation))
            {
                continue;
            }
            match self.usable_of(object) {
                Ok(usable) => {
                    let host = usable.built.driver.host().to_owned();
                    self.parts.statuses.tell_field(object, "host", host.into());
                    if let (Some(_), Some(base)) = (&usable.spec.webhook, &self.parts.public_url) {
                        let url = hooks::url(base, &usable.owner, &object.name);
                        self.parts.statuses.tell_field(object, "webhookUrl", url.into());
                    }
                    self.usable.insert(key.clone(), Arc::new(usable));
                    self.check_secrets(object);
                }
                Err(problem) => {
                    self.usable.remove(key);
                    let verdict = Verdict::no(
                        "Invalid",
                        format!("{problem}; until it is mended it is not used"),
                    );
                    self.parts.statuses.tell(object, READY, verdict);
                }
            }
        }
        let (wanted, hidden) = serve(&self.usable);
        for (key, namespace) in hidden {
            tracing::warn!(
                namespace = key.0,
                name = key.1,
                "it is granted to {namespace}, which has another connection of that name"
            );
        }
        self.serve(wanted)
    }

    fn usable_of(&self, object: &Object) -> Result<Usable, String> {
        let spec: ScmConnectionSpec = object.spec()?;
        let owner = Tenant::new(object.namespace.as_str()).map_err(|error| error.to_string())?;
        let Some(kind) = self.parts.drivers.get(&spec.driver) else {
            let known: Vec<&str> = self.parts.drivers.keys().map(String::as_str).collect();
            return Err(format!(
                "spec.driver: there is no driver {:?}; there are: {}",
                spec.driver,
                known.join(", ")
            ));
        };
        limited::compile(&spec.repositories)
            .map_err(|error| format!("spec.repositories: {error}"))?;
        for grant in &spec.grants {
            Tenant::new(grant.namespace.as_str())
                .map_err(|error| format!("spec.grants: {error}"))?;
            limited::compile(&grant.repositories)
                .map_err(|error| format!("spec.grants: {error}"))?;
        }
        if let Some(poll) = &spec.poll {
            check_polling(poll).map_err(|error| error.to_string())?;
        }
        let name = ConnectionName::new(object.name.as_str());
        let description = DescribedConnection {
            tenant: &owner,
            name: &name,
            spec: &spec,
            secrets: Arc::clone(&self.parts.secrets),
            clock: Arc::clone(&self.parts.clock),
        };
        let built = kind.build(&description).map_err(|error| error.to_string())?;
        if spec.webhook.is_some() && built.deliveries.is_none() {
            return Err("spec.webhook: the host delivers nothing; use poll".to_owned());
        }
        let hooks = object.status["hooks"].as_array().into_iter().flatten();
        let hooks = hooks.filter_map(|one| one.as_str().map(str::to_owned)).collect();
        Ok(Usable {
            key: object.key(),
            uid: object.uid.clone(),
            generation: object.generation,
            owner,
            spec,
            built,
            hooks,
        })
    }

    /// Registers what is to be served with the engine, and takes out what is not.
    fn serve(&mut self, wanted: ServedMap) -> BTreeSet<String> {
        let mut renamed = BTreeSet::new();
        for key in self.served.keys().filter(|key| !wanted.contains_key(*key)) {
            self.engine.unregister_connection(&key.0, &key.1);
            renamed.insert(key.0.to_string());
        }
        let gone: Vec<_> = self
            .looking
            .keys()
            .filter(|key| wanted.get(*key) != self.served.get(*key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(stop) = self.looking.remove(&key) {
                stop.cancel();
            }
        }
        for (key, served) in &wanted {
            if self.served.get(key) == Some(served) {
                continue;
            }
            if !self.served.contains_key(key) {
                renamed.insert(key.0.to_string());
            }
            let connection = &served.connection;
            let driver = Arc::clone(&connection.built.driver);
            // The patterns were compiled when the connection was read.
            let Ok(driver) = Limited::to(driver, &served.limited_to) else { continue };
            let mut options = ConnectionOptions::registered_only();
            let directory = connection.spec.definitions_directory.as_str();
            if !directory.is_empty() {
                options.definitions = Some(directory.into());
            }
            self.engine.register_connection(&key.0, key.1.clone(), driver, options);
            self.look_at_default_branches(key, served);
        }
        self.served = wanted;
        self.parts.served.send_replace(Arc::new(self.served.clone()));
        renamed
    }

    /// Reads what the default branches of repositories define that are named without a pattern, so
    /// that they are polled and their schedules fire.
    fn look_at_default_branches(&mut self, key: &(Tenant, ConnectionName), served: &Served) {
        if served.connection.spec.definitions_directory.is_empty() {
            return;
        }
        let allowed = limited::compile(&served.limited_to).unwrap_or_default();
        let mut repositories: Vec<String> = served
            .connection
            .literal_repositories()
            .filter(|repo| allowed.is_empty() || allowed.iter().any(|one| one.matches(repo)))
            .map(str::to_owned)
            .collect();
        if repositories.is_empty() {
            return;
        }
        let stop = self.stopping.child_token();
        self.looking.insert(key.clone(), stop.clone());
        let (engine, (tenant, name)) = (self.engine.clone(), key.clone());
        let looking = async move {
            let mut pause = std::time::Duration::from_secs(2);
            loop {
                let mut left = Vec::new();
                for repo in repositories {
                    if let Err(error) = engine.watch_repository(&tenant, &name, &repo).await {
                        tracing::warn!(%error, %tenant, connection = %name, repo, "its default branch cannot be read");
                        left.push(repo);
                    }
                }
                if left.is_empty() {
                    return Done::Looked;
                }
                repositories = left;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(300));
            }
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => Done::Looked,
                done = looking => done,
            }
        });
    }

    /// Takes a connection that is being deleted out of use, and lets it go when its hooks are
    /// removed, or cannot be.
    fn let_go(&mut self, object: &Object, deleted_at: jiff::Timestamp) {
        let key = object.key();
        let known = self.usable.remove(&key);
        let waits = object.finalizers.iter().any(|one| one == hooks::FINALIZER);
        if !waits || !self.going.insert(object.uid.clone()) {
            return;
        }
        let fresh = self.usable_of(object);
        let usable = match (fresh, known) {
            (Ok(fresh), _) => Some(Arc::new(fresh)),
            (Err(_), known) => known,
        };
        let parts = Arc::clone(&self.parts);
        let object = object.clone();
        self.tasks.spawn(async move {
            if let (Some(usable), Some(base)) = (usable, &parts.public_url) {
                let url = hooks::url(base, &usable.owner, &object.name);
                hooks::remove_all(&usable, &url, deleted_at, parts.clock.now()).await;
            }
            release(&parts, &object).await;
            Done::MayGo(object.uid)
        });
    }

    // --- notifiers -----------------------------------------------------------------------------

    /// Returns the namespaces whose notifiers have other names now.
    fn follow_notifiers(&mut self, objects: &Objects, keys: &BTreeSet<Key>) -> BTreeSet<String> {
        let mut renamed = BTreeSet::new();
        // What a grant stands behind may come forward when another object goes.
        let granted: BTreeSet<Key> = objects.of(Kind::Notifier).map(Object::key).collect();
        let names: BTreeSet<&String> = keys.iter().map(|(_, name)| name).collect();
        let all = keys.union(&granted).filter(|(_, name)| names.contains(name));
        for key in all.cloned().collect::<Vec<_>>() {
            let before = self.notifiers.get(&key).cloned();
            let object = objects.get(Kind::Notifier, &key).filter(|one| one.deleted_at.is_none());
            let after =
                object.and_then(|object| self.put_notifier(objects, object, before.as_ref()));
            let name = NotifierName::new(key.1.as_str());
            let none = BTreeSet::new();
            let of = |in_use: &Option<InUse>| {
                in_use.as_ref().map_or(none.clone(), |one| one.tenants.clone())
            };
            let (old, new) = (of(&before), of(&after));
            for tenant in old.difference(&new) {
                self.engine.unregister_notifier(tenant, &name);
            }
            renamed.extend(old.symmetric_difference(&new).map(ToString::to_string));
            match after {
                Some(in_use) => self.notifiers.insert(key, in_use),
                None => self.notifiers.remove(&key),
            };
        }
        renamed
    }

    /// Has the engine use a notifier, unless it does so already.
    fn put_notifier(
        &mut self,
        objects: &Objects,
        object: &Object,
        before: Option<&InUse>,
    ) -> Option<InUse> {
        let described = self.notifier_of(object);
        let (spec, notifier, owner) = match described {
            Ok(described) => described,
            Err(problem) => {
                let verdict =
                    Verdict::no("Invalid", format!("{problem}; until it is mended it is not used"));
                self.parts.statuses.tell(object, READY, verdict);
                return None;
            }
        };
        let mut tenants = BTreeSet::from([owner.clone()]);
        for namespace in &spec.grants {
            let own = objects.get(Kind::Notifier, &(namespace.clone(), object.name.clone()));
            match Tenant::new(namespace.as_str()) {
                Ok(tenant) if own.is_none() => {
                    tenants.insert(tenant);
                }
                _ => {}
            }
        }
        let in_use = InUse { uid: object.uid.clone(), generation: object.generation, tenants };
        if before != Some(&in_use) {
            for tenant in &in_use.tenants {
                self.engine.register_notifier(tenant, object.name.as_str(), Arc::clone(&notifier));
            }
            self.check_secrets(object);
        }
        Some(in_use)
    }

    fn notifier_of(
        &self,
        object: &Object,
    ) -> Result<(NotifierSpec, Arc<dyn workflows_core::Notifier>, Tenant), String> {
        let spec: NotifierSpec = object.spec()?;
        let owner = Tenant::new(object.namespace.as_str()).map_err(|error| error.to_string())?;
        let Some(kind) = self.parts.notifiers.get(&spec.kind) else {
            let known: Vec<&str> = self.parts.notifiers.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("spec.type: there is no type {:?}; there are: {known}", spec.kind));
        };
        let name = NotifierName::new(object.name.as_str());
        let description = DescribedNotifier {
            tenant: &owner,
            name: &name,
            spec: &spec,
            secrets: Arc::clone(&self.parts.secrets),
            clock: Arc::clone(&self.parts.clock),
        };
        let notifier = kind.build(&description).map_err(|error| error.to_string())?;
        Ok((spec, notifier, owner))
    }

    // --- secrets -------------------------------------------------------------------------------

    /// Looks whether the secrets that an object names can be had, and has it say so.
    fn check_secrets(&mut self, object: &Object) {
        let secrets = match object.kind {
            Kind::ScmConnection => object.spec().map(|spec| secrets_of_connection(&spec)),
            Kind::Notifier => object
                .spec::<NotifierSpec>()
                .map(|spec| spec.secrets.into_values().collect::<Vec<_>>()),
            Kind::Policy | Kind::Workflow => return,
        };
        let (Ok(secrets), Ok(owner)) = (secrets, Tenant::new(object.namespace.as_str())) else {
            return;
        };
        let (parts, object) = (Arc::clone(&self.parts), object.clone());
        self.tasks.spawn(async move {
            let mut verdict = Verdict::yes("InUse", "it is used as it is written");
            for secret in &secrets {
                if let Err(error) = parts.secrets.get(&owner, secret).await {
                    let reason = match error.kind() {
                        ErrorKind::NotFound => "SecretMissing",
                        ErrorKind::Denied => "SecretDenied",
                        _ => "SecretUnreadable",
                    };
                    verdict = Verdict::no(reason, error.to_string());
                    break;
                }
            }
            let ready = verdict.holds;
            parts.statuses.tell(&object, READY, verdict);
            Done::Checked(object.kind, object.key(), ready)
        });
    }

    // --- workflows -----------------------------------------------------------------------------

    fn follow_workflows(&mut self, objects: &Objects, keys: &BTreeSet<Key>) {
        let mut contexts: BTreeMap<String, LoadContext> = BTreeMap::new();
        let mut right: Vec<(Key, Tenant, LoadedWorkflow)> = Vec::new();
        for key in keys {
            let object =
                objects.get(Kind::Workflow, key).filter(|object| object.deleted_at.is_none());
            let Ok(tenant) = Tenant::new(key.0.as_str()) else { continue };
            let Some(object) = object else {
                self.take_out(&tenant, key);
                continue;
            };
            let context = contexts.entry(key.0.clone()).or_insert_with(|| self.names_of(&tenant));
            let source = format!(
                "Workflow {}/{} uid {} generation {}",
                object.namespace, object.name, object.uid, object.generation
            );
            match load_object(&source, &object.document(), context) {
                Ok(loaded) => right.push((key.clone(), tenant, loaded)),
                Err(problems) => {
                    let told: Vec<String> = problems
                        .iter()
                        .map(|problem| match problem.field.as_str() {
                            "" => problem.message.clone(),
                            field => format!("{field}: {}", problem.message),
                        })
                        .collect();
                    self.refuse(object, &tenant, &told.join("; "));
                }
            }
        }
        let workflows =
            right.iter().map(|(_, tenant, loaded)| (tenant.clone(), loaded.clone())).collect();
        let registered = self.engine.register_all(workflows);
        for ((key, tenant, loaded), result) in right.into_iter().zip(registered) {
            let Some(object) = objects.get(Kind::Workflow, &key) else { continue };
            match result {
                Ok(()) => {
                    self.registered.insert(key);
                    let about = loaded.workflow().spec.repos.first();
                    let about = about.map_or("", |repo| &*repo.repo);
                    let verdict =
                        Verdict::yes("Registered", format!("it starts runs for events at {about}"));
                    self.parts.statuses.tell(object, READY, verdict);
                }
                Err(error) => self.refuse(object, &tenant, &error.to_string()),
            }
        }
    }

    fn refuse(&mut self, object: &Object, tenant: &Tenant, problem: &str) {
        self.take_out(tenant, &object.key());
        let verdict =
            Verdict::no("Invalid", format!("{problem}; until it is mended it starts nothing"));
        self.parts.statuses.tell(object, READY, verdict);
    }

    fn take_out(&mut self, tenant: &Tenant, key: &Key) {
        if self.registered.remove(key) {
            self.engine.unregister(tenant, &key.1);
        }
    }

    /// The names that a tenant's workflows may use.
    fn names_of(&self, tenant: &Tenant) -> LoadContext {
        let mut context = LoadContext::registered();
        let connections = self.served.keys().filter(|(of, _)| of == tenant);
        context.connections = Some(connections.map(|(_, name)| name.to_string()).collect());
        let notifiers = self.notifiers.iter().filter(|(_, one)| one.tenants.contains(tenant));
        context.notifiers = Some(notifiers.map(|((_, name), _)| name.clone()).collect());
        context.sinks = self.sinks.clone();
        context
    }
}

fn secrets_of_connection(spec: &ScmConnectionSpec) -> Vec<SecretRef> {
    let none = Credentials::default();
    let credentials = spec.credentials.as_ref().unwrap_or(&none);
    let webhook = spec.webhook.as_ref().map(|webhook| webhook.secret.clone());
    [
        credentials.app.as_ref().map(|app| app.private_key.clone()),
        credentials.token.clone(),
        credentials.basic.as_ref().map(|basic| basic.password.clone()),
        credentials.ssh_key.clone(),
        spec.clone_token.clone(),
        webhook,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Takes the finalizer away, however often that must be tried.
async fn release(parts: &Parts, object: &Object) {
    let api = Kind::ScmConnection.of(&parts.client, &object.namespace);
    let mut pause = std::time::Duration::from_millis(200);
    loop {
        let done = match api.get(&object.name).await {
            Ok(found) => {
                let now = Object::keep(Kind::ScmConnection, found);
                if now.uid != object.uid {
                    return;
                }
                hooks::set_finalizer(&parts.client, &now, false, parts.clock.now()).await
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => {
                Err(crate::error::from_kube("read a connection", error, parts.clock.now()))
            }
        };
        match done {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, name = object.name, "its finalizer is still there")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_secs(30));
    }
}
