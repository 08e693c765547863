//! An engine's side of polling: a ledger in memory, a clock that stands still, and an ear for how
//! each look went.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, Error, ErrorKind, Event, EventKind, EventSource, ManualClock, Publisher,
    RepoConnection, Result, ScmDriver, SourceName, StaticSecrets, Store, Tenant,
    source::{Connections, Interests, ProgressSink, RepoInterest, SourceContext},
    store::{EventQuery, MemoryStore, PageRequest},
};

/// How a look went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) what: String,
    /// The kind of the failure, and after how long the next look is.
    pub(crate) failure: Option<(ErrorKind, SignedDuration)>,
}

#[derive(Debug)]
struct Ear {
    clock: ManualClock,
    told: mpsc::UnboundedSender<Told>,
}

impl ProgressSink for Ear {
    fn succeeded(&self, _: &SourceName, what: &str, _: Timestamp) {
        let _ = self.told.send(Told { what: what.to_owned(), failure: None });
    }

    fn failed(&self, _: &SourceName, what: &str, error: &Error, next: Timestamp) {
        use workflows_core::Clock;
        let wait = next.duration_since(self.clock.now());
        let _ = self.told.send(Told { what: what.to_owned(), failure: Some((error.kind(), wait)) });
    }
}

type Made = BTreeMap<(ConnectionName, String), Arc<dyn RepoConnection>>;

/// Connections through drivers by name, each made once. A repository called `hung` never answers.
#[derive(Debug)]
struct Table {
    drivers: BTreeMap<ConnectionName, Arc<dyn ScmDriver>>,
    made: tokio::sync::Mutex<Made>,
}

#[async_trait]
impl Connections for Table {
    async fn repository(
        &self,
        _: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        if repo == "hung" {
            std::future::pending::<()>().await;
        }
        let mut made = self.made.lock().await;
        let key = (connection.clone(), repo.to_owned());
        if let Some(known) = made.get(&key) {
            return Ok(Arc::clone(known));
        }
        let new = self.drivers[connection].connect(connection, repo).await?;
        made.insert(key, Arc::clone(&new));
        Ok(new)
    }
}

pub(crate) struct Bench {
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) secrets: StaticSecrets,
    /// The kinds of events that workflows need.
    pub(crate) kinds: Vec<EventKind>,
    interests: watch::Sender<Arc<Interests>>,
    drivers: BTreeMap<ConnectionName, Arc<dyn ScmDriver>>,
    told: Option<mpsc::UnboundedReceiver<Told>>,
    running: Option<(CancellationToken, JoinHandle<Result<()>>)>,
}

impl Bench {
    pub(crate) fn new(name: &str, driver: Arc<dyn ScmDriver>) -> Self {
        let mut bench = Self::over(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        bench.drive(name, driver);
        bench
    }

    /// One with a clock that others have, too, and no driver yet.
    pub(crate) fn over(clock: ManualClock) -> Self {
        Self {
            store: Arc::new(MemoryStore::new(Arc::new(clock.clone()))),
            clock,
            secrets: StaticSecrets::new(),
            kinds: vec![EventKind::PUSH, EventKind::TAG],
            interests: watch::channel(Arc::default()).0,
            drivers: BTreeMap::new(),
            told: None,
            running: None,
        }
    }

    /// Puts another driver in the place of the one of that name.
    pub(crate) fn drive(&mut self, name: &str, driver: Arc<dyn ScmDriver>) {
        self.drivers.insert(name.into(), driver);
    }

    /// How all looks went that are due now.
    pub(crate) async fn all_looks(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        let mut quiet = 0;
        // A look goes through without waiting for anything but its turn.
        while quiet < 3 {
            tokio::task::yield_now().await;
            match self.told.as_mut().unwrap().try_recv() {
                Ok(told) => {
                    quiet = 0;
                    all.push(told);
                }
                Err(_) => quiet += 1,
            }
        }
        all
    }

    /// All events so far, however many.
    pub(crate) async fn all_events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        let mut page = PageRequest { limit: 1_000, after: None };
        loop {
            let query = EventQuery::of(Tenant::default()).page(page);
            let found = self.store.events(query).await.unwrap();
            all.extend(found.items);
            match found.next {
                Some(next) => page.after = Some(next),
                None => return all,
            }
        }
    }

    /// Says what workflows need: repositories with prefixes.
    pub(crate) fn want(&self, wanted: &[(&str, &[&str])]) {
        let connection = self.drivers.keys().next().unwrap();
        let mut interests = Interests::default();
        for (repo, prefixes) in wanted {
            interests.repos.insert(RepoInterest {
                tenant: Tenant::default(),
                connection: connection.clone(),
                repo: (*repo).into(),
                kinds: self.kinds.iter().cloned().collect(),
                ref_prefixes: prefixes.iter().map(|prefix| (*prefix).into()).collect(),
            });
        }
        self.interests.send_replace(Arc::new(interests));
    }

    pub(crate) fn start(&mut self, source: impl EventSource) {
        let (context, told) = self.context(source.name());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { source.run(context, shutdown).await }
        });
        self.told = Some(told);
        self.running = Some((shutdown, task));
    }

    /// What the engine gives a source of that name, and how its looks go.
    pub(crate) fn context(
        &self,
        name: SourceName,
    ) -> (SourceContext, mpsc::UnboundedReceiver<Told>) {
        self.context_of(name, self.store.clone())
    }

    /// The same, over a ledger.
    pub(crate) fn context_of(
        &self,
        name: SourceName,
        store: Arc<dyn Store>,
    ) -> (SourceContext, mpsc::UnboundedReceiver<Told>) {
        let (sender, told) = mpsc::unbounded_channel();
        let context = SourceContext::new(
            name,
            Publisher::new(store),
            self.interests.subscribe(),
            Arc::new(Table { drivers: self.drivers.clone(), made: Default::default() }),
            Arc::new(self.secrets.clone()),
            Arc::new(self.clock.clone()),
            Arc::new(Ear { clock: self.clock.clone(), told: sender }),
        );
        (context, told)
    }

    pub(crate) async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    /// How the next look goes.
    pub(crate) async fn look(&mut self) -> Told {
        self.told.as_mut().unwrap().recv().await.unwrap()
    }

    /// Waits for a look that gets through.
    pub(crate) async fn through(&mut self) {
        let told = self.look().await;
        assert_eq!(told.failure, None, "{told:?}");
    }

    /// Whether a look ended that nobody has heard of.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.told.as_mut().unwrap().try_recv().is_err()
    }

    /// Lets time pass, and waits for the look that is then due.
    pub(crate) async fn after(&mut self, by: SignedDuration) {
        self.clock.advance(by);
        self.through().await;
    }

    /// All events so far, oldest first: ref, actions, commit before, commit after.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let page = self.store.events(EventQuery::of(Tenant::default())).await.unwrap();
        page.items.into_iter().rev().collect()
    }

    /// The events in short.
    pub(crate) async fn heard(&self) -> Vec<String> {
        let short = |event: &Event| format!("{} {}", event.actions.join(","), event.subject);
        self.events().await.iter().map(short).collect()
    }
}
