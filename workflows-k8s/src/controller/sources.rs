//! What hears of events at the repositories of ScmConnections: [`ConnectionSources`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use secrecy::SecretString;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Capability, ConnectionName, Error, ErrorKind, EventSource, Result, SecretRef, SecretStore,
    SourceName, Tenant,
    source::{Interests, SourceContext},
    workflow::parse_duration,
};
use workflows_scm::{
    poll::{PullRequestPoller, RefPoller},
    webhook::{DeliverySweep, WebhookReceiver},
};

use super::{
    client::KubeClient,
    credential,
    hook_logs::HookLogs,
    hooks,
    objects::Object,
    served::{Served, ServedMap},
    statuses::{Statuses, Verdict},
    webhooks::Receivers,
};
use crate::resources::HookRegistration;

/// How often a host's log of deliveries is looked at.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How often hooks are looked after when nothing changed.
const HOOKS_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// When hooks that could not be registered are tried again.
const HOOKS_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The condition that says whether repositories have their hooks.
pub(super) const HOOKS_REGISTERED: &str = "HooksRegistered";

/// Receives, sweeps and polls for all connections that there are, as they come and go.
///
/// Deliveries are taken in by every replica; what looks at hosts by itself does so while `leader`
/// says so.
#[derive(Debug)]
pub(super) struct ConnectionSources {
    pub(super) client: KubeClient,
    pub(super) served: watch::Receiver<Arc<ServedMap>>,
    pub(super) leader: watch::Receiver<bool>,
    pub(super) receivers: Arc<Receivers>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) public_url: Option<String>,
}

#[async_trait]
impl EventSource for ConnectionSources {
    fn name(&self) -> SourceName {
        "connections".into()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let mut served = self.served.clone();
        let mut running: BTreeMap<(Tenant, ConnectionName), (Served, CancellationToken)> =
            BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted = Arc::clone(&served.borrow_and_update());
            for (key, one) in wanted.iter() {
                let before = running.get(key);
                if before.is_some_and(|(before, _)| before == one) {
                    continue;
                }
                let before = before.map(|(before, _)| before.connection.key.clone());
                if let Some(before) = before.filter(|before| *before != one.connection.key) {
                    self.receivers.remove(&before, &key.0);
                }
                // What takes deliveries is there before what took them ends.
                let stop = shutdown.child_token();
                self.start(&mut tasks, &context, &key.0, &key.1, one, &stop);
                if let Some((_, before)) = running.insert(key.clone(), (one.clone(), stop)) {
                    before.cancel();
                }
            }
            running.retain(|key, (one, stop)| {
                let stays = wanted.contains_key(key);
                if !stays {
                    stop.cancel();
                    self.receivers.remove(&one.connection.key, &key.0);
                }
                stays
            });
            self.receivers.are_complete();
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = served.changed() => if changed.is_err() { break },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "what heard of events for a connection has ended");
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

impl ConnectionSources {
    /// Starts what hears for one connection of one tenant.
    fn start(
        &self,
        tasks: &mut JoinSet<()>,
        context: &SourceContext,
        tenant: &Tenant,
        name: &ConnectionName,
        served: &Served,
        stop: &CancellationToken,
    ) {
        let connection = &served.connection;
        let mut context = context.clone();
        context.secrets = Arc::new(OwnersSecrets {
            owner: connection.owner.clone(),
            secrets: Arc::clone(&context.secrets),
        });
        let only = only_of(tasks, &context, tenant, name, stop);
        let mut led: Vec<Box<dyn EventSource>> = Vec::new();
        if let (Some(webhook), Some(format)) =
            (&connection.spec.webhook, &connection.built.deliveries)
        {
            let mut receiver =
                WebhookReceiver::new(format!("webhook/{name}"), name.clone(), Arc::clone(format))
                    .of_tenant(tenant.clone())
                    .secret(webhook.secret.clone());
            if let Some(previous) = &webhook.previous_secret {
                receiver = receiver.secret(previous.clone());
            }
            self.receivers.put(connection.key.clone(), tenant.clone(), receiver.clone());
            let are_registered = webhook.register == HookRegistration::Repository;
            let keeps_logs = connection.built.driver.capabilities().has(Capability::DeliveryLog);
            if let Some(log) = &connection.built.delivery_log {
                match DeliverySweep::of_log(receiver.clone(), Arc::clone(log)).every(SWEEP_EVERY) {
                    Ok(sweep) => led.push(Box::new(sweep)),
                    Err(error) => tracing::error!(%error, "the log of deliveries is not looked at"),
                }
            } else if are_registered && keeps_logs {
                led.push(Box::new(HookLogs { receiver: receiver.clone() }));
            }
            tasks.spawn({
                let (context, stop) = (context.clone(), stop.clone());
                async move { run_one(&receiver, context, stop).await }
            });
            if *tenant == connection.owner
                && are_registered
                && let Some(base) = &self.public_url
            {
                let registrar = HookRegistrar {
                    client: self.client.clone(),
                    statuses: Arc::clone(&self.statuses),
                    connection: Arc::clone(connection),
                    served: self.served.clone(),
                    url: hooks::url(base, &connection.owner, &connection.key.1),
                };
                let (context, stop) = (context.clone(), stop.clone());
                let leader = self.leader.clone();
                tasks.spawn(async move { registrar.run(context, leader, stop).await });
            }
        } else {
            self.receivers.remove(&connection.key, tenant);
        }
        if *tenant == connection.owner
            && let Some(watch) = connection.built.credential.clone()
        {
            let (client, statuses) = (self.client.clone(), Arc::clone(&self.statuses));
            let (connection, clock) = (Arc::clone(connection), Arc::clone(&context.clock));
            let (leader, stop) = (self.leader.clone(), stop.clone());
            tasks.spawn(async move {
                let look = || credential::watch(&client, &statuses, &connection, &watch, &clock);
                while_leading(look, leader, stop).await;
            });
        }
        match pollers(served) {
            Ok(pollers) => led.extend(pollers),
            Err(error) => tracing::error!(%error, connection = %name, "it is not polled"),
        }
        for source in led {
            let mut context = context.clone();
            context.interests = only.clone();
            let (leader, stop) = (self.leader.clone(), stop.clone());
            tasks.spawn(async move { run_while_leading(&*source, context, leader, stop).await });
        }
    }
}

/// The secrets of the tenant that owns a connection, whoever asks for them.
#[derive(Debug)]
struct OwnersSecrets {
    owner: Tenant,
    secrets: Arc<dyn SecretStore>,
}

#[async_trait]
impl SecretStore for OwnersSecrets {
    async fn get(&self, _tenant: &Tenant, secret: &SecretRef) -> Result<SecretString> {
        self.secrets.get(&self.owner, secret).await
    }
}

/// What polls a connection.
fn pollers(served: &Served) -> Result<Vec<Box<dyn EventSource>>> {
    let Some(poll) = &served.connection.spec.poll else { return Ok(Vec::new()) };
    let interval = interval_of(&poll.interval)?;
    let mut refs = RefPoller::every(interval)?;
    let mut pull_requests = PullRequestPoller::every(interval)?;
    if let Some(longest) = &poll.slowing_to {
        let longest = interval_of(longest)?;
        refs = refs.slowing_to(longest)?;
        pull_requests = pull_requests.slowing_to(longest)?;
    }
    let has_pull_requests =
        served.connection.built.driver.capabilities().has(Capability::PullRequests);
    let mut pollers: Vec<Box<dyn EventSource>> = vec![Box::new(refs)];
    if has_pull_requests {
        pollers.push(Box::new(pull_requests));
    }
    Ok(pollers)
}

/// A length of time of `spec.poll`.
///
/// # Errors
///
/// `Invalid` when it is none.
fn interval_of(text: &str) -> Result<SignedDuration> {
    parse_duration(text)
        .map_err(|problem| Error::invalid("read a connection", format!("spec.poll: {problem}")))
}

/// Checks that a connection can be polled as it says.
///
/// # Errors
///
/// `Invalid` with what is wrong.
pub(super) fn check_polling(poll: &crate::resources::Poll) -> Result<()> {
    let refs = RefPoller::every(interval_of(&poll.interval)?)?;
    match &poll.slowing_to {
        Some(longest) => refs.slowing_to(interval_of(longest)?).map(drop),
        None => Ok(()),
    }
}

/// The interests in the repositories of one connection, for as long as it is used.
fn only_of(
    tasks: &mut JoinSet<()>,
    context: &SourceContext,
    tenant: &Tenant,
    name: &ConnectionName,
    stop: &CancellationToken,
) -> watch::Receiver<Arc<Interests>> {
    let (tenant, name) = (tenant.clone(), name.clone());
    let filtered = move |all: &Interests| {
        let mut only = Interests::default();
        only.repos = all
            .repos
            .iter()
            .filter(|one| one.tenant == tenant && one.connection == name)
            .cloned()
            .collect();
        Arc::new(only)
    };
    let mut all = context.interests.clone();
    let first = filtered(&all.borrow_and_update());
    let (sender, receiver) = watch::channel(first);
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = all.changed() => if changed.is_err() { return },
            }
            let only = filtered(&all.borrow_and_update());
            sender.send_if_modified(|told| {
                let changed = *told != only;
                *told = only;
                changed
            });
        }
    });
    receiver
}

async fn run_one(source: &dyn EventSource, context: SourceContext, stop: CancellationToken) {
    if let Err(error) = source.run(context, stop).await {
        tracing::error!(%error, source = %source.name(), "a source cannot work");
    }
}

/// Runs a source while this replica leads.
async fn run_while_leading(
    source: &dyn EventSource,
    context: SourceContext,
    mut leader: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = leader.wait_for(|leads| *leads) => if leads.is_err() { return },
        }
        let term = stop.child_token();
        let running = run_one(source, context.clone(), term.clone());
        tokio::pin!(running);
        tokio::select! {
            () = &mut running => return,
            () = loses(&mut leader) => {
                term.cancel();
                running.await;
            }
        }
    }
}

/// Does what has no end while this replica leads.
async fn while_leading<F: Future<Output = ()>>(
    work: impl Fn() -> F,
    mut leader: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = leader.wait_for(|leads| *leads) => if leads.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = work() => return,
            () = loses(&mut leader) => {}
        }
    }
}

/// Waits until another replica leads. Who hears no more of it leads on.
async fn loses(leader: &mut watch::Receiver<bool>) {
    if leader.wait_for(|leads| !*leads).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Looks after the hooks of one connection.
struct HookRegistrar {
    client: KubeClient,
    statuses: Arc<Statuses>,
    connection: Arc<super::served::Usable>,
    served: watch::Receiver<Arc<ServedMap>>,
    url: String,
}

impl HookRegistrar {
    async fn run(
        &self,
        context: SourceContext,
        mut leader: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut interests = context.interests.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                leads = leader.wait_for(|leads| *leads) => if leads.is_err() { return },
            }
            let wanted = self.wanted(&interests.borrow_and_update());
            let registered = tokio::select! {
                () = stop.cancelled() => return,
                registered = self.register(&context, &wanted) => registered,
            };
            let pause = match registered {
                Ok(()) => HOOKS_EVERY,
                Err(error) => {
                    tracing::warn!(%error, connection = self.connection.key.1, "webhooks are not registered");
                    HOOKS_AGAIN
                }
            };
            let now = context.clock.now();
            let next = now.checked_add(pause).unwrap_or(now);
            // Interests change often where workflows do; what they add is what counts.
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = context.clock.sleep_until(next) => break,
                    changed = interests.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if self.wanted(&interests.borrow_and_update()) != wanted {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// The repositories that should have a hook.
    fn wanted(&self, interests: &Interests) -> BTreeSet<String> {
        let served = self.served.borrow();
        let users: BTreeSet<_> = served
            .iter()
            .filter(|(_, one)| one.connection.uid == self.connection.uid)
            .map(|(key, _)| key)
            .collect();
        let of_workflows = interests
            .repos
            .iter()
            .filter(|one| users.contains(&(one.tenant.clone(), one.connection.clone())))
            .map(|one| one.repo.to_string());
        self.connection.literal_repositories().map(str::to_owned).chain(of_workflows).collect()
    }

    /// The object, when it waits for its hooks to be removed; `None` when there is none to wait.
    async fn with_finalizer(&self, context: &SourceContext) -> Result<Option<Object>> {
        /// What others write meanwhile is read again so often.
        const TRIES: usize = 5;
        let mut last = None;
        for _ in 0..TRIES {
            let object = self.connection.object(&self.client, context.clock.now()).await?;
            let Some(object) = object else { return Ok(None) };
            if object.finalizers.iter().any(|one| one == hooks::FINALIZER) {
                return Ok(Some(object));
            }
            match hooks::set_finalizer(&self.client, &object, true, context.clock.now()).await {
                Ok(()) => return Ok(Some(object)),
                Err(error) if error.kind() == ErrorKind::Conflict => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("set a finalizer", "the object changes")))
    }

    /// Has the object wait for its hooks when it is deleted, has it name the repositories, and only
    /// then registers.
    async fn register(&self, context: &SourceContext, wanted: &BTreeSet<String>) -> Result<()> {
        let Some(object) = self.with_finalizer(context).await? else { return Ok(()) };
        let known = object.status["hooks"].as_array().into_iter().flatten();
        let known: BTreeSet<String> =
            known.filter_map(|one| one.as_str().map(str::to_owned)).collect();
        let named: BTreeSet<&String> = known.union(wanted).collect();
        self.statuses.tell_field(&object, "hooks", json!(named));
        self.statuses.written(&object).await;
        let done = hooks::ensure(&self.connection, &self.url, wanted, &*context.secrets).await;
        let verdict = match &done {
            Ok(()) => {
                Verdict::yes("Registered", format!("{} repositories have the hook", wanted.len()))
            }
            Err(error) => Verdict::no("NotRegistered", error.to_string()),
        };
        self.statuses.tell(&object, HOOKS_REGISTERED, verdict);
        done
    }
}
