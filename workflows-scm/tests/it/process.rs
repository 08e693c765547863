//! An engine that runs as a program lets it, between a host on loopback and a scripted sink.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::SignedDuration;
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Engine, EngineHandle, ManualClock, Run, ScmDriver, Store, Tenant,
    conformance::ScriptedSink,
    engine::EngineBuilder,
    store::{MemoryStore, PageRequest, RunQuery},
};
use workflows_scm::webhook::{DeliveryHeaders, WebhookReceiver};

pub(crate) const SECRET: &str = "the secret of the hook";

/// A host on loopback.
pub(crate) trait Site {
    /// What reaches it.
    type Driver: ScmDriver + Clone + 'static;
    /// What the engine calls it.
    const CONNECTION: &'static str;
    const REPOSITORY: &'static str;

    fn clock(&self) -> &ManualClock;
    /// Another driver, as another process has it.
    fn driver(&self) -> Self::Driver;
    /// What takes in what the host tells.
    fn receiver(driver: &Self::Driver) -> WebhookReceiver;
    /// What was asked since the last time: method and route.
    fn take_calls(&self) -> Vec<String>;
}

/// What outlives a program: the host, the ledger, and where runs execute.
pub(crate) struct Outside<S> {
    pub(crate) site: S,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sink: ScriptedSink,
}

/// A program at work.
pub(crate) struct Process {
    pub(crate) handle: EngineHandle,
    pub(crate) receiver: WebhookReceiver,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl<S: Site> Outside<S> {
    pub(crate) fn of(site: S) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(site.clock().clone())));
        Self { site, store, sink: ScriptedSink::new() }
    }

    /// Starts a program that hears of what its receiver is given.
    pub(crate) fn start(&self) -> Process {
        self.start_with(|builder, _, _| builder)
    }

    /// Starts a program with more than a receiver.
    pub(crate) fn start_with(
        &self,
        more: impl FnOnce(EngineBuilder, &S::Driver, &WebhookReceiver) -> EngineBuilder,
    ) -> Process {
        let driver = self.site.driver();
        let receiver = S::receiver(&driver).secret(SecretString::from(SECRET));
        let builder = Engine::builder()
            .clock(Arc::new(self.site.clock().clone()))
            .store(Arc::clone(&self.store))
            .connection(S::CONNECTION, Arc::new(driver.clone()))
            .source(Arc::new(receiver.clone()))
            .sink("sink", Arc::new(self.sink.clone()));
        let engine = more(builder, &driver, &receiver).build().unwrap();
        let (handle, shutdown) = (engine.handle(), CancellationToken::new());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { engine.run(stop).await });
        Process { handle, receiver, shutdown, task }
    }

    /// All runs, oldest first.
    pub(crate) async fn runs(&self) -> Vec<Run> {
        let page = PageRequest { limit: 1_000, after: None };
        let query = RunQuery::of(Tenant::default()).page(page);
        let mut runs = self.store.runs(query).await.unwrap().items;
        runs.reverse();
        runs
    }

    /// What was asked of the host since the last time: method and route.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.site.take_calls()
    }

    pub(crate) fn passes(&self, time: SignedDuration) {
        self.site.clock().advance(time);
    }
}

impl Process {
    /// Waits until a source has got through so often.
    pub(crate) async fn until_looked(&self, source: &str, times: u64) {
        until(&format!("{source} looks"), async || {
            let health = self.handle.health().await.unwrap();
            let looks = health.sources.iter().filter(|one| one.source.as_str() == source);
            looks.map(|one| one.progress.successes).sum::<u64>() >= times
        })
        .await;
    }

    /// Takes in what the host sent, as if it had come by HTTP.
    pub(crate) async fn receives(&self, headers: &BTreeMap<String, String>, body: &str) {
        let headers = DeliveryHeaders::new(headers);
        until("the delivery is taken in", async || {
            let body = Bytes::from(body.to_owned());
            let answer = self.receiver.receive(&headers, body).await;
            // The engine may be starting yet.
            assert!(matches!(answer.status(), 202 | 503), "{}", answer.body());
            answer.status() == 202
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Waits for something that the engine brings about.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "it does not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
