//! Following ScmConnections: what is served to whom, and what goes.

use std::{collections::BTreeSet, sync::Arc};

use workflows_core::{ConnectionName, SecretRef, Tenant, engine::ConnectionOptions};

use super::{
    builder::Parts,
    hooks,
    kinds::DescribedConnection,
    limited::{self, Limited},
    objects::{Key, Kind, Object, Objects},
    reconcile::{Done, Reconciler},
    served::{Served, ServedMap, Usable, serve},
    sources::check_polling,
    statuses::Verdict,
};
use crate::resources::{Credentials, READY, ScmConnectionSpec};

impl Reconciler {
    /// Returns the namespaces whose connections have other names now.
    pub(super) fn follow_connections(
        &mut self,
        objects: &Objects,
        keys: &BTreeSet<Key>,
    ) -> BTreeSet<String> {
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
        let present = objects.of(Kind::ScmConnection).filter(|object| object.deleted_at.is_none());
        let granting: Vec<(Key, Vec<&str>)> = present
            .map(|object| {
                let usable = self.usable.get(&object.key());
                let grants = usable.into_iter().flat_map(|one| &one.spec.grants);
                (object.key(), grants.map(|grant| grant.namespace.as_str()).collect())
            })
            .collect();
        let holders = self.hold(objects, Kind::ScmConnection, &granting);
        let wanted = serve(&self.usable, &holders);
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
        for (index, notification) in spec.notify.iter().flatten().enumerate() {
            let told = |error| format!("spec.notify[{index}]: {error}");
            notification.check().map_err(told)?;
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
            options.definitions = self.definitions(key, connection).map(Into::into);
            if key.0 == connection.owner {
                options.notify.clone_from(&connection.spec.notify);
            }
            self.engine.register_connection(&key.0, key.1.clone(), driver, options);
            self.look_at_default_branches(key, served);
        }
        self.served = wanted;
        self.parts.served.send_replace(Arc::new(self.served.clone()));
        renamed
    }

    /// The directory in which repositories define workflows for a tenant. They do so for the owner of
    /// the connection alone, so that a push runs each once, and nobody has runs made where others
    /// are; and only where runs are made.
    fn definitions<'a>(
        &self,
        (tenant, _): &(Tenant, ConnectionName),
        connection: &'a Usable,
    ) -> Option<&'a str> {
        let directory = connection.spec.definitions_directory.as_str();
        let is_followed = self
            .parts
            .namespaces
            .as_ref()
            .is_none_or(|all| all.iter().any(|one| one == tenant.as_str()));
        (!directory.is_empty() && *tenant == connection.owner && is_followed).then_some(directory)
    }

    /// Reads what the default branches of repositories define that are named without a pattern, so
    /// that they are polled and their schedules fire.
    fn look_at_default_branches(&mut self, key: &(Tenant, ConnectionName), served: &Served) {
        if self.definitions(key, &served.connection).is_none() {
            return;
        }
        let literal = served.connection.literal_repositories();
        let mut repositories: Vec<String> = literal.map(str::to_owned).collect();
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
    pub(super) fn let_go(&mut self, object: &Object, deleted_at: jiff::Timestamp) {
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
}

pub(super) fn secrets_of_connection(spec: &ScmConnectionSpec) -> Vec<SecretRef> {
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
