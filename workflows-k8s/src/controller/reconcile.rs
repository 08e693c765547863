//! Bringing the engine in step with the objects: [`Reconciler`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, EngineHandle, ErrorKind, NotifierName, Tenant, engine::NotifyPolicy,
};

use super::{
    builder::Parts,
    connections::secrets_of_connection,
    grants::{Holders, hold},
    notifiers::BuiltNotifier,
    objects::{Key, Kind, Object, Objects},
    policy::{NamedPolicy, Rules},
    served::{ServedMap, Usable},
    statuses::Verdict,
};
use crate::resources::{NotifierSpec, PolicySpec, READY};

/// The condition that says whether the namespaces that an object is granted to use it.
const GRANTS_USED: &str = "GrantsUsed";

/// Brings the engine in step with the objects.
#[derive(Debug)]
pub(super) struct Reconciler {
    pub(super) parts: Arc<Parts>,
    pub(super) engine: EngineHandle,
    pub(super) sinks: Option<BTreeSet<String>>,
    pub(super) usable: BTreeMap<Key, Arc<Usable>>,
    pub(super) served: ServedMap,
    pub(super) notifiers: BTreeMap<Key, BuiltNotifier>,
    /// The notifiers of all tenants, as the engine has them.
    pub(super) told: BTreeMap<(Tenant, NotifierName), BuiltNotifier>,
    /// Who is told by default and in any case, by tenant, as the engine has it.
    pub(super) notify_policies: BTreeMap<Tenant, NotifyPolicy>,
    pub(super) registered: BTreeSet<Key>,
    /// The policies that are in force, by uid and generation.
    pub(super) policies: BTreeMap<Key, (String, i64)>,
    /// Connections and notifiers of which a secret cannot be had.
    pub(super) unready: BTreeSet<(Kind, Key)>,
    /// The look at the default branches of a connection's repositories.
    pub(super) looking: BTreeMap<(Tenant, ConnectionName), CancellationToken>,
    /// ScmConnections whose hooks are being removed.
    pub(super) going: BTreeSet<String>,
    pub(super) tasks: JoinSet<Done>,
    pub(super) stopping: CancellationToken,
}

/// What a task came to.
#[derive(Debug)]
pub(super) enum Done {
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
            told: BTreeMap::new(),
            notify_policies: BTreeMap::new(),
            registered: BTreeSet::new(),
            policies: BTreeMap::new(),
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
            let before = std::mem::take(&mut self.policies);
            self.follow_policies(objects);
            if self.policies != before {
                self.registered.iter().for_each(|key| self.foretell(objects, key));
            }
        }
        let mut renamed = BTreeSet::new();
        if let Some(keys) = by_kind.get(&Kind::ScmConnection) {
            renamed.extend(self.follow_connections(objects, keys));
        }
        if let Some(keys) = by_kind.get(&Kind::Notifier) {
            renamed.extend(self.follow_notifiers(objects, keys));
        }
        if by_kind.contains_key(&Kind::ScmConnection) || by_kind.contains_key(&Kind::Notifier) {
            self.find_notifiers_of_connections(objects);
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

    fn follow_policies(&mut self, objects: &Objects) {
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
            self.policies.insert(object.key(), (object.uid.clone(), object.generation));
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

    /// Who is used under which name in which namespace, and has those say so that grant themselves to
    /// others.
    pub(super) fn hold(
        &self,
        objects: &Objects,
        kind: Kind,
        granting: &[(Key, Vec<&str>)],
    ) -> Holders {
        let platform = self.parts.platform.as_ref().map(Tenant::as_str);
        let holders = hold(granting.iter().map(|(key, to)| (key, to.clone())), platform);
        for (key, namespaces) in granting {
            let Some(object) = objects.get(kind, key) else { continue };
            let has_said_so = object.says(GRANTS_USED);
            if namespaces.is_empty() && !has_said_so {
                continue;
            }
            let verdict = match holders.hidden.get(key) {
                None => {
                    Verdict::yes("InUse", format!("{} namespaces may use it", namespaces.len()))
                }
                Some(hidden) => {
                    let told = hidden.iter().map(|(namespace, (of, name))| match of == namespace {
                        true => format!("{namespace} has a {name} of its own"),
                        false => format!("{namespace} is granted that of {of} under this name"),
                    });
                    let told: Vec<String> = told.collect();
                    Verdict::no("Hidden", told.join("; "))
                }
            };
            self.parts.statuses.tell(object, GRANTS_USED, verdict);
        }
        holders
    }

    // --- secrets -------------------------------------------------------------------------------

    /// Looks whether the secrets that an object names can be had, and has it say so.
    pub(super) fn check_secrets(&mut self, object: &Object) {
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
}
