//! An engine for a cluster: its ledger, Tekton, and the custom resources.

use std::{error::Error, sync::Arc};

use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Engine, EngineHandle, Store, SystemClock, Tenant,
    store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore},
};
use workflows_k8s::{
    KubernetesSecrets, LeaseHolder, Namespaces, TektonSink, controller::Controller,
};

use crate::{notifiers, settings::Settings};

/// How often what a crash left behind is swept up.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(600);

/// All parts, put together.
pub(crate) struct Composed {
    pub(crate) client: Client,
    pub(crate) handle: EngineHandle,
    pub(crate) controller: Controller,
    engine: Engine,
    sink: TektonSink,
    lease: LeaseHolder,
}

impl Composed {
    /// Puts all parts together.
    pub(crate) async fn of(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let mut config = Config::infer().await?;
        // The engine decides what is tried again.
        config.default_retry = false;
        let client = Client::try_from(config)?;

        let namespaces = namespaces(settings)?;
        let secrets = Arc::new(KubernetesSecrets::new(client.clone(), namespaces.clone()));
        let mut sink = TektonSink::new(client.clone(), namespaces);
        if let Some(address) = &settings.dashboard_url {
            sink = sink.dashboard(address)?;
        }
        let lease = LeaseHolder::new(
            client.clone(),
            settings.own_namespace.as_str(),
            "workflows-controller",
            settings.replica.as_str(),
        );
        let mut controller =
            Controller::builder(client.clone(), secrets.clone()).leader(lease.holds());
        for kind in notifiers::all(Arc::new(sink.clone())) {
            controller = controller.notifier(kind);
        }
        if !settings.namespaces.is_empty() {
            controller = controller.namespaces(settings.namespaces.clone());
        }
        if let Some(url) = &settings.public_url {
            controller = controller.public_url(url);
        }
        if let Some(namespace) = &settings.platform_namespace {
            controller = controller.platform(Tenant::new(namespace.as_str())?);
        }
        let controller = controller.build()?;

        let engine = Engine::builder()
            .store(ledger(settings).await?)
            .secrets(secrets)
            .policy(controller.policy())
            .source(controller.source())
            .leader(lease.holds())
            .sink("tekton", Arc::new(sink.clone()))
            .build()?;
        Ok(Self { client, handle: engine.handle(), controller, engine, sink, lease })
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.controller.run(&self.engine, shutdown.clone()),
            self.lease.run(shutdown.clone()),
            self.sweep(shutdown),
        );
    }

    /// Gives Secrets of runs the owner that a crash kept from them, now and then.
    async fn sweep(&self, shutdown: CancellationToken) {
        let mut leads = self.lease.holds();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                leads = leads.wait_for(|leads| *leads) => if leads.is_err() { return },
            }
            match self.sink.sweep().await {
                Ok(swept) => tracing::debug!(?swept, "credentials of runs were swept"),
                Err(error) => tracing::warn!(%error, "credentials of runs were not swept"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
        }
    }
}

/// A tenant is a namespace, of the same name.
fn namespaces(settings: &Settings) -> Result<Namespaces, Box<dyn Error>> {
    if settings.namespaces.is_empty() {
        return Ok(Namespaces::same_name());
    }
    let mut some = Vec::new();
    for name in &settings.namespaces {
        some.push((Tenant::new(name.as_str())?, name.clone()));
    }
    Ok(Namespaces::some(some))
}

async fn ledger(settings: &Settings) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    let clock = Arc::new(SystemClock);
    if let Some(url) = &settings.postgres_url {
        let mut options = PostgresOptions::new(url.as_str()).replica(settings.replica.as_str());
        if let Some(file) = &settings.postgres_ca_file {
            options = options.root_certificates(std::fs::read(file)?);
        }
        return Ok(Arc::new(PostgresStore::open(options, clock).await?));
    }
    // One of the two is required.
    let file = settings.ledger_file.clone().unwrap_or_default();
    Ok(Arc::new(SqliteStore::open(file, SqliteOptions::default(), clock).await?))
}
