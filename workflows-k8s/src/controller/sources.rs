//! What hears of events at the repositories of ScmConnections: [`ConnectionSources`].

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::SignedDuration;
use secrecy::SecretString;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Capability, ConnectionName, Error, EventSource, Result, SecretRef, SecretStore, SourceName,
    Tenant,
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
    hook_logs::{self, HookLogs},
    hook_registrar::HookRegistrar,
    hooks,
    served::{Served, ServedMap},
    statuses::Statuses,
    webhooks::Receivers,
};
use crate::resources::HookRegistration;

/// How often a host's log of deliveries is looked at.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// From when on logs count is noted for so many at one time.
const BEGUN_TOGETHER: usize = 16;

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
            let mut begin = Vec::new();
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
                begin.extend(self.start(&mut tasks, &context, &key.0, &key.1, one, &stop));
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
            // Whoever is told that this is ready may count on what is sent from then on.
            let begun = stream::iter(begin).map(|sweep| {
                let context = context.clone();
                async move { sweep.begin(&context).await }
            });
            let begun: Vec<_> = begun.buffer_unordered(BEGUN_TOGETHER).collect().await;
            for error in begun.into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "from when on a log of deliveries counts is not noted yet");
            }
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
    /// Starts what hears for one connection of one tenant. Returns what looks at logs of the host.
    fn start(
        &self,
        tasks: &mut JoinSet<()>,
        context: &SourceContext,
        tenant: &Tenant,
        name: &ConnectionName,
        served: &Served,
        stop: &CancellationToken,
    ) -> Vec<DeliverySweep> {
        let mut sweeps = Vec::new();
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
                    Ok(sweep) => {
                        sweeps.push(sweep.clone());
                        led.push(Box::new(sweep));
                    }
                    Err(error) => tracing::error!(%error, "the log of deliveries is not looked at"),
                }
            } else if are_registered && keeps_logs {
                let logs = HookLogs { receiver: receiver.clone() };
                let mut repos = hook_logs::repositories(&only.borrow());
                repos.extend(connection.literal_repositories().map(Arc::from));
                sweeps.extend(repos.into_iter().map(|repo| logs.sweep(repo)));
                led.push(Box::new(logs));
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
                tasks.spawn(async move {
                    let look = |term| registrar.run(context.clone(), term);
                    while_leading(look, leader, stop).await;
                });
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
                let look = |term: CancellationToken| {
                    let watching =
                        credential::watch(&client, &statuses, &connection, &watch, &clock);
                    async move {
                        term.run_until_cancelled(watching).await;
                    }
                };
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
            tasks.spawn(async move {
                let hear = |term| run_one(&*source, context.clone(), term);
                while_leading(hear, leader, stop).await;
            });
        }
        sweeps
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

/// Does something while this replica leads. It ends by itself, or soon after its token is cancelled.
async fn while_leading<F: Future<Output = ()>>(
    work: impl Fn(CancellationToken) -> F,
    mut leader: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = leader.wait_for(|leads| *leads) => if leads.is_err() { return },
        }
        let term = stop.child_token();
        let working = work(term.clone());
        tokio::pin!(working);
        tokio::select! {
            () = &mut working => return,
            () = loses(&mut leader) => {
                term.cancel();
                working.await;
            }
        }
    }
}

/// Waits until another replica leads. Who hears no more of it leads on.
async fn loses(leader: &mut watch::Receiver<bool>) {
    if leader.wait_for(|leads| !*leads).await.is_err() {
        std::future::pending::<()>().await;
    }
}
