//! A whole engine that is meant to be killed at any moment: a git repository by polling, and a
//! notifier that writes a line for each delivery.
//!
//! `engine-under-fire <state directory> <repository>` is an embedded one: its ledger is in SQLite, and
//! its runs are local processes. `engine-under-fire <state directory> <repository> <url> <executor>
//! [<replica>]` is one of several: its ledger is in Postgres, and its runs execute elsewhere.
//!
//! With `SLACK` in its environment, as `<api> <token> <channel>`, it has a notifier for that too.
//!
//! It works until it is killed, or until it is told to stop by the end of its standard input.

use std::{
    fs::OpenOptions,
    io::Write,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, RunSink, Store, SystemClock,
    engine::{Engine, EngineOptions},
    local::LocalSink,
    store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore},
};
use workflows_notify::slack::SlackNotifier;
use workflows_scm::{
    git::GitDriver,
    poll::{FirstSight, RefPoller},
};
use workflows_tests::executor::ExecutorSink;

/// Appends `<run> <transition> <delivery key>` to a file.
#[derive(Debug)]
struct Journal(PathBuf);

#[async_trait]
impl Notifier for Journal {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let line =
            format!("{} {} {}\n", notification.run.key, notification.transition, notification.key);
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|error| {
            Error::transient("write the journal", "it cannot be written").caused_by(error)
        })?;
        Ok(Delivered::default())
    }
}

/// Where the ledger is and where runs execute.
struct Surroundings {
    store: Arc<dyn Store>,
    sink: Arc<dyn RunSink>,
    options: EngineOptions,
}

async fn embedded(state: &Path) -> Result<Surroundings> {
    let clock = Arc::new(SystemClock);
    let store = SqliteStore::open(state.join("ledger.db"), SqliteOptions::default(), clock).await?;
    let sink = LocalSink::builder(state.join("runs"))
        .max_steps(NonZeroUsize::new(8).expect("eight"))
        .keep_runs(10_000)
        .build()
        .await?;
    let options = EngineOptions::default();
    Ok(Surroundings { store: Arc::new(store), sink: Arc::new(sink), options })
}

async fn replica(url: String, executor: SocketAddr, name: Option<String>) -> Result<Surroundings> {
    let mut ledger = PostgresOptions::new(url).connections(4);
    ledger.replica = name;
    let store = PostgresStore::open(ledger, Arc::new(SystemClock)).await?;
    let mut options = EngineOptions::default();
    // What a killed one had is taken up by another soon.
    options.lease = SignedDuration::from_secs(5);
    options.observe_interval = SignedDuration::from_secs(1);
    let sink = ExecutorSink::at(executor);
    Ok(Surroundings { store: Arc::new(store), sink: Arc::new(sink), options })
}

fn slack(text: &str) -> Result<SlackNotifier> {
    let [api, token, channel] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err(Error::invalid("read SLACK", "it is not `<api> <token> <channel>`"));
    };
    SlackNotifier::bot(SecretString::from(token.to_owned()), channel).base(api).build()
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("info,workflows_core::engine::stage=debug,sqlx=error")
        .with_ansi(false)
        .init();
    let mut arguments = std::env::args().skip(1);
    let state = PathBuf::from(arguments.next().ok_or("which state directory?")?);
    let repo = arguments.next().ok_or("which repository?")?;
    let Surroundings { store, sink, options } = match arguments.next() {
        None => embedded(&state).await?,
        Some(url) => {
            let executor = arguments.next().ok_or("which executor?")?.parse()?;
            replica(url, executor, arguments.next()).await?
        }
    };
    let poller = RefPoller::every(SignedDuration::from_secs(1))?.first_sight(FirstSight::Run);
    let mut builder = Engine::builder();
    if let Ok(slack) = std::env::var("SLACK") {
        builder = builder.notifier("slack", Arc::new(self::slack(&slack)?));
    }
    let engine = builder
        .store(store)
        .options(options)
        .connection("git", Arc::new(GitDriver::any()?))
        .source(Arc::new(poller))
        .sink("sink", sink)
        .notifier("journal", Arc::new(Journal(state.join("journal"))))
        .repository("git", repo)
        .build()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut input = Vec::new();
        // Whatever ends the input ends the engine.
        let _ = tokio::io::stdin().read_to_end(&mut input).await;
        stop.cancel();
    });
    engine.run(shutdown).await;
    Ok(())
}
